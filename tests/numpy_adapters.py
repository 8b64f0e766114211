"""Adapters over NumPy alone: a right one, and wrong ones with one fault each.

They run the core's pipeline with a namespace of their own, as an engine does, so that a
fault is where an engine would have it.
"""

from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np

from arspec import Spec, _evaluate
from arspec._bounded import Bounded
from arspec._numpy import NumpyNamespace
from arspec.layers import Network
from arspec_conformance import Measured, Mode
from arspec_conformance.faulty._models import some_input

DTYPES = ("float32", "bfloat16", "float16", "float64")


class Right:
    """An adapter whose tensors are NumPy arrays."""

    name = "numpy"
    xp = NumpyNamespace()

    def versions(self) -> dict[str, str]:
        return {"numpy": np.__version__, "ml_dtypes": ml_dtypes.__version__}

    def devices(self) -> tuple[str, ...]:
        return ("cpu",)

    def dtypes(self, device: str) -> tuple[str, ...]:
        return DTYPES

    def modes(self) -> tuple[Mode, ...]:
        return Mode("eager"), Mode("jit")

    def capabilities(self) -> frozenset[str]:
        return frozenset({"mask", "empty", "special values"})

    def to_native(self, array: np.ndarray, dtype: str, device: str) -> np.ndarray:
        assert array.dtype.name == dtype
        return array

    def to_numpy(self, tensor: Any) -> np.ndarray:
        return np.asarray(tensor)

    def namespace(self, mode: str) -> NumpyNamespace:
        return self.xp

    def value_and_gradient(
        self,
        penalty: Any,
        x: np.ndarray,
        *,
        axes: Any = None,
        mean_over: Any = (),
        mask: np.ndarray | None = None,
        cotangent: float = 1.0,
        mode: str,
    ) -> tuple[Any, Any]:
        xp = self.namespace(mode)
        resolved = _evaluate.prepare(penalty, x, xp=xp, axes=axes, mean_over=mean_over)
        resolved = _evaluate.with_mask(resolved, mask, x, xp)
        upstream = np.asarray(cotangent, _evaluate.value_dtype(x, xp))
        with np.errstate(all="ignore"):
            value = _evaluate.value(penalty, x, xp=xp, axes=resolved)
            return value, _evaluate.gradient(penalty, x, upstream, xp=xp, axes=resolved)


class _SignOfZero(NumpyNamespace):
    def sign(self, x: Any) -> Any:
        return np.where(x == 0, 1.0, super().sign(x))


class _CoefficientOff(NumpyNamespace):
    def share(self, coefficient: float, count: Any) -> Any:
        return super().share(coefficient * (1 + 1e-5), count)


class _Float32Sums(NumpyNamespace):
    def halve(self, x: Any, axis: int) -> Any:
        return np.sum(x, axis=axis, keepdims=True, dtype=np.float32).astype(np.float64)


class _NarrowSums(Bounded, NumpyNamespace):
    """Everything in float32, sums in the order of NumPy."""

    def raw_sum(self, x: Any, axis: int) -> Any:
        return np.sum(x, axis=axis, keepdims=True)


class _NativeSums(NumpyNamespace):
    def halve(self, x: Any, axis: int) -> Any:
        return np.sum(x, axis=axis, keepdims=True)


class _SubnormalsKept(NumpyNamespace):
    def flush(self, x: Any, smallest: float) -> Any:
        return x


class _NanLost(NumpyNamespace):
    def max(self, x: Any, axis: tuple[int, ...]) -> Any:
        return np.nanmax(x, axis=axis, keepdims=True, initial=-np.inf) if axis else x


class _CoarseTanh(NumpyNamespace):
    def tanh(self, x: Any) -> Any:
        return np.tanh(x) * (1 + 1e-13)


class SignOfZero(Right):
    xp = _SignOfZero()


class CoefficientOff(Right):
    xp = _CoefficientOff()


class Float32Sums(Right):
    xp = _Float32Sums()


class NarrowSums(Right):
    xp = _NarrowSums("float32")


class NativeSums(Right):
    xp = _NativeSums()


class SubnormalsKept(Right):
    xp = _SubnormalsKept()


class NanLost(Right):
    xp = _NanLost()


