"""Source code of the layers that torch has otherwise than Keras; a file gets those it needs.

Nothing here runs in arspec: it is text for people's files, written to be read there.
"""

_BATCH_NORM = '''class BatchNorm{rank}d(nn.BatchNorm{rank}d):
    """Batch normalization whose running variance is the biased one of the batch.

    torch's own keeps the unbiased one, n / (n - 1) times as large. `momentum` is the share of
    the new batch.
    """

    def __init__(
        self, features: int, eps: float, momentum: float, scale: bool = True, shift: bool = True
    ) -> None:
        super().__init__(features, eps, momentum)
        self.share = momentum
        if not scale:
            self.register_parameter("weight", None)
        if not shift:
            self.register_parameter("bias", None)

    def reset_parameters(self) -> None:
        self.reset_running_stats()
        for parameter, start in ((self.weight, 1.0), (self.bias, 0.0)):
            if parameter is not None:
                nn.init.constant_(parameter, start)

    def forward(self, input: Tensor) -> Tensor:
        assert self.running_mean is not None and self.running_var is not None
        scale, shift = self.weight, self.bias
        if not self.training:
            statistics = self.running_mean, self.running_var
            return F.batch_norm(input, *statistics, scale, shift, eps=self.eps)
        with torch.no_grad():
            axes = [0, *range(2, input.dim())]
            variance, mean = torch.var_mean(input, axes, correction=0)
            self.running_mean.lerp_(mean, self.share)
            self.running_var.lerp_(variance, self.share)
        return F.batch_norm(input, None, None, scale, shift, training=True, eps=self.eps)'''

HELPERS = {
    "pad_same": '''def pad_same(
    x: Tensor,
    size: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
    value: float = 0.0,
) -> Tensor:
    """Pad so that a window gives ceil(n / stride) results along each axis; the odd one goes to the end."""
    pads: list[int] = []
    for n, k, s, d in zip(x.shape[2:], size, stride, dilation):
        total = max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
        pads = [total // 2, total - total // 2, *pads]
    return F.pad(x, pads, value=value)''',
    "AveragePoolSame": '''class AveragePoolSame(nn.Module):
    """Average pooling that keeps ceil(n / stride) results and counts real entries only."""

    def __init__(self, size: tuple[int, ...], stride: tuple[int, ...]) -> None:
        super().__init__()
        self.size, self.stride = size, stride

    def forward(self, x: Tensor) -> Tensor:
        pads: list[int] = []
        for n, k, s in zip(x.shape[2:], self.size, self.stride):
            total = max((-(-n // s) - 1) * s + k - n, 0)
            pads = [total // 2, total - total // 2, *pads]
        pool = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}[len(self.size)]
        share = pool(F.pad(torch.ones_like(x[:1, :1]), pads), self.size, self.stride)
        return pool(F.pad(x, pads), self.size, self.stride) / share''',
    "Exponential": '''class Exponential(nn.Module):
    """exp(x)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.exp()''',
    "Scale": '''class Scale(nn.Module):
    """Each channel times a number."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(shape))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight''',
    "Standardize": '''class Standardize(nn.Module):
    """(x - mean) / max(sqrt(variance), eps) with constant statistics per channel."""

    def __init__(self, *shape: int, eps: float) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("variance", torch.ones(shape))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.variance.sqrt().clamp(min=self.eps)''',
    "StochasticDepth": '''class StochasticDepth(nn.Module):
    """Drop whole examples in training, and scale the others up."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0.0:
            return x
        kept = x.new_empty(x.shape[0], *[1] * (x.dim() - 1)).bernoulli_(1 - self.p)
        return x / (1 - self.p) * kept''',
    **{f"BatchNorm{rank}d": _BATCH_NORM.format(rank=rank) for rank in (1, 2, 3)},
}
