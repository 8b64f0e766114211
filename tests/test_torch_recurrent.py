"""attach on torch's recurrent modules, against the NumPy layers: every placement, every gradient."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

import arspec as ar
import arspec_torch
from arspec import layers
from arspec.layers import Network
from reference_layers import BATCH, FEATURES, TIME, UNITS, Array, random

TOLERANCE = {"rtol": 1e-10, "atol": 1e-12}
LENGTHS = [7, 4, 1]
PENALTY = ar.L1(0.3) + ar.L2(0.2)
MODULES = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN": nn.RNN}
STATES = {
    "LSTM": ("hidden_state", "cell_state", "input_gate", "forget_gate", "cell_gate", "output_gate"),
    "GRU": ("hidden_state", "reset_gate", "update_gate", "cell_gate"),
    "RNN": ("hidden_state", "pre_activation"),
}
PARAMETERS = ("kernel", "recurrent_kernel", "bias")
KINDS = list(MODULES)


class Model(nn.Module):
    """A recurrent module at the path "rnn"."""

    def __init__(self, kind: str, **options: Any) -> None:
        super().__init__()
        self.rnn = MODULES[kind](FEATURES, UNITS, **options).double()
        generator = torch.Generator().manual_seed(3)
        for parameter in self.rnn.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)

    def forward(self, x: Any, hx: Any = None) -> Any:
        return self.rnn(x, hx)[0]


def canonical(kind: str, tensor: Tensor) -> Array:
    """Return a weight or a bias of torch with the gates in the order of the reference, last."""
    array = tensor.detach().numpy()
    if kind == "GRU":
        r, z, n = np.split(array, 3)
        array = np.concatenate([z, r, n])
    return array.T


def reference_layer(kind: str, module: Any, suffix: str, **options: Any) -> layers.Recurrent:
    """Return the NumPy layer with the parameters of one direction of one layer."""
    kernel, recurrent = (canonical(kind, getattr(module, f"weight_{name}{suffix}")) for name in ("ih", "hh"))
    bias = None
    if module.bias:
        biases = [canonical(kind, getattr(module, f"bias_{name}{suffix}")) for name in ("ih", "hh")]
        bias = np.stack(biases) if kind == "GRU" else sum(biases)
    cls = {"LSTM": layers.LSTM, "GRU": layers.GRU, "RNN": layers.SimpleRNN}[kind]
    return cls(kernel, recurrent, bias, zero_output_for_mask=True, **options)


def network(kind: str, module: Any) -> Network:
    """Return the chain of NumPy layers that a module of torch is."""
    chain: dict[str, Any] = {}
    for layer in range(module.num_layers):
        path = "rnn" if module.num_layers == 1 else f"rnn/{layer}"
        chain[path] = reference_layer(kind, module, f"_l{layer}")
        if module.bidirectional:
            backward = reference_layer(kind, module, f"_l{layer}_reverse", reverse=True)
            chain[path] = layers.Bidirectional(chain[path], backward)
    return Network(chain)


def expected_gradients(kind: str, module: Any, gradients: Mapping[str, Array]) -> dict[str, Array]:
    """Return the gradients of the reference under the names of torch, in torch's layout."""
    found: dict[str, Array] = {}
    for layer in range(module.num_layers):
        for side in ("", "_reverse")[: 1 + module.bidirectional]:
            path = "rnn" if module.num_layers == 1 else f"rnn/{layer}"
            path += ("/backward" if side else "/forward") if module.bidirectional else ""
            suffix = f"_l{layer}{side}"
            found[f"rnn.weight_ih{suffix}"] = back(kind, gradients[f"{path}/kernel"])
            found[f"rnn.weight_hh{suffix}"] = back(kind, gradients[f"{path}/recurrent_kernel"])
            bias = gradients[f"{path}/bias"]
            pair = bias if kind == "GRU" else (bias, bias)
            for name, one in zip(("ih", "hh"), pair, strict=True):
                found[f"rnn.bias_{name}{suffix}"] = back(kind, one)
    return found


