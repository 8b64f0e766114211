"""The layers a ported model is made of, spelled out: nothing is left to a framework's defaults.

Each kind is a frozen dataclass. Tensors are channels-last and weights have the layout of
Keras (the canonical one), so that a kind means the same numbers whoever reads it. A reader
of some framework makes them, a writer of another turns them into source code.
"""

import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from arspec._errors import SpecError, UnsupportedError, shown, unknown

FUNCTIONS = {
    "linear": (),
    "relu": (),
    "relu6": (),
    "leaky_relu": ("negative_slope",),
    "elu": ("alpha",),
    "celu": ("alpha",),
    "selu": (),
    "gelu": (),
    "gelu_tanh": (),
    "silu": (),
    "hard_silu": (),
    "hard_sigmoid": (),
    "sigmoid": (),
    "tanh": (),
    "softplus": (),
    "softsign": (),
    "softmax": (),
    "log_softmax": (),
    "exponential": (),
    "mish": (),
}


@dataclass(frozen=True, slots=True)
class Function:
    """An activation function: a name of `FUNCTIONS`, and its parameter where it has one.

    gelu is exact and gelu_tanh its approximation; hard_sigmoid is clip(x/6 + 1/2, 0, 1);
    softmax runs over the last axis.
    """

    name: str = "linear"
    parameter: float | None = None

    def __post_init__(self) -> None:
        if self.name not in FUNCTIONS:
            raise unknown("activation function", self.name, FUNCTIONS)
        if (self.parameter is None) == bool(FUNCTIONS[self.name]):
            needs = " and ".join(FUNCTIONS[self.name]) or "no parameter"
            raise SpecError(f"activation function {self.name!r}: parameter={self.parameter!r}; it needs {needs}.")


LINEAR = Function()


@dataclass(frozen=True, slots=True)
class Kind:
    """What one node of a graph computes."""

    trainable: ClassVar[tuple[str, ...]] = ()  # roles of weights that a gradient moves, in order
    state: ClassVar[tuple[str, ...]] = ()  # roles of weights that training updates otherwise, or that are constant

    def roles(self) -> tuple[str, ...]:
        """Return the roles of the weights this layer has."""
        return tuple(role for role in self.trainable + self.state if self._has(role))

    def _has(self, role: str) -> bool:
        absent = {"bias": "use_bias", "scale": "use_scale", "shift": "use_shift"}
        return getattr(self, absent.get(role, ""), True)


Sizes = tuple[int, ...]
Pairs = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Dense(Kind):
    """y = f(x·kernel + bias) over the last axis; kernel (input, output)."""

    trainable: ClassVar[tuple[str, ...]] = ("kernel", "bias")
    units: int
    activation: Function = LINEAR
    use_bias: bool = True


@dataclass(frozen=True, slots=True)
class Convolution(Kind):
    """Kernel (*spatial, input / groups, output). Padding "same" puts the odd one at the end."""

    trainable: ClassVar[tuple[str, ...]] = ("kernel", "bias")
    filters: int
    kernel_size: Sizes
    strides: Sizes
    padding: str
    dilation: Sizes
    groups: int = 1
    activation: Function = LINEAR
    use_bias: bool = True


@dataclass(frozen=True, slots=True)
class DepthwiseConvolution(Kind):
    """Kernel (*spatial, channel, multiplier); output channels count the multiplier fastest."""

    trainable: ClassVar[tuple[str, ...]] = ("kernel", "bias")
    multiplier: int
    kernel_size: Sizes
    strides: Sizes
    padding: str
    dilation: Sizes
    activation: Function = LINEAR
    use_bias: bool = True


@dataclass(frozen=True, slots=True)
class SeparableConvolution(Kind):
    """A depthwise convolution without bias, then one of size 1 with it."""

    trainable: ClassVar[tuple[str, ...]] = ("depthwise_kernel", "pointwise_kernel", "bias")
    filters: int
    multiplier: int
    kernel_size: Sizes
    strides: Sizes
    padding: str
    dilation: Sizes
    activation: Function = LINEAR
    use_bias: bool = True


@dataclass(frozen=True, slots=True)
class TransposedConvolution(Kind):
    """The adjoint of a convolution; kernel (*spatial, output, input)."""

    trainable: ClassVar[tuple[str, ...]] = ("kernel", "bias")
    filters: int
    kernel_size: Sizes
    strides: Sizes
    padding: str
    activation: Function = LINEAR
    use_bias: bool = True


