"""attach on torch's other layers, against the NumPy layers: attention, convolutions, normalization, embeddings."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import arspec as ar
import arspec_torch
from arspec import layers
from arspec.layers import Network
from reference_layers import BATCH, FEATURES, IMAGE, MASKS, SEQUENCE, TIME, TOKENS, UNITS, VOLUME, Array, random

TOLERANCE = {"rtol": 1e-10, "atol": 1e-12}
PENALTY = ar.L1(0.3) + ar.L2(0.2)


def rule(placement: str, layer: str = "0", penalty: ar.Penalty = PENALTY, **options: Any) -> ar.Rule:
    return ar.Rule(penalty, layer=layer, placement=placement, **options)


def rules(*placements: str, layer: str = "0") -> ar.Spec:
    return ar.Spec([rule(placement, layer) for placement in placements])


def randomized(module: nn.Module) -> nn.Sequential:
    """Return a module at the path "0", in float64 and with random parameters."""
    generator = torch.Generator().manual_seed(5)
    for parameter in module.double().parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return nn.Sequential(module)


def numpy(tensor: Tensor | None) -> Any:
    return None if tensor is None else tensor.detach().numpy()


def check(
    model: nn.Module,
    given: Tensor,
    expected: layers.Penalties,
    spec: ar.Spec,
    layouts: Mapping[str, tuple[str, Any]],
    **options: Any,
) -> None:
    """Compare values, and gradients by parameter of torch; a layout takes one of torch to the reference."""
    penalties = arspec_torch.attach(model, spec)
    given = given.requires_grad_(given.is_floating_point())
    model(given, **options)
    losses = penalties.losses()
    assert set(losses) == set(expected.values)
    for key, value in expected.values.items():
        np.testing.assert_allclose(losses[key].item(), value, **TOLERANCE, err_msg=key)
    penalties.total().backward()
    gradients = {name: p.grad for name, p in model.named_parameters()} | {"input": given.grad}
    for name, (theirs, layout) in layouts.items():
        mine = layout(gradients[name].numpy())
        np.testing.assert_allclose(mine, expected.gradients[theirs], **TOLERANCE, err_msg=name)


def channels_last(array: Array) -> Array:
    return np.moveaxis(array, 1, -1)


CONVOLUTIONS = {
    "Conv1d": (nn.Conv1d, (3,), SEQUENCE),
    "Conv2d": (nn.Conv2d, (2, 3), IMAGE),
    "Conv3d": (nn.Conv3d, (2, 1, 3), VOLUME),
}
AFFINE = ("input", "pre_activation", "output", "kernel", "bias")


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions(name: str) -> None:
    cls, size, x = CONVOLUTIONS[name]
    model = randomized(cls(FEATURES, UNITS, size, stride=2))
    weight = np.moveaxis(numpy(model[0].weight), (0, 1), (-1, -2))
    network = Network({"0": layers.Convolution(weight, numpy(model[0].bias), strides=2)})
    extra = [rule("output", penalty=ar.GroupLasso(0.5, norm_over=("feature",)))]
    extra += [rule("kernel", penalty=ar.GroupLasso(0.5, norm_over=("input",)))]
    spec = ar.Spec([*rules(*AFFINE).rules, *extra])
    layouts = {
        "0.weight": ("0/kernel", lambda g: np.moveaxis(g, (0, 1), (-1, -2))),
        "0.bias": ("0/bias", lambda g: g),
        "input": ("input", channels_last),
    }
    given = torch.tensor(np.moveaxis(x, -1, 1))
    check(model, given, network.penalties(spec, x), spec, layouts)


def test_a_depthwise_convolution_is_one_kernel_per_channel() -> None:
    model = randomized(nn.Conv2d(FEATURES, FEATURES * 2, (2, 3), groups=FEATURES))
    weight = np.moveaxis(numpy(model[0].weight).reshape(FEATURES, 2, 2, 3), (0, 1), (-2, -1))
    network = Network({"0": layers.DepthwiseConvolution(weight, numpy(model[0].bias))})
    spec = ar.Spec([rule("kernel"), rule("kernel", penalty=ar.GroupLasso(0.5, norm_over=("input",))), rule("output")])
    layouts = {
        "0.weight": ("0/kernel", lambda g: np.moveaxis(g.reshape(FEATURES, 2, 2, 3), (0, 1), (-2, -1))),
        "input": ("input", channels_last),
    }
    check(model, torch.tensor(np.moveaxis(IMAGE, -1, 1)), network.penalties(spec, IMAGE), spec, layouts)


@pytest.mark.parametrize(
    ("cls", "size", "x"),
    [
        (nn.ConvTranspose1d, (3,), SEQUENCE),
        (nn.ConvTranspose2d, (2, 3), IMAGE),
        (nn.ConvTranspose3d, (2, 1, 3), VOLUME),
    ],
)
def test_transposed_convolutions_have_the_input_first(cls: Any, size: tuple[int, ...], x: Array) -> None:
    model = randomized(cls(FEATURES, UNITS, size))
    group = ar.GroupLasso(0.5, norm_over=("input",))
    spec = ar.Spec([rule("kernel", penalty=group), rule("output", penalty=ar.GroupLasso(0.5, norm_over=("feature",)))])
    penalties = arspec_torch.attach(model, spec)
    output = model(torch.tensor(np.moveaxis(x, -1, 1)))
    kernel, out = penalties.losses().values()
    spatial = {1: "time", 2: "height width", 3: "depth height width"}[len(size)]
    expected = ar.value(group, numpy(model[0].weight), axes=f"input output {spatial}")
    assert (
        kernel.item()
        == expected
        == ar.value(group, numpy(model[0].weight.movedim(0, -1)), axes=f"output {spatial} input")
    )
    axes = f"batch feature {spatial}"
    over = ar.GroupLasso(0.5, norm_over=("feature",))
    assert out.item() == ar.value(over, numpy(output), axes=axes, mean_over="batchmean")


@pytest.mark.parametrize("training", [True, False])
def test_batch_normalization(training: bool) -> None:
    model = randomized(nn.BatchNorm2d(FEATURES)).train(training)
    norm = model[0]
    norm.running_mean, norm.running_var = torch.tensor(random(FEATURES)), torch.tensor(random(FEATURES) ** 2 + 1)
    statistics = numpy(norm.running_mean).copy(), numpy(norm.running_var).copy()
    layer = layers.BatchNormalization(*statistics, numpy(norm.weight), numpy(norm.bias), epsilon=norm.eps)
    spec = rules("scale", "shift", "output", "input")
    layouts = {
        "0.weight": ("0/scale", lambda g: g),
        "0.bias": ("0/shift", lambda g: g),
        "input": ("input", channels_last),
    }
    given = torch.tensor(np.moveaxis(IMAGE, -1, 1))
    check(model, given, Network({"0": layer}).penalties(spec, IMAGE, training=training), spec, layouts)


def test_c13_statistics_and_seeds_are_no_parameters() -> None:
    """Only what has a role is penalized: no running mean, no buffer."""
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2))
    model.register_buffer("table", torch.ones(3))
    penalties = arspec_torch.attach(model, rules("kernel", layer="**"))
    assert list(penalties.losses()) == ["1/kernel/sum"]
    with pytest.raises(
        ar.SpecError, match=r"layer '0' .* has no placement 'kernel'; there is 'input', 'output', 'scale'"
    ):
        arspec_torch.attach(nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2)), rules("kernel"))


def test_layer_normalization_and_its_axes() -> None:
    model = randomized(nn.LayerNorm(FEATURES))
    layer = layers.LayerNormalization(numpy(model[0].weight), numpy(model[0].bias), epsilon=model[0].eps)
    spec = rules("scale", "shift", "output")
    layouts = {
        "0.weight": ("0/scale", lambda g: g),
        "0.bias": ("0/shift", lambda g: g),
        "input": ("input", lambda g: g),
    }
    check(model, torch.tensor(SEQUENCE), Network({"0": layer}).penalties(spec, SEQUENCE), spec, layouts)
    with pytest.raises(ar.UnsupportedError, match=r"layer '0' \(LayerNorm\), scale: it has several axes"):
        arspec_torch.attach(nn.Sequential(nn.LayerNorm((2, 3))), rules("scale"))


def test_embedding() -> None:
    model = randomized(nn.Embedding(4, FEATURES))
    layer = layers.Embedding(numpy(model[0].weight))
    spec = rules("embeddings", "output")
    layouts = {"0.weight": ("0/embeddings", lambda g: g)}
    check(model, torch.tensor(TOKENS), Network({"0": layer}).penalties(spec, TOKENS), spec, layouts)
    with pytest.raises(ar.SpecError, match="has no placement 'input'; there is 'embeddings', 'output'"):
        arspec_torch.attach(nn.Sequential(nn.Embedding(4, 2)), rules("input"))


class Attending(nn.Module):
    """Self-attention at the path "0"."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.add_module("0", randomized(nn.MultiheadAttention(6, 2, **options))[0])

    def forward(self, x: Tensor, **options: Any) -> Tensor:
        return self.get_submodule("0")(x, x, x, **options)[0]


