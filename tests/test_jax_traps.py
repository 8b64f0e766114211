"""Traps of capture in JAX, a test per row of the list that is not met elsewhere: right, or loud."""

import threading
from collections.abc import Callable
from typing import Any

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import arspec as ar
import arspec_jax
from bits import assert_same_bits

KEY = jax.random.key(2)
X = np.random.default_rng(1).standard_normal((7, 3)).astype(np.float32)
SEQUENCE = np.random.default_rng(2).standard_normal((3, 5, 2)).astype(np.float32)
RTOL = 1e-5


def spec(*placements: str, layer: str = "**", penalty: Any = None, **options: Any) -> ar.Spec:
    chosen = ar.L1(0.1) if penalty is None else penalty
    return ar.Spec([ar.Rule(chosen, layer=layer, placement=placement, **options) for placement in placements])


def mean_l1(x: Any, **options: Any) -> Any:
    return ar.value(ar.L1(0.1), np.asarray(x), **{"mean_over": "batchmean", **options})


# B: masks, several outputs, attention.


class Encoder(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.rnn: Any = nnx.RNN(nnx.GRUCell(2, 4, rngs=rngs), rngs=rngs)
        self.out = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x: Any, *, seq_lengths: Any = None) -> Any:
        return nnx.relu(self.out(self.rnn(x, seq_lengths=seq_lengths)))


def test_b3_masks_by_layer_count_valid_positions_only() -> None:
    model, mask = Encoder(nnx.Rngs(0)), np.arange(5) < np.array([5, 2, 3])[:, None]
    forward = arspec_jax.attach(model, spec("output", mean_over=("batch", "time")))
    output, penalties = forward(model, SEQUENCE, masks={"**": mask})
    over: Any = {"mean_over": ("batch", "time"), "mask": mask}
    assert_same_bits(penalties["out/output/l1"], mean_l1(output, **over), "out")
    assert_same_bits(penalties["rnn/output/l1"], mean_l1(model.rnn(jnp.asarray(SEQUENCE)), **over), "rnn")
    # The lengths of a sequence are a mask of the RNN; one that a person gives narrows it.
    lengths = jnp.array([4, 2, 1])
    narrow = mask & (np.arange(5) < np.asarray(lengths)[:, None])
    _, both = forward(model, SEQUENCE, seq_lengths=lengths, masks={"rnn": mask})
    states = model.rnn(jnp.asarray(SEQUENCE), seq_lengths=lengths)
    assert_same_bits(both["rnn/output/l1"], mean_l1(states, mean_over=("batch", "time"), mask=narrow), "both")
    output, _ = forward(model, SEQUENCE, seq_lengths=lengths)
    assert_same_bits(both["out/output/l1"], mean_l1(output, mean_over=("batch", "time")), "no mask for out")


@pytest.mark.parametrize(
    ("masks", "text"),
    [
        ({"rmn": np.ones((3, 5), bool)}, r"masks names 'rmn'; .*Did you mean 'rnn'\?"),
        ({"rnn": np.ones((3, 5))}, "rnn/output/l1: its mask has dtype float32; expected bool"),
        ({"rnn": np.ones((3, 4), bool)}, r"its mask has shape \(3, 4\); the tensor has shape \(3, 5, 4\)"),
        ({"rnn": np.ones((3, 5, 4), bool)}, r"Expected a mask over the leading ones of \(batch, time\)"),
        ({"*": np.ones(3, bool), "r*": np.ones(3, bool)}, "masks has several for the layer 'rnn'"),
        ([np.ones(3, bool)], "expected masks by layer"),
    ],
)
def test_b3_masks_that_do_not_fit_are_errors(masks: Any, text: str) -> None:
    model = Encoder(nnx.Rngs(0))
    with pytest.raises(ar.SpecError, match=text):
        arspec_jax.attach(model, spec("output"))(model, SEQUENCE, masks=masks)