@dataclass(frozen=True, slots=True)
class BatchNormalization(Kind):
    """Over the last axis. moving = momentum·moving + (1 − momentum)·batch.

    The batch is normalized with its biased variance Σ(x − mean)² / n; `moving` takes this one,
    or with `unbiased` that of n − 1, as torch does.
    """

    trainable: ClassVar[tuple[str, ...]] = ("scale", "shift")
    state: ClassVar[tuple[str, ...]] = ("moving_mean", "moving_variance")
    epsilon: float
    momentum: float
    use_scale: bool = True
    use_shift: bool = True
    unbiased: bool = False


@dataclass(frozen=True, slots=True)
class LayerNormalization(Kind):
    """Over the last axis, variance biased."""

    trainable: ClassVar[tuple[str, ...]] = ("scale", "shift")
    epsilon: float
    use_scale: bool = True
    use_shift: bool = True


@dataclass(frozen=True, slots=True)
class GroupNormalization(Kind):
    """Over space and groups of neighbouring channels, per example."""

    trainable: ClassVar[tuple[str, ...]] = ("scale", "shift")
    groups: int
    epsilon: float
    use_scale: bool = True
    use_shift: bool = True


@dataclass(frozen=True, slots=True)
class RMSNormalization(Kind):
    """x / √(mean x² + epsilon) · scale over the last axis."""

    trainable: ClassVar[tuple[str, ...]] = ("scale",)
    epsilon: float


@dataclass(frozen=True, slots=True)
class Scale(Kind):
    """x · scale over the last axis."""

    trainable: ClassVar[tuple[str, ...]] = ("scale",)


@dataclass(frozen=True, slots=True)
class Standardize(Kind):
    """(x − mean) / max(√variance, epsilon) over the last axis, with constant statistics."""

    state: ClassVar[tuple[str, ...]] = ("mean", "variance")
    epsilon: float = 1e-7


@dataclass(frozen=True, slots=True)
class Rescaling(Kind):
    """x · scale + offset; one number, or one per channel."""

    scale: tuple[float, ...]
    offset: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Embedding(Kind):
    """Rows of a table by integer; mask_zero marks 0 as padding."""

    trainable: ClassVar[tuple[str, ...]] = ("embeddings",)
    rows: int
    units: int
    mask_zero: bool = False


@dataclass(frozen=True, slots=True)
class PaddingMask(Kind):
    """True where a step counts: where x is not `value` or, with `feature`, not in every feature.

    Masks are values of a graph: Embedding(mask_zero) and Masking have a node of this kind
    beside them, and what Keras hands on by itself is read by name from there.
    """

    names_layer: ClassVar[bool] = False
    value: float = 0.0
    feature: bool = False


@dataclass(frozen=True, slots=True)
class Masking(Kind):
    """x where its second input, a `PaddingMask`, is true, else 0."""


@dataclass(frozen=True, slots=True)
class Recurrent(Kind):
    """What the recurrent layers share; `reverse` walks from the end and gives the last step first.

    After the sequence a node reads, if `initial_state`, the states that the walk starts from,
    and, if `masked`, a `PaddingMask`: a step where it is false is passed over. Its output is
    that of the step before, 0 if there is none or with `zero_masked`.
    """

    trainable: ClassVar[tuple[str, ...]] = ("kernel", "recurrent_kernel", "bias")
    units: int
    activation: Function
    use_bias: bool = True
    return_sequences: bool = False
    return_state: bool = False
    reverse: bool = False
    initial_state: bool = False
    masked: bool = False
    zero_masked: bool = False


@dataclass(frozen=True, slots=True)
class SimpleRNN(Recurrent):
    """h = f(x·kernel + h·recurrent_kernel + bias)."""


@dataclass(frozen=True, slots=True)
class LSTM(Recurrent):
    """Gates stand in the order input, forget, cell, output; one bias."""

    recurrent_activation: Function = Function("sigmoid")


@dataclass(frozen=True, slots=True)
class GRU(Recurrent):
    """Gates stand in the order update, reset, hidden. With reset_after the bias is (2, 3·units)."""

    recurrent_activation: Function = Function("sigmoid")
    reset_after: bool = True


@dataclass(frozen=True, slots=True)
class Bidirectional(Kind):
    """Two recurrent layers, forward and backward, merged by "concat", "sum", "mul" or "ave".

    `layer` is the forward one; the other walks from the end, and its sequence is turned
    round before they are merged. The states of forward come before those of backward.
    """

    layer: Kind
    merge: str = "concat"

    def roles(self) -> tuple[str, ...]:
        """Return the roles of both directions."""
        return tuple(f"{side}/{role}" for side in ("forward", "backward") for role in self.layer.roles())