PARTS = ("query", "key", "value")
ATTENTION = (*(f"{p}_kernel" for p in (*PARTS, "output")), *(f"{p}_bias" for p in (*PARTS, "output")))


def attention(module: Any) -> layers.MultiHeadAttention:
    """Return the NumPy attention with the parameters of one of torch, 6 = 2 heads of 3."""
    if module.in_proj_weight is None:
        kernels = [module.q_proj_weight, module.k_proj_weight, module.v_proj_weight]
    else:
        kernels = list(module.in_proj_weight.chunk(3))
    biases = module.in_proj_bias.chunk(3)
    return layers.MultiHeadAttention(
        *(numpy(kernel).T.reshape(-1, 2, 3) for kernel in kernels),
        numpy(module.out_proj.weight).T.reshape(2, 3, 6),
        *(numpy(bias).reshape(2, 3) for bias in biases),
        numpy(module.out_proj.bias),
    )


def stacked(gradients: Mapping[str, Array]) -> dict[str, Array]:
    """Return the gradients of the reference as torch stacks them."""
    kernels = [gradients[f"0/{p}_kernel"].reshape(-1, 6).T for p in PARTS]
    return {
        "0.in_proj_weight": np.concatenate(kernels),
        "0.in_proj_bias": np.concatenate([gradients[f"0/{p}_bias"].reshape(-1) for p in PARTS]),
        "0.out_proj.weight": gradients["0/output_kernel"].reshape(6, 6).T,
        "0.out_proj.bias": gradients["0/output_bias"],
    }


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("batch", [2, 3])
def test_b6_attention(batch_first: bool, batch: int) -> None:
    model = Attending(batch_first=batch_first)
    x = random(batch, TIME, 6)
    over_heads = rule("query_kernel", penalty=ar.GroupLasso(0.5, norm_over=("input",)))
    spec = ar.Spec([*rules(*ATTENTION, "input", "output").rules, over_heads])
    expected = Network({"0": attention(model.get_submodule("0"))}).penalties(spec, x)
    penalties = arspec_torch.attach(model, spec)
    given = torch.tensor(x if batch_first else x.swapaxes(0, 1), requires_grad=True)
    model(given)
    for key, loss in penalties.losses().items():
        np.testing.assert_allclose(loss.item(), expected.values[key], **TOLERANCE, err_msg=key)
    penalties.total().backward()
    gradients = {name: numpy(p.grad) for name, p in model.named_parameters()}
    for name, gradient in stacked(expected.gradients).items():
        np.testing.assert_allclose(gradients[name], gradient, **TOLERANCE, err_msg=name)
    mine = numpy(given.grad)
    np.testing.assert_allclose(mine if batch_first else mine.swapaxes(0, 1), expected.gradients["input"], **TOLERANCE)