def back(kind: str, gradient: Array) -> Array:
    array = gradient.T
    if kind == "GRU":
        z, r, n = np.split(array, 3)
        array = np.concatenate([r, z, n])
    return array


def rule(placement: str, layer: str = "**", penalty: ar.Penalty = PENALTY, **options: Any) -> ar.Rule:
    return ar.Rule(penalty, layer=layer, placement=placement, **options)


def everything(kind: str) -> ar.Spec:
    """Return a rule at every placement, and two that look along the time."""
    rules = [rule(placement) for placement in (*STATES[kind], *PARAMETERS, "input", "output")]
    rules.append(rule("hidden_state", penalty=ar.TemporalDifference(0.7), mean_over=("batch", "time")))
    # The order of the gates makes a difference to neighbours along "output".
    rules += [rule(name, penalty=ar.TotalVariation(0.6, over=("output",))) for name in PARAMETERS]
    return ar.Spec([*rules, rule("kernel", penalty=ar.GroupLasso(0.4, norm_over=("input",)))])


def given_to(model: Model, x: Tensor, lengths: list[int] | None) -> Any:
    """Return a batch (batch, time, feature) as the module takes it."""
    if lengths is not None:
        return pack_padded_sequence(
            x if model.rnn.batch_first else x.transpose(0, 1),
            torch.tensor(lengths),
            batch_first=model.rnn.batch_first,
            enforce_sorted=False,
        )
    return x if model.rnn.batch_first else x.transpose(0, 1)


def check(kind: str, model: Model, array: Array, lengths: list[int] | None, spec: ar.Spec) -> None:
    """Compare values and gradients of an attached model with those of the reference."""
    mask = None if lengths is None else layers.mask_of_lengths(lengths, array.shape[1])
    expected = network(kind, model.rnn).penalties(spec, array, mask=mask)
    penalties = arspec_torch.attach(model, spec)
    x = torch.tensor(array, requires_grad=True)
    model(given_to(model, x, lengths))
    found = {key: loss.item() for key, loss in penalties.losses().items()}
    assert set(found) == set(expected.values)
    for key, value in expected.values.items():
        np.testing.assert_allclose(found[key], value, **TOLERANCE, err_msg=key)
    penalties.total().backward()
    wanted = {**expected_gradients(kind, model.rnn, expected.gradients), "x": expected.gradients["input"]}
    grads = {name: p.grad for name, p in model.named_parameters()} | {"x": x.grad}
    for name, gradient in wanted.items():
        np.testing.assert_allclose(grads[name].numpy(), gradient, **TOLERANCE, err_msg=name)


@pytest.mark.parametrize("batch", [BATCH, 2])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_every_placement(kind: str, batch_first: bool, batch: int) -> None:
    check(kind, Model(kind, batch_first=batch_first), random(batch, TIME, FEATURES), None, everything(kind))


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_b3_packed_sequences(kind: str, batch_first: bool) -> None:
    """Padded steps are not there: the reference with the mask of the lengths."""
    lengths = [4, 7, 1]
    check(kind, Model(kind, batch_first=batch_first), random(BATCH, TIME, FEATURES), lengths, everything(kind))


@pytest.mark.parametrize("lengths", [None, LENGTHS])
@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("kind", "num_layers"), [*((kind, n) for kind in KINDS for n in (1, 2)), ("GRU", 3)])
def test_layers_and_directions(kind: str, num_layers: int, bidirectional: bool, lengths: list[int] | None) -> None:
    model = Model(kind, num_layers=num_layers, bidirectional=bidirectional, batch_first=True)
    check(kind, model, random(BATCH, TIME, FEATURES), lengths, everything(kind))