@dataclass(frozen=True, slots=True)
class MultiHeadAttention(Kind):
    """Scaled dot products; kernels (features, heads, size), the one of the output (heads, size, features).

    A node reads query, value and, where it is another, key; then, for each of `masks`, one of
    "query", "value", "key", a `PaddingMask`. A step is attended to where all are true and, if
    `causal`, it is not later; a query that may attend to nothing averages all values.
    """

    trainable: ClassVar[tuple[str, ...]] = (
        *("query_kernel", "query_bias", "key_kernel", "key_bias"),
        *("value_kernel", "value_bias", "output_kernel", "output_bias"),
    )
    heads: int
    key_size: int
    value_size: int
    use_bias: bool = True
    causal: bool = False
    masks: tuple[str, ...] = ()

    def _has(self, role: str) -> bool:
        return self.use_bias or not role.endswith("_bias")


@dataclass(frozen=True, slots=True)
class Activation(Kind):
    """An activation function as a layer of its own."""

    function: Function


@dataclass(frozen=True, slots=True)
class PReLU(Kind):
    """max(x, 0) + slope · min(x, 0); slope has the shape of an example, 1 on shared axes."""

    trainable: ClassVar[tuple[str, ...]] = ("slope",)
    shape: Sizes


@dataclass(frozen=True, slots=True)
class Pooling(Kind):
    """mode "max" or "average" over real entries only: padding never is the maximum, nor counts.

    With padding "explicit", `pads` are (before, after) of each axis.
    """

    mode: str
    size: Sizes
    strides: Sizes
    padding: str
    pads: Pairs = ()


@dataclass(frozen=True, slots=True)
class GlobalPooling(Kind):
    """mode "max" or "average" over all spatial axes."""

    mode: str
    keep: bool = False


@dataclass(frozen=True, slots=True)
class MaskedAverage(Kind):
    """The mean over the steps where the second input, a `PaddingMask`, is true."""

    keep: bool = False


@dataclass(frozen=True, slots=True)
class ZeroPadding(Kind):
    """Zeros (before, after) each spatial axis."""

    padding: Pairs


@dataclass(frozen=True, slots=True)
class Cropping(Kind):
    """Cut (before, after) from each spatial axis."""

    cropping: Pairs


@dataclass(frozen=True, slots=True)
class UpSampling(Kind):
    """Repeat entries ("nearest") or interpolate ("bilinear") along the spatial axes."""

    size: Sizes
    interpolation: str = "nearest"


@dataclass(frozen=True, slots=True)
class Flatten(Kind):
    """All axes but the batch into one, channels fastest."""


@dataclass(frozen=True, slots=True)
class Reshape(Kind):
    """The axes behind the batch get this shape."""

    shape: Sizes


@dataclass(frozen=True, slots=True)
class Permute(Kind):
    """The axes behind the batch change places; they count from 1."""

    axes: Sizes


@dataclass(frozen=True, slots=True)
class Repeat(Kind):
    """A vector `times` times, as a sequence."""

    times: int


@dataclass(frozen=True, slots=True)
class Merge(Kind):
    """Elementwise operation of inputs and numbers: add, subtract, multiply, divide, maximum, minimum, average."""

    operation: str
    names_layer: bool = True


@dataclass(frozen=True, slots=True)
class ScaledAdd(Kind):
    """first + scale · second."""

    scale: float


@dataclass(frozen=True, slots=True)
class Concatenate(Kind):
    """Along an axis, which counts from the batch = 0."""

    axis: int


@dataclass(frozen=True, slots=True)
class Dropout(Kind):
    """Random in training, identity otherwise and in a certificate; mode "elements", "channels" or "examples"."""

    rate: float
    mode: str = "elements"


@dataclass(frozen=True, slots=True)
class Identity(Kind):
    """Gives what it is given."""


KINDS: Mapping[str, type[Kind]] = {
    cls.__name__: cls
    for cls in (
        *(Dense, Convolution, DepthwiseConvolution, SeparableConvolution, TransposedConvolution),
        *(BatchNormalization, LayerNormalization, GroupNormalization, RMSNormalization, Scale, Standardize),
        *(
            Rescaling,
            Embedding,
            PaddingMask,
            Masking,
            SimpleRNN,
            LSTM,
            GRU,
            Bidirectional,
            MultiHeadAttention,
            Activation,
            PReLU,
        ),
        *(Pooling, GlobalPooling, ZeroPadding, Cropping, UpSampling, Flatten, Reshape, Permute, Repeat),
        *(Merge, ScaledAdd, Concatenate, Dropout, Identity),
    )
}

