"""JAX under jit: value + gradient of one array, and a whole training step."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from harness import Options, Row, Variants, compare, interleave

import arspec as ar
import arspec_jax
from cases import Case, Ops, chosen

OPS = Ops(
    abs=jnp.abs, square=jnp.square, sqrt=jnp.sqrt, log=jnp.log, log1p=jnp.log1p,
    sum=lambda x, axis: jnp.sum(x, axis), mean=lambda x, axis: jnp.mean(x, axis),
)  # fmt: skip


def rows(options: Options) -> Iterator[Row]:
    for size in options.sizes:
        for case in chosen(options.quick):
            yield _isolated(case, size, options)
    yield _step("mlp", (784, 1024, 1024, 10), 256, options)
    yield _captured(100, options)
    if not options.quick:
        yield _step("mlp wide", (784, 4096, 4096, 10), 256, options)


def _clock(device: str) -> Callable[[], float]:
    return time.process_time if device == "cpu" else time.perf_counter


def _compiled(function: Callable[..., Any], *arguments: Any) -> tuple[Callable[[], Any], Any]:
    made = jax.jit(function).lower(*arguments).compile()
    return lambda: jax.block_until_ready(made(*arguments)), made


def _isolated(case: Case, size: int, options: Options) -> Row:
    x = jnp.asarray(case.array(size))
    sent = jax.random.normal(jax.random.key(0), x.shape) * 1e-3

    def regularized(penalty: Callable[[Any], Any] | None) -> Callable[[Any, Any], Any]:
        def loss(x: Any, sent: Any) -> Any:
            rest = jnp.vdot(sent, x)
            return rest if penalty is None else rest + penalty(x)

        return jax.value_and_grad(loss)

    penalties = {
        "none": None,
        "naive": lambda x: case.idiom(x, OPS),
        "arspec": lambda x: arspec_jax.value(case.penalty, x, **case.options),
        "bounded": lambda x: arspec_jax.value(case.penalty, x, numerics="bounded", **case.options),
    }
    made = {name: _compiled(regularized(penalty), x, sent) for name, penalty in penalties.items()}
    variants: Variants = {name: run for name, (run, _) in made.items()}
    variants["triad"] = _compiled(lambda x, y: y + 1e-9 * x, x, sent)[0]
    times = interleave(variants, clock=_clock(options.device), seconds=options.seconds)
    memory = {
        name: compiled.memory_analysis().temp_size_in_bytes / x.nbytes
        for name, (_, compiled) in made.items()
        if name != "none"
    }
    return compare(
        times, options=options, mode="jit", workload="value+gradient", penalty=case.name, size=x.size, memory=memory
    )


def _step(name: str, widths: tuple[int, ...], batch: int, options: Options) -> Row:
    """Time an SGD step of a multilayer perceptron with L1 on every hidden activation."""
    keys = jax.random.split(jax.random.key(0), len(widths))
    weights = [jax.random.normal(k, (a, b)) / a**0.5 for k, a, b in zip(keys, widths, widths[1:], strict=False)]
    x = jax.random.normal(keys[-1], (batch, widths[0]))
    l1 = ar.L1(1e-4)

    def step(penalty: Callable[[Any], Any] | None) -> Callable[..., Any]:
        def loss(weights: list[Any], x: Any) -> Any:
            total = 0.0
            for kernel in weights[:-1]:
                x = jax.nn.relu(x @ kernel)
                total = total if penalty is None else total + penalty(x)
            return jnp.mean(jnp.square(x @ weights[-1])) + total

        def update(weights: list[Any], x: Any) -> Any:
            value, gradients = jax.value_and_grad(loss)(weights, x)
            return value, [w - 1e-3 * g for w, g in zip(weights, gradients, strict=True)]

        return update

    penalties = {
        "none": None,
        "naive": lambda h: 1e-4 * jnp.sum(jnp.abs(h)) / h.shape[0],
        "arspec": lambda h: arspec_jax.value(l1, h, mean_over=("batch",)),
        "bounded": lambda h: arspec_jax.value(l1, h, mean_over=("batch",), numerics="bounded"),
    }
    variants: Variants = {n: _compiled(step(penalty), weights, x)[0] for n, penalty in penalties.items()}
    times = interleave(variants, clock=_clock(options.device), seconds=3 * options.seconds)
    size = batch * sum(widths[1:-1])
    return compare(times, options=options, mode="jit", workload=f"step {name}", penalty="L1", size=size)


class _Deep(nnx.Module):
    """Many narrow layers, each followed by a ReLU; `by_hand` sums the penalty along the way."""

    def __init__(self, count: int) -> None:
        keys = nnx.Rngs(0)
        self.hidden = nnx.List([nnx.Linear(64, 64, rngs=keys) for _ in range(count)])
        self.head = nnx.Linear(64, 10, rngs=keys)

    def __call__(self, x: Any, *, by_hand: bool = False) -> Any:
        total = 0.0
        for layer in self.hidden:
            x = layer(x)
            total = total + 1e-4 * jnp.sum(jnp.abs(x)) / x.shape[0] if by_hand else total
            x = jax.nn.relu(x)
        return self.head(x), total


def _captured(count: int, options: Options) -> Row:
    """Time value and gradient of a model of many small layers, L1 before every activation."""
    model, x = _Deep(count), jax.random.normal(jax.random.key(0), (32, 64))
    state: Any
    graph, state = nnx.split(model)

    def attached(numerics: str) -> Callable[..., Any]:
        rule = ar.Rule(ar.L1(1e-4), layer="hidden/*", placement="pre_activation", numerics=numerics)
        forward = arspec_jax.attach(model, ar.Spec([rule]))

        def loss(state: Any, x: Any) -> Any:
            (output, _), penalties = forward(nnx.merge(graph, state), x)
            return jnp.mean(jnp.square(output)) + penalties.total()

        return loss

    def plain(state: Any, x: Any, *, by_hand: bool = False) -> Any:
        output, total = nnx.merge(graph, state)(x, by_hand=by_hand)
        return jnp.mean(jnp.square(output)) + total

    losses = {
        "none": plain,
        "naive": partial(plain, by_hand=True),
        "arspec": attached("identical"),
        "bounded": attached("bounded"),
    }
    variants: Variants = {n: _compiled(jax.value_and_grad(loss), state, x)[0] for n, loss in losses.items()}
    times = interleave(variants, clock=_clock(options.device), seconds=3 * options.seconds)
    workload = f"step {count} layers"
    return compare(times, options=options, mode="jit", workload=workload, penalty="L1", size=count * 32 * 64)