@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lengths", [None, [4, 7, 1]])
def test_initial_states(kind: str, num_layers: int, lengths: list[int] | None) -> None:
    model = Model(kind, num_layers=num_layers, bidirectional=True, batch_first=True)
    x = torch.tensor(random(BATCH, TIME, FEATURES))
    count = 2 if kind == "LSTM" else 1
    states = [torch.tensor(random(2 * num_layers, BATCH, UNITS, seed=s), requires_grad=True) for s in range(count)]
    spec = ar.Spec(
        [rule(placement, f"rnn/**/{side}") for placement in STATES[kind] for side in ("forward", "backward")]
    )
    penalties = arspec_torch.attach(model, spec)
    model(given_to(model, x, lengths), tuple(states) if kind == "LSTM" else states[0])
    penalties.total().backward()

    mask = None if lengths is None else layers.mask_of_lengths(lengths, TIME)
    at, total, records = x.numpy(), 0.0, []
    chain = list(network(kind, model.rnn).layers.values())
    for index, layer in enumerate(chain):
        pair = [tuple(s[2 * index + side].detach().numpy() for s in states) for side in (0, 1)]
        records.append(layer.forward(at, mask=mask, initial_state=pair))
        at = records[-1]["output"]
    upstream = np.zeros(at.shape)
    for index, layer in reversed(list(enumerate(chain))):
        slopes = {"output": upstream}
        for side in ("forward", "backward"):
            for placement in STATES[kind]:
                name, options = f"{side}/{placement}", {"mean_over": "batchmean", "mask": mask}
                total += float(ar.value(PENALTY, records[index][name], **options))
                slopes[name] = ar.gradient(PENALTY, records[index][name], **options)
        gradients = layer.backward(records[index], slopes)
        upstream = gradients["input"]
        for state, name in zip(states, ("hidden_state", "cell_state"), strict=False):
            for number, side in enumerate(("forward", "backward")):
                mine = state.grad[2 * index + number].numpy()
                np.testing.assert_allclose(mine, gradients[f"{side}/initial_{name}"], **TOLERANCE)
    np.testing.assert_allclose(penalties.total().item(), total, **TOLERANCE)


@pytest.mark.parametrize("kind", KINDS)
def test_a_sequence_without_a_batch_is_a_batch_of_one(kind: str) -> None:
    model = Model(kind, num_layers=2)
    x = torch.tensor(random(TIME, FEATURES))
    penalties = arspec_torch.attach(model, ar.Spec([rule(p, "rnn/**") for p in STATES[kind]]))
    model(x)
    alone = penalties.losses()
    model(x[:, None])
    assert {key: loss.item() for key, loss in penalties.losses().items()} == {k: v.item() for k, v in alone.items()}


CELLS = {"LSTM": nn.LSTMCell, "GRU": nn.GRUCell, "RNN": nn.RNNCell}


@pytest.mark.parametrize("kind", KINDS)
def test_cells_count_every_step(kind: str) -> None:
    """A cell called for each step gives what the fused module gives, summed over the steps."""

    class Loop(nn.Module):
        def __init__(self, fused: nn.Module) -> None:
            super().__init__()
            self.cell = CELLS[kind](FEATURES, UNITS).double()
            weights = zip(self.cell.parameters(), fused.parameters(), strict=True)
            for mine, given in weights:
                mine.data = given.data.clone()

        def forward(self, x: Tensor) -> Any:
            state = None
            for step in x.unbind(1):
                state = self.cell(step, state)
            return state

    fused = Model(kind, batch_first=True)
    model = Loop(fused.rnn)
    x = torch.tensor(random(BATCH, TIME, FEATURES))
    placements = (*STATES[kind], *PARAMETERS, "input", "output")
    found = []
    for one_model in (fused, model):
        penalties = arspec_torch.attach(one_model, ar.Spec([rule(p) for p in placements]))
        one_model(x)
        penalties.total().backward()
        losses = [loss.item() for loss in penalties.losses().values()]
        found.append((losses, [p.grad.numpy() for p in one_model.parameters()]))
    np.testing.assert_allclose(found[1][0], found[0][0], **TOLERANCE)
    for mine, expected in zip(found[1][1], found[0][1], strict=True):
        np.testing.assert_allclose(mine, expected, **TOLERANCE)


