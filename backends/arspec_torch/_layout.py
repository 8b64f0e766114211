"""The names of the axes of an activation, where its module does not say them.

torch's modules disagree: a Linear has the features last, a convolution has them second, a
recurrent or attention module has the time first unless it says batch_first. Where names
make a difference to a rule and cannot be told, the caller is asked.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from arspec import Rule, Site, SpecError
from arspec._axes import resolve_axes
from arspec._sites import names_layer
from arspec.penalties._base import components
from arspec_torch._source import Captured

_CHANNELS_FIRST = {
    2: "batch feature",
    3: "batch feature time",
    4: "batch feature height width",
    5: "batch feature depth height width",
}
_CHANNELS_FIRST_IN_TIME = (nn.Conv1d, nn.ConvTranspose1d, nn.BatchNorm1d, nn.InstanceNorm1d)


@dataclass(frozen=True, slots=True)
class Layout:
    """What a model, and the caller of `attach`, say about the order of axes.

    Attributes
    ----------
    time_first : whether a module of the model takes (time, batch, feature).
    channels_first : whether a module of the model takes (batch, feature, time).
    stated : names of axes by path or glob of layers, as the caller gave them.
    """

    time_first: bool
    channels_first: bool
    stated: Mapping[str, str]

    @classmethod
    def of(cls, model: nn.Module, stated: Mapping[str, Any] | None) -> "Layout":
        """Look at the modules of a model, and check what the caller stated."""
        modules = list(model.modules())
        time_first = any(isinstance(m, nn.RNNBase | nn.MultiheadAttention) and not m.batch_first for m in modules)
        channels_first = any(isinstance(m, _CHANNELS_FIRST_IN_TIME) for m in modules)
        checked = {path: _checked(path, names) for path, names in (stated or {}).items()}
        return cls(time_first, channels_first, checked)

    def axes(self, site: Site, captured: Captured, *, by_feature: bool = False) -> str | None:
        """Return the names of the axes of what was captured at a site.

        `by_feature` says that it matters which axis the features are, whatever the rule, and
        which of the others is the batch does not.

        Raises
        ------
        SpecError: they cannot be told, and make a difference to the rule.
        """
        for pattern, names in self.stated.items():
            if names_layer(pattern, site.layer):
                return names
        rank = captured.tensor.dim()
        if captured.axes == "channels first":
            return _CHANNELS_FIRST.get(rank)
        if captured.axes not in (None, "unknown"):
            return captured.axes
        is_last = captured.axes is None
        if rank == 3 and self.time_first and not by_feature and _matters(site.rule, frozenset()):
            raise _unclear(site, captured, "time batch feature", "the model has modules without batch_first")
        if is_last or rank < 3:
            return None
        matters = by_feature or _matters(site.rule, frozenset({"batch"}))
        if rank == 3 and self.channels_first and matters:
            raise _unclear(site, captured, "batch feature time", "the model has convolutions over time")
        if rank > 3 and matters:
            why = "its module does not say where the features are"
            raise _unclear(site, captured, _CHANNELS_FIRST.get(rank, "batch ... feature"), why)
        return None if rank == 3 else _CHANNELS_FIRST.get(rank)


def _checked(path: str, names: Any) -> str:
    if not isinstance(names, str):
        raise SpecError(f"axes[{path!r}]={names!r}; expected names such as 'time batch feature'.")
    resolve_axes(len(names.split()), names)
    return names


def _matters(rule: Rule, known: frozenset[str]) -> bool:
    """Return whether other names of the axes than the `known` ones would give the rule another value."""
    over = rule.mean_over
    is_reduction_clear = isinstance(over, str) or known.issuperset(over)
    return not (is_reduction_clear and all(part.penalty.elementwise for part in components(rule.penalty)))


def _unclear(site: Site, captured: Captured, example: str, why: str) -> SpecError:
    shape = tuple(captured.tensor.shape)
    return SpecError(
        f"{site.key}: the names of the axes of {site.tensor}, of shape {shape}, cannot be told: {why}. "
        f"Say them: attach(model, spec, axes={{{site.layer!r}: {example!r}}})."
    )
