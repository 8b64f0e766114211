"""torch: value + gradient of one tensor, and whole training steps, eager and compiled."""

import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import torch
from harness import Options, Row, Variants, compare, interleave, peak_memory
from torch import Tensor, nn

import arspec as ar
import arspec_torch
from cases import Case, Ops, chosen

OPS = Ops(
    abs=torch.abs, square=torch.square, sqrt=torch.sqrt, log=torch.log, log1p=torch.log1p,
    sum=lambda x, axis: x.sum() if axis is None else x.sum(axis),
    mean=lambda x, axis: x.mean() if axis is None else x.mean(axis),
)  # fmt: skip

# Above it a compiled penalty is left out: nothing new is learned, and memory is short.
LARGEST_COMPILED = 1_000_000


def rows(options: Options) -> Iterator[Row]:
    if options.device == "cpu":
        torch.set_num_threads(1)
    for size in options.sizes:
        for case in chosen(options.quick):
            yield _isolated(case, size, options, compiled=False)
    if options.regime == "default":
        compiled_sizes = [size for size in options.sizes if 64_000 <= size <= LARGEST_COMPILED]
        for size in compiled_sizes[:1] if options.quick else compiled_sizes:
            for case in chosen(options.quick):
                yield _isolated(case, size, options, compiled=True)
    nets = ("mlp", "100 layers") if options.quick else ("mlp", "mlp large", "conv", "100 layers")
    for net in nets:
        yield _step(net, options, compiled=False)
    if options.regime == "default" and not options.quick:
        for net in ("mlp", "100 layers"):
            yield _step(net, options, compiled=True)


def _clock(device: str) -> Callable[[], float]:
    if device == "cpu":
        return time.thread_time

    def synchronized() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    return synchronized


class _Source(torch.autograd.Function):
    """Hand out the tensor as an activation of a layer that needs its gradient."""

    @staticmethod
    def forward(ctx: Any, leaf: Tensor, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None]:
        return None, None