def test_a_step_of_a_cell_has_no_time() -> None:
    cell = nn.Sequential(nn.LSTMCell(FEATURES, UNITS))
    penalties = arspec_torch.attach(cell, ar.Spec([rule("cell_state", "0", mean_over=("time",))]))
    with pytest.raises(ar.SpecError, match="mean_over names 'time', but x has the axes"):
        cell(torch.randn(BATCH, FEATURES))
    with pytest.raises(ar.SpecError, match="never fired"):
        penalties.total()


def test_dropout_between_layers_comes_after_the_hidden_state() -> None:
    model = Model("LSTM", num_layers=2, dropout=0.5, batch_first=True)
    x = torch.tensor(random(BATCH, TIME, FEATURES))
    spec = ar.Spec([rule("hidden_state", "rnn/0"), rule("cell_state", "rnn/0"), rule("hidden_state", "rnn/1")])
    penalties = arspec_torch.attach(model, spec)
    torch.manual_seed(0)
    output = model(x)
    expected = network("LSTM", model.rnn).penalties(spec, x.numpy()).values
    losses = penalties.losses()
    for name in ("hidden_state", "cell_state"):
        np.testing.assert_allclose(losses[f"rnn/0/{name}/sum"].item(), expected[f"rnn/0/{name}/sum"], **TOLERANCE)
    last = float(ar.value(PENALTY, output.detach().numpy(), mean_over="batchmean"))
    np.testing.assert_allclose(losses["rnn/1/hidden_state/sum"].item(), last, **TOLERANCE)
    penalties.detach()
    gated = arspec_torch.attach(model, ar.Spec([rule("forget_gate", "rnn/1")]))
    with pytest.raises(ar.UnsupportedError, match=r"layer 1 of a LSTM with dropout=0.5 .* one module per layer"):
        model(x)
    model.eval()(x)
    assert gated.total().item() > 0


def test_b5_a_placement_is_one_tensor_of_the_three_that_an_lstm_returns() -> None:
    model = Model("LSTM", batch_first=True)
    penalties = arspec_torch.attach(model, ar.Spec([rule("output", "rnn")]))
    output = model(torch.tensor(random(BATCH, TIME, FEATURES)))
    assert penalties.total().item() == float(ar.value(PENALTY, output.detach().numpy(), mean_over="batchmean"))


@pytest.mark.parametrize("kind", KINDS)
def test_functional_call_uses_the_weights_of_the_pass(kind: str) -> None:
    model = Model(kind, batch_first=True)
    spec = everything(kind)
    penalties = arspec_torch.attach(model, spec)
    x = torch.tensor(random(BATCH, TIME, FEATURES))
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def total(parameters: dict[str, Tensor]) -> Tensor:
        torch.func.functional_call(model, parameters, (x,))
        return penalties.total()

    halved = {name: p / 2 for name, p in parameters.items()}
    gradients = torch.func.grad(total)(halved)
    with torch.no_grad():
        for p in model.parameters():
            p.div_(2)
    model(x)
    penalties.total().backward()
    for name, p in model.named_parameters():
        torch.testing.assert_close(gradients[name], p.grad, rtol=1e-10, atol=1e-12)


def test_names_of_parts_are_told() -> None:
    model = Model("LSTM", num_layers=2, bidirectional=True)
    with pytest.raises(ar.SpecError) as error:
        arspec_torch.attach(model, ar.Spec([rule("cell_state", "rnn")]))
    assert str(error.value).endswith(
        "there is 'input', 'output'. It has 4 parts: name 'rnn/0/forward' to 'rnn/1/backward', or all by 'rnn/**'."
    )
    single = arspec_torch.attach(Model("LSTM"), ar.Spec([rule("cell_state", "rnn")]))
    assert [site.layer for site in single.sites] == ["rnn"]


