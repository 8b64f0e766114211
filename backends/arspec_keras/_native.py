"""Penalties in Keras' own slots: a regularizer object and an activity-regularization layer."""

from typing import Any

import keras
from arspec import SPEC_VERSION, Rule, Spec
from arspec._axes import resolve_axes
from arspec.penalties import Penalty
from arspec_keras import _backend

_WEIGHT_AXES = {
    1: "output",
    2: "input output",
    3: "time input output",
    4: "height width input output",
    5: "depth height width input output",
}
_PLACE = {"layer": "here", "placement": "output"}  # what a rule names, and a slot knows


class _Written:
    """A penalty and how it is averaged, as both classes here hold and save it."""

    def _hold(self, penalty: Penalty, mean_over: Any, axes: str | None, numerics: str) -> None:
        self.given = mean_over
        self.rule = Rule(penalty, **_PLACE, mean_over=mean_over, numerics=numerics)
        self.axes = axes if axes is None else " ".join(resolve_axes(len(axes.split()), axes).names)

    def _written(self) -> dict[str, Any]:
        document = Spec([self.rule]).to_document()["rules"][0]
        mean_over = None if self.given is None else document["mean_over"]
        return {
            "penalty": document["penalty"],
            "mean_over": mean_over,
            "axes": self.axes,
            "numerics": self.rule.numerics,
        }


def _read(config: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments in a config, with the penalty that its document describes."""
    rule = {"penalty": config["penalty"], **_PLACE}
    spec = Spec.from_document({"arspec": SPEC_VERSION, "rules": [rule]})
    return {**config, "penalty": spec.rules[0].penalty}


@keras.saving.register_keras_serializable("arspec")
class Regularizer(_Written, keras.regularizers.Regularizer):
    """A penalty for Keras' own slots: kernel_regularizer, activity_regularizer and the others.

    At a weight it is the penalty, a sum unless `mean_over` says otherwise. At an activity it
    is averaged as `mean_over` says, ("batch",) by default, whatever this version of Keras
    does with activity losses: since 3.14 Keras divides them by the batch, so that the
    regularizer gives it the value times the batch, which costs a rounding at most.

    Parameters
    ----------
    penalty : such as `arspec.L1(1e-4)`, or a sum of penalties.
    mean_over : axes averaged over, "sum", "batchmean" or "mean". None: ("batch",) at an
        activity, () at a weight.
    axes : names of the axes, such as "batch feature height width". None: the channels-last
        names of an activity, and "[spatial] input output" at a weight.
    numerics : "identical" (the default) or "bounded", as in a Rule.

    Raises
    ------
    SpecError: an argument is not one of these.

    Notes
    -----
    Keras does not tell an activity regularizer the mask, so that padded steps count, nor any
    placement but the output after the activation function; it drops the penalties of frozen
    weights. `arspec_keras.attach` knows all of these. Called by itself on a tensor the
    object gives what Keras is to divide.

    Example
    -------
    >>> import arspec as ar, arspec_keras, keras, numpy as np
    >>> sparse = arspec_keras.Regularizer(ar.L1(0.5))
    >>> layer = keras.layers.Dense(3, kernel_initializer="ones", activity_regularizer=sparse)
    >>> _ = layer(np.ones((4, 2)))
    >>> [float(loss) for loss in layer.losses]
    [3.0]
    """

    def __init__(
        self, penalty: Penalty, *, mean_over: Any = None, axes: str | None = None, numerics: str = "identical"
    ) -> None:
        self._hold(penalty, mean_over, axes, numerics)

    def __call__(self, x: Any) -> Any:
        """Return the penalty of a weight, or what Keras makes the penalty of an activity."""
        is_weight = _backend.is_weight(x)
        axes = self.axes if self.axes or not is_weight else _WEIGHT_AXES.get(len(x.shape))
        mean_over = () if is_weight and self.given is None else self.rule.mean_over
        loss = _backend.summable(
            _backend.value(self.rule.penalty, x, axes=axes, mean_over=mean_over, numerics=self.rule.numerics)
        )
        if is_weight or not _backend.DIVIDES_ACTIVITY_LOSSES or len(x.shape) == 0:
            return loss
        return loss * keras.ops.cast(keras.ops.shape(x)[0], loss.dtype)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments as JSON writes them."""
        return self._written()

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Regularizer":
        """Build one from its config; errors as `Spec.from_document`."""
        return cls(**_read(config))


@keras.saving.register_keras_serializable("arspec")
class ActivityRegularization(_Written, keras.layers.Layer):
    """Pass x on, and penalize it: a rule written where it applies.

    Its loss is one of `model.losses`, whatever version of Keras; padded positions of a mask
    do not count.

    Parameters
    ----------
    penalty, mean_over, axes, numerics : as for `Regularizer`; ("batch",) by default.
    kwargs : of every layer, such as name.

    Raises
    ------
    SpecError: an argument is not one of these.

    Example
    -------
    >>> import arspec as ar, arspec_keras, keras, numpy as np
    >>> layer = arspec_keras.ActivityRegularization(ar.L1(0.5))
    >>> _ = layer(np.ones((4, 2)))
    >>> [float(loss) for loss in layer.losses]
    [1.0]
    """

    def __init__(
        self,
        penalty: Penalty,
        *,
        mean_over: Any = None,
        axes: str | None = None,
        numerics: str = "identical",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._hold(penalty, mean_over, axes, numerics)
        self.supports_masking = True

    def call(self, inputs: Any, mask: Any = None) -> Any:
        """Return the inputs and add their penalty to the losses."""
        if not _backend.losses_are_dropped():
            options = {"mean_over": self.rule.mean_over, "numerics": self.rule.numerics}
            valid = _backend.as_mask(mask)
            loss = _backend.value(self.rule.penalty, inputs, axes=self.axes, mask=valid, **options)
            self.add_loss(_backend.summable(loss))
        return inputs

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return the shape of the inputs."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return the arguments as JSON writes them."""
        return {**super().get_config(), **self._written()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "ActivityRegularization":
        """Build one from its config; errors as `Spec.from_document`."""
        return cls(**_read(config))
