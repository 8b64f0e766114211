"""`extract`: the Spec of an attached model, and of the optimizer that trains it."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import jax

from arspec import Rule, Spec, SpecError, UnsupportedError, dialects
from arspec_jax._forward import Forward

_IDENTITY = ("identity",)
_WITHOUT_DECAY = (
    *("scale", "trace", "ema", "clip", "clip_by_block_rms", "clip_by_global_norm", "adaptive_grad_clip", "centralize"),
    *("scale_by_adam", "scale_by_amsgrad", "scale_by_adamax", "scale_by_adadelta", "scale_by_belief", "scale_by_lion"),
    *("scale_by_radam", "scale_by_rms", "scale_by_rss", "scale_by_stddev", "scale_by_sign", "scale_by_yogi"),
    *("scale_by_schedule", "scale_by_learning_rate", "scale_by_trust_ratio", "scale_by_rprop", "zero_nans"),
)


def extract(forward: Forward, optimizer: Any = None, /, *args: Any, **kwargs: Any) -> Spec:
    """Return the Spec of what regularizes a model.

    Parameters
    ----------
    forward : what `attach` returned.
    optimizer : an optax transformation that trains every parameter of the model, or None. Its
        `add_decayed_weights` counts where nothing but other decays stands before it in the
        chain: it then is `L2(weight_decay / 2)` on every parameter.
    args, kwargs : with an optimizer, what `forward` takes, so that the layers are known.

    Returns
    -------
    The rules that are attached, and one rule per parameter that decays, by its exact path.

    Raises
    ------
    UnsupportedError: a decay that is no penalty (adamw: it stands behind the scaling, or behind
        clipping), that is masked or scheduled, or that meets a parameter without a placement;
        or a transformation of which it is not known whether it decays.
    SpecError: forward or optimizer is none.

    Notes
    -----
    optax keeps what a transformation does in the function `update` alone, so its name and its
    closure are read; what is not known by name is refused.

    Example
    -------
    >>> import arspec as ar, arspec_jax, jax.numpy as jnp, optax
    >>> forward = arspec_jax.attach(lambda params, x: x @ params["out"]["kernel"], ar.Spec([]))
    >>> optimizer = optax.chain(optax.add_decayed_weights(0.02), optax.sgd(0.1))
    >>> spec = arspec_jax.extract(forward, optimizer, {"out": {"kernel": jnp.eye(2)}}, jnp.ones((3, 2)))
    >>> [(rule.penalty, rule.layer, rule.placement) for rule in spec.rules]
    [(L2(coefficient=0.01), 'out', 'kernel')]
    """
    if not isinstance(forward, Forward):
        raise SpecError(f"forward is a {type(forward).__name__}; expected what arspec_jax.attach returned.")
    if optimizer is None:
        return forward.spec
    if not callable(getattr(optimizer, "update", None)):
        raise SpecError(f"optimizer is a {type(optimizer).__name__}; expected an optax transformation.")
    decay = _decay(list(_steps(optimizer.update)))
    return Spec([*forward.spec.rules, *(_rules(forward, decay, args, kwargs) if decay else [])])


def _steps(update: Callable[..., Any]) -> Iterator[tuple[str, Any]]:
    """Return the transformations of a chain in order: the name of each, and the weight decay of one that decays."""
    name = getattr(update, "__qualname__", type(update).__name__).split(".")[0]
    if not str(getattr(update, "__module__", "")).startswith("optax.") or not inspect.isfunction(update):
        raise _unknown(name)
    closure = inspect.getclosurevars(update).nonlocals
    if name == "chain":
        for inner in closure["update_fns"]:
            yield from _steps(inner)
    elif name == "with_extra_args_support":
        yield from _steps(closure["tx"].update)
    elif name == "add_decayed_weights":
        yield name, closure["weight_decay"]
    elif name == "masked":
        inner = [step for step, _ in _steps(closure["inner"].update)]
        if "add_decayed_weights" in inner:
            raise UnsupportedError("the decay is masked; which parameters it leaves out is not read. Write L2 rules.")
        yield from ((step, None) for step in inner)
    elif name in (*_IDENTITY, *_WITHOUT_DECAY):
        yield name, None
    else:
        raise _unknown(name)


def _unknown(name: str) -> UnsupportedError:
    return UnsupportedError(
        f"whether the transformation {name} decays weights is not known; put decay into "
        "optax.chain(optax.add_decayed_weights(...), ...), or write it as L2 rules."
    )


def _decay(steps: list[tuple[str, Any]]) -> float:
    """Return the sum of the coupled decays, 0 for none."""
    total, before = 0.0, None
    for name, weight_decay in steps:
        if name != "add_decayed_weights":
            before = before or (None if name in _IDENTITY else name)
        elif callable(weight_decay):
            raise UnsupportedError(
                "add_decayed_weights has a schedule, which is no number. Use the schedule of a rule."
            )
        elif before is not None and weight_decay != 0:
            raise UnsupportedError(
                f"add_decayed_weights comes after {before}, so that the decay does not pass through it as the gradient "
                "of a penalty does (adamw: its decay is decoupled). Put it first in the chain, or leave it there."
            )
        else:
            total += float(weight_decay)
    return total


def _rules(forward: Forward, decay: float, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Rule]:
    if not args:
        raise SpecError("an optimizer that decays needs what forward takes: extract(forward, optimizer, model, x).")
    found = forward.parameters(*args, **kwargs)
    once = {id(p.identity) if p.identity is not None else where: where for where, p in reversed(found.items())}
    kept = [where for where, p in found.items() if where in once.values() and not p.is_frozen]
    served = sum(found[where].read().size for where in kept)
    trained = sum(leaf.size for leaf in jax.tree.leaves(forward.trained(args[0])))
    if served != trained:
        raise UnsupportedError(
            f"the optimizer decays {trained} numbers, and the placements of the layers have {served}: some parameter "
            "is no placement. Write L2 rules for those that are."
        )
    name = "add_decayed_weights"
    return [dialects.optax.rule(name, layer=layer, placement=p, weight_decay=decay) for layer, p in kept]