@pytest.mark.parametrize("kind", KINDS)
def test_without_bias(kind: str) -> None:
    model = Model(kind, num_layers=2, bias=False, batch_first=True)
    spec = ar.Spec([rule(placement) for placement in (*STATES[kind], "kernel", "recurrent_kernel")])
    penalties = arspec_torch.attach(model, spec)
    x = random(BATCH, TIME, FEATURES)
    model(torch.tensor(x))
    expected = network(kind, model.rnn).penalties(spec, x).values
    for key, loss in penalties.losses().items():
        np.testing.assert_allclose(loss.item(), expected[key], **TOLERANCE, err_msg=key)
    with pytest.raises(ar.SpecError, match=r"'rnn/0' .* has no placement 'bias'"):
        arspec_torch.attach(Model(kind, num_layers=2, bias=False), ar.Spec([rule("bias", "rnn/0")]))


@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_a_plain_rnn_with_relu(lengths: list[int] | None) -> None:
    model = Model("RNN", num_layers=2, nonlinearity="relu", batch_first=True)
    mask = None if lengths is None else layers.mask_of_lengths(lengths, TIME)
    chain = {f"rnn/{n}": reference_layer("RNN", model.rnn, f"_l{n}", activation="relu") for n in range(2)}
    spec = ar.Spec([rule("pre_activation"), rule("hidden_state")])
    x = random(BATCH, TIME, FEATURES)
    expected = Network(chain).penalties(spec, x, mask=mask).values
    penalties = arspec_torch.attach(model, spec)
    model(given_to(model, torch.tensor(x), lengths))
    for key, loss in penalties.losses().items():
        np.testing.assert_allclose(loss.item(), expected[key], **TOLERANCE, err_msg=key)


def test_a_projected_state_is_refused() -> None:
    model = nn.Sequential(nn.LSTM(FEATURES, 5, proj_size=2, batch_first=True)).double()
    with pytest.raises(ar.UnsupportedError, match=r"layer '0' \(LSTM\), cell_state: with proj_size the state h"):
        arspec_torch.attach(model, ar.Spec([rule("cell_state", "0")]))
    penalties = arspec_torch.attach(model, ar.Spec([rule("kernel", "0"), rule("output", "0")]))
    output, _ = model(torch.tensor(random(BATCH, TIME, FEATURES)))
    expected = float(ar.value(PENALTY, output.detach().numpy(), mean_over="batchmean"))
    assert penalties.losses()["0/output/sum"].item() == pytest.approx(expected, rel=1e-6)


def test_c14_the_bias_is_the_sum_of_both_that_torch_has() -> None:
    model = Model("LSTM")
    penalties = arspec_torch.attach(model, ar.Spec([rule("bias", "rnn", ar.L2(0.5))]))
    both = model.rnn.bias_ih_l0 + model.rnn.bias_hh_l0
    assert penalties.total().item() == float(ar.value(ar.L2(0.5), both.detach().numpy()))
    penalties.total().backward()
    assert torch.equal(model.rnn.bias_ih_l0.grad, both)
    assert torch.equal(model.rnn.bias_hh_l0.grad, both)
    assert penalties.sites[0].tensor == "rnn.bias_ih_l0 + rnn.bias_hh_l0"


@pytest.mark.parametrize("batch_first", [True, False])
def test_b3_a_mask_counts_valid_steps_in_any_order_of_axes(batch_first: bool) -> None:
    model = Model("LSTM", batch_first=batch_first)
    x = torch.tensor(random(BATCH, TIME, FEATURES))
    mask = layers.mask_of_lengths(LENGTHS, TIME)
    spec = ar.Spec([rule("hidden_state", "rnn", mean_over=("batch", "time")), rule("cell_state", "rnn")])
    penalties = arspec_torch.attach(model, spec)
    for given in (torch.tensor(mask), (torch.tensor(mask.T), "time batch")):
        with penalties.masks({"rnn": given}):
            model(given_to(model, x, None))
        record = network("LSTM", model.rnn).layers["rnn"].forward(x.numpy())
        for site in penalties.sites:
            name = site.rule.placement
            expected = ar.value(PENALTY, record[name], mean_over=site.rule.mean_over, mask=mask)
            np.testing.assert_allclose(site.value, expected, **TOLERANCE)
    model(given_to(model, x, None))
    assert penalties.sites[0].value != pytest.approx(float(expected))