class _Sink(torch.autograd.Function):
    """Stand for the rest of the network, which sends a gradient of its own back."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return h.new_zeros(())

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor, None]:
        return ctx.saved_tensors[0].clone(), None


def _isolated(case: Case, size: int, options: Options, *, compiled: bool) -> Row:
    torch.compiler.reset()  # every case is one function of the same source line, and torch counts those
    x = torch.from_numpy(case.array(size)).to(options.device)
    leaf, sent = torch.zeros((), device=options.device, requires_grad=True), torch.randn_like(x) * 1e-3
    target = torch.zeros_like(x)

    def ours(h: Tensor) -> Tensor:
        return arspec_torch.value(case.penalty, h, **case.options)

    def bounded(h: Tensor) -> Tensor:
        return arspec_torch.value(case.penalty, h, numerics="bounded", **case.options)

    def naive(h: Tensor) -> Tensor:
        return case.idiom(h, OPS)

    def run(penalty: Callable[[Tensor], Tensor] | None) -> Callable[[], None]:
        made = torch.compile(penalty, fullgraph=True, dynamic=False) if compiled and penalty else penalty

        def once() -> None:
            h = _Source.apply(leaf, x)
            loss = _Sink.apply(h, sent)
            (loss if made is None else loss + made(h)).backward()

        return once

    variants: Variants = {
        "none": run(None), "naive": run(naive), "arspec": run(ours), "bounded": run(bounded),
        "triad": lambda: target.add_(x, alpha=1e-9),
    }  # fmt: skip
    times = interleave(variants, clock=_clock(options.device), seconds=options.seconds)
    is_visible = options.device != "cpu" or options.regime == "default"  # kept memory hides what is used
    memory = {} if x.numel() < 1_000_000 or not is_visible else _memory(variants, 4 * x.numel(), options.device)
    mode = "compile" if compiled else "eager"
    return compare(
        times, options=options, mode=mode, workload="value+gradient", penalty=case.name, size=x.numel(), memory=memory
    )


def _memory(variants: Variants, unit: int, device: str) -> dict[str, float]:
    peaks = {name: _peak(variants[name], device) for name in ("none", "naive", "arspec", "bounded")}
    known = {name: peak for name, peak in peaks.items() if peak is not None}
    return {name: (peak - known["none"]) / unit for name, peak in known.items() if name != "none"}


def _peak(run: Callable[[], Any], device: str) -> int | None:
    if device == "cpu":
        return peak_memory(run)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    return torch.cuda.max_memory_allocated() - before


def _net(name: str) -> tuple[nn.Sequential, Tensor]:
    torch.manual_seed(0)
    if name == "conv":
        widths = [3, 32, 32, 32, 32]
        layers = [nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths)]
        return _alternate(layers, nn.Sequential(nn.Flatten(), nn.Linear(32 * 56 * 56, 10))), torch.randn(16, 3, 56, 56)
    if name == "100 layers":
        return _alternate([nn.Linear(64, 64) for _ in range(100)], nn.Linear(64, 10)), torch.randn(32, 64)
    layers = [nn.Linear(500, 500) for _ in range(4)]
    return _alternate(layers, nn.Linear(500, 10)), torch.randn(128 if name == "mlp" else 16384, 500)


def _alternate(layers: list[Any], head: nn.Module) -> nn.Sequential:
    return nn.Sequential(*(part for layer in layers for part in (layer, nn.ReLU())), head)


class _ByHand(nn.Module):
    """The same network with the penalty written into its forward pass."""

    def __init__(self, body: nn.Sequential) -> None:
        super().__init__()
        self.body, self.penalty = body, torch.zeros(())

    def forward(self, x: Tensor) -> Tensor:
        parts = []
        for part in self.body:
            x = part(x)
            if isinstance(part, nn.ReLU):
                parts.append(1e-4 * x.abs().sum() / x.shape[0])
        self.penalty = torch.stack(parts).sum()
        return x


def _step(net: str, options: Options, *, compiled: bool) -> Row:
    """Time forward, backward and an SGD step with L1 on the output of every hidden layer."""
    _, example = _net(net)
    x, width = example.to(options.device), len(_net(net)[0]) // 2

    def attached(model: nn.Module, numerics: str) -> arspec_torch.Regularization:
        where: dict[str, Any] = {"placement": "output", "numerics": numerics}
        return arspec_torch.attach(
            model, ar.Spec([ar.Rule(ar.L1(1e-4), layer=str(2 * i), **where) for i in range(width)])
        )

    def train(model: nn.Module, penalty: Callable[[], Tensor] | None) -> Callable[[], None]:
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

        def loss_of(x: Tensor) -> Tensor:
            loss = model(x).square().mean()
            return loss if penalty is None else loss + penalty()

        loss_function = torch.compile(loss_of, fullgraph=True, dynamic=False) if compiled else loss_of

        def once() -> None:
            optimizer.zero_grad()
            loss_function(x).backward()
            optimizer.step()

        return once

    plain, regular, loose = (_net(net)[0].to(options.device) for _ in range(3))
    by_hand = _ByHand(_net(net)[0]).to(options.device)
    variants: Variants = {
        "none": train(plain, None),
        "naive": train(by_hand, lambda: by_hand.penalty),
        "arspec": train(regular, attached(regular, "identical").total),
        "bounded": train(loose, attached(loose, "bounded").total),
    }
    times = interleave(variants, clock=_clock(options.device), seconds=3 * options.seconds)
    activations = sum(h.numel() for h in _activations(plain, x))
    mode = "compile" if compiled else "eager"
    return compare(times, options=options, mode=mode, workload=f"step {net}", penalty="L1", size=activations)


@torch.no_grad()
def _activations(model: nn.Sequential, x: Tensor) -> list[Tensor]:
    found = []
    for part in model:
        x = part(x)
        if isinstance(part, nn.ReLU):
            found.append(x)
    return found
