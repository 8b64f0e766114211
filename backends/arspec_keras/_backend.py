"""What depends on the Keras backend, and the few internals of Keras the adapter needs.

The arithmetic is that of the tensor engine of the backend. It never goes through
`keras.ops`, which computes float64 in float32 in a dozen places.
"""

import importlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from keras.src import backend as keras_backend

import keras
from arspec import SpecError, UnsupportedError
from arspec.penalties import Penalty

_ENGINES = {"tensorflow": "arspec_tensorflow", "jax": "arspec_jax", "torch": "arspec_torch"}

# Keras has one backend per process, chosen when it is imported.
_BACKEND = keras.backend.backend()
if _BACKEND not in _ENGINES:
    _ALLOWED = ", ".join(sorted(_ENGINES))
    raise UnsupportedError(f"Keras runs on the backend {_BACKEND!r}; arspec_keras needs one of {_ALLOWED}.")
_ENGINE = importlib.import_module(_ENGINES[_BACKEND])

# Measured and read in source: `arspec.dialects.keras` names the versions.
DIVIDES_ACTIVITY_LOSSES = tuple(map(int, keras.__version__.split(".")[:2])) >= (3, 14)


def value(
    penalty: Penalty,
    x: Any,
    /,
    *,
    axes: Any = None,
    mean_over: Any = (),
    mask: Any = None,
    numerics: str = "identical",
) -> Any:
    """Evaluate a penalty of a tensor of the running Keras backend, as a differentiable scalar.

    The arguments, the definition, the dtypes and the errors are those of `arspec.value`;
    the number and its gradient have the same bits on every backend.

    Parameters
    ----------
    penalty : such as `arspec.L1(1e-4)`.
    x : tensor of the backend, or a `keras.Variable`, of float16, bfloat16, float32 or float64.
    axes, mean_over : as in `arspec.value`.
    mask : boolean tensor over the leading axes of x, true where x is valid.
    numerics : "identical" (the default), or "bounded" for the backend's own float32 sums.

    Returns
    -------
    A 0-d tensor of the backend: float64 for a float64 x, else float32.

    Raises
    ------
    SpecError: x is symbolic or not floating point, or a name, a shape or the mask does not fit.
    UnsupportedError: x is complex, or Keras runs on a backend without automatic derivatives.

    Example
    -------
    >>> import arspec, keras
    >>> float(value(arspec.L1(0.5), keras.ops.convert_to_tensor([-1.0, 0.0, 3.0])))
    2.0
    """
    if isinstance(x, keras.KerasTensor):
        raise SpecError("x is a symbolic KerasTensor, which has no numbers; attach a rule to the layer that makes it.")
    tensor = x.value if isinstance(x, keras.Variable) else x
    return _ENGINE.value(penalty, tensor, axes=axes, mean_over=mean_over, mask=mask, numerics=numerics)


def summable(loss: Any) -> Any:
    """Return `loss` as Keras' trainers can add it: they refuse float64 beside a float32 loss."""
    return keras.ops.cast(loss, keras.config.floatx()) if keras.config.floatx() == "float32" else loss


def is_concrete(x: Any) -> bool:
    """Return whether `x` holds numbers, as it does outside of traced and compiled code."""
    if _BACKEND == "jax":
        import jax

        return not isinstance(x, jax.core.Tracer)
    return _BACKEND == "torch" or hasattr(x, "numpy")


def uncompiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Keep torch.compile out of `function`: it would compile anew for every site."""
    if _BACKEND != "torch":
        return function
    import torch

    return torch.compiler.disable(function)


def losses_are_dropped() -> bool:
    """Return whether Keras runs a call only for its outputs, as to infer shapes or to predict on JAX."""
    return keras_backend.in_stateless_scope() and not keras_backend.get_stateless_scope().collect_losses


def forget_stale_losses(model: keras.Model) -> None:
    """Make Keras forget the losses of earlier stateless calls of `model`.

    Keras knows them by `id`, which Python gives again to other tensors, and clears them only
    in `model(x)`: after a second trace `model.losses` could hold a layer's own loss twice.
    """
    if keras_backend.in_stateless_scope() and not keras_backend.get_stateless_scope().losses:
        model._loss_ids.clear()


def losses_of_this_pass(model: keras.Model, eager: list[Any]) -> list[Any]:
    """Return the list of the losses that `model` added in the forward pass that runs, to be extended.

    In a stateless pass it lives on Keras' scope, so that it ends with the pass. There Keras
    takes every call of a shared model for a pass of its own and drops the losses of the
    calls before; they are put back. Otherwise `eager` is the list, emptied where Keras has
    begun a new pass. Losses are compared by identity while they are alive, never by `id`.
    """
    if not keras_backend.in_stateless_scope():
        if not any(loss is held for loss in eager for held in model._losses):
            eager.clear()
        return eager
    scope = keras_backend.get_stateless_scope()
    added = vars(scope).setdefault("_arspec_losses", {}).setdefault(id(model), [])
    for loss in added:
        if not any(loss is held for held in scope.losses):
            keras.Layer.add_loss(model, loss)
    return added


def stored_precision() -> AbstractContextManager[Any]:
    """Read variables in the dtype they are stored in, also under a mixed-precision policy."""
    return keras_backend.AutocastScope(None)


def propagated_mask(x: Any) -> Any:
    """Return the mask that Keras itself gave the tensor, such as that of an Embedding, or None."""
    return keras_backend.get_keras_mask(x)


def as_mask(mask: Any) -> Any:
    """Return a mask as a boolean tensor; Keras' layers take numbers for it too."""
    return None if mask is None else keras.ops.cast(mask, "bool")


def loop(
    step: Callable[..., Any], sequences: Any, states: list[Any], *, go_backwards: bool, mask: Any, unroll: bool
) -> Any:
    """Run a step over time in Keras' own loop and return what it gives at every step, in the order of the loop.

    A masked step gives 0: otherwise the loop of JAX takes the first state for what it gave before.
    """
    _, outputs, _ = keras_backend.rnn(
        step,
        sequences,
        states,
        go_backwards=go_backwards,
        mask=mask,
        unroll=unroll,
        input_length=sequences.shape[1],
        zero_output_for_mask=True,
    )
    return outputs


def retrace(model: keras.Model) -> None:
    """Drop the compiled functions of a model, which hold its losses and metrics as they were."""
    model.train_function = model.test_function = model.predict_function = None


def is_weight(x: Any) -> bool:
    """Return whether Keras asks for the penalty of a weight; in a stateless pass it gives its value."""
    if isinstance(x, keras.Variable):
        return True
    scope: Any = keras_backend.get_stateless_scope() if keras_backend.in_stateless_scope() else None
    return scope is not None and any(x is value for value in scope.state_mapping.values())
