"""Where a convolution looks: padding, strides and dilation over the spatial axes.

Output position p and tap o of the kernel meet at padded input position stride · p +
dilation · o. With n input positions, kernel size k, s = stride, d = dilation:

"valid"   no padding;
"same"    max((⌈n/s⌉ − 1)·s + (k − 1)·d + 1 − n, 0) in all, the smaller half before; it
          depends on n where s > 1, so no fixed padding replaces it;
"causal"  (k − 1)·d before; one spatial axis only, named "time";
pairs     (before, after) per spatial axis: torch's padding=1 is ((1, 1), ...).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from arspec._errors import SpecError, UnsupportedError

Array = np.ndarray
Padding = str | tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Windows:
    """The taps of a kernel of `size` over an input of shape (batch, *spatial, feature)."""

    size: tuple[int, ...]
    strides: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: Padding

    @classmethod
    def of(cls, owner: str, size: tuple[int, ...], strides: Any, padding: Any, dilation: Any) -> "Windows":
        """Build from what a person wrote: one number stands for every spatial axis."""
        per_axis = {"strides": strides, "dilation": dilation}
        checked = {name: _per_axis(owner, name, value, len(size)) for name, value in per_axis.items()}
        names = ("valid", "same", "causal") if len(size) == 1 else ("valid", "same")
        if not isinstance(padding, str):
            padding = tuple((int(before), int(after)) for before, after in padding)
        if (padding not in names) if isinstance(padding, str) else (len(padding) != len(size)):
            listed = ", ".join(map(repr, names))
            raise SpecError(f"{owner}: padding={padding!r}; expected {listed} or {len(size)} pairs (before, after).")
        return cls(size, checked["strides"], checked["dilation"], padding)

    def pads(self, sizes: tuple[int, ...]) -> list[tuple[int, int]]:
        """Return (before, after) per spatial axis for an input of these spatial sizes."""
        if not isinstance(self.padding, str):
            return list(self.padding)
        axes = zip(sizes, self.size, self.strides, self.dilation, strict=True)
        return [_pad(self.padding, *axis) for axis in axes]

    def pad(self, x: Array) -> Array:
        """Return the input with zeros around its spatial axes."""
        return np.pad(x, [(0, 0), *self.pads(x.shape[1:-1]), (0, 0)])

    def crop(self, padded: Array, x: Array) -> Array:
        """Return the part of `padded` where x was: the transpose of `pad`."""
        spatial = zip(self.pads(x.shape[1:-1]), x.shape[1:-1], strict=True)
        return padded[(slice(None), *(slice(before, before + n) for (before, _), n in spatial))]

    def positions(self, padded: Array) -> tuple[int, ...]:
        """Return the output's spatial sizes for a padded input."""
        axes = zip(padded.shape[1:-1], self.size, self.strides, self.dilation, strict=True)
        sizes = tuple((n - (k - 1) * d - 1) // s + 1 for n, k, s, d in axes)
        if min(sizes, default=1) < 1:
            raise SpecError(f"a kernel of size {self.size} does not fit the padded input, shape {padded.shape}.")
        return sizes

    def taps(self, padded: Array) -> Iterator[tuple[tuple[int, ...], tuple[slice, ...]]]:
        """Return, per tap of the kernel, the slices of the padded input that it meets."""
        sizes = self.positions(padded)
        for tap in np.ndindex(self.size):
            axes = zip(tap, sizes, self.strides, self.dilation, strict=True)
            yield tap, (slice(None), *(slice(o * d, o * d + (n - 1) * s + 1, s) for o, n, s, d in axes))

    def moved(self, mask: Array | None, owner: str) -> Array | None:
        """Return the mask of the output: that of the input, if positions correspond one to one.

        Raises
        ------
        UnsupportedError: the mask covers an axis along which the layer changes positions.
        """
        if mask is None or mask.ndim == 1:
            return mask
        axes = zip(self.pads(self.size), self.size, self.strides, self.dilation, strict=True)
        kept = [s == 1 and before + after == (k - 1) * d for (before, after), k, s, d in axes]
        if not all(kept[: mask.ndim - 1]):
            raise UnsupportedError(
                f"{owner} with padding={self.padding!r} and strides={self.strides} moves positions, so that the mask "
                f"of shape {mask.shape} has no meaning behind it; use padding 'same' or 'causal' with strides 1."
            )
        return mask


def _pad(padding: str, n: int, k: int, s: int, d: int) -> tuple[int, int]:
    if padding == "same":
        total = max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
        return total // 2, total - total // 2
    return ((k - 1) * d, 0) if padding == "causal" else (0, 0)


def _per_axis(owner: str, name: str, value: Any, count: int) -> tuple[int, ...]:
    values = (value,) * count if isinstance(value, int) else tuple(value)
    if len(values) != count or any(isinstance(v, bool) or not isinstance(v, int) or v < 1 for v in values):
        raise SpecError(f"{owner}: {name}={value!r}; expected a whole number >= 1, or {count} of them.")
    return values
