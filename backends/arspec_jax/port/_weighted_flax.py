"""Which kind each layer of Flax is that has weights, and where it keeps them: NNX and Linen alike.

Names are the layer's own, with "/" between the parts; gates are kept joined or apart.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from arspec.port import _kinds as kinds
from arspec.port import _layouts as layouts
from arspec.port._kinds import FUNCTIONS, Function, Kind
from arspec.port._mapping import Entry
from arspec.port._options import kind_options
from arspec.port._weighted import WeightedLayer
from arspec_jax._flax_kinds import cell_kind, class_of, has_class, is_cell

Shape = tuple[int, ...]
ShapeOf = Callable[[str], Shape | None]
Described = tuple[Kind, dict[str, Shape], tuple[Entry, ...]]

SEVERAL = "its arrays hold those of several layers, as in a scan; move them layer by layer."


def read_flax(module: Any, path: str, shape_of: ShapeOf, *, reverse: bool | None = None) -> WeightedLayer:
    """Describe a layer of Flax.

    Parameters
    ----------
    shape_of : gives the shape of an array of the layer by its name, or None.
    reverse : for a cell, whether it walks from the end; None for one that somebody else walks.

    Raises
    ------
    LookupError: what the weights of the layer are is not known; the text says why.
    """
    if is_cell(module):
        layer = _cell(module, path, shape_of, bool(reverse))
        return replace(layer, unseen=layer.unseen | {"reverse"}) if reverse is None else layer
    reader = next((reader for names, reader in _READERS.items() if has_class(module, names)), None)
    if reader is None:
        raise LookupError(f"what the weights of a {class_of(module).__name__} are is not known.")
    kind, shapes, entries = reader(module, shape_of)
    unseen = set(_LEFT_TO_CODE.get(type(kind), ()))
    if not _runs_as_flax(module):
        unseen |= set(kind_options(type(kind)))
    return WeightedLayer(path, kind, shapes, entries, unseen=frozenset(unseen), frozen=None)


def _runs_as_flax(module: Any) -> bool:
    owner = next((cls for cls in class_of(module).__mro__ if "__call__" in vars(cls)), object)
    return owner.__module__.startswith("flax.")


_LEFT_TO_CODE: Mapping[type[Kind], tuple[str, ...]] = {
    **dict.fromkeys(
        (kinds.Dense, kinds.Convolution, kinds.DepthwiseConvolution, kinds.TransposedConvolution), ("activation",)
    ),
    kinds.Embedding: ("mask_zero",),
}


def shape(shape_of: ShapeOf, name: str, rank: int) -> Shape:
    """Return the shape of an array that must be there, with this many axes."""
    found = shape_of(name)
    if found is None:
        raise LookupError(f"it has no array {name}.")
    if len(found) != rank:
        raise LookupError(SEVERAL)
    return found


def _with_bias(kernel: Entry, canonical: Shape, shape_of: ShapeOf, features: int) -> tuple[Any, Any]:
    if shape_of("bias") is None:
        return {"kernel": canonical}, (kernel,)
    return {"kernel": canonical, "bias": (features,)}, (kernel, Entry("bias", "bias"))


def _dense(module: Any, shape_of: ShapeOf) -> Described:
    inside = shape(shape_of, "kernel", 2)
    has_bias = shape_of("bias") is not None
    return kinds.Dense(inside[1], use_bias=has_bias), *_with_bias(
        Entry("kernel", "kernel"), inside, shape_of, inside[1]
    )


def _each(given: Any, rank: int) -> Shape:
    given = 1 if given is None else given
    return (given,) * rank if isinstance(given, int) else tuple(int(n) for n in given)


def _padding(given: Any) -> str:
    """Return "valid", "same", "causal", or the numbers."""
    if isinstance(given, str):
        return given.lower()
    text = str(given)
    return "valid" if not text.strip("()[], 0") else text


def _convolution(module: Any, shape_of: ShapeOf) -> Described:
    count = len(_each(module.kernel_size, 1))
    inside = shape(shape_of, "kernel", count + 2)
    if module.mask is not None or set(_each(module.input_dilation, count)) != {1}:
        raise LookupError("a convolution with a mask or input_dilation has no counterpart.")
    has_bias, groups = shape_of("bias") is not None, module.feature_group_count
    dilation = _each(module.kernel_dilation, count)
    options = (inside[:-2], _each(module.strides, count), _padding(module.padding), dilation)
    if groups > 1 and inside[-2] == 1:
        canonical = (*inside[:-2], groups, inside[-1] // groups)
        kind: Kind = kinds.DepthwiseConvolution(canonical[-1], *options, use_bias=has_bias)
        return kind, *_with_bias(layouts.last_depthwise("kernel", canonical), canonical, shape_of, inside[-1])
    kind = kinds.Convolution(inside[-1], *options, groups=groups, use_bias=has_bias)
    return kind, *_with_bias(Entry("kernel", "kernel"), inside, shape_of, inside[-1])


def _transposed(module: Any, shape_of: ShapeOf) -> Described:
    count = len(_each(module.kernel_size, 1))
    inside = shape(shape_of, "kernel", count + 2)
    if module.mask is not None or set(_each(module.kernel_dilation, count)) != {1}:
        raise LookupError("a transposed convolution with a mask or dilation has no counterpart.")
    *spatial, first, second = inside
    canonical = inside if module.transpose_kernel else (*spatial, second, first)
    kernel = Entry("kernel", "kernel")
    if not module.transpose_kernel:
        kernel = layouts.flipped("kernel", "kernel", count + 2, first=False)
    has_bias, strides = shape_of("bias") is not None, _each(module.strides, count)
    kind = kinds.TransposedConvolution(
        canonical[-2], tuple(spatial), strides, _padding(module.padding), use_bias=has_bias
    )
    return kind, *_with_bias(kernel, canonical, shape_of, canonical[-2])


def _embedding(module: Any, shape_of: ShapeOf) -> Described:
    inside = shape(shape_of, "embedding", 2)
    return kinds.Embedding(inside[0], inside[1]), {"embeddings": inside}, layouts.same(embeddings="embedding")


def _affine(shape_of: ShapeOf, **more: str) -> tuple[dict[str, Shape], tuple[Entry, ...]]:
    names = {"scale": "scale", "shift": "bias", **more}
    held = {role: name for role, name in names.items() if shape_of(name) is not None}
    return {role: shape(shape_of, name, 1) for role, name in held.items()}, layouts.same(**held)


def _batch_norm(module: Any, shape_of: ShapeOf) -> Described:
    if module.axis != -1:
        raise LookupError(f"a BatchNorm over the axis {module.axis} has no counterpart.")
    shapes, entries = _affine(shape_of, moving_mean="mean", moving_variance="var")
    used = {"use_scale": "scale" in shapes, "use_shift": "shift" in shapes}
    return kinds.BatchNormalization(module.epsilon, module.momentum, **used), shapes, entries


def _layer_norm(module: Any, shape_of: ShapeOf) -> Described:
    _require_last(module)
    shapes, entries = _affine(shape_of)
    used = {"use_scale": "scale" in shapes, "use_shift": "shift" in shapes}
    return kinds.LayerNormalization(module.epsilon, **used), shapes, entries


def _group_norm(module: Any, shape_of: ShapeOf) -> Described:
    shapes, entries = _affine(shape_of)
    if not shapes:
        raise LookupError("a GroupNorm without weights has none to move.")
    (features,) = next(iter(shapes.values()))
    groups = module.num_groups or features // module.group_size
    used = {"use_scale": "scale" in shapes, "use_shift": "shift" in shapes}
    return kinds.GroupNormalization(groups, module.epsilon, **used), shapes, entries


def _rms_norm(module: Any, shape_of: ShapeOf) -> Described:
    _require_last(module)
    return kinds.RMSNormalization(module.epsilon), *_affine(shape_of)


def _require_last(module: Any) -> None:
    for name in ("reduction_axes", "feature_axes"):
        axes = getattr(module, name)
        if axes not in (-1, (-1,), [-1]):
            raise LookupError(f"a {class_of(module).__name__} with {name}={axes} has no counterpart.")


def _attention(module: Any, shape_of: ShapeOf) -> Described:
    if module.normalize_qk:
        raise LookupError("an attention with normalize_qk has no counterpart.")
    shapes: dict[str, Shape] = {}
    names: dict[str, str] = {}
    for role, inner in (("query", "query"), ("key", "key"), ("value", "value"), ("output", "out")):
        ranks = {"kernel": 3, "bias": 1 if role == "output" else 2}
        for part, rank in ranks.items():
            name = f"{inner}/{part}"
            if shape_of(name) is not None:
                shapes[f"{role}_{part}"], names[f"{role}_{part}"] = shape(shape_of, name, rank), name
    _, heads, size = shapes["query_kernel"]
    kind = kinds.MultiHeadAttention(heads, size, shapes["value_kernel"][2], "output_bias" in shapes)
    return kind, shapes, layouts.same(**names)


_CELLS: Mapping[str, tuple[type[kinds.Recurrent], int]] = {
    "simple": (kinds.SimpleRNN, 1),
    "lstm": (kinds.LSTM, 4),
    "gru": (kinds.GRU, 3),
}


def _cell(cell: Any, path: str, shape_of: ShapeOf, reverse: bool) -> WeightedLayer:
    name = cell_kind(cell)
    if name is None or getattr(cell, "residual", False):
        raise LookupError(f"what the weights of a {class_of(cell).__name__} are is not known.")
    cls, gates = _CELLS[name]
    joined = shape_of("dense_i/kernel") is not None
    entries, more, absent = (_joined if joined else _apart)(name, shape_of)
    inside = shape(shape_of, "dense_i/kernel" if joined else _first(name), 2)
    units = inside[1] // gates if joined else inside[1]
    shapes: dict[str, Shape] = {"kernel": (inside[0], gates * units), "recurrent_kernel": (units, gates * units)}
    shapes["bias"] = (2, gates * units) if name == "gru" else (gates * units,)
    functions = {"activation": cell.activation_fn, "recurrent_activation": getattr(cell, "gate_fn", None)}
    known = {key: _function(given) for key, given in functions.items() if given is not None}
    options: dict[str, Any] = {"units": units, "activation": Function("tanh"), "reverse": reverse}
    options |= {key: function for key, function in known.items() if function is not None}
    unseen = frozenset(key for key, function in known.items() if function is None)
    return WeightedLayer(path, cls(**options), shapes, entries, unseen=unseen, absent=absent, more=more, frozen=None)


def _first(name: str) -> str:
    return {"lstm": "ii/kernel", "gru": "ir/kernel", "simple": "i/kernel"}[name]


def _function(given: Any) -> Function | None:
    """Return an activation function of JAX by its name, None for another one."""
    name = getattr(given, "__name__", "")
    of_jax = str(getattr(given, "__module__", "")).split(".")[0] in ("jax", "flax")
    return Function(name) if of_jax and name in FUNCTIONS and not FUNCTIONS[name] else None


Cell = tuple[tuple[Entry, ...], dict[str, str], dict[str, Any]]


def _joined(name: str, shape_of: ShapeOf) -> Cell:
    """Return where a cell with its gates side by side keeps its weights."""
    if name != "gru":
        bias = "dense_h/bias" if name == "lstm" else "dense_i/bias"
        return layouts.same(kernel="dense_i/kernel", recurrent_kernel="dense_h/kernel", bias=bias), {}, {}
    units = shape(shape_of, "dense_h/kernel", 2)[0]
    entries = (
        Entry("kernel", "dense_i/kernel", (layouts.UPDATE_LAST,)),
        Entry("recurrent_kernel", "dense_h/kernel", (layouts.UPDATE_LAST,)),
        layouts.gru_row(0, "dense_i/bias", units),
    )
    return entries, {"biases": "of the input alone"}, {"bias": ((0, 1, 2),)}


def _apart(name: str, shape_of: ShapeOf) -> Cell:
    """Return where a cell with arrays for each gate keeps its weights."""
    units = shape(shape_of, _first(name), 2)[1]
    if name == "simple":
        return layouts.same(kernel="i/kernel", recurrent_kernel="h/kernel", bias="i/bias"), {}, {}
    if name == "lstm":
        of_input = ("i", "f" if shape_of("if/kernel") is not None else "f_", "g", "o")
        of_state = ("i", "f", "g", "o")
        return (
            (
                *layouts.gates_apart("kernel", [f"i{gate}/kernel" for gate in of_input], units),
                *layouts.gates_apart("recurrent_kernel", [f"h{gate}/kernel" for gate in of_state], units),
                *layouts.gates_apart("bias", [f"h{gate}/bias" for gate in of_state], units, rank=1),
            ),
            {},
            {},
        )
    gates = ("z", "r", "n")
    entries = (
        *layouts.gates_apart("kernel", [f"i{gate}/kernel" for gate in gates], units),
        *layouts.gates_apart("recurrent_kernel", [f"h{gate}/kernel" for gate in gates], units),
        *(layouts.gru_gate(0, index, f"i{gate}/bias", units) for index, gate in enumerate(gates)),
        *(layouts.gru_gate(1, index, f"i{gate}/bias", units) for index, gate in enumerate(gates[:2])),
        layouts.gru_gate(1, 2, "hn/bias", units),
    )
    return entries, {"biases": "one, and one more of the hidden gate"}, {}


_READERS: Mapping[tuple[str, ...], Callable[[Any, ShapeOf], Described]] = {
    ("Linear", "Dense"): _dense,
    ("Conv",): _convolution,
    ("ConvTranspose",): _transposed,
    ("Embed",): _embedding,
    ("BatchNorm",): _batch_norm,
    ("LayerNorm",): _layer_norm,
    ("GroupNorm",): _group_norm,
    ("RMSNorm",): _rms_norm,
    ("MultiHeadAttention", "MultiHeadDotProductAttention"): _attention,
}