class CoarseTanh(Right):
    xp = _CoarseTanh()


class OnlyJitWrong(Right):
    def namespace(self, mode: str) -> NumpyNamespace:
        return _SignOfZero() if mode == "jit" else self.xp


class MaskIgnored(Right):
    def value_and_gradient(self, penalty: Any, x: Any, *, mask: Any = None, **options: Any) -> tuple[Any, Any]:
        return super().value_and_gradient(penalty, x, **options)


class PythonFloat(Right):
    def value_and_gradient(self, penalty: Any, x: Any, **options: Any) -> tuple[Any, Any]:
        value, gradient = super().value_and_gradient(penalty, x, **options)
        return float(value), gradient


class Raises(Right):
    def value_and_gradient(self, penalty: Any, x: Any, **options: Any) -> tuple[Any, Any]:
        if not x.any():
            raise ZeroDivisionError("nothing but zeros")
        return super().value_and_gradient(penalty, x, **options)


class Crashes(Right):
    def value_and_gradient(self, penalty: Any, x: Any, **options: Any) -> tuple[Any, Any]:
        import os

        os.write(2, b"the engine said goodbye\n")
        os._exit(9)


class CrashesAtLInf(Right):
    def value_and_gradient(self, penalty: Any, x: Any, **options: Any) -> tuple[Any, Any]:
        if penalty.name == "linf":
            import os

            os.write(2, b"no maximum was found\n")
            os._exit(9)
        return super().value_and_gradient(penalty, x, **options)


class Slow(Right):
    def value_and_gradient(self, penalty: Any, x: Any, **options: Any) -> tuple[Any, Any]:
        import time

        time.sleep(0.02)
        return super().value_and_gradient(penalty, x, **options)


class WrongModels(Right):
    """The reference network itself, with one part of what it measures wrong."""

    def __init__(self, part: str) -> None:
        self.part = part

    def capabilities(self) -> frozenset[str]:
        return super().capabilities() | {"placements", "tied weights", "frozen layers"}

    def layers(self) -> tuple[str, ...]:
        return "Dense", "Convolution", "SimpleRNN", "Embedding", "BatchNormalization"

    def build(self, network: Network, spec: Spec, device: str) -> "_WrongModel":
        if self.part == "silence":
            spec = Spec([rule for rule in spec.rules if rule.layer != "hiden" and rule.placement == "kernel"])
        else:
            network.penalties(spec, some_input(network))  # raises what attach has to raise
        return _WrongModel(self.part, network, spec)


class _WrongModel:
    def __init__(self, part: str, network: Network, spec: Spec) -> None:
        self.part, self.network, self.spec, self.frozen = part, network, spec, ""

    def measure(self, x: np.ndarray) -> Measured:
        dropped = [rule for rule in self.spec.rules if rule.trainable_only and rule.layer == self.frozen]
        found = self.network.penalties(Spec([rule for rule in self.spec.rules if rule not in dropped]), x)
        free = {name: g for name, g in found.gradients.items() if name != "input"}
        gradients = {
            name: 0 * g if self.frozen and name.startswith(f"{self.frozen}/") else g for name, g in free.items()
        }
        values = {**found.values, **{f"{rule.layer}/{rule.key}": 0.0 for rule in dropped}}
        right = Measured(values, found.total, gradients)
        changed: dict[str, dict[str, Any]] = {
            "values": {"values": {name: value + 1 for name, value in right.values.items()}},
            "total": {"total": right.total + 1},
            "gradients": {"gradients": {name: g + 1 for name, g in gradients.items()}},
            "names": {"values": {f"{name}x": value for name, value in right.values.items()}},
            "a gradient too few": {"gradients": dict(list(gradients.items())[1:])},
            "nothing": {},
        }
        return replace(right, **changed[self.part])

    def freeze(self, layer: str) -> None:
        self.frozen = layer

    def assign(self, parameters: Any) -> None:
        layers = {}
        for name, layer in self.network.layers.items():
            given = {key.split("/")[1]: p for key, p in parameters.items() if key.split("/")[0] == name}
            layers[name] = replace(layer, **given) if given else layer
        self.network = Network(layers)


class NoMethods:
    name = "no methods"
