"""Rows of TRAPS.md on torch models that no other file tests: named by their ids."""

import copy
import io
import json
import os
import pickle
import subprocess
import sys
import threading
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize
from torch.utils.checkpoint import checkpoint

import arspec as ar
import arspec_torch
import torch_processes

BATCH, INPUTS, WIDTH = 5, 3, 7
PENALTY = ar.L1(0.3) + ar.L2(0.2)


class Net(nn.Module):
    """A network whose layers have names."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.hidden = nn.Linear(INPUTS, WIDTH)
        self.out = nn.Linear(WIDTH, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.tanh(self.hidden(x)))


@pytest.fixture
def x() -> Tensor:
    torch.manual_seed(1)
    return torch.randn(BATCH, INPUTS)


def rule(placement: str, layer: str = "hidden", penalty: ar.Penalty = PENALTY, **options: Any) -> ar.Rule:
    return ar.Rule(penalty, layer=layer, placement=placement, **options)


def attached(*rules: ar.Rule, model: nn.Module | None = None) -> tuple[Any, Any]:
    model = Net() if model is None else model
    return model, arspec_torch.attach(model, ar.Spec(rules))


def value(tensor: Tensor, **options: Any) -> float:
    return float(ar.value(PENALTY, tensor.detach().numpy(), **options))


def gradients(model: nn.Module) -> list[Tensor]:
    return [p.grad for p in model.parameters()]


# C3, C4: what torch does around a model


def test_c3_a_model_compiled_in_place_before_attach(x: Tensor) -> None:
    model = Net()
    model.compile(backend="eager", fullgraph=True)  # before attach
    model(x)
    model, penalties = attached(rule("pre_activation"), rule("kernel", "**"), model=model)
    model(x)
    found = {key: loss.item() for key, loss in penalties.losses().items()}
    plain, expected = attached(rule("pre_activation"), rule("kernel", "**"))
    plain(x)
    assert found == pytest.approx({key: loss.item() for key, loss in expected.losses().items()}, rel=1e-6)


def test_c3_a_compiled_part_keeps_its_path(x: Tensor) -> None:
    model = Net()
    model.hidden = torch.compile(model.hidden, backend="eager", fullgraph=True)
    model, penalties = attached(rule("pre_activation"), rule("kernel", "**"), model=model)
    model(x)
    assert list(penalties.losses()) == ["hidden/pre_activation/sum", "hidden/kernel/sum", "out/kernel/sum"]
    assert penalties.losses()["hidden/pre_activation/sum"].item() == value(model.hidden(x), mean_over="batchmean")


@pytest.mark.parametrize("placement", ["pre_activation", "kernel", "input"])
def test_c4_non_reentrant_checkpoints_count_once(x: Tensor, placement: str) -> None:
    class Checkpointed(Net):
        def forward(self, x: Tensor) -> Tensor:
            return self.out(torch.tanh(checkpoint(self.hidden, x, use_reentrant=False)))

    found = []
    for cls in (Net, Checkpointed):
        model, penalties = attached(rule(placement), model=cls())
        total = penalties.total
        given = x.clone().requires_grad_()
        (model(given).square().mean() + total()).backward()
        found.append((total().item(), [*gradients(model), given.grad]))
    assert found[0][0] == found[1][0]
    for mine, expected in zip(found[1][1], found[0][1], strict=True):
        torch.testing.assert_close(mine, expected)


def test_c4_a_checkpoint_runs_again_with_the_masks_of_its_pass(x: Tensor) -> None:
    class Checkpointed(Net):
        def forward(self, x: Tensor) -> Tensor:
            return self.out(torch.tanh(checkpoint(self.hidden, x, use_reentrant=False)))

    found = []
    for cls in (Net, Checkpointed):
        model, penalties = attached(rule("pre_activation"), model=cls())
        with penalties.masks({"hidden": torch.tensor([True, False, True, True, False])}):
            output = model(x)
        (output.square().mean() + penalties.total()).backward()
        found.append(gradients(model))
    for mine, expected in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(mine, expected)


def test_c4_a_checkpoint_around_a_recurrent_module() -> None:
    class Sequence(nn.Module):
        def __init__(self, checkpointed: bool) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.rnn, self.checkpointed = nn.LSTM(INPUTS, WIDTH, 2, batch_first=True), checkpointed

        def forward(self, x: Tensor) -> Tensor:
            return checkpoint(self.rnn, x, use_reentrant=False)[0] if self.checkpointed else self.rnn(x)[0]

    found = []
    for checkpointed in (False, True):
        model, penalties = attached(rule("cell_state", "rnn/*"), model=Sequence(checkpointed))
        given = torch.linspace(-1, 1, BATCH * 4 * INPUTS).reshape(BATCH, 4, INPUTS).requires_grad_()
        (model(given).mean() + penalties.total()).backward()
        found.append(gradients(model))
    for mine, expected in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(mine, expected)


# C5, B8: several processes


@cache
def two_processes() -> list[dict[str, Any]]:
    """Return what each of two processes found; started once for all tests."""
    script = Path(torch_processes.__file__)
    folder = Path(os.environ.get("TMPDIR", "/tmp")) / f"arspec-processes-{os.getpid()}"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    started = [
        subprocess.Popen(
            [sys.executable, str(script), str(rank), str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for rank in range(2)
    ]
    finished = [process.communicate(timeout=200) for process in started]
    folder.unlink(missing_ok=True)
    for process, (_, errors) in zip(started, finished, strict=True):
        assert process.returncode == 0, errors[-2000:]
    return [json.loads(output) for output, _ in finished]


@pytest.mark.parametrize("how", ["plain", "masked", "fully sharded"])
def test_b8_two_uneven_parts_of_a_batch_are_the_batch(how: str) -> None:
    """Sums, means, statistics of the batch and decay: values and averaged gradients of one device.

    With DistributedDataParallel, with a mask, and with FSDP2.
    """
    masked = how == "masked"
    model, (x, mask) = torch_processes.model(), torch_processes.batch()
    rules = [one for one in torch_processes.RULES if not masked or one.penalty.name != "decov"]
    penalties = arspec_torch.attach(model, ar.Spec(rules))
    expected = torch_processes.found(model, penalties, x, mask if masked else None)
    for process in two_processes():
        found = process[how]
        assert found["losses"] == pytest.approx(expected["losses"], rel=1e-14)  # torch's sigmoid of three rows
        for name, gradient in expected["gradients"].items():
            np.testing.assert_allclose(found["gradients"][name], gradient, rtol=1e-12, atol=1e-14, err_msg=name)


def test_b8_processes_that_nobody_explained_are_refused() -> None:
    for process in two_processes():
        assert process["refusal"].startswith("0/pre_activation/l1: torch.distributed runs 2 processes, and a penalty")


def test_c5_a_sharded_weight_counts_as_a_whole() -> None:
    torch.manual_seed(0)
    weight = torch.randn(5, 3, dtype=torch.float64).numpy()
    penalty = ar.GroupLasso(0.5, norm_over=("output",)) + ar.L1(0.1)
    for process in two_processes():
        found = process["sharded"]
        assert found["total"] == float(ar.value(penalty, weight, axes="output input"))
        assert np.array_equal(found["gradient"], ar.gradient(penalty, weight, axes="output input"))
        assert found["sharded"] is True


def test_c5_a_sharded_activation_counts_as_a_whole() -> None:
    first = torch_processes.model()[:1]
    penalties = arspec_torch.attach(first, ar.Spec((torch_processes.RULES[0], torch_processes.RULES[3])))
    first(torch_processes.batch()[0])
    penalties.total().backward()
    expected = {key: loss.item() for key, loss in penalties.losses().items()}
    for process in two_processes():
        found = process["sharded activation"]
        assert found["losses"] == pytest.approx(expected, rel=1e-14)
        np.testing.assert_allclose(found["gradient"], first[0].weight.grad.numpy(), rtol=1e-12, atol=1e-14)


# C7, C8: which parameters


def test_c7_tied_parts_of_recurrent_and_attention_modules_count_once() -> None:
    model = nn.ModuleDict({name: nn.GRU(INPUTS, WIDTH) for name in "ab"})
    model["b"].weight_ih_l0 = model["a"].weight_ih_l0
    attention = nn.ModuleDict({name: nn.MultiheadAttention(4, 2) for name in "ab"})
    attention["b"].in_proj_weight = attention["a"].in_proj_weight
    _, penalties = attached(rule("kernel", "**"), rule("recurrent_kernel", "**"), model=model)
    assert list(penalties.losses()) == ["a/kernel/sum", "a/recurrent_kernel/sum", "b/recurrent_kernel/sum"]
    _, penalties = attached(rule("query_kernel", "**"), rule("key_kernel", "**"), model=attention)
    assert list(penalties.losses()) == ["a/query_kernel/sum", "a/key_kernel/sum"]


def test_c7_a_parametrized_weight_is_the_one_in_effect(x: Tensor) -> None:
    model = Net()
    parametrizations.weight_norm(model.hidden)
    model, penalties = attached(rule("kernel", "**"), rule("pre_activation"), model=model)
    model(x)
    assert penalties.losses()["hidden/kernel/sum"].item() == value(model.hidden.weight)
    with torch.no_grad():
        model.hidden.parametrizations.weight.original0.mul_(3)
    model(x)
    assert penalties.losses()["hidden/kernel/sum"].item() == value(model.hidden.weight)
    penalties.losses()["hidden/kernel/sum"].backward()
    assert all(p.grad is not None for p in model.hidden.parametrizations.weight.parameters())


def test_c7_the_parametrization_is_shared_by_tied_weights() -> None:
    class Symmetric(nn.Module):
        def forward(self, w: Tensor) -> Tensor:
            return w.triu() + w.triu(1).mT

    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    for layer in model:
        parametrize.register_parametrization(layer, "weight", Symmetric())
    model[1].parametrizations.weight.original = model[0].parametrizations.weight.original
    _, penalties = attached(rule("kernel", "**"), model=model)
    assert list(penalties.losses()) == ["0/kernel/sum"]


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_c7_the_old_weight_norm_is_refused() -> None:
    model = Net()
    nn.utils.weight_norm(model.hidden)
    with pytest.raises(ar.UnsupportedError, match=r"hidden.weight is neither a parameter nor parametrized"):
        attached(rule("kernel"), model=model)


def test_c8_frozen_weights_count_unless_the_rule_says_otherwise() -> None:
    only = rule("kernel", penalty=ar.L1(0.3), trainable_only=True)
    model, penalties = attached(rule("kernel"), only, rule("bias", trainable_only=True))
    both = {"hidden/kernel/sum": value(model.hidden.weight), "hidden/bias/sum": value(model.hidden.bias)}
    both["hidden/kernel/l1"] = float(ar.value(ar.L1(0.3), model.hidden.weight.detach().numpy()))
    assert {key: loss.item() for key, loss in penalties.losses().items()} == both
    model.hidden.weight.requires_grad_(False)
    frozen = {**both, "hidden/kernel/l1": 0.0}
    assert {key: loss.item() for key, loss in penalties.losses().items()} == frozen
    model.hidden.weight.requires_grad_(True)
    assert {key: loss.item() for key, loss in penalties.losses().items()} == both


def test_c8_a_parametrization_is_frozen_where_all_of_it_is() -> None:
    model = Net()
    parametrizations.weight_norm(model.hidden)
    model, penalties = attached(rule("kernel", trainable_only=True), model=model)
    originals = list(model.hidden.parametrizations.weight.parameters())
    originals[0].requires_grad_(False)
    assert penalties.total().item() > 0
    originals[1].requires_grad_(False)
    assert penalties.total().item() == 0


def test_c8_what_functional_call_hides_is_refused(x: Tensor) -> None:
    model, _ = attached(rule("kernel", trainable_only=True))
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    with pytest.raises(ar.UnsupportedError, match=r"hidden.weight: under torch.func.functional_call it is not known"):
        torch.func.functional_call(model, parameters, (x,))


# C16: loss scaling, accumulation, clipping


def training_step(x: Tensor, scaled: bool, clipped: bool) -> list[Tensor]:
    """Return the parameters after one step of SGD on task loss and penalty."""
    model, penalties = attached(rule("pre_activation"), rule("kernel", "**"))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.125)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, enabled=scaled)
    scaler.scale(model(x).square().mean() + penalties.total()).backward()
    scaler.unscale_(optimizer)
    if clipped:
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
    scaler.step(optimizer)
    return [p.detach() for p in model.parameters()]


@pytest.mark.parametrize("clipped", [False, True])
def test_c16_gradscaler_scales_the_penalty_too(x: Tensor, clipped: bool) -> None:
    plain, scaled = (training_step(x, scaled, clipped) for scaled in (False, True))
    assert all(torch.equal(one, other) for one, other in zip(plain, scaled, strict=True))


def test_c16_micro_batches_add_up_to_the_batch(x: Tensor) -> None:
    """Loss and penalty divided by the number of equal micro-batches, as for the loss alone."""
    whole, penalties = attached(rule("pre_activation"), rule("kernel", "**"))
    (whole(x[:4]).square().mean() + penalties.total()).backward()
    parts, penalties = attached(rule("pre_activation"), rule("kernel", "**"))
    for part in x[:4].chunk(2):
        ((parts(part).square().mean() + penalties.total()) / 2).backward()
    for mine, expected in zip(gradients(parts), gradients(whole), strict=True):
        torch.testing.assert_close(mine, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_c16_autocast_penalizes_what_the_layer_gives(x: Tensor, dtype: torch.dtype) -> None:
    model, penalties = attached(rule("pre_activation"), rule("kernel"))
    with torch.autocast("cpu", dtype):
        h = model.hidden(x)
        model(x)
        total = penalties.total()
    assert h.dtype == dtype
    assert total.dtype == torch.float32
    assert penalties.losses()["hidden/pre_activation/sum"].item() == value(h.float(), mean_over="batchmean")
    assert penalties.losses()["hidden/kernel/sum"].item() == value(model.hidden.weight)
    total.backward()
    assert model.hidden.weight.grad.dtype == torch.float32


def test_c16_autocast_around_a_recurrent_module() -> None:
    model, penalties = attached(rule("cell_state", "0"), model=nn.Sequential(nn.LSTM(INPUTS, WIDTH, batch_first=True)))
    x = torch.randn(BATCH, 4, INPUTS)
    model(x)
    expected = penalties.total().item()
    with torch.autocast("cpu", torch.bfloat16):
        model(x)
        total = penalties.total()
    total.backward()
    assert total.item() == pytest.approx(expected, rel=0.05)


# C17, C18, C19


def test_c17_a_rule_for_training_is_0_in_evaluation(x: Tensor) -> None:
    trained = rule("pre_activation", when="train")
    model, penalties = attached(trained, rule("kernel", penalty=ar.L1(0.3), when="train"), rule("kernel"))
    model(x)
    losses = {key: loss.item() for key, loss in penalties.losses().items()}
    assert all(loss > 0 for loss in losses.values())
    model.eval()(x)
    evaluated = {key: loss.item() for key, loss in penalties.losses().items()}
    assert evaluated == {**dict.fromkeys(losses, 0.0), "hidden/kernel/sum": losses["hidden/kernel/sum"]}
    assert penalties.total().item() == losses["hidden/kernel/sum"]
    assert [site.value for site in penalties.sites] == list(evaluated.values())


def test_c18_a_copy_and_a_file_keep_their_penalties(x: Tensor) -> None:
    """deepcopy, pickle and torch.save of model and penalties together."""
    model, penalties = attached(rule("pre_activation"), rule("kernel", "**"), rule("bias", when="train"))
    model(x)
    expected = {key: loss.item() for key, loss in penalties.losses().items()}
    file = io.BytesIO()
    torch.save((model, penalties), file)
    file.seek(0)
    twins = [
        copy.deepcopy((model, penalties)),
        pickle.loads(pickle.dumps((model, penalties))),
        torch.load(file, weights_only=False),
    ]
    for twin, its in twins:
        with pytest.raises(ar.SpecError, match="never fired"):
            its.total()
        twin(x)
        assert {key: loss.item() for key, loss in its.losses().items()} == expected
        with torch.no_grad():
            twin.hidden.weight.mul_(2)
        twin(x)
        assert its.losses()["hidden/kernel/sum"].item() == value(twin.hidden.weight)
        its.detach()
        assert type(twin) is Net
        assert type(twin.hidden) is nn.Linear
    assert {key: loss.item() for key, loss in penalties.losses().items()} == expected


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(INPUTS, 4, batch_first=True)
        self.mha = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x, _ = self.rnn(x)
        return self.mha(x, x, x)[0]


def test_c18_copies_of_recurrent_and_attention_modules() -> None:
    model, penalties = attached(rule("cell_state", "rnn"), rule("output", "mha"), model=Attending())
    given = torch.randn(BATCH, 4, INPUTS)
    model(given)
    expected = penalties.total().item()
    for twin, its in (copy.deepcopy((model, penalties)), pickle.loads(pickle.dumps((model, penalties)))):
        twin(given)
        assert its.total().item() == expected


def test_c18_a_copy_of_the_modules_alone_is_refused(x: Tensor) -> None:
    """What nn.DataParallel does to a model for each device, and copy.copy."""
    model, _ = attached(rule("pre_activation"))
    with pytest.raises(ar.UnsupportedError, match=r"a copy of a Net runs with the penalties of the original"):
        copy.copy(model)(x)
    replica = model.hidden._replicate_for_data_parallel()
    replica.weight, replica.bias = model.hidden.weight, model.hidden.bias
    with pytest.raises(ar.UnsupportedError, match=r"a copy of a Linear runs with"):
        replica(x)


def test_c18_a_failed_pass_leaves_nothing_behind(x: Tensor) -> None:
    class Failing(Net):
        def forward(self, x: Tensor) -> Tensor:
            h = super().forward(x)
            if x.shape[0] == 1:
                raise RuntimeError("stop")
            return h

    model, penalties = attached(rule("pre_activation"), model=Failing())
    model(x)
    penalties.total()
    with pytest.raises(RuntimeError, match="stop"):
        model(x[:1])
    with pytest.raises(ar.SpecError, match="never fired"):
        penalties.total()
    model(x)
    assert penalties.total().item() == value(model.hidden(x), mean_over="batchmean")


def test_c18_a_penalty_that_nobody_asked_for_is_told(x: Tensor) -> None:
    """Two passes for one loss: the first one's penalty would be missing from it."""
    model, penalties = attached(rule("pre_activation"))
    model(x)
    with pytest.warns(UserWarning, match=r"were never asked for, and are lost.*penalties.passes\(\)"):
        model(2 * x)
    penalties.total()
    model(x)
    print(penalties.sites)
    model(x)
    model.eval()(x)  # looking at a model is not training it
    model(x)
    with torch.no_grad():
        model.train()(x)
        model(x)