def test_b3_a_mask_over_an_attention() -> None:
    model = Attending(batch_first=True)
    x, mask = random(BATCH, TIME, 6), MASKS["behind"]
    spec = rules("output", "input")
    expected = Network({"0": attention(model.get_submodule("0"))}).penalties(spec, x, mask=mask)
    penalties = arspec_torch.attach(model, spec)
    with penalties.masks({"0": torch.tensor(mask)}):
        model(torch.tensor(x), key_padding_mask=~torch.tensor(mask))
    for key, loss in penalties.losses().items():
        np.testing.assert_allclose(loss.item(), expected.values[key], **TOLERANCE, err_msg=key)


def test_attention_to_another_sequence_has_kernels_of_its_own() -> None:
    model = nn.ModuleDict({"mha": nn.MultiheadAttention(6, 2, kdim=5, vdim=4)})
    penalties = arspec_torch.attach(model, rules(*ATTENTION[:4], layer="mha"))
    module = model["mha"]
    weights = [module.q_proj_weight, module.k_proj_weight, module.v_proj_weight, module.out_proj.weight]
    expected = [float(ar.value(PENALTY, numpy(w))) for w in weights]
    assert [loss.item() for loss in penalties.losses().values()] == expected
    plain = arspec_torch.attach(
        nn.ModuleDict({"mha": nn.MultiheadAttention(6, 2, bias=False)}), rules(*ATTENTION[:4], layer="mha")
    )
    assert len(plain.sites) == 4


@pytest.mark.parametrize(
    ("layer", "placement", "hint"),
    [
        ("0/out_proj", "kernel", "It is the output_kernel of '0'."),
        ("0/out_proj", "output", "It never runs as a module: name output of '0'."),
        ("0", "kernel", "Name query_kernel, key_kernel, value_kernel or output_kernel, or _bias."),
    ],
)
def test_c6_out_proj_says_what_to_name(layer: str, placement: str, hint: str) -> None:
    with pytest.raises(ar.SpecError) as error:
        arspec_torch.attach(Attending(), rules(placement, layer=layer))
    assert str(error.value).endswith(hint)