_CHOICES: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("Convolution", "padding"): ("valid", "same", "causal"),
    ("DepthwiseConvolution", "padding"): ("valid", "same"),
    ("SeparableConvolution", "padding"): ("valid", "same", "causal"),
    ("TransposedConvolution", "padding"): ("valid", "same"),
    ("Pooling", "padding"): ("valid", "same", "explicit"),
    ("Pooling", "mode"): ("max", "average"),
    ("GlobalPooling", "mode"): ("max", "average"),
    ("Bidirectional", "merge"): ("concat", "sum", "mul", "ave"),
    ("UpSampling", "interpolation"): ("nearest", "bilinear"),
    ("Dropout", "mode"): ("elements", "channels", "examples"),
    ("Merge", "operation"): ("add", "subtract", "multiply", "divide", "maximum", "minimum", "average"),
}


def kind_to_document(kind: Kind | Function) -> dict[str, Any]:
    """Return a kind as JSON: its name under "kind", then every field."""
    found: dict[str, Any] = {} if isinstance(kind, Function) else {"kind": type(kind).__name__}
    for field in fields(kind):
        held = getattr(kind, field.name)
        found[field.name] = kind_to_document(held) if isinstance(held, Kind | Function) else _plain(held)
    return found


def kind_from_document(document: Any) -> Kind:
    """Return the kind that a document holds.

    Raises
    ------
    SpecError: the kind or a field is unknown, is missing, or has another type.
    """
    if not isinstance(document, dict):
        raise SpecError(f"a layer is {shown(document)}; expected an object with a 'kind'.")
    name = document.get("kind")
    if not isinstance(name, str) or name not in KINDS:
        raise unknown("kind of layer", name, KINDS)
    kind: Any = _from(KINDS[name], {key: held for key, held in document.items() if key != "kind"}, name)
    return kind


def refuse(who: str, what: str, cure: str) -> UnsupportedError:
    """Build the error for something that cannot be ported exactly."""
    return UnsupportedError(f"{who}: {what} cannot be ported exactly. {cure}")


def _plain(held: Any) -> Any:
    return [_plain(each) for each in held] if isinstance(held, tuple) else held


def _from(cls: type[Any], document: Mapping[str, Any], who: str) -> Any:
    hints = typing.get_type_hints(cls)
    names = [field.name for field in fields(cls)]
    for key in document:
        if key not in names:
            raise unknown(f"field of {who}", key, names)
    missing = [name for name in names if name not in document]
    if missing:
        raise SpecError(f"{who}: {', '.join(missing)} missing; every field is written out.")
    found = {name: _typed(hints[name], document[name], f"{who}.{name}") for name in names}
    for name, held in found.items():
        allowed = _CHOICES.get((who, name))
        if allowed is not None and held not in allowed:
            raise unknown(f"{who}.{name}", held, allowed)
    return cls(**found)


def _typed(hint: Any, given: Any, who: str) -> Any:
    if hint in (Function, Kind):
        if not isinstance(given, dict):
            raise SpecError(f"{who} is {shown(given)}; expected an object.")
        return _from(Function, given, who) if hint is Function else kind_from_document(given)
    origin = typing.get_origin(hint)
    if origin is types.UnionType:
        return None if given is None else _typed(typing.get_args(hint)[0], given, who)
    if origin is tuple:
        return _tuple(typing.get_args(hint), given, who)
    if hint is float and isinstance(given, int) and not isinstance(given, bool):
        return float(given)
    if not isinstance(given, hint) or (hint is int and isinstance(given, bool)):
        raise SpecError(f"{who} is {shown(given)}; expected {hint.__name__}.")
    return given


def _tuple(parts: tuple[Any, ...], given: Any, who: str) -> tuple[Any, ...]:
    if not isinstance(given, list | tuple):
        raise SpecError(f"{who} is {shown(given)}; expected a list.")
    if parts[-1] is Ellipsis:
        return tuple(_typed(parts[0], each, who) for each in given)
    if len(given) != len(parts):
        raise SpecError(f"{who} is {shown(given)}; expected {len(parts)} entries.")
    return tuple(_typed(part, each, who) for part, each in zip(parts, given, strict=True))
