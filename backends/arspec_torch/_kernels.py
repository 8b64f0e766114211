"""The fused operations of torch's eager CPU kernels: what `arspec._quick` asks of an engine."""

import torch
from torch import Tensor
from torch.nn.functional import hardshrink

# Operations on a block stay in cache; those of torch cost more to start than NumPy's.
BLOCK = 1 << 16

# Threads share the work of a block: fewer and larger ones, or waiting for each other costs more than it saves.
THREADED_BLOCK = 1 << 20

LARGEST_SUBNORMAL = 2.0**-126 - 2.0**-149
HALF = (torch.float16, torch.bfloat16)


class TorchKernels:
    """Exact products and float64 sums, in torch's own order."""

    exact = True

    @property
    def block(self) -> int:
        return BLOCK if torch.get_num_threads() == 1 else THREADED_BLOCK

    def rows(self, x: Tensor) -> list[Tensor]:
        block = self.block
        return [x] if x.numel() <= block else list(x.reshape(-1).split(block))

    def filled(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        block = self.block
        if x.numel() <= block:
            out = torch.empty_like(x)
            return out, [out]
        flat = torch.empty(x.numel(), dtype=x.dtype)
        return flat.view(x.shape), list(flat.split(block))

    def sum_of_magnitudes(self, x: Tensor) -> float:
        return torch.sum(torch.abs(x), dtype=torch.float64).item()

    def sum_of_squares(self, x: Tensor) -> float:
        wide = x.reshape(-1).double()
        return torch.dot(wide, wide).item()

    def signs(self, x: Tensor, weight: float, out: Tensor) -> None:
        # Times 2¹²⁷ the smallest normal number is 2, and NaN stays; a comparison with NaN would take ten times as long.
        narrow = x.float() if x.dtype in HALF else x
        normal = narrow if x.dtype is torch.float16 else hardshrink(narrow, LARGEST_SUBNORMAL)
        scaled = torch.mul(normal, 2.0**127 if weight >= 0 else -(2.0**127))
        if out.dtype in HALF:
            out.copy_(scaled.clamp_(-abs(weight), abs(weight)))
        else:
            torch.clamp(scaled, -abs(weight), abs(weight), out=out)

    def scaled(self, x: Tensor, weight: float, out: Tensor) -> None:
        if abs(weight) > 1 and x.dtype is not torch.float16:
            x = hardshrink(x.float(), LARGEST_SUBNORMAL)
        wide = x.double().mul_(weight)
        out.copy_(wide.float() if out.dtype in HALF else wide)


class BoundedTorchKernels(TorchKernels):
    """Products and sums of blocks in float32."""

    exact = False

    def sum_of_magnitudes(self, x: Tensor) -> float:
        return torch.abs(x).sum(dtype=torch.float32).item()

    def sum_of_squares(self, x: Tensor) -> float:
        return torch.square(x.float()).sum().item()

    def scaled(self, x: Tensor, weight: float, out: Tensor) -> None:
        torch.mul(x, weight, out=out)
