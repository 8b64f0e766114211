"""What Flax's own layers are, by class name; the same names in NNX and Linen."""

from collections.abc import Mapping
from typing import Any

AFFINE = ("Linear", "Dense", "Conv", "ConvTranspose", "ConvLocal", "LinearGeneral", "DenseGeneral", "Einsum")
_WITHOUT_AXES = ("ConvLocal", "LinearGeneral", "DenseGeneral", "Einsum")
_NESTED = ("MultiHeadAttention", "MultiHeadDotProductAttention", "RNNCellBase")


def has_class(module: Any, names: tuple[str, ...]) -> bool:
    """Return whether a module is a layer of Flax itself of one of these classes, or a subclass."""
    return any(cls.__name__ in names and cls.__module__.startswith("flax.") for cls in type(module).__mro__)


def is_affine(module: Any) -> bool:
    """Return whether the result of a module is its affine map: a Flax layer whose call is not overridden."""
    owner = next((cls for cls in type(module).__mro__ if "__call__" in vars(cls)), object)
    return owner.__module__.startswith("flax.") and has_class(module, AFFINE)


def is_closed(module: Any) -> bool:
    """Return whether the layers inside a module have roles of their own (queries, recurrent kernels)."""
    return has_class(module, _NESTED)


def refusals(module: Any) -> Mapping[str, str]:
    """Return why a parameter or an activation of a module cannot be served."""
    kind = type(module).__name__
    if is_closed(module):
        reason = f"the kernels and gates of a {kind} have placements of their own, which this version does not serve."
        return dict.fromkeys(("pre_activation", "kernel", "bias"), reason)
    if has_class(module, _WITHOUT_AXES):
        reason = f"which axes of a {kind} are input and output is not fixed. Use a Dense or Linear layer."
        return {"kernel": reason, "bias": reason}
    return {}
