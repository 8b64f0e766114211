"""NormStabilizer: squared changes of the length of the state."""

from dataclasses import dataclass
from typing import ClassVar

from arspec._axes import Axes
from arspec._namespace import Array, Namespace
from arspec.penalties._base import Penalty, register, validated
from arspec.penalties._differences import difference, ends, shorter, transposed_difference
from arspec.penalties._norms import Norm, norm, norm_gradient, reduced


@register
@dataclass(frozen=True, slots=True)
class NormStabilizer(Penalty):
    """coefficient · Σ_t (‖h_t‖₂ - ‖h_{t-1}‖₂)², the norm over "feature", t along "time".

    The gradient is that of the square times h/‖h‖₂, and 0 at a zero state.

    Parameters
    ----------
    coefficient : finite number >= 0.

    Notes
    -----
    T - 1 terms; with a mask a pair counts if both steps are valid. One step or none: 0. The
    published penalty averages over time: mean_over=("batch", "time").

    References
    ----------
    D. Krueger, R. Memisevic, Regularizing RNNs by stabilizing activations, ICLR 2016,
    equation (1).

    Example
    -------
    >>> import arspec as ar, numpy as np
    >>> states = np.array([[[3.0, 4.0], [0.0, 0.0]]])
    >>> float(ar.value(ar.NormStabilizer(1.0), states))
    25.0
    """

    name: ClassVar[str] = "norm_stabilizer"
    elementwise: ClassVar[bool] = False
    non_negative: ClassVar[bool] = True
    coefficient: float

    def __post_init__(self) -> None:
        validated(self, non_negative={"coefficient": self.coefficient})

    def terms(self, x: Array, *, xp: Namespace, axes: Axes) -> Array:
        return xp.square(difference(self._norm(x, xp, axes).length, axes.index("time")))

    def terms_gradient(self, x: Array, weight: Array | float, *, xp: Namespace, axes: Axes) -> Array:
        of_state = self._norm(x, xp, axes)
        step = difference(of_state.length, axes.index("time"))
        slope = transposed_difference(xp.multiply(weight, xp.double(step)), of_state.length, axes.index("time"), xp)
        return norm_gradient(x, of_state, slope, xp)

    def terms_shape(self, shape: tuple[int, ...], *, axes: Axes) -> tuple[int, ...]:
        return shorter(reduced(shape, (axes.index("feature"),)), axes.index("time"))

    def coupled(self, rank: int, *, axes: Axes) -> tuple[int, ...]:
        return axes.indices(("feature", "time"))

    def terms_mask(self, mask: Array, *, xp: Namespace, axes: Axes) -> Array:
        valid = xp.any(mask, (axes.index("feature"),))
        if int(valid.shape[axes.index("time")]) == 1:  # the mask does not vary along time
            return valid
        before, after = ends(valid, axes.index("time"))
        return before & after

    def _norm(self, x: Array, xp: Namespace, axes: Axes) -> Norm:
        return norm(x, (axes.index("feature"),), xp=xp, axes=axes)