class ReturnsCarry(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        return nn.RNN(nn.LSTMCell(4), name="rnn")(x, return_carry=True)


def test_b5_a_layer_with_several_outputs_has_one_tensor_per_placement() -> None:
    variables = ReturnsCarry().init(KEY, SEQUENCE)
    forward = arspec_jax.attach(ReturnsCarry(), spec("output", "hidden_state", "cell_state", layer="rnn"))
    (carry, output), penalties = forward(variables, SEQUENCE)
    assert list(penalties) == ["rnn/output/l1", "rnn/hidden_state/l1", "rnn/cell_state/l1"]
    assert_same_bits(penalties["rnn/output/l1"], mean_l1(output), "output")
    assert_same_bits(penalties["rnn/output/l1"], penalties["rnn/hidden_state/l1"], "hidden state")
    np.testing.assert_array_equal(carry[1], output[:, -1])


class Attends(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        return nn.MultiHeadDotProductAttention(2, qkv_features=4, name="attention")(x)


def test_b6_an_attention_has_one_output_and_four_kernels() -> None:
    variables = Attends().init(KEY, SEQUENCE)
    kernels = [f"{name}_kernel" for name in ("query", "key", "value", "output")]
    output, penalties = arspec_jax.attach(Attends(), spec("output", *kernels))(variables, SEQUENCE)
    assert list(penalties) == [f"attention/{placement}/l1" for placement in ("output", *kernels)]
    assert_same_bits(penalties["attention/output/l1"], mean_l1(output), "output")
    with pytest.raises(ar.SpecError, match=r"'attention' .* has no placement 'kernel'; there is .*'key_kernel'"):
        arspec_jax.attach(Attends(), spec("kernel"))(variables, SEQUENCE)


# C: capture.


class Mlp(nnx.Module):
    """Everything that holds arrays which are no weights: statistics, a counter, random state."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.hidden = nnx.Linear(3, 4, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.dropout = nnx.Dropout(0.0, rngs=rngs)
        self.embed = nnx.Embed(2, 4, rngs=rngs)
        self.count = nnx.Variable(jnp.zeros(()))

    def __call__(self, x: Any) -> Any:
        return self.embed.attend(self.dropout(self.norm(nnx.relu(self.hidden(x)))))


def test_c1_pre_activation_and_output_are_different_tensors() -> None:
    model = Mlp(nnx.Rngs(0))
    _, penalties = arspec_jax.attach(model, spec("pre_activation", "output", layer="hidden"))(model, X)
    h = model.hidden(jnp.asarray(X))
    assert_same_bits(penalties["hidden/pre_activation/l1"], mean_l1(h), "pre-activation")
    assert_same_bits(penalties["hidden/output/l1"], mean_l1(nnx.relu(h)), "output")


def test_c13_weights_are_chosen_by_their_role() -> None:
    model = Mlp(nnx.Rngs(0))
    placements = ("kernel", "bias", "embeddings", "scale", "shift")
    _, penalties = arspec_jax.attach(model, spec(*placements))(model, X)
    assert list(penalties) == [
        "hidden/kernel/l1",
        "hidden/bias/l1",
        "embed/embeddings/l1",
        "norm/scale/l1",
        "norm/shift/l1",
    ]
    assert_same_bits(penalties["norm/scale/l1"], np.float32(0.4), "gamma of ones")


class Shares(nn.Module):
    def setup(self) -> None:
        self.hidden = nn.Dense(3)

    def __call__(self, x: Any) -> Any:
        return self.hidden(nn.relu(self.hidden(x)))


class SharedRnn(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.cell = nnx.SimpleCell(2, 2, rngs=rngs)
        self.first: Any = nnx.RNN(self.cell, rngs=rngs)
        self.second: Any = nnx.RNN(self.cell, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.second(self.first(x))


def test_c7_shared_layers_count_per_call_and_weights_once() -> None:
    variables = Shares().init(KEY, X)
    _, penalties = arspec_jax.attach(Shares(), spec("pre_activation", "kernel"))(variables, X)
    layer: Any = nn.Dense(3)
    first = layer.apply({"params": variables["params"]["hidden"]}, X)
    second = layer.apply({"params": variables["params"]["hidden"]}, nn.relu(first))
    assert_same_bits(penalties["hidden/pre_activation/l1"], mean_l1(first) + mean_l1(second), "calls")
    kernel = np.asarray(variables["params"]["hidden"]["kernel"])
    assert_same_bits(penalties["hidden/kernel/l1"], mean_l1(kernel, mean_over=()), "weight")
    model = SharedRnn(nnx.Rngs(0))
    _, penalties = arspec_jax.attach(model, spec("recurrent_kernel"))(model, SEQUENCE)
    assert len(penalties) == 1
    _, penalties = arspec_jax.attach(model, spec("hidden_state", layer="first"))(model, SEQUENCE)
    assert_same_bits(penalties.total(), mean_l1(model.first(jnp.asarray(SEQUENCE))), "its own call")


class Ties(eqx.Module):
    shared: eqx.nn.Shared

    def __init__(self) -> None:
        embedding, linear = eqx.nn.Embedding(4, 3, key=KEY), eqx.nn.Linear(3, 4, use_bias=False, key=KEY)
        self.shared = eqx.nn.Shared((embedding, linear), lambda pair: pair[1].weight, lambda pair: pair[0].weight)

    def __call__(self, x: Any) -> Any:
        embedding, linear = self.shared()
        return linear(embedding(x))


def test_c7_a_weight_tied_in_equinox_counts_once() -> None:
    model = Ties()
    forward = arspec_jax.attach(model, spec("embeddings"))
    grads = eqx.filter_grad(lambda model: forward(model, jnp.array([0, 1, 1]))[1].total())(model)
    weight = np.asarray(model.shared()[0].weight)
    _, penalties = forward(model, jnp.array([0, 1, 1]))
    assert_same_bits(penalties.total(), mean_l1(weight, mean_over=()), "once")
    leaf = jax.tree.leaves(grads)[0]
    assert_same_bits(leaf, ar.gradient(ar.L1(0.1), weight, axes="input output"), "gradient")
    with pytest.raises(ar.SpecError, match="matches nothing"):
        arspec_jax.attach(model, spec("kernel"))


class Frozen(nnx.Variable):
    """A variable that no optimizer trains."""


def test_c8_frozen_weights_count_unless_a_rule_says_trainable_only() -> None:
    model = Mlp(nnx.Rngs(0))
    kernel = np.asarray(model.hidden.kernel[...])
    both = ar.Spec([*spec("kernel").rules, *spec("kernel", penalty=ar.L2(0.1), trainable_only=True).rules])
    free, held = arspec_jax.attach(model, both), arspec_jax.attach(model, both, frozen=["hid*"])
    assert_same_bits(free(model, X)[1]["hidden/kernel/l2"], ar.value(ar.L2(0.1), kernel), "trained")
    _, penalties = held(model, X)
    assert_same_bits(penalties["hidden/kernel/l2"], np.float32(0), "frozen")
    assert_same_bits(penalties["hidden/kernel/l1"], mean_l1(kernel, mean_over=()), "counts all the same")
    model.hidden.kernel = Frozen(model.hidden.kernel[...])  # pyright: ignore[reportAttributeAccessIssue]
    _, penalties = arspec_jax.attach(model, both)(model, X)
    assert_same_bits(penalties["hidden/kernel/l2"], np.float32(0), "no nnx.Param")
    with pytest.raises(ar.SpecError, match=r"frozen names 'hiden', which is no layer.*'hidden'"):
        arspec_jax.attach(model, both, frozen=["hiden"])
    with pytest.raises(ar.SpecError, match=r"frozen='hidden'; expected a list of layers"):
        arspec_jax.attach(model, both, frozen="hidden")


def test_c10_a_cell_is_met_once_per_step() -> None:
    model = Encoder(nnx.Rngs(0))
    _, penalties = arspec_jax.attach(model, spec("hidden_state", layer="rnn"))(model, SEQUENCE)
    assert len(penalties) == 1
    assert_same_bits(penalties.total(), mean_l1(model.rnn(jnp.asarray(SEQUENCE))), "states")
    with pytest.raises(ar.SpecError, match="matches no layer: layer='rnn/cell'"):
        arspec_jax.attach(model, spec("hidden_state", layer="rnn/cell"))


class Residual(nn.Module):
    cell: Any

    @nn.compact
    def __call__(self, x: Any) -> Any:
        return nn.RNN(self.cell, name="rnn")(x)


class OwnCell(nn.LSTMCell):
    def __call__(self, carry: Any, inputs: Any) -> Any:
        return super().__call__(carry, 2 * inputs)


@pytest.mark.parametrize(
    ("cell", "placement", "text"),
    [
        (lambda: nn.MGUCell(2), "hidden_state", "the states, gates and weights of a MGUCell are not known"),
        (lambda: nn.MGUCell(2), "kernel", "the states, gates and weights of a MGUCell are not known"),
        (lambda: OwnCell(2), "input_gate", "the states, gates and weights of a OwnCell are not known"),
        (lambda: nn.SimpleCell(2, residual=True), "pre_activation", "with residual=True its affine map is not"),
    ],
)
def test_c6_what_a_cell_hides_is_refused_by_name(cell: Callable[[], Any], placement: str, text: str) -> None:
    module = Residual(cell())
    variables = module.init(KEY, SEQUENCE)
    with pytest.raises(ar.UnsupportedError, match=f"layer 'rnn' .*{placement}: {text}"):
        arspec_jax.attach(module, spec(placement, layer="rnn"))(variables, SEQUENCE)
    output, penalties = arspec_jax.attach(module, spec("output", layer="rnn"))(variables, SEQUENCE)
    assert_same_bits(penalties.total(), mean_l1(output), "output")


class Loop(eqx.Module):
    cell: eqx.nn.GRUCell
    decay: float = eqx.field(static=True)

    def __call__(self, x: Any) -> Any:
        state = jnp.zeros(2)
        for row in x:
            state = self.decay * self.cell(row, state)
        return state


def test_c6_steps_that_make_no_sequence_are_refused() -> None:
    cell = eqx.nn.GRUCell(2, 2, key=KEY)
    rules = spec("update_gate", layer="cell")
    with pytest.raises(ar.UnsupportedError, match="the cell is called 5 times, and its state does not go from call"):
        arspec_jax.attach(Loop(cell, 0.5), rules)(Loop(cell, 0.5), SEQUENCE)

    class TwoSteps(eqx.Module):
        cell: eqx.nn.GRUCell

        def __call__(self, x: Any) -> Any:
            step = lambda state, row: (self.cell(row, self.cell(row, state)), None)  # noqa: E731
            return jax.lax.scan(step, jnp.zeros(2), x)[0]

    with pytest.raises(ar.UnsupportedError, match="an iteration of a scan calls the cell more than once"):
        arspec_jax.attach(TwoSteps(cell), rules)(TwoSteps(cell), SEQUENCE)


def test_c11_penalties_are_returned_and_leave_nothing_behind() -> None:
    module, variables = Shares(), Shares().init(KEY, X)
    forward = arspec_jax.attach(module, spec("output"))
    before = jax.tree.map(np.asarray, variables)
    first, second = forward(variables, X)[1].total(), forward(variables, X)[1].total()
    assert_same_bits(first, second, "twice")
    jax.tree.map(np.testing.assert_array_equal, variables, before)


def test_c14_the_bias_of_an_lstm_is_the_parameter() -> None:
    flax: Any = nnx.OptimizedLSTMCell(2, 3, rngs=nnx.Rngs(0))
    cell = eqx.nn.LSTMCell(2, 3, key=KEY)
    bias = np.random.default_rng(0).standard_normal(12).astype(np.float32)
    flax.dense_h.bias[...] = bias
    cell = eqx.tree_at(lambda cell: cell.bias, cell, jnp.asarray(bias))

    class Model(eqx.Module):
        rnn: Any

        def __call__(self, x: Any) -> Any:
            zeros = jnp.zeros(3)
            return jax.lax.scan(lambda s, row: (self.rnn(row, s), None), (zeros, zeros), x)[0]

    class FlaxModel(nnx.Module):
        def __init__(self) -> None:
            self.rnn = nnx.RNN(flax, rngs=nnx.Rngs(0))

        def __call__(self, x: Any) -> Any:
            return self.rnn(x)

    for model in (Model(cell), FlaxModel()):
        _, penalties = arspec_jax.attach(model, spec("bias", layer="rnn"))(model, SEQUENCE)
        assert_same_bits(penalties.total(), mean_l1(bias, mean_over=()), type(model).__name__)


def test_c17_a_rule_for_training_counts_where_one_says_so() -> None:
    model = Mlp(nnx.Rngs(0))
    rules = ar.Spec([*spec("kernel").rules, *spec("kernel", penalty=ar.L2(0.1), when="train").rules])
    _, penalties = arspec_jax.attach(model, rules)(model, X)
    both = penalties["hidden/kernel/l1"] + penalties["hidden/kernel/l2"]
    assert_same_bits(penalties.total(training=True), both, "training")
    assert_same_bits(penalties.total(training=False), penalties["hidden/kernel/l1"], "evaluation")
    for missing in (None, 1):
        with pytest.raises(
            ar.SpecError, match=r"hidden/kernel/l2 counts in training only .*Say total\(training=True\)"
        ):
            penalties.total(training=missing)  # pyright: ignore[reportArgumentType]
    kept = jax.jit(lambda p: p.total(training=False))(penalties)
    assert_same_bits(kept, penalties["hidden/kernel/l1"], "through jit")


def test_c18_a_spec_read_from_a_file_gives_the_same_penalties(tmp_path: Any) -> None:
    model = Mlp(nnx.Rngs(0))
    rules = ar.Spec(
        [*spec("output", "kernel", layer="hidden").rules, *spec("bias", when="train", trainable_only=True).rules]
    )
    rules.save(tmp_path / "spec.json")
    first = arspec_jax.attach(model, rules)(model, X)[1]
    second = arspec_jax.attach(model, ar.load(tmp_path / "spec.json"))(model, X)[1]
    assert list(first) == list(second)
    assert_same_bits(first.total(training=True), second.total(training=True), "total")


def test_c18_a_layer_that_does_not_run_is_an_error() -> None:
    class Skips(nnx.Module):
        def __init__(self) -> None:
            self.rnn = nnx.RNN(nnx.GRUCell(2, 2, rngs=nnx.Rngs(0)), rngs=nnx.Rngs(0))

        def __call__(self, x: Any) -> Any:
            return x

    for placement in ("update_gate", "output", "input"):
        with pytest.raises(ar.SpecError, match=f"'rnn/{placement}/l1' never fired"):
            arspec_jax.attach(Skips(), spec(placement, layer="rnn"))(Skips(), SEQUENCE)


def test_c19_threads_and_errors_leave_no_state() -> None:
    models = [Mlp(nnx.Rngs(seed)) for seed in range(4)]
    forwards = [arspec_jax.attach(model, spec("output", layer="hidden")) for model in models]
    alone = [forward(model, X)[1].total() for forward, model in zip(forwards, models, strict=True)]
    found: dict[int, Any] = {}

    def work(index: int) -> None:
        for _ in range(3):
            found[index] = forwards[index](models[index], X)[1].total()

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, total in enumerate(alone):
        assert_same_bits(found[index], total, f"thread {index}")
    with pytest.raises(TypeError):
        forwards[0](models[0], np.ones((7, 5), np.float32))
    assert type(models[0].hidden) is nnx.Linear
    assert_same_bits(forwards[0](models[0], X)[1].total(), alone[0], "after an error")


# What the rows above led to.


def test_b3_a_single_rnn_is_the_layer_model_and_keeps_its_mask() -> None:
    lengths = jnp.array([4, 2, 1])
    mask = np.arange(5) < np.asarray(lengths)[:, None]
    over: Any = {"mean_over": ("batch", "time")}
    rules = spec("hidden_state", "output", layer="model", **over)
    linen, flax = nn.RNN(nn.GRUCell(2)), nnx.RNN(nnx.GRUCell(2, 2, rngs=nnx.Rngs(0)), rngs=nnx.Rngs(0))
    for attached, argument in ((linen, linen.init(KEY, SEQUENCE)), (flax, flax)):
        output, penalties = arspec_jax.attach(attached, rules)(argument, inputs=SEQUENCE, seq_lengths=lengths)
        wanted = mean_l1(output, mask=mask, **over)
        assert_same_bits(penalties["model/output/l1"], wanted, "output")
        assert_same_bits(penalties["model/hidden_state/l1"], wanted, "hidden state")


def test_a_single_equinox_layer_is_the_layer_model() -> None:
    layer = eqx.nn.Linear(3, 2, key=KEY)
    output, penalties = arspec_jax.attach(layer, spec("output", "kernel", layer="model"))(layer, X)
    assert_same_bits(penalties["model/output/l1"], mean_l1(output), "output")
    assert_same_bits(penalties["model/kernel/l1"], mean_l1(layer.weight, mean_over=()), "kernel")


class OwnRnn(nn.RNN):
    def __call__(self, inputs: Any, **options: Any) -> Any:
        return super().__call__(2 * inputs, **options)


class HoldsOwnRnn(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        return OwnRnn(nn.GRUCell(2), name="rnn")(x, seq_lengths=jnp.array([1, 2, 3]))


def test_c6_the_steps_of_a_persons_own_rnn_are_not_guessed() -> None:
    variables = HoldsOwnRnn().init(KEY, SEQUENCE)
    with pytest.raises(ar.SpecError, match="'GRUCell_0/hidden_state/l1' never fired"):
        arspec_jax.attach(HoldsOwnRnn(), spec("hidden_state"))(variables, SEQUENCE)
    _, penalties = arspec_jax.attach(HoldsOwnRnn(), spec("kernel", "recurrent_kernel"))(variables, SEQUENCE)
    assert list(penalties) == ["GRUCell_0/kernel/l1", "GRUCell_0/recurrent_kernel/l1"]


class OwnDense(nn.Module):
    @nn.compact
    def __call__(self, x: Any, _: Any) -> Any:
        return x @ self.param("kernel", nn.initializers.normal(), (3, 3)), None


class ScansOwnDense(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        rngs: dict[Any, bool] = {"params": True}
        return nn.scan(OwnDense, variable_axes={"params": 0}, split_rngs=rngs, length=4)(name="own")(x, None)[0]


class ScansRnn(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        def body(rnn: Any, x: Any, _: Any) -> Any:
            return rnn(x), None

        rngs: dict[Any, bool] = {"params": True}
        scan = nn.scan(body, variable_axes={"params": 0}, split_rngs=rngs, length=4)
        return scan(nn.RNN(nn.SimpleCell(2), name="rnn"), x, None)[0]


def test_c7_stacked_weights_of_a_recurrent_layer_count_once_each_and_steps_as_sequences() -> None:
    variables = ScansRnn().init(KEY, SEQUENCE)
    rules = spec("recurrent_kernel", layer="rnn", penalty=ar.L2Norm(0.5))
    rules = ar.Spec([*rules.rules, *spec("hidden_state", layer="rnn", penalty=ar.TemporalDifference(0.5)).rules])
    _, penalties = arspec_jax.attach(ScansRnn(), rules)(variables, SEQUENCE)
    cell = next(iter(variables["params"].values()))
    kernels, x, total = np.asarray(cell["h"]["kernel"]), jnp.asarray(SEQUENCE), 0.0
    assert kernels.shape == (4, 2, 2)
    wanted = sum(float(ar.value(ar.L2Norm(0.5), kernel)) for kernel in kernels)
    np.testing.assert_allclose(penalties["rnn/recurrent_kernel/l2_norm"], wanted, rtol=RTOL)
    one = nn.RNN(nn.SimpleCell(2))
    for index in range(4):
        params = jax.tree.map(lambda leaf, index=index: leaf[index], cell)
        x: Any = one.apply({"params": {"cell": params}}, x)
        total += float(ar.value(ar.TemporalDifference(0.5), np.asarray(x), mean_over="batchmean"))
    np.testing.assert_allclose(penalties["rnn/hidden_state/temporal_difference"], total, rtol=RTOL)


def test_c7_stacked_weights_of_a_persons_layer_are_refused() -> None:
    variables = ScansOwnDense().init(KEY, X)
    with pytest.raises(
        ar.UnsupportedError, match=r"layer 'own' \(.*OwnDense\), kernel: its arrays hold those of several"
    ):
        arspec_jax.attach(ScansOwnDense(), spec("kernel"))(variables, X)


class VmapsRnn(nnx.Module):
    def __init__(self) -> None:
        self.rnn: Any = nnx.RNN(nnx.GRUCell(2, 2, rngs=nnx.Rngs(0)), rngs=nnx.Rngs(0))

    def __call__(self, x: Any) -> Any:
        return nnx.vmap(lambda rnn, x: rnn(x), in_axes=(None, 0))(self.rnn, jnp.stack([x, -x]))


def test_an_rnn_inside_vmap_is_refused_where_names_matter() -> None:
    with pytest.raises(ar.UnsupportedError, match="rnn/hidden_state/l1: the layer runs inside vmap"):
        arspec_jax.attach(VmapsRnn(), spec("hidden_state", layer="rnn"))(VmapsRnn(), SEQUENCE)
    output, penalties = arspec_jax.attach(VmapsRnn(), spec("hidden_state", layer="rnn", mean_over="sum"))(
        VmapsRnn(), SEQUENCE
    )
    np.testing.assert_allclose(penalties.total(), mean_l1(output, mean_over=()), rtol=RTOL)


class NamesATensor(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        h = nn.Dense(4, name="hidden")(x)
        ratio = arspec_jax.site(h / (1 + jnp.abs(h)), layer="ratio", placement="output")
        return nn.Dense(2, name="out")(ratio)


def test_a_tensor_that_is_no_layers_result_is_named_by_site_in_linen() -> None:
    variables = NamesATensor().init(KEY, X)
    h: Any = nn.Dense(4).apply({"params": variables["params"]["hidden"]}, X)
    rules = ar.Spec([*spec("output", layer="ratio").rules, *spec("input", layer="out").rules])
    _, penalties = arspec_jax.attach(NamesATensor(), rules)(variables, X)
    assert list(penalties) == ["ratio/output/l1", "out/input/l1"]
    assert_same_bits(penalties["ratio/output/l1"], penalties["out/input/l1"], "the same tensor")
    np.testing.assert_allclose(penalties["ratio/output/l1"], mean_l1(h / (1 + np.abs(h))), rtol=RTOL)


@pytest.mark.parametrize(("flip", "axes"), [(False, "time input output"), (True, "time output input")])
def test_d5_the_kernel_of_a_transposed_convolution_has_the_axes_of_its_layout(flip: bool, axes: str) -> None:
    class Up(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            return nn.ConvTranspose(5, (3,), transpose_kernel=flip, name="up")(x)

    variables = Up().init(KEY, SEQUENCE)
    kernel = np.asarray(variables["params"]["up"]["kernel"])
    assert kernel.shape == ((3, 5, 2) if flip else (3, 2, 5))
    penalty = ar.GroupLasso(0.5, norm_over=("input", "time"))
    rules = ar.Spec([*spec("kernel", penalty=penalty).rules, *spec("output", mean_over=("batch", "time")).rules])
    output, penalties = arspec_jax.attach(Up(), rules)(variables, SEQUENCE)
    assert_same_bits(penalties["up/kernel/group_lasso"], ar.value(penalty, kernel, axes=axes), "kernel")
    assert_same_bits(penalties["up/output/l1"], mean_l1(output, mean_over=("batch", "time")), "output")


def test_d5_the_axes_of_an_equinox_transposed_convolution_and_of_what_has_no_order() -> None:
    layers = [eqx.nn.ConvTranspose2d(2, 5, 3, key=KEY), eqx.nn.GroupNorm(1, 5), eqx.nn.Lambda(jax.nn.relu)]
    model, x = eqx.nn.Sequential(layers), np.random.default_rng(0).standard_normal((3, 2, 4, 7)).astype(np.float32)
    penalty = ar.GroupLasso(0.5, norm_over=("input",))
    up = spec("output", layer="layers/0", mean_over=("batch", "width"))
    rules = ar.Spec([*up.rules, *spec("kernel", penalty=penalty).rules, *spec("scale", "shift").rules])
    forward = arspec_jax.attach(model, rules, activations={"layers/0": None})
    _, penalties = forward(model, x)
    h = np.asarray(jax.vmap(layers[0])(jnp.asarray(x)))
    over: Any = {"mean_over": ("batch", "width"), "axes": "batch feature height width"}
    np.testing.assert_allclose(penalties["layers/0/output/l1"], mean_l1(h, **over), rtol=RTOL)
    wanted = ar.value(penalty, np.asarray(layers[0].weight), axes="output input height width")
    assert_same_bits(penalties["layers/0/kernel/group_lasso"], wanted, "kernel")
    assert_same_bits(penalties["layers/1/scale/l1"], np.float32(0.5), "scale of ones")
    with pytest.raises(ar.UnsupportedError, match=r"layers/2/output/l1: which axis is which in what a Lambda is given"):
        arspec_jax.attach(model, spec("output", layer="layers/2", mean_over=("feature",)))(model, x)
    output, penalties = arspec_jax.attach(model, spec("output", layer="layers/2"))(model, x)
    assert_same_bits(penalties.total(), mean_l1(output), "a mean over the batch is known")


class Normalizes(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        return nn.WeightNorm(nn.Dense(4, name="hidden"))(x)


def test_a_weight_that_is_made_of_another_array_is_refused() -> None:
    variables = Normalizes().init(KEY, X)
    with pytest.raises(
        ar.UnsupportedError, match=r"layer 'hidden' .*kernel: a WeightNorm makes the weight of this layer"
    ):
        arspec_jax.attach(Normalizes(), spec("kernel", layer="hidden"))(variables, X)
    output, penalties = arspec_jax.attach(Normalizes(), spec("pre_activation", layer="hidden"))(variables, X)
    assert_same_bits(penalties.total(), mean_l1(output), "pre-activation")


# Statistics.


def test_statistics_count_valid_positions_of_every_call() -> None:
    model = Encoder(nnx.Rngs(0))
    forward = arspec_jax.attach(model, spec("output", "kernel"))
    batches = [{"x": SEQUENCE, "seq_lengths": jnp.array([4, 2, 1])}, {"x": SEQUENCE[:2]}]
    states = [np.asarray(model.rnn(jnp.asarray(SEQUENCE), seq_lengths=jnp.array([4, 2, 1])))]
    states += [np.asarray(model.rnn(jnp.asarray(SEQUENCE[:2])))]
    found = {site.layer: site for site in arspec_jax.statistics(forward, model, batches)}
    valid = np.concatenate([states[0][np.arange(5) < np.array([[4], [2], [1]])], states[1].reshape(-1, 4)])
    assert found["rnn"].count == len(valid) == 17
    np.testing.assert_allclose(found["rnn"].mean, valid.mean(), rtol=1e-6)
    outputs = [np.asarray(nnx.relu(model.out(jnp.asarray(one)))).reshape(-1, 3) for one in states]
    assert found["out"].count == 25
    np.testing.assert_allclose(found["out"].zeros, np.mean(np.concatenate(outputs) == 0))
    assert len(found) == 2
    scanned = arspec_jax.attach(ScansOwnDense(), spec("output", layer="own"))
    variables = ScansOwnDense().init(KEY, X)
    with pytest.raises(ar.SpecError, match="never fired"):  # its result is a pair
        arspec_jax.statistics(scanned, variables, X)


def test_statistics_leave_a_module_as_it_was_and_name_what_is_wrong() -> None:
    model = Mlp(nnx.Rngs(0))
    forward = arspec_jax.attach(model, spec("output", layer="hidden"))
    before = np.asarray(model.norm.mean[...])
    found = arspec_jax.statistics(forward, model, [(X, None), (2 * X, None)], spec("pre_activation", layer="hidden"))
    np.testing.assert_array_equal(model.norm.mean[...], before)
    h = np.concatenate([model.hidden(jnp.asarray(X)), model.hidden(2 * jnp.asarray(X))])
    np.testing.assert_allclose(found[0].mean, h.mean(), rtol=1e-5)
    with pytest.raises(ar.SpecError, match="there are no data"):
        arspec_jax.statistics(forward, model, [])
    with pytest.raises(ar.SpecError, match="no rule of the spec is at an activation"):
        arspec_jax.statistics(forward, model, X, spec("kernel"))
    with pytest.raises(ar.SpecError, match=r"forward is a Mlp; expected what arspec_jax\.attach returned"):
        arspec_jax.statistics(model, model, X)  # pyright: ignore[reportArgumentType]


# What a model and its optimizer carry.


def test_extract_gives_back_what_is_attached_and_a_coupled_decay() -> None:
    model = Encoder(nnx.Rngs(0))
    attached = spec("output", layer="out")
    forward = arspec_jax.attach(model, attached)
    assert arspec_jax.extract(forward) == attached
    optimizer = optax.chain(
        optax.identity(), optax.add_decayed_weights(0.02), optax.add_decayed_weights(0.01), optax.adam(1e-3)
    )
    found = arspec_jax.extract(forward, optimizer, model, SEQUENCE)
    decayed = [(rule.layer, rule.placement, rule.penalty.coefficient) for rule in found.rules[1:]]  # pyright: ignore
    places = [("out", "kernel"), ("out", "bias"), ("rnn", "kernel"), ("rnn", "recurrent_kernel"), ("rnn", "bias")]
    assert sorted(decayed) == sorted((*place, 0.015) for place in places)


def test_d3_an_extracted_decay_trains_like_the_optimizer() -> None:
    module, variables = Shares(), Shares().init(KEY, X)
    optimizer = optax.chain(optax.add_decayed_weights(0.3), optax.sgd(0.1, momentum=0.9))
    found = arspec_jax.extract(arspec_jax.attach(module, ar.Spec([])), optimizer, variables, X)
    forward, plain = arspec_jax.attach(module, found), optax.sgd(0.1, momentum=0.9)

    def train(update: Any, penalized: bool) -> Any:
        params, state = variables, update.init(variables)
        for _ in range(3):

            def loss(params: Any) -> Any:
                output, penalties = forward(params, X)
                return jnp.mean(output**2) + (penalties.total() if penalized else 0.0)

            step, state = update.update(jax.grad(loss)(params), state, params)
            params = optax.apply_updates(params, step)
        return params

    decayed, penalized = train(optimizer, False), train(plain, True)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=RTOL, atol=1e-6), decayed, penalized)


def _unchanged(updates: Any, state: Any, params: Any = None) -> Any:
    return updates, state


@pytest.mark.parametrize(
    ("optimizer", "text"),
    [
        (lambda: optax.adamw(1e-3), r"comes after scale_by_adam, .*decoupled"),
        (lambda: optax.chain(optax.clip(1.0), optax.add_decayed_weights(0.1)), "comes after clip"),
        (lambda: optax.add_decayed_weights(0.1, mask=lambda params: params), "the decay is masked"),
        (lambda: optax.add_decayed_weights(optax.linear_schedule(1.0, 0.0, 10)), "has a schedule"),
        (lambda: optax.MultiSteps(optax.sgd(0.1), 2), "whether the transformation MultiSteps decays"),
        (lambda: optax.novograd(0.1), "whether the transformation scale_by_novograd decays"),
        (lambda: optax.GradientTransformation(lambda params: (), _unchanged), "transformation _unchanged decays"),
    ],
)
def test_d3_a_decay_that_is_no_penalty_is_refused(optimizer: Callable[[], Any], text: str) -> None:
    variables = Shares().init(KEY, X)
    with pytest.raises(ar.UnsupportedError, match=text):
        arspec_jax.extract(arspec_jax.attach(Shares(), ar.Spec([])), optimizer(), variables, X)


def test_extract_names_what_is_wrong() -> None:
    forward, decay = arspec_jax.attach(Shares(), ar.Spec([])), optax.add_decayed_weights(0.1)
    with pytest.raises(ar.SpecError, match="needs what forward takes"):
        arspec_jax.extract(forward, decay)
    with pytest.raises(ar.SpecError, match="optimizer is a int"):
        arspec_jax.extract(forward, 3)
    with pytest.raises(ar.SpecError, match="forward is a Shares"):
        arspec_jax.extract(Shares())  # pyright: ignore[reportArgumentType]
    params = {"out": {"kernel": jnp.ones((3, 2)), "temperature": jnp.ones(())}}
    plain = arspec_jax.attach(lambda params, x: x @ params["out"]["kernel"], ar.Spec([]))
    with pytest.raises(ar.UnsupportedError, match="decays 7 numbers, and the placements of the layers have 6"):
        arspec_jax.extract(plain, decay, params, X)
    assert arspec_jax.extract(plain, optax.adam(0.1), params, X) == ar.Spec([])
