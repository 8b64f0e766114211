"""L0Margin: a penalty of the study's own, registered by `arspec.register`, as anyone can."""

import arspec
from arspec import Axes, L0Step, Namespace


@arspec.register
class L0Margin:
    """coefficient · Σ 1[x > 0]; the gradient is 1/bandwidth within ±½ bandwidth of 0, else 0.

    `arspec.L0Step` counts the activations above a fixed threshold θ, and its gradient to them
    is 0 by definition: it measures, and trains nothing. A JumpReLU autoencoder trains θ. Given
    the margin x = stop_gradient(z) − θ, this counts the same latents, and hands θ the
    straight-through slope that `L0Step.threshold_gradient` defines.
    """

    name = "l0_margin"
    non_negative = True
    coefficient: float
    bandwidth: float

    def terms(self, x, *, xp: Namespace, axes: Axes):  # type: ignore[no-untyped-def]
        return self._step().terms(x, xp=xp, axes=axes)

    def terms_gradient(self, x, weight, *, xp: Namespace, axes: Axes):  # type: ignore[no-untyped-def]
        # x falls as θ rises.
        return -self._step().threshold_gradient(x, weight, xp=xp, axes=axes)

    def _step(self) -> L0Step:
        return L0Step(1.0, threshold=0.0, bandwidth=self.bandwidth)
