"""Training in PyTorch, many runs at once by torch.vmap, or one after the other."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

import arspec
import arspec_torch
from arspec_studies._study.study import ADAM_EPSILON, Batch, Weights

Parameters = dict[str, Tensor]
REPORTS = 20


def classify(
    model: nn.Module, spec: arspec.Spec, batch: Batch, make_optimizer: Callable[[Any], Any], *, vmap: bool = True
) -> list[Weights]:
    """Train classifiers by cross-entropy and the penalties of a spec; return the weights of each.

    All runs at once, or, without `vmap`, one after the other.
    """
    regularization = arspec_torch.attach(model, spec)

    def loss(logits: Tensor, factor: Tensor | float, y: Tensor) -> Tensor:
        return cross_entropy(logits.flatten(0, -2), y.flatten()) + factor * regularization.total()

    if vmap:
        return fit(
            lambda p, factor, x, y: loss(functional_call(model, p, (x,)), factor, y), make_optimizer, model, batch
        )
    return fit_each(lambda factor, x, y: loss(model(x), factor, y), make_optimizer, model, batch)


def fit(loss: Callable[..., Tensor], make_optimizer: Callable[[Any], Any], model: nn.Module, batch: Batch) -> Any:
    """Train every run of a batch at once; return their weights.

    Parameters
    ----------
    loss : (parameters, factor, x, y) -> loss of one run; it runs under torch.vmap.
    make_optimizer : parameters -> optimizer. It must treat each number alone, as SGD and
        Adam do, since it sees those of all runs stacked.
    """
    starts = [to_torch(model, task.weights) for task in batch.tasks]
    parameters = {name: torch.stack([start[name] for start in starts]).requires_grad_() for name in starts[0]}
    factors = torch.tensor(batch.factors, dtype=torch.float32)
    x, y, order = (torch.from_numpy(np.stack([getattr(t, name) for t in batch.tasks])) for name in ("x", "y", "order"))
    runs = torch.arange(len(batch.tasks))[:, None]
    optimizer = make_optimizer(parameters.values())
    for step in range(order.shape[1]):
        seen = order[:, step]
        begin_step(optimizer, step)
        torch.vmap(loss)(parameters, factors, x[runs, seen], y[runs, seen]).sum().backward()
        optimizer.step()
        _report(batch, step, order.shape[1])
    return [to_numpy(model, {name: p[run] for name, p in parameters.items()}) for run in range(len(batch.tasks))]


def fit_each(
    loss: Callable[..., Tensor], make_optimizer: Callable[[Any], Any], model: nn.Module, batch: Batch
) -> list[Weights]:
    """Train one run after the other, for models that torch.vmap cannot batch, such as nn.LSTM.

    `loss` is (factor, x, y) -> loss of the model as it is.
    """
    trained = []
    for run, (task, factor) in enumerate(zip(batch.tasks, batch.factors, strict=True)):
        start = to_torch(model, task.weights)
        model.load_state_dict({name: start.get(name, torch.zeros_like(p)) for name, p in model.state_dict().items()})
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in start)
        optimizer = make_optimizer([parameter for parameter in model.parameters() if parameter.requires_grad])
        x, y, order = map(torch.from_numpy, (task.x, task.y, task.order))
        for step, seen in enumerate(order):
            begin_step(optimizer, step)
            loss(factor, x[seen], y[seen]).backward()
            optimizer.step()
            _report(batch, run * len(order) + step, len(order) * len(batch.tasks))
        trained.append(to_numpy(model, dict(model.named_parameters())))
    return trained


def begin_step(optimizer: Any, step: int) -> None:
    """Clear the gradients; let torch's Adam divide as Keras' does, which adds ε before it corrects the bias of √v."""
    optimizer.zero_grad()
    for group in optimizer.param_groups:
        if isinstance(optimizer, torch.optim.Adam):
            group["eps"] = ADAM_EPSILON / math.sqrt(1 - group["betas"][1] ** (step + 1))


def _report(batch: Batch, step: int, steps: int) -> None:
    if step % max(1, steps // REPORTS) == 0:
        batch.report(step / steps)


# torch keeps kernels with the output first, and a second bias in an LSTM, which stays 0 and is
# not trained: two biases would move the sum by two steps.


def to_torch(model: nn.Module, weights: Mapping[str, np.ndarray]) -> Parameters:
    """Return the parameters of a model by torch's names, from the layout of `arspec.layers`."""
    return {
        torch_name: torch.from_numpy(np.ascontiguousarray(np.transpose(weights[name], axes)))
        for name, torch_name, axes in _pairs(model)
    }


def to_numpy(model: nn.Module, parameters: Mapping[str, Tensor]) -> Weights:
    """Return the inverse of `to_torch`."""
    return {
        name: np.transpose(parameters[torch_name].detach().numpy().copy(), np.argsort(axes))
        for name, torch_name, axes in _pairs(model)
    }


def _pairs(model: nn.Module) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Return name, torch's name, and the order of axes that leads to torch's, of every parameter."""
    for path, module in model.named_modules():
        layer = path.replace(".", "/")
        for role, torch_role in _roles(module).items():
            rank = getattr(module, torch_role).dim()
            axes = (rank - 1, rank - 2, *range(rank - 2)) if role.endswith("kernel") else tuple(range(rank))
            yield f"{layer}/{role}", f"{path}.{torch_role}", axes


def _roles(module: nn.Module) -> dict[str, str]:
    # By isinstance: what is attached to a module makes its class a subclass of its own.
    # A module of the study's own has its parameters under their own names.
    known = (roles for cls, roles in _ROLES.items() if isinstance(module, cls))
    return next(known, {name: name for name, _ in module.named_parameters(recurse=False)})


_ROLES: dict[type[nn.Module], dict[str, str]] = {
    nn.Linear: {"kernel": "weight", "bias": "bias"},
    nn.Conv2d: {"kernel": "weight", "bias": "bias"},
    nn.Embedding: {"embeddings": "weight"},
    nn.LSTM: {"kernel": "weight_ih_l0", "recurrent_kernel": "weight_hh_l0", "bias": "bias_ih_l0"},
}
