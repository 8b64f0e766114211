"""The core's operations on torch tensors."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from arspec._bounded import Bounded
from arspec._namespace import Namespace
from arspec_torch import _kernels, _plain


class TorchNamespace(Namespace):
    """Hardened operations on torch tensors, eager, compiled, and under torch.func."""

    lib = torch
    mutable_arrays = True

    def dtype_name(self, x: Tensor) -> str:
        return str(x.dtype).removeprefix("torch.")

    def cast(self, x: Tensor | float, dtype: str) -> Tensor:
        return torch.as_tensor(x).to(getattr(torch, dtype))

    def guard(self, product: Tensor | float) -> Tensor | float:
        # Eager kernels do one operation each, and inductor's C++ is compiled without contraction;
        # its Triton kernels may fuse. On the CPU the three uses below would only make inductor
        # inline a chain of guards three times per link, which takes minutes to compile.
        if not isinstance(product, Tensor) or not torch.compiler.is_compiling() or product.device.type == "cpu":
            return product
        return torch.where(product == product, product, torch.nan)

    def bounded(self, dtype: str) -> Namespace:
        return BoundedTorchNamespace(dtype)

    def block_size(self, x: Tensor) -> int | None:
        return EAGER.block_size(x) if _is_eager(x) else None

    def unordered_block(self, x: Tensor) -> int | None:
        return EAGER.unordered_block(x) if _is_eager(x) else None

    def unordered_sum(self, x: Tensor) -> float:
        return torch.sum(x, dtype=torch.float64).item()

    def zeros(self, like: Tensor, shape: tuple[int, ...]) -> Tensor:
        return like.new_zeros(shape)

    def empty(self, like: Tensor, shape: tuple[int, ...]) -> Tensor:
        return like.new_empty(shape)

    def sign(self, x: Tensor) -> Tensor:
        # A comparison with NaN takes torch ten times as long as a product and a clamp, which keeps NaN.
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or x.dtype not in _plain.HUGE:
            return super().sign(x)
        return torch.clamp(x * _plain.HUGE[x.dtype], -1.0, 1.0)

    def halve(self, x: Tensor, axis: int) -> Tensor:
        array = _plain.array_of(x) if x.numel() <= _plain.SMALL and x.dtype is torch.float64 else None
        return super().halve(x, axis) if array is None else torch.from_numpy(_plain.NUMPY.halve(array, axis))

    def sqrt(self, x: Tensor) -> Tensor:
        # Eager CPU kernels are up to 1 ulp off; one Newton step from the exact residual mends that.
        root = torch.sqrt(x)
        if x.device.type != "cpu" or torch.compiler.is_compiling():
            return self.guard(root)
        # Away from the ends of the range, where products of the residual overflow or lose bits.
        unit = self.where(x > 2.0**900, 2.0**-200, self.where(x < 2.0**-700, 2.0**200, 1.0))
        scaled = unit * root
        mended = root + exact_residual(x * unit * unit, scaled) / (unit * (scaled + scaled))
        # Just below a power of four the step ends halfway; √x < 2ᵏ never rounds up to 2ᵏ there.
        too_large = (mended + 2.0**-53 * mended == mended) & (x < mended * mended)
        mended = torch.where(too_large, (1.0 - 2.0**-53) * mended, mended)
        return torch.where((root == 0) | (root == torch.inf), root, mended)

    def raw_max(self, x: Tensor, axis: tuple[int, ...]) -> Tensor:
        return torch.amax(x, dim=axis, keepdim=True) if axis else x

    def raw_power(self, x: Tensor, exponent: float) -> Tensor:
        return torch.pow(x, exponent)

    def broadcast_to(self, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        return x.expand(shape)  # torch.broadcast_to is not known to is_grads_batched

    def permute(self, x: Tensor, order: tuple[int, ...]) -> Tensor:
        return torch.permute(x, order)

    def constant(self, array: np.ndarray, like: Tensor) -> Tensor:
        return torch.as_tensor(array, device=like.device)

    def pullback(self, function: Callable[[Tensor], Tensor], x: Tensor, weight: Tensor | float) -> Tensor:
        terms, pull = torch.func.vjp(function, x)
        return pull(torch.broadcast_to(torch.as_tensor(weight, dtype=terms.dtype, device=x.device), terms.shape))[0]

    def where(self, condition: Tensor, x: Tensor | float, y: Tensor | float) -> Tensor:
        # Of two plain numbers torch would make its default dtype, not float64.
        if not isinstance(x, Tensor) and not isinstance(y, Tensor):
            x = torch.as_tensor(x, dtype=getattr(torch, self.wide), device=condition.device)
        return torch.where(condition, x, y)

    def concat(self, parts: list[Tensor], axis: int) -> Tensor:
        return torch.cat(parts, dim=axis)

    def flush(self, x: Tensor, smallest: float) -> Tensor:
        # One kernel instead of three, where its derivative does not matter.
        return super().flush(x, smallest) if torch.is_grad_enabled() else _plain.flush_in_torch(x, smallest)

    def stop_gradient(self, x: Tensor) -> Tensor:
        return x.detach()


def _is_eager(x: Tensor) -> bool:
    return not torch.compiler.is_compiling() and x.device.type == "cpu" and _plain.is_readable(x)


def exact_residual(x: Tensor, root: Tensor) -> Tensor:
    """Return x - root² without rounding, the square split into exact products (T. J. Dekker, 1971)."""
    carried = 134217729.0 * root  # 2²⁷ + 1
    high = carried - (carried - root)
    low = root - high
    return ((x - high * high) - 2 * high * low) - low * low


class BoundedTorchNamespace(Bounded, TorchNamespace):
    """torch's own sums and products in float32."""

    def raw_sum(self, x: Tensor, axis: int) -> Tensor:
        return torch.sum(x, dim=axis, keepdim=True)

    def sqrt(self, x: Tensor) -> Tensor:
        return torch.sqrt(x)


