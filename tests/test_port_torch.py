"""Porting from PyTorch: modules read by torch.fx, written again and compared at every level."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import arspec as ar
from arspec.port import Bundle, Certificate, Written, read_bundle, write_bundle
from arspec_torch.port import check, export, write
from arspec_torch.port._check import build


def round_trip(
    model: nn.Module, *examples: Tensor, spec: ar.Spec | None = None, faults: bool = False
) -> tuple[Bundle, Written, Certificate]:
    """Export a model with weights that hide nothing, write it as torch again, and compare."""
    scramble(model)
    bundle = export(model, examples, spec)
    written = write(bundle)
    certificate = check(bundle, written, build(bundle, written), faults=faults)
    assert certificate.holds, certificate.explain()
    return bundle, written, certificate


def scramble(model: nn.Module) -> None:
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.dtype.is_floating_point:
                noise = torch.rand(tensor.shape, generator=generator)
                tensor.copy_(noise + 0.5 if name.endswith("running_var") else noise - 0.4)


class Block(nn.Module):
    """A residual block with its activation function in place."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after, momentum=0.3)
        self.down = nn.Sequential(nn.Conv2d(before, after, 1, stride), nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        y += self.down(x)
        return self.relu(y)


class Residual(nn.Module):
    """A small residual network, its head after a flatten, channels first."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 5, (7, 5), 2, 3)
        self.bn = nn.BatchNorm2d(5)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.layers = nn.Sequential(Block(5, 5, 1), Block(5, 7, 2))
        self.fc1 = nn.Linear(7 * 3 * 2, 11)
        self.drop = nn.Dropout(0.3)
        self.fc2 = nn.Linear(11, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers(self.pool(F.relu(self.bn(self.stem(x)))))
        return self.fc2(self.drop(F.gelu(self.fc1(torch.flatten(x, 1)))))


SPEC = ar.Spec(
    [
        ar.Rule(ar.L2(1e-3), layer="**", placement="kernel"),
        ar.Rule(ar.L1(1e-2), layer="fc1", placement="output"),
        ar.Rule(ar.L1(2e-2), layer="fc1", placement="pre_activation"),
        ar.Rule(ar.L1(3e-2), layer="stem", placement="input"),
        ar.Rule(ar.GroupLasso(1e-2, norm_over=("input", "height")), layer="stem", placement="kernel"),
    ]
)


def test_residual_network_comes_back_with_every_rule() -> None:
    bundle, written, certificate = round_trip(Residual(), torch.randn(2, 3, 19, 13), spec=SPEC, faults=True)
    assert set(certificate.levels()) == {"L0", "L1", "L2", "L3", "L4", "L5"}
    assert [site.key for site in bundle.sites][-3:-1] == ["fc1/pre_activation/l1", "stem/input/l1"]
    places = {site.key: (site.layer, site.placement) for site in bundle.sites}
    assert places["fc1/output/l1"] == ("gelu", "output")
    assert places["stem/input/l1"] == ("stem_pad", "input")
    assert "nn.BatchNorm2d(5, eps=1e-05, momentum=0.3)" in written.text


def test_weights_come_back_bit_equal() -> None:
    model = Residual()
    bundle = export(model, torch.randn(2, 3, 19, 13))
    written = write(bundle)
    again = export(build(bundle, written), torch.randn(2, 3, 19, 13))
    flat = {name.replace("/", "_"): weight.tobytes() for name, weight in bundle.weights.items()}
    assert {name.replace("/", "_"): weight.tobytes() for name, weight in again.weights.items()} == flat


class Functional(nn.Module):
    """Functions, operators and methods instead of modules, axes moved about."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 5, 4, stride=2, padding=1, dilation=2)
        self.norm = nn.LayerNorm(5)
        self.out = nn.Linear(5, 2)
        self.gate = nn.Linear(10, 5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.norm(torch.tanh(self.conv(x.transpose(1, 2))).transpose(1, 2))
        top, mean = y.amax(1), y.mean(dim=1, keepdim=True)
        gate = self.gate(torch.cat([top, mean.squeeze(1)], dim=-1)).sigmoid()
        y = (y - mean) * gate.unsqueeze(1) / 2.0 + 0.5 * F.elu(y, 0.7)
        return self.out(y).log_softmax(-1), F.softmax(-y, dim=1).reshape(x.size(0), -1)


class Squeeze(nn.Module):
    """Depthwise, grouped and transposed convolutions, pools of all kinds, a gate per channel."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding="same", padding_mode="zeros")
        self.depth = nn.Conv2d(6, 12, (3, 5), (1, 2), (1, 2), groups=6)
        self.group = nn.Conv2d(12, 6, 1, groups=3, bias=False)
        self.up = nn.ConvTranspose2d(6, 5, 3, 2, 1, output_padding=1)
        self.act = nn.PReLU(5)
        self.norm = nn.InstanceNorm2d(5, affine=True)
        self.gate = nn.Linear(5, 5)
        self.pool = nn.AvgPool2d(3, 2, 1)
        self.inner = nn.AvgPool2d(3, 1, 1, count_include_pad=False)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.group(F.silu(self.depth(F.pad(self.first(x), (1, 0, 2, 0)))))
        x = self.norm(self.act(self.up(x)))
        weight = self.gate(x.mean((2, 3))).sigmoid().view(x.shape[0], 5, 1, 1)
        x = self.inner(self.pool(weight * x))
        return self.head(F.max_pool2d(F.interpolate(x, scale_factor=2), (2, 3)))


class Encoder(nn.Module):
    """A Transformer encoder between an embedding and a head, its time first."""

    def __init__(self, *, norm_first: bool) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(6, 2, 7, 0.0, F.gelu, norm_first=norm_first, batch_first=not norm_first)
        self.tokens = nn.Embedding(11, 6)
        self.encoder = nn.TransformerEncoder(layer, 2, nn.LayerNorm(6), enable_nested_tensor=False)
        self.attention = nn.MultiheadAttention(6, 3, batch_first=True)
        self.head = nn.Linear(6, 3)
        self.time_first = norm_first

    def forward(self, tokens: Tensor, other: Tensor) -> Tensor:
        x = self.tokens(tokens)
        x = self.encoder(x.transpose(0, 1)).transpose(0, 1) if self.time_first else self.encoder(x)
        x, _ = self.attention(x, other, other, need_weights=False)
        return self.head(x)


def tokens_and_vectors() -> tuple[Tensor, Tensor]:
    return torch.arange(20).reshape(2, 10) % 11, torch.randn(2, 5, 6)


MODELS = {
    "mlp": (lambda: nn.Sequential(nn.Linear(7, 5), nn.BatchNorm1d(5), nn.Mish(), nn.Linear(5, 2)), (2, 7)),
    "functions": (Functional, (2, 11, 3)),
    "windows": (Squeeze, (2, 3, 13, 11)),
    "volume": (
        lambda: nn.Sequential(nn.Conv3d(2, 3, 3, padding=1), nn.Hardtanh(0, 6), nn.AvgPool3d(2)),
        (2, 2, 4, 6, 5),
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_model_comes_back(name: str) -> None:
    make, shape = MODELS[name]
    torch.manual_seed(1)
    model: Any = make()
    round_trip(model, torch.randn(shape), spec=ar.Spec([ar.Rule(ar.L2(1e-2), layer="**", placement="kernel")]))


@pytest.mark.parametrize("norm_first", [False, True])
def test_transformer_encoder_comes_back(norm_first: bool) -> None:
    spec = ar.Spec(
        [
            ar.Rule(ar.L2(1e-2), layer="encoder/layers/1/self_attn", placement="value_kernel"),
            ar.Rule(ar.L1(1e-2), layer="encoder/layers/0/linear1", placement="output"),
        ]
    )
    bundle, _, _ = round_trip(Encoder(norm_first=norm_first), *tokens_and_vectors(), spec=spec)
    assert [(site.layer, site.placement) for site in bundle.sites] == [
        ("encoder/layers/1/self_attn", "value_kernel"),
        ("encoder/layers/0/activation", "output"),
    ]


class Calls(nn.Module):
    """A layer, then whatever a test wants to be refused."""

    def __init__(self, then: Any, layer: nn.Module | None = None) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 4) if layer is None else layer
        self.then = then

    def forward(self, x: Tensor) -> Tensor:
        return self.then(self.layer(x), x)


def _stale(y: Tensor, x: Tensor) -> Tensor:
    z = y.view(-1, 4)
    y.mul_(2.0)
    return z + y


REFUSED: dict[str, tuple[Any, str]] = {
    "control flow": (lambda y, x: y if y.sum() > 0 else -y, "torch.fx cannot trace the forward of Calls: TraceError"),
    "changed in place": (_stale, r"'mul_' \(Tensor.mul_\) changes 'view' in place, which 'add' reads afterwards"),
    "batch gone": (lambda y, x: y.reshape(2, -1), "gives .* the batch is no axis of its own there"),
    "unknown function": (lambda y, x: torch.cumsum(y, 1), r"cumsum\(\) cannot be ported exactly"),
    "function dropout": (lambda y, x: F.dropout(y, 0.5), "cannot be switched off"),
    "constant": (lambda y, x: y + torch.ones(4), "a tensor that forward uses by itself"),
    "broadcast ranks": (lambda y, x: y + y.unsqueeze(1), "tensors of different rank"),
    "inexact": (lambda y, x: F.hardswish(y), "Use the module, nn.Hardswish"),
    "along the batch": (lambda y, x: torch.cat([y, y]), "along the batch|the batch is no axis of its own"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_exact_is_refused_by_name(name: str) -> None:
    then, message = REFUSED[name]
    with pytest.raises(ar.UnsupportedError, match=message):
        export(Calls(then), torch.randn(2, 3))


LAYERS: dict[str, tuple[nn.Module, tuple[int, ...], str]] = {
    "padding row": (nn.Embedding(5, 4, padding_idx=0), (2, 3), "layer: an Embedding with padding_idx"),
    "window": (nn.AdaptiveAvgPool2d(3), (2, 4, 7, 5), "layer: an adaptive pooling .*whose windows differ in size"),
    "reflection": (nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), (2, 3, 5, 7), "padding_mode='reflect'"),
    "no statistics": (nn.BatchNorm1d(3, track_running_stats=False), (2, 3), "without running statistics"),
    "eps by dtype": (nn.RMSNorm(3), (2, 3), "RMSNorm without eps"),
    "recurrent": (nn.LSTM(3, 4), (2, 5, 3), "without batch_first"),
    "unknown": (nn.RReLU(), (2, 3), "the module RReLU"),
    "attention dropout": (nn.TransformerEncoderLayer(4, 2, 3, batch_first=True), (2, 5, 4), "or dropout"),
}


@pytest.mark.parametrize("name", LAYERS)
def test_settings_without_a_counterpart_are_refused_by_name(name: str) -> None:
    layer, shape, message = LAYERS[name]
    given = torch.zeros(shape, dtype=torch.int64) if isinstance(layer, nn.Embedding) else torch.randn(shape)
    model = nn.Sequential()
    model.add_module("layer", layer)
    with pytest.raises(ar.UnsupportedError, match=message):
        export(model, given)


def test_tied_and_unused_weights_are_refused() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
    model[2].weight = model[0].weight
    with pytest.raises(ar.UnsupportedError, match=r"'0.weight' and '2.weight' are one tensor \(tied weights\)"):
        export(model, torch.randn(2, 3))
    with pytest.raises(ar.UnsupportedError, match="nothing in the model trains"):
        export(nn.Sequential(nn.ReLU()), torch.randn(2, 3))
    with pytest.raises(ar.UnsupportedError, match=r"'unused.weight', 'unused.bias': in the model, and never used"):
        export(Unused(), torch.randn(2, 3))


class Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.used(x)


def test_examples_are_checked() -> None:
    with pytest.raises(ar.SpecError, match="forward of Unused takes x"):
        export(Unused(), [torch.randn(2, 3), torch.randn(2, 3)])
    with pytest.raises(ar.SpecError, match="does not run on a batch of 5 made from example_inputs"):
        export(Unused(), torch.randn(2, 4))
    with pytest.raises(ar.SpecError, match=r"expected a tensor per argument of forward"):
        export(Unused(), [])


def test_d3_a_coupled_decay_is_a_penalty_and_a_decoupled_one_is_refused() -> None:
    model = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))
    optimizer = torch.optim.SGD(model[2].parameters(), lr=0.1, weight_decay=0.02)
    bundle = export(model, torch.randn(2, 3), optimizer=optimizer)
    assert [site.key for site in bundle.sites] == ["2/kernel/l2", "2/bias/l2"]
    written = write(bundle)
    assert check(bundle, written, build(bundle, written), faults=False).holds
    with pytest.raises(ar.UnsupportedError, match="AdamW"):
        export(model, torch.randn(2, 3), optimizer=torch.optim.AdamW(model.parameters()))


def test_d6_a_biased_running_variance_is_noticed() -> None:
    model = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5))
    bundle = export(model, torch.randn(2, 3))
    wrong = replace(bundle.graph.nodes[1], layer=replace(bundle.graph.nodes[1].layer, unbiased=False))
    other = replace(bundle, graph=replace(bundle.graph, nodes=(bundle.graph.nodes[0], wrong)))
    written = write(other)
    certificate = check(bundle, written, build(other, written), faults=False)
    assert [finding.name for finding in certificate.findings if not finding.holds] == ["after/1/moving_variance"]


def test_a_bundle_of_a_module_is_read_back_from_its_files(tmp_path: Path) -> None:
    bundle = export(Residual(), torch.randn(2, 3, 19, 13), SPEC)
    write_bundle(bundle, tmp_path / "residual.bundle")
    again = read_bundle(tmp_path / "residual.bundle")
    assert again.graph == bundle.graph
    assert again.sites == bundle.sites
    assert again.environment["framework"] == "torch"


def test_an_encoder_of_transformers_says_why_it_cannot_be_read() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=13, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=11
    )
    with pytest.raises(ar.UnsupportedError, match=r"torch\.fx cannot trace the forward of BertModel.*Export the parts"):
        export(transformers.BertModel(config), torch.zeros(2, 7, dtype=torch.int64))


class Recurrent(nn.Module):
    """A GRU over embedded tokens; its sequence, its last state, or one step of it is read on."""

    def __init__(self, rnn: Any, take: Any, features: int = 5) -> None:
        super().__init__()
        self.rnn, self.take = rnn, take
        self.head = nn.Linear(features, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.take(self.rnn(x)))


RECURRENT: dict[str, tuple[Any, Any, int]] = {
    "sequence": (lambda: nn.GRU(3, 5, batch_first=True), lambda found: found[0], 5),
    "last state": (lambda: nn.GRU(3, 5, batch_first=True), lambda found: found[1][-1], 5),
    "last step": (lambda: nn.GRU(3, 5, batch_first=True), lambda found: found[0][:, -1], 5),
    "both ways": (lambda: nn.GRU(3, 5, batch_first=True, bidirectional=True), lambda found: found[0], 10),
    "cell state": (
        lambda: nn.LSTM(3, 5, bias=False, batch_first=True),
        lambda found: torch.cat([found[0][:, 0], found[1][0][0], found[1][1][-1]], 1),
        15,
    ),
    "relu": (lambda: nn.RNN(3, 5, bias=False, batch_first=True, nonlinearity="relu"), lambda found: found[0], 5),
}


@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_layer_comes_back(name: str) -> None:
    make, take, features = RECURRENT[name]
    torch.manual_seed(2)
    layer = "rnn/backward" if name == "both ways" else "rnn"
    spec = ar.Spec(
        [
            ar.Rule(ar.L2(1e-2), layer=layer, placement="recurrent_kernel"),
            ar.Rule(ar.L1(1e-2), layer=layer, placement="hidden_state"),
        ]
    )
    bundle, written, _ = round_trip(Recurrent(make(), take, features), torch.randn(2, 7, 3), spec=spec)
    if name != "cell state":
        again = export(build(bundle, written), torch.randn(2, 7, 3))
        assert {key: held.tobytes() for key, held in again.weights.items()} == {
            key: held.tobytes() for key, held in bundle.weights.items()
        }


def test_c14_a_second_bias_that_trains_is_refused() -> None:
    model = Recurrent(nn.LSTM(3, 5, batch_first=True), lambda found: found[0])
    with pytest.raises(
        ar.UnsupportedError, match=r"bias_hh_l0, a second bias that trains or is not zero, .*twice as far"
    ):
        export(model, torch.randn(2, 7, 3))
    with torch.no_grad():
        model.rnn.bias_ih_l0 += model.rnn.bias_hh_l0
        model.rnn.bias_hh_l0.zero_().requires_grad_(False)
    bundle = export(model, torch.randn(2, 7, 3))
    assert bundle.weights["rnn/bias"].shape == (20,)
    written = write(bundle)
    assert check(bundle, written, build(bundle, written), faults=False).holds
