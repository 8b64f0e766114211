"""arspec_autograd through the contract of the suite; all of it is public."""

from typing import Any

import autograd
import numpy as np

from arspec_autograd import value
from arspec_conformance import Mode


class AutogradAdapter:
    """One mode, on the CPU; bfloat16 is unknown to NumPy."""

    name = "autograd"

    def versions(self) -> dict[str, str]:
        return {"autograd": autograd.__version__, "numpy": np.__version__}

    def devices(self) -> tuple[str, ...]:
        return ("cpu",)

    def dtypes(self, device: str) -> tuple[str, ...]:
        return "float16", "float32", "float64"

    def modes(self) -> tuple[Mode, ...]:
        return (Mode("eager"),)

    def capabilities(self) -> frozenset[str]:
        return frozenset({"mask", "empty", "special values"})

    def to_native(self, array: np.ndarray, dtype: str, device: str) -> np.ndarray:
        return np.array(array)

    def to_numpy(self, tensor: Any) -> np.ndarray:
        return np.asarray(tensor)

    def value_and_gradient(
        self,
        penalty: Any,
        x: Any,
        *,
        axes: Any = None,
        mean_over: Any = (),
        mask: Any = None,
        cotangent: float = 1.0,
        mode: str,
    ) -> tuple[Any, Any]:
        def of_x(x: Any) -> Any:
            return value(penalty, x, axes=axes, mean_over=mean_over, mask=mask)

        pull_back, found = autograd.make_vjp(of_x)(x)
        return found, pull_back(np.asarray(cotangent, np.asarray(found).dtype))