def test_c6_a_glob_of_kernels_leaves_attention_out_as_the_reference_does() -> None:
    model = nn.TransformerEncoderLayer(6, 2, 5, batch_first=True)
    penalties = arspec_torch.attach(model, rules("kernel", layer="**"))
    assert list(penalties.losses()) == ["linear1/kernel/sum", "linear2/kernel/sum"]


TRANSFORMER_RULES = (
    rule("output", "linear1"),
    rule("pre_activation", "linear1"),
    rule("output", "self_attn"),
    rule("output", "norm1"),
    rule("output", "model"),
    rule("query_kernel", "self_attn"),
)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("activation", ["relu", "gelu", nn.GELU])
def test_c6_a_transformer_layer_runs_its_modules_in_evaluation_too(activation: Any, batch_first: bool) -> None:
    """Without gradients torch fuses the layer into one kernel that calls no module inside."""
    activation = activation if isinstance(activation, str) else activation()
    model = nn.TransformerEncoderLayer(6, 2, 5, 0.0, activation, batch_first=batch_first).double()
    x = torch.tensor(random(BATCH, TIME, 6))
    axes = "batch time feature" if batch_first else "time batch feature"
    penalties = arspec_torch.attach(model, ar.Spec(TRANSFORMER_RULES))
    trained = model(x)
    found = {key: loss.item() for key, loss in penalties.losses().items()}
    with torch.no_grad():
        evaluated = model.eval()(x)
    for key, loss in penalties.losses().items():
        np.testing.assert_allclose(loss.item(), found[key], **TOLERANCE, err_msg=key)
    torch.testing.assert_close(trained, evaluated)
    assert found["model/output/sum"] == float(ar.value(PENALTY, numpy(trained), axes=axes, mean_over="batchmean"))
    between = model.norm1(x + model.self_attn(x, x, x)[0])
    function = getattr(nn.functional, activation) if isinstance(activation, str) else activation
    hidden = function(model.linear1(between))
    expected = float(ar.value(PENALTY, numpy(hidden), axes=axes, mean_over="batchmean"))
    assert found["linear1/output/sum"] == pytest.approx(expected, rel=1e-12)
    penalties.detach()
    assert not model._forward_pre_hooks


def test_a_transformer_with_padding_in_evaluation() -> None:
    """The encoder would turn a padded batch into nested tensors for its fused kernels."""
    layer = nn.TransformerEncoderLayer(6, 2, 5, 0.0, batch_first=True)
    model = nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(6), enable_nested_tensor=False).double()
    x, mask = torch.tensor(random(BATCH, TIME, 6)), torch.tensor(MASKS["behind"])
    spec = ar.Spec([rule("output", "layers/*/linear1"), rule("output", "norm")])
    penalties = arspec_torch.attach(model, spec)
    found = []
    for training in (True, False):
        model.train(training)
        with torch.set_grad_enabled(training), penalties.masks({"**": mask}):
            model(x, src_key_padding_mask=~mask)
        found.append([loss.item() for loss in penalties.losses().values()])
    np.testing.assert_allclose(found[1], found[0], **TOLERANCE)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_nested_tensors_are_refused() -> None:
    layer = nn.TransformerEncoderLayer(6, 2, 5, 0.0, batch_first=True)
    model = nn.TransformerEncoder(layer, 2).double().eval()
    arspec_torch.attach(model, ar.Spec([rule("output", "layers/0/linear1")]))
    x, mask = torch.tensor(random(BATCH, TIME, 6)), torch.tensor(MASKS["behind"])
    with torch.no_grad(), pytest.raises(ar.UnsupportedError, match="enable_nested_tensor=False"):
        model(x, src_key_padding_mask=~mask)


def test_a_decoder_layer_names_both_of_its_attentions() -> None:
    model = nn.TransformerDecoderLayer(6, 2, 5, 0.0, batch_first=True).double()
    spec = ar.Spec([rule("output", "*_attn"), rule("key_kernel", "**"), rule("output", "linear1")])
    penalties = arspec_torch.attach(model, spec)
    model(torch.tensor(random(BATCH, TIME, 6)), torch.tensor(random(BATCH, 5, 6)))
    penalties.total().backward()
    assert [site.layer for site in penalties.sites] == ["self_attn", "multihead_attn"] * 2 + ["linear1"]
    assert all(p.grad is not None for p in (model.linear1.weight, model.multihead_attn.in_proj_weight))