def test_c18_passes_add_up_where_one_loss_has_several(x: Tensor) -> None:
    model, penalties = attached(rule("pre_activation"), rule("kernel"))
    for _ in range(2):
        with penalties.passes():
            model(x)
            model(2 * x[:3])
        losses = penalties.losses()
        expected = sum(value(model.hidden(given), mean_over="batchmean") for given in (x, 2 * x[:3]))
        assert losses["hidden/pre_activation/sum"].item() == pytest.approx(expected, rel=1e-6)
        assert losses["hidden/kernel/sum"].item() == value(model.hidden.weight)
    losses["hidden/pre_activation/sum"].backward()
    model(x)
    assert penalties.losses()["hidden/pre_activation/sum"].item() == value(model.hidden(x), mean_over="batchmean")


def test_c19_two_models_and_two_threads_do_not_mix(x: Tensor) -> None:
    pairs = [attached(rule("pre_activation")) for _ in range(4)]
    inputs = [x * (k + 1) for k in range(4)]

    def work(k: int) -> None:
        for _ in range(20):
            pairs[k][0](inputs[k])
            pairs[k][1].total()

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = [penalties.total().item() for _, penalties in pairs]
    expected = [
        value(model.hidden(given), mean_over="batchmean") for (model, _), given in zip(pairs, inputs, strict=True)
    ]
    assert found == expected


