"""One of two processes of a data-parallel run: prints what it found as JSON.

python torch_processes.py RANK RENDEZVOUS_FILE; started by test_torch_traps.py.
"""

import json
import sys
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor, init_device_mesh

import arspec as ar
import arspec_torch

PARTS = ((0, 3), (3, 5))  # uneven
RULES = (
    ar.Rule(ar.L1(0.3), layer="0", placement="pre_activation", mean_over="sum"),
    ar.Rule(ar.L2(0.3), layer="0", placement="output"),
    ar.Rule(ar.KLSparsity(0.4, target=0.2), layer="0", placement="output"),
    ar.Rule(ar.DeCov(0.2), layer="0", placement="pre_activation"),
    ar.Rule(ar.L2(0.7), layer="**", placement="kernel"),
)


def model() -> nn.Sequential:
    """Return the model that every process and the single device start from."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 7), nn.Sigmoid(), nn.Linear(7, 2)).double()


def batch() -> tuple[Tensor, Tensor]:
    """Return the whole batch, and which of its examples are valid."""
    return torch.tensor(np.random.default_rng(0).standard_normal((5, 3))), torch.tensor([True, False, True, True, True])


def found(network: nn.Module, penalties: Any, x: Tensor, mask: Tensor | None) -> dict[str, Any]:
    """Return losses, and the gradient of their total by parameter."""
    with penalties.masks({} if mask is None else {"0": mask}):
        output = network(x)
    # DistributedDataParallel averages once every parameter has its gradient.
    (penalties.total() + 0 * output.sum()).backward()
    inner = getattr(network, "module", network)
    gradients = {name: p.grad.tolist() for name, p in inner.named_parameters()}
    return {"losses": {key: loss.item() for key, loss in penalties.losses().items()}, "gradients": gradients}


def data_parallel(rank: int, masked: bool) -> dict[str, Any]:
    """Return what a process of DistributedDataParallel finds with its part of the batch."""
    network = nn.parallel.DistributedDataParallel(model())
    rules = [rule for rule in RULES if not masked or rule.penalty.name != "decov"]
    penalties = arspec_torch.attach(network, ar.Spec(rules))
    x, mask = batch()
    part = slice(*PARTS[rank])
    return found(network, penalties, x[part], mask[part] if masked else None)


def fully_sharded(rank: int) -> dict[str, Any]:
    """Return what a process finds whose parameters, gradients and batch are all sharded (FSDP2)."""
    network, mesh = model(), init_device_mesh("cpu", (2,))
    for part in (network[0], network[2], network):
        fully_shard(part, mesh=mesh)
    penalties = arspec_torch.attach(network, ar.Spec(RULES), data_parallel=True)
    output = network(batch()[0][slice(*PARTS[rank])])
    (penalties.total() + 0 * output.sum()).backward()
    gradients: dict[str, Any] = {name: p.grad for name, p in network.named_parameters()}
    return {
        "losses": {key: loss.item() for key, loss in penalties.losses().items()},
        "gradients": {name: gradient.full_tensor().tolist() for name, gradient in gradients.items()},
    }


def refusal() -> str:
    """Return the error of a model of which nobody says what its processes hold."""
    network = model()
    arspec_torch.attach(network, ar.Spec(RULES[:1]))
    try:
        network(batch()[0])
    except ar.UnsupportedError as error:
        return str(error)
    return "nothing was refused"


def sharded() -> dict[str, Any]:
    """Return the penalty of a sharded weight, and its gradient put together."""
    mesh = init_device_mesh("cpu", (2,))
    layer = nn.Sequential(nn.Linear(3, 5)).double()
    torch.manual_seed(0)
    weight = torch.randn(5, 3, dtype=torch.float64)
    layer[0].weight = nn.Parameter(distribute_tensor(weight, mesh, [Shard(0)]))
    rule = ar.Rule(ar.GroupLasso(0.5, norm_over=("output",)) + ar.L1(0.1), layer="0", placement="kernel")
    penalties = arspec_torch.attach(layer, ar.Spec([rule]))
    total = penalties.total()
    total.backward()
    gradient = layer[0].weight.grad
    is_sharded = isinstance(gradient, DTensor) and gradient.placements == (Shard(0),)
    return {"total": total.item(), "gradient": gradient.full_tensor().tolist(), "sharded": is_sharded}


def sharded_activation() -> dict[str, Any]:
    """Return the penalty of an activation whose features are spread over the processes (tensor parallelism)."""
    mesh = init_device_mesh("cpu", (2,))
    network = model()
    for name, shard in (("weight", Shard(0)), ("bias", Shard(0))):
        parameter = getattr(network[0], name).detach()
        setattr(network[0], name, nn.Parameter(distribute_tensor(parameter, mesh, [shard])))
    first = network[:1]
    penalties = arspec_torch.attach(first, ar.Spec((RULES[0], RULES[3])), data_parallel=False)
    first(distribute_tensor(batch()[0], mesh, [Replicate()]))
    penalties.total().backward()
    gradient = network[0].weight.grad
    losses = {key: loss.item() for key, loss in penalties.losses().items()}
    return {"losses": losses, "gradient": gradient.full_tensor().tolist()}


def main(rank: int, file: str) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    results = {
        "plain": data_parallel(rank, masked=False),
        "masked": data_parallel(rank, masked=True),
        "fully sharded": fully_sharded(rank),
        "refusal": refusal(),
        "sharded": sharded(),
        "sharded activation": sharded_activation(),
    }
    print(json.dumps(results))
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
