"""Keras regularizers, the objects and their configs: what each version makes of them.

Sources
-------
- Keras 2.0-2.3, `keras/regularizers.py`: one class, `L1L2(l1=0., l2=0.)`, and the functions
  `l1(l=0.01)`, `l2(l=0.01)`, `l1_l2(l1=0.01, l2=0.01)`; a string calls the function.
- tf-keras, `tf_keras/regularizers.py`: classes L1(0.01), L2(0.01), L1L2(0, 0) and
  OrthogonalRegularizer; the string "l1_l2" is (0.01, 0.01).
- Keras 3, `keras/src/regularizers/regularizers.py`: the same classes; the string "l1_l2" is
  an error, "l1l2" and "L1L2" are (0, 0), silently, and `l1_l2()` is too.

Every version takes l1·Σ|x| + l2·Σx², without a ½. Coefficients are rounded to float32 by
Keras 2 and, for L1 and OrthogonalRegularizer, by Keras 3: a config holds 0.1 as
0.10000000149011612, which is what that model was trained with, and is kept.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from arspec._errors import SpecError, UnsupportedError, shown, unknown
from arspec.dialects._dialect import require_coefficient
from arspec.penalties import L1, L1L2, L2, Orthogonal, Penalty

_CLASSES: Mapping[str, Mapping[str, Any]] = {
    "L1": {"l1": 0.01},
    "L2": {"l2": 0.01},
    "L1L2": {"l1": 0.0, "l2": 0.0},
    "OrthogonalRegularizer": {"factor": 0.01, "mode": "rows"},
}
# What `keras.regularizers` calls the classes as functions; numbers then follow in order.
_FUNCTIONS = {
    "l1": "L1",
    "l2": "L2",
    "l1_l2": "L1L2",
    "l1l2": "L1L2",
    "orthogonal_regularizer": "OrthogonalRegularizer",
}
_OURS = ("keras", "tf_keras", "tensorflow")


@dataclass(frozen=True, slots=True)
class Generation:
    """What a range of Keras versions has in common.

    Attributes
    ----------
    name : for messages.
    activity_mean : the axes an activity penalty is averaged over.
    strings : what a bare string stands for, where that is not an error.
    classes : the classes it has.
    frozen_counts : whether a frozen layer keeps its weight penalties.
    module : what a serialized regularizer names as its module, or None.
    """

    name: str
    activity_mean: tuple[str, ...]
    strings: Mapping[str, Mapping[str, float]]
    classes: tuple[str, ...]
    frozen_counts: bool
    module: str | None = None

    @property
    def is_keras_3(self) -> bool:
        """Whether this is Keras 3, whose configs name their modules."""
        return self.module is not None

    @property
    def oldest(self) -> bool:
        """Whether this is Keras 2 before it became tf.keras."""
        return not self.is_keras_3 and not self.activity_mean

    def penalty(self, regularizer: Any, *coefficients: float) -> Penalty:
        """Return the penalty that a regularizer stands for.

        Parameters
        ----------
        regularizer : a string such as "l1", a config `{"class_name": ..., "config": ...}`, or
            a regularizer of Keras itself.
        coefficients : the numbers of a string, in the order of its function; without any,
            this version's defaults.
        """
        if isinstance(regularizer, str):
            return self._from_string(regularizer, coefficients)
        if coefficients:
            raise SpecError(f"coefficients={coefficients!r} go with a string such as 'l1', not with a regularizer.")
        if isinstance(regularizer, Mapping):
            return self._from_config(regularizer)
        if not callable(getattr(regularizer, "get_config", None)):
            raise SpecError(f"got {shown(regularizer)}; expected a string such as 'l1', a config or a regularizer.")
        kind = type(regularizer)
        return self._from_config(
            {"module": kind.__module__, "class_name": kind.__name__, "config": regularizer.get_config()}
        )

    def config(self, penalties: list[Penalty]) -> dict[str, Any]:
        """Return the config of the one regularizer that is the sum of simple penalties."""
        name, numbers = _merged(penalties)
        if name not in self.classes:
            if name == "OrthogonalRegularizer":
                raise UnsupportedError(f"{self.name} has no OrthogonalRegularizer.")
            name, numbers = "L1L2", {**_CLASSES["L1L2"], **numbers}
        config: dict[str, Any] = {"class_name": name, "config": dict(numbers)}
        return config if self.module is None else {"module": self.module, **config, "registered_name": None}

    def _from_string(self, name: str, coefficients: tuple[float, ...]) -> Penalty:
        if not coefficients:
            if name not in self.strings:
                raise unknown(f"regularizer of {self.name}", name, self.strings)
            return _penalty(name, self.strings[name])
        if name not in _FUNCTIONS:
            raise unknown("regularizer", name, _FUNCTIONS)
        parameters = _CLASSES[_FUNCTIONS[name]]
        allowed = [key for key in parameters if key != "mode"]
        if len(coefficients) != len(allowed):
            raise SpecError(f"{name} got {len(coefficients)} coefficients; expected {', '.join(allowed)}.")
        return _penalty(_FUNCTIONS[name], dict(zip(allowed, coefficients, strict=True)))

    def _from_config(self, config: Mapping[str, Any]) -> Penalty:
        name, given = config.get("class_name"), config.get("config")
        if not isinstance(name, str) or not isinstance(given, Mapping):
            raise SpecError(f'got {shown(config)}; expected {{"class_name": "L2", "config": {{"l2": 0.01}}}}.')
        module = config.get("module")
        if isinstance(module, str) and module.partition(".")[0] not in _OURS:
            raise UnsupportedError(f"{module}.{name} is not a regularizer of Keras; register it as a penalty.")
        name = _FUNCTIONS.get(name, name)
        if name not in _CLASSES:
            raise UnsupportedError(f"{name!r} is not a regularizer that arspec knows; it knows {', '.join(_CLASSES)}.")
        return _penalty(name, given)


def refuse_of_activity(penalties: list[Penalty]) -> None:
    """Raise for a regularizer that makes sense for weights only."""
    if any(isinstance(penalty, Orthogonal) for penalty in penalties):
        raise UnsupportedError("an OrthogonalRegularizer of an activity would take the batch for rows of weights.")


def _penalty(name: str, given: Mapping[str, Any]) -> Penalty:
    """Build a penalty from a class of Keras and its arguments; None stands for a default, as in Keras."""
    name = _FUNCTIONS.get(name, name)
    defaults = _CLASSES[name]
    renamed = {("l1" if name == "L1" else "l2") if key == "l" else key: value for key, value in given.items()}
    for key in renamed:
        if key not in defaults:
            raise unknown(f"argument of {name}", key, defaults)
    values = {**defaults, **{key: value for key, value in renamed.items() if value is not None}}
    numbers = {key: require_coefficient(f"{name}: {key}", value) for key, value in values.items() if key != "mode"}
    if not any(numbers.values()):
        raise UnsupportedError(f"{name} with coefficient 0 is no penalty, and may be a forgotten argument; drop it.")
    if name == "OrthogonalRegularizer":
        return Orthogonal(numbers["factor"], mode=values["mode"])
    l1, l2 = numbers.get("l1", 0.0), numbers.get("l2", 0.0)
    return L1L2(l1, l2) if l1 and l2 else L1(l1) if l1 else L2(l2)


def _merged(penalties: list[Penalty]) -> tuple[str, dict[str, Any]]:
    """Return the class and the arguments of the sum of simple penalties."""
    if len(penalties) == 1 and isinstance(penalties[0], Orthogonal) and penalties[0].coefficient:
        return "OrthogonalRegularizer", {"factor": penalties[0].coefficient, "mode": penalties[0].mode}
    numbers: dict[str, float] = {}
    for penalty in penalties:
        for key, number in _numbers(penalty).items():
            if key in numbers:
                raise UnsupportedError(f"two {key.upper()} meet in one regularizer; add them up in one rule.")
            numbers[key] = number
    if not numbers:
        raise UnsupportedError("its coefficient is 0, which Keras cannot tell from a forgotten one; drop the rule.")
    return "L1L2" if len(numbers) == 2 else next(iter(numbers)).upper(), dict(sorted(numbers.items()))


def _numbers(penalty: Penalty) -> dict[str, float]:
    if isinstance(penalty, L1):
        numbers = {"l1": penalty.coefficient}
    elif isinstance(penalty, L2):
        numbers = {"l2": penalty.coefficient}
    elif isinstance(penalty, L1L2):
        numbers = {"l1": penalty.l1, "l2": penalty.l2}
    elif isinstance(penalty, Orthogonal) and not penalty.coefficient:
        numbers = {}
    else:
        raise UnsupportedError(
            f"Keras has no regularizer for {penalty!r}; it has {', '.join(_CLASSES)}, one at a time."
        )
    return {key: number for key, number in numbers.items() if number}