def test_c19_one_model_in_two_threads_at_once_is_refused(x: Tensor) -> None:
    inside, leave, raised = threading.Event(), threading.Event(), []

    class Slow(Net):
        def forward(self, x: Tensor) -> Tensor:
            inside.set()
            assert leave.wait(20)
            return super().forward(x)

    model, penalties = attached(rule("pre_activation"), model=Slow())
    first = threading.Thread(target=model, args=(x,))
    first.start()
    assert inside.wait(20)
    try:
        model(x)
    except ar.UnsupportedError as error:
        raised.append(str(error))
    leave.set()
    first.join()
    assert raised == ["the model runs in two threads at once; give each thread a deep copy."]
    assert penalties.total().item() == value(model.hidden(x), mean_over="batchmean")


def test_a_class_that_changed_after_attach_is_told() -> None:
    model, penalties = attached(rule("pre_activation"))
    parametrizations.weight_norm(model.hidden)
    with pytest.raises(ar.SpecError, match=r"the class of a .*Linear was changed after attach"):
        penalties.detach()


def test_torchscript_is_refused(x: Tensor) -> None:
    traced = torch.jit.trace(Net(), x, check_trace=False)
    with pytest.raises((ar.UnsupportedError, ar.SpecError)):
        arspec_torch.attach(traced, ar.Spec([rule("output", "hidden")]))