class Scaled(nn.Module):
    """A class that arspec does not know, with parameters of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 2))
        self.offset = nn.Parameter(torch.randn(2))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.offset


@pytest.mark.parametrize("layer", ["**", "1"])
def test_parameters_of_unknown_classes_are_refused_until_named(layer: str) -> None:
    model = nn.Sequential(nn.Linear(4, 3), Scaled())
    with pytest.raises(ar.UnsupportedError) as error:
        arspec_torch.attach(model, rules("kernel", layer=layer))
    assert str(error.value) == (
        "layer '1' (Scaled), kernel: arspec does not know what its parameters (weight, offset) are; say it: "
        'attach(..., roles={Scaled: {"weight": "kernel: input output"}}), with the axes in its order, or {} '
        "for parameters without a role."
    )
    roles = {Scaled: {"weight": "kernel: input output", "offset": "bias: output"}}
    penalty = ar.GroupLasso(0.5, norm_over=("input",))
    penalties = arspec_torch.attach(model, ar.Spec([rule("kernel", "1", penalty), rule("bias", "1")]), roles=roles)
    expected = ar.value(penalty, numpy(model[1].weight), axes="input output")
    assert penalties.losses()["1/kernel/group_lasso"].item() == expected
    penalties.detach()
    left = arspec_torch.attach(model, rules("kernel", layer="**"), roles={Scaled: {}})
    assert list(left.losses()) == ["0/kernel/sum"]


def test_bilinear_is_refused_by_name() -> None:
    with pytest.raises(ar.UnsupportedError, match=r"layer '0' \(Bilinear\), kernel: arspec does not know"):
        arspec_torch.attach(nn.Sequential(nn.Bilinear(2, 3, 4)), rules("kernel"))


@pytest.mark.parametrize("roles", [{"Scaled": {}}, {int: {}}, {Scaled: ["weight"]}, {Scaled: {"weight": "output"}}])
def test_roles_are_checked(roles: Any) -> None:
    with pytest.raises(ar.SpecError, match=r"roles\["):
        arspec_torch.attach(nn.Sequential(Scaled()), rules("output"), roles=roles)


def test_names_of_axes_are_asked_for_where_they_matter() -> None:
    """A ReLU does not know whether its four axes have the features second or last."""
    x = torch.tensor(np.moveaxis(IMAGE, -1, 1))
    by_channel = ar.GroupLasso(0.5, norm_over=("height", "width"))

    def model() -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(FEATURES, UNITS, 2), nn.Tanh()).double()

    arspec_torch.attach(refusing := model(), ar.Spec([rule("output", "1", by_channel)]))
    with pytest.raises(ar.SpecError, match=r"1/output/group_lasso: .* axes=\{'1': 'batch feature height width'\}"):
        refusing(x)
    told = model()
    stated = {"1": "batch feature height width"}
    penalties = arspec_torch.attach(told, ar.Spec([rule("output", "1", by_channel)]), axes=stated)
    y = told(x)
    assert penalties.total().item() == ar.value(by_channel, numpy(y), axes=stated["1"], mean_over="batchmean")
    plain = model()
    penalties = arspec_torch.attach(plain, rules("output", layer="1"))
    y = plain(x)
    assert penalties.total().item() == float(ar.value(PENALTY, numpy(y), mean_over="batchmean"))
    with pytest.raises(ar.SpecError, match="unknown axis 'channel'"):
        arspec_torch.attach(model(), rules("output", layer="1"), axes={"1": "batch channel"})


def test_a_convolution_over_time_leaves_the_axes_behind_it_unknown() -> None:
    model = nn.Sequential(nn.Conv1d(FEATURES, UNITS, 2), nn.Tanh()).double()
    x = torch.tensor(SEQUENCE.swapaxes(1, 2))
    arspec_torch.attach(model, ar.Spec([rule("output", "1", mean_over=("batch", "time"))]))
    with pytest.raises(ar.SpecError, match=r"convolutions over time. Say them: .*\{'1': 'batch feature time'\}"):
        model(x)


def test_the_input_is_what_the_layer_was_given() -> None:
    model = nn.Sequential(nn.Linear(FEATURES, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    penalties = arspec_torch.attach(model, ar.Spec([rule("input", "**")]))
    x = torch.tensor(random(BATCH, FEATURES))
    model(x)
    expected = [float(ar.value(PENALTY, numpy(t), mean_over="batchmean")) for t in (x, model[1](model[0](x)))]
    assert [loss.item() for loss in penalties.losses().values()] == expected
