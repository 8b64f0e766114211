"""Masks that a person gives per layer: which layer each one is for, and whether it fits a tensor."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from arspec._errors import SpecError, did_you_mean
from arspec._sites import names_layer

Mask = TypeVar("Mask")


def masks_by_layer(masks: Mapping[str, Mask], layers: Iterable[str]) -> dict[str, Mask]:
    """Return the mask of each layer.

    Parameters
    ----------
    masks : by the path of a layer or a glob, as a rule names layers. A path goes before a glob.
    layers : paths of the layers that have a rule at an activation.

    Raises
    ------
    SpecError: a mask is for no such layer, or two globs are for the same one.
    """
    if not isinstance(masks, Mapping):
        raise SpecError(f"masks={masks!r}; expected masks by layer, such as {{'lstm': mask}}.")
    paths = list(dict.fromkeys(layers))
    met: dict[str, dict[str, Any]] = {path: {} for path in paths}
    for pattern, mask in masks.items():
        named = [path for path in paths if names_layer(pattern, path)]
        if not named:
            raise SpecError(
                f"masks names {pattern!r}; the layers with a rule at an activation are "
                f"{', '.join(map(repr, paths)) or 'none'}.{did_you_mean(pattern, paths)}"
            )
        for path in named:
            met[path][pattern] = mask
    return {path: _one(path, found) for path, found in met.items() if found}


def _one(path: str, found: Mapping[str, Any]) -> Any:
    exact = [mask for pattern, mask in found.items() if "*" not in pattern and "?" not in pattern]
    if len(exact) == 1:
        return exact[0]
    if len(found) > 1:
        raise SpecError(f"masks has several for the layer {path!r}: {', '.join(map(repr, found))}; name it once.")
    return next(iter(found.values()))


def require_mask(mask: tuple[int, ...], dtype: str, shape: tuple[int, ...], names: tuple[str, ...]) -> None:
    """Raise unless a mask covers leading axes of a tensor, up to that of the features, one to one.

    Parameters
    ----------
    mask, dtype : shape and dtype of the mask.
    shape, names : of the tensor.
    """
    if dtype != "bool":
        raise SpecError(f"its mask has dtype {dtype}; expected bool, true where the tensor is valid.")
    most = names.index("feature") if "feature" in names else len(names)
    if len(mask) > most or tuple(mask) != tuple(shape[: len(mask)]):
        listed = ", ".join(names[:most])
        raise SpecError(
            f"its mask has shape {tuple(mask)}; the tensor has shape {tuple(shape)} and the axes "
            f"({', '.join(names)}). Expected a mask over the leading ones of ({listed})."
        )