def test_b3_masks_are_checked() -> None:
    model = Model("LSTM", batch_first=True)
    x = torch.tensor(random(BATCH, TIME, FEATURES))
    penalties = arspec_torch.attach(model, ar.Spec([rule("hidden_state", "rnn"), rule("kernel", "rnn")]))
    mask = torch.tensor(layers.mask_of_lengths(LENGTHS, TIME))
    for masks, text in (
        ({"lstm": mask}, "masks names 'lstm'; the layers with a rule at an activation are 'rnn'"),
        ({"rnn": mask.numpy()}, "the mask of 'rnn' is a ndarray; expected a torch.Tensor"),
        ({"rnn": (mask, "batch")}, "names 1 axes, but x has 2"),
    ):
        with pytest.raises(ar.SpecError, match=text), penalties.masks(masks):
            pass
    with (
        pytest.raises(ar.SpecError, match=r"the mask has the axes \(batch, time\) of sizes \(7, 3\)"),
        penalties.masks({"rnn": mask.T}),
    ):
        model(x)
    with pytest.raises(ar.SpecError, match="expected bool"), penalties.masks({"rnn": mask.float()}):
        model(x)
    with (
        pytest.raises(ar.SpecError, match="its sequence is packed, which says what is valid"),
        penalties.masks({"rnn": torch.ones_like(mask)}),
    ):
        model(given_to(model, x, LENGTHS))


@pytest.mark.parametrize("placement", ["hidden_state", "cell_state", "forget_gate", "input"])
@pytest.mark.parametrize("mean_over", [("batch",), ("time",), ("batch", "time")])
def test_b3_a_mask_says_where_packed_steps_stood(placement: str, mean_over: Any) -> None:
    """TRAPS B3: a mean over the batch at each step depends on where a sequence has its gaps."""
    valid = np.array([[1, 1, 0, 1, 1, 0, 1], [0, 1, 1, 1, 0, 0, 0], [1, 0, 1, 0, 1, 1, 1]], bool)[:BATCH, :TIME]
    model = Model("LSTM", batch_first=True)
    x = random(BATCH, TIME, FEATURES)
    one = ar.Rule(ar.L2(0.7), layer="rnn", placement=placement, mean_over=mean_over)
    penalties = arspec_torch.attach(model, ar.Spec([one]))
    packed = np.stack([np.concatenate([row[keep], row[~keep]]) for row, keep in zip(x, valid, strict=True)])
    with penalties.masks({"rnn": torch.tensor(valid)}):
        model(given_to(model, torch.tensor(packed), valid.sum(1).tolist()))
    expected = network("LSTM", model.rnn).penalties(ar.Spec([one]), x, mask=valid)
    np.testing.assert_allclose(penalties.total().item(), sum(expected.values.values()), **TOLERANCE)


def test_b2_a_linear_behind_a_time_first_module_needs_the_names_of_its_axes() -> None:
    """TRAPS B2: whether axis 0 is the batch cannot be seen, and batchmean depends on it."""

    class Tagger(Model):
        def __init__(self) -> None:
            super().__init__("LSTM")
            self.head = nn.Linear(UNITS, 3).double()

        def forward(self, x: Tensor, hx: Any = None) -> Tensor:
            return self.head(super().forward(x))

    model = Tagger()
    x = torch.tensor(random(TIME, BATCH, FEATURES))
    spec = ar.Spec([rule("pre_activation", "head")])
    arspec_torch.attach(model, spec)
    with pytest.raises(ar.SpecError, match=r"the model has modules without batch_first.*axes=\{'head': 'time batch"):
        model(x)
    twin = Tagger()
    penalties = arspec_torch.attach(twin, spec, axes={"head": "time batch feature"})
    output = twin(x)
    expected = ar.value(PENALTY, output.detach().numpy(), axes="time batch feature", mean_over="batchmean")
    assert penalties.total().item() == float(expected)
    summed = Tagger()
    penalties = arspec_torch.attach(summed, ar.Spec([rule("pre_activation", "head", mean_over="sum")]))
    output = summed(x)
    assert penalties.total().item() == float(ar.value(PENALTY, output.detach().numpy()))