XP = TorchNamespace()


class WholeNamespace(TorchNamespace):
    """Without blocks, which write into a buffer: vmap over the cotangent alone forbids that."""

    def block_size(self, x: Tensor) -> int | None:
        return None

    def unordered_block(self, x: Tensor) -> int | None:
        return None


WHOLE = WholeNamespace()


class EagerTorchNamespace(TorchNamespace):
    """On the CPU, outside of every transformation, in a region without gradients: nothing is to be asked."""

    def guard(self, product: Tensor | float) -> Tensor | float:
        return product

    def bounded(self, dtype: str) -> Namespace:
        return EagerBoundedTorchNamespace(dtype)

    def block_size(self, x: Tensor) -> int | None:
        if x.numel() <= _kernels.BLOCK:
            return None
        return _kernels.BLOCK if torch.get_num_threads() == 1 else _kernels.THREADED_BLOCK

    def unordered_block(self, x: Tensor) -> int | None:
        return _kernels.BLOCK

    def sign(self, x: Tensor) -> Tensor:
        return torch.clamp(x * _plain.HUGE[x.dtype], -1.0, 1.0)

    def flush(self, x: Tensor, smallest: float) -> Tensor:
        return _plain.flush_in_torch(x, smallest)

    def sqrt(self, x: Tensor) -> Tensor:
        return torch.from_numpy(np.sqrt(x.numpy()))  # NumPy's is that of IEEE

    def within(self, x: Tensor, low: float, high: float) -> Tensor:
        smallest, largest = torch.aminmax(x)
        inside = smallest.item() >= low and largest.item() <= high  # no NaN is
        return x if inside else super().within(x, low, high)

    def ones(self, x: Tensor) -> Tensor | float:
        return super().ones(x) if math.isnan(torch.amax(x).item()) else 1.0


class EagerBoundedTorchNamespace(Bounded, EagerTorchNamespace):
    """torch's own sums and products in float32, eagerly."""

    def raw_sum(self, x: Tensor, axis: int) -> Tensor:
        return torch.sum(x, dim=axis, keepdim=True)

    def flush(self, x: Tensor, smallest: float) -> Tensor:
        return _plain.flush_in_torch(x, smallest)


EAGER = EagerTorchNamespace()
