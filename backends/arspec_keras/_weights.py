"""The weights of Keras layers by placement: which variable it is, and how a penalty sees it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
from arspec._axes import SPATIAL_AXES

_KERNELS = ("kernel", "depthwise_kernel", "pointwise_kernel")
_PROJECTIONS = ("query", "key", "value", "output")


@dataclass(frozen=True, slots=True)
class Weight:
    """A weight that stands for a placement.

    Attributes
    ----------
    owner, attribute : the layer that holds it, and under which name.
    name : how the table of sites calls it.
    axes : the names of its axes as a penalty sees it.
    shape : the shape in which a penalty sees it, or None for its own.
    """

    owner: keras.Layer
    attribute: str
    name: str
    axes: str
    shape: tuple[int, ...] | None = None

    @property
    def held(self) -> Any:
        """What the layer holds: a `keras.Variable`, or a tensor computed from some (LoRA)."""
        return getattr(self.owner, self.attribute)

    @property
    def trainable(self) -> bool:
        """Whether the optimizer changes it."""
        held = self.held
        return held.trainable if isinstance(held, keras.Variable) else self.owner.trainable

    def read(self) -> Any:
        """Return the weight as a tensor in the shape that a penalty sees."""
        tensor = keras.ops.convert_to_tensor(self.held)
        return tensor if self.shape is None else keras.ops.reshape(tensor, self.shape)


def weights_of(layer: keras.Layer) -> tuple[dict[str, Weight], dict[str, str]]:
    """Return the weights of a built layer by placement, and for those that it cannot serve, why."""
    served, refused = {}, {}
    for placement, found in _found(layer):
        if isinstance(found, Weight):
            served[placement] = found
        else:
            refused[placement] = found
    return served, refused


def is_attention(layer: keras.Layer) -> bool:
    """Return whether the layer holds its projections in layers of its own."""
    return isinstance(layer, keras.layers.MultiHeadAttention | _GROUPED)


_GROUPED = getattr(keras.layers, "GroupQueryAttention", keras.layers.MultiHeadAttention)


def _found(layer: keras.Layer) -> Iterator[tuple[str, Weight | str]]:
    if not layer.built:
        return
    if is_attention(layer):
        yield from _of_attention(layer)
    elif isinstance(layer, keras.layers.EinsumDense):
        yield from _of_einsum(layer)
    elif isinstance(layer, keras.layers.RNN):
        yield from _of_cell(layer.cell)
    elif hasattr(layer, "recurrent_kernel"):
        yield from _of_cell(layer)
    else:
        yield from _of_layer(layer)


def _of_layer(layer: keras.Layer) -> Iterator[tuple[str, Weight | str]]:
    for attribute in _KERNELS:
        kernel = getattr(layer, attribute, None)
        if is_tensor(kernel):
            yield attribute, _kernel(layer, attribute)
    for placement, attribute in _attributes(layer):
        held = getattr(layer, attribute, None)
        if is_tensor(held):
            yield placement, _vector(layer, placement, attribute)


def _attributes(layer: keras.Layer) -> list[tuple[str, str]]:
    if isinstance(layer, keras.layers.Embedding):
        return [("embeddings", "embeddings")]
    return [("bias", "bias"), ("scale", "gamma"), ("scale", "scale"), ("shift", "beta")]


def _vector(layer: keras.Layer, placement: str, attribute: str) -> Weight | str:
    rank = len(getattr(layer, attribute).shape)
    if placement == "embeddings":
        return Weight(layer, attribute, attribute, "input output")
    if rank != 1:
        return f"its {attribute} has shape {tuple(getattr(layer, attribute).shape)}, whose axes have no names."
    return Weight(layer, attribute, attribute, "output")


def _kernel(layer: keras.Layer, attribute: str) -> Weight | str:
    shape = tuple(getattr(layer, attribute).shape)
    axes = kernel_axes(layer, shape)
    if axes is None:
        return f"a kernel of shape {shape} has no names for its axes."
    return Weight(layer, attribute, attribute, axes)


def kernel_axes(layer: keras.Layer, shape: tuple[int, ...]) -> str | None:
    """Return the names of the axes of a kernel, or None where they have none."""
    rank = len(shape)
    if rank == 2:
        return "input output"
    size = getattr(layer, "kernel_size", None)
    if not isinstance(size, tuple) or len(size) != rank - 2 or rank - 2 not in SPATIAL_AXES:
        return None
    last = "output input" if "Transpose" in type(layer).__name__ else "input output"
    return f"{SPATIAL_AXES[rank - 2]} {last}"


def _of_cell(cell: Any) -> Iterator[tuple[str, Weight | str]]:
    """A penalty sees the two biases of a GRU as one axis."""
    for attribute in ("kernel", "recurrent_kernel"):
        held = getattr(cell, attribute, None)
        if is_tensor(held):
            axes = kernel_axes(cell, tuple(held.shape))
            missing = f"its {attribute} of shape {tuple(held.shape)} has no names for its axes."
            yield attribute, missing if axes is None else Weight(cell, attribute, f"cell.{attribute}", axes)
    if is_tensor(getattr(cell, "bias", None)):
        yield "bias", Weight(cell, "bias", "cell.bias", "output", (-1,))


def _of_attention(layer: Any) -> Iterator[tuple[str, Weight | str]]:
    """Heads stand side by side: (input, heads · size), and (heads · size, output)."""
    for name in _PROJECTIONS:
        projection = getattr(layer, f"_{name}_dense", None)
        if projection is None:
            yield f"{name}_kernel", f"this release of Keras keeps the {name} projection elsewhere."
            continue
        for role, found in _of_einsum(projection):
            yield f"{name}_{role}", found


def _of_einsum(layer: Any) -> Iterator[tuple[str, Weight | str]]:
    """A kernel whose contracted axes stand first is a matrix: those axes, then the others."""
    kernel = tuple(layer.kernel.shape)
    split = _contracted(layer.equation)
    if split is None:
        yield "kernel", f"a kernel of shape {kernel} in {layer.equation!r} has no names for its axes."
    else:
        inputs = 1
        for size in kernel[:split]:
            inputs *= size
        yield "kernel", Weight(layer, "kernel", f"{layer.name}.kernel", "input output", (inputs, -1))
    if is_tensor(getattr(layer, "bias", None)):
        outputs = [size for size in layer.bias.shape if size != 1]
        if split is not None and outputs == [size for size in kernel[split:] if size != 1]:
            yield "bias", Weight(layer, "bias", f"{layer.name}.bias", "output", (-1,))
        else:
            yield "bias", f"a bias of shape {tuple(layer.bias.shape)} has no names for its axes."


def _contracted(equation: str) -> int | None:
    """Return how many leading axes of the kernel are summed over, or None where it is no matrix."""
    operands, _, outputs = equation.replace(" ", "").replace("...", "").partition("->")
    inputs, _, kernel = operands.partition(",")
    summed = [label in inputs and label not in outputs for label in kernel]
    made = [label not in inputs and label in outputs for label in kernel]
    split = sum(summed)
    return split if all(summed[:split]) and all(made[split:]) else None


def is_tensor(held: Any) -> bool:
    """Return whether a layer holds a weight here, not an option of the same name."""
    return isinstance(held, keras.Variable) or keras.ops.is_tensor(held)
