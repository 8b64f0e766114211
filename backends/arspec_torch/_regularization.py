"""Regularization: the penalties of an attached model, as its forward passes give them."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from arspec import Site, Sites, Spec, SpecError, UnsupportedError
from arspec._axes import resolve_axes
from arspec._schedules import scheduled_step
from arspec._sites import unfired
from arspec_torch import _source
from arspec_torch._engine import value
from arspec_torch._layout import Layout
from arspec_torch._mask import aligned, named_masks, spread
from arspec_torch._parallel import gathered, must_gather
from arspec_torch._passes import Passes
from arspec_torch._schedule import scheduled
from arspec_torch._source import Call, Captured, Source, by_module
from arspec_torch._watch import owner_of, unwatch


class Regularization:
    """The penalties of an attached model, as the last forward pass gave them.

    Made by `attach`. Each call of the model starts anew; a layer that runs several times in
    one pass counts each time, a weight counts once.
    """

    def __init__(
        self,
        model: nn.Module,
        spec: Spec,
        sites: Sites,
        sources: Mapping[str, Source],
        layout: Layout,
        data_parallel: bool | None = None,
    ) -> None:
        self._model = model
        self._spec = spec
        self._data_parallel = data_parallel
        self._sites = sites
        self._sources = dict(sources)
        self._layout = layout
        self._watched = by_module(model, sites, sources)
        # An in-place module overwrites what was captured: then it is copied.
        self._copies = any(getattr(module, "inplace", False) is True for module in model.modules())
        self._handles: list[Any] = []
        self._passes = Passes()

    def losses(self) -> dict[str, Tensor]:
        """Return each penalty of the last forward pass, before its schedule, by name such as "hidden/output/l1".

        Returns
        -------
        0-d tensors, differentiable, in the order of the rules. A rule with when="train" is
        0 where the model was in evaluation mode, one with trainable_only=True for a frozen
        parameter.

        Raises
        ------
        SpecError: a rule at an activation did not fire in the last forward pass.
        """
        missing = [s for s in self._sites if not self._is_known(s)]
        if missing:
            raise unfired(missing)
        self._passes.asked()
        return {site.key: self._loss(site) for site in self._sites}

    def total(self, step: int | Tensor | None = None) -> Tensor:
        """Return the sum of `losses()` as a differentiable 0-d tensor: add it to the loss.

        Parameters
        ----------
        step : the training step, from 0, where a rule has a schedule; its penalty is then
            multiplied by the factor of the schedule at this step.

        Raises
        ------
        SpecError: as `losses`; or a rule has a schedule and no step is given.
        """
        losses = self.losses()
        scheduled_step(step, [site.key for site in self._sites if site.rule.schedule is not None and step is None])
        scaled = [scheduled(losses[site.key], site, step) for site in self._sites]
        if not scaled:
            return torch.zeros((), device=next((p.device for p in self._model.parameters()), None))
        total = scaled[0]
        for loss in scaled[1:]:
            total = total + loss.to(total.device)
        return total

    @contextmanager
    def masks(self, masks: Mapping[str, Any]) -> Iterator[None]:
        """Say, for the forward passes inside of `with`, which entries of activations are valid.

        Parameters
        ----------
        masks : by path or glob of layers, a boolean tensor, true where valid: (batch,) or
            (batch, time), whatever the order of the layer's own axes; or a pair of a tensor
            and the names of its axes, as in (mask, "time batch"). Means divide by the number
            of valid entries. Sequences that come packed need no mask; one of (batch, time)
            says where the packed steps stood before, as in a sequence with gaps.

        Raises
        ------
        SpecError: a name meets no rule at an activation, or the axes do not fit.

        Example
        -------
        >>> import arspec, arspec_torch, torch
        >>> model = torch.nn.Linear(3, 2)
        >>> rule = arspec.Rule(arspec.L1(1.0), layer="model", placement="pre_activation")
        >>> penalties = arspec_torch.attach(model, arspec.Spec([rule]))
        >>> with penalties.masks({"model": torch.tensor([True, False])}):
        ...     y = model(torch.ones(2, 3))
        >>> bool(torch.isclose(penalties.total(), y[0].abs().sum()))
        True
        """
        before, self._passes.given = self._passes.given, named_masks(masks, self._sites)
        try:
            yield
        finally:
            self._passes.given = before

    @contextmanager
    def passes(self) -> Iterator[None]:
        """Let the forward passes inside of `with` add up, as for a siamese network.

        A weight counts once all the same.

        Example
        -------
        >>> import arspec, arspec_torch, torch
        >>> model = torch.nn.Linear(3, 2)
        >>> rule = arspec.Rule(arspec.L1(1.0), layer="model", placement="pre_activation")
        >>> penalties = arspec_torch.attach(model, arspec.Spec([rule]))
        >>> with penalties.passes():
        ...     one, other = model(torch.ones(1, 3)), model(torch.zeros(1, 3))
        >>> bool(torch.isclose(penalties.total(), (one.abs() + other.abs()).sum()))
        True
        """
        with self._passes.adding_up():
            yield

    @property
    def spec(self) -> Spec:
        """The rules, those of `ActivityRegularization` layers among them."""
        return self._spec

    @property
    def sites(self) -> Sites:
        """The sites, with shapes and values of the last forward pass; print them."""
        self._passes.asked()
        values = {s.key: self._loss(s).item() for s in self._sites if self._is_known(s)}
        parameters = [s.key for s in self._sites if self._sources[s.key].is_parameter]
        shapes = {key: tuple(_source.read_parameter(self._sources[key]).shape) for key in parameters}
        return self._sites.with_results({**self._passes.shapes, **shapes}, values)

    def detach(self) -> None:
        """Give the model its own classes back; afterwards it is as before `attach`.

        Raises
        ------
        SpecError: the class of a module was changed after `attach`.
        """
        for module in self._model.modules():
            if owner_of(module) is self:
                unwatch(module)
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def __repr__(self) -> str:
        return repr(self.sites)

    def _is_known(self, site: Site) -> bool:
        return self._sources[site.key].is_parameter or site.key in self._passes.losses

    def _loss(self, site: Site) -> Tensor:
        known = self._passes.losses.get(site.key)
        return self._parameter_loss(site) if known is None else known

    def _counts(self, site: Site) -> bool:
        return site.rule.when == "always" or self._model.training

    def _parameter_loss(self, site: Site) -> Tensor:
        source, rule = self._sources[site.key], site.rule
        tensor = _source.read_parameter(source)
        if not self._counts(site) or (rule.trainable_only and _source.is_frozen(source)):
            return torch.zeros((), device=tensor.device)
        return value(rule.penalty, tensor, axes=source.axes, mean_over=rule.mean_over, numerics=rule.numerics)

    def _run(self, module: nn.Module, forward: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        watched = self._watched.get(module)
        if watched is None:
            raise UnsupportedError(
                f"a copy of a {type(module).__name__} runs with the penalties of the original (nn.DataParallel, or "
                "copy.copy?), where they would be lost. Use DistributedDataParallel, or copy.deepcopy((model, "
                "penalties))."
            )
        is_pass = module is self._model and not self._passes.is_running
        if is_pass:
            self._passes.begin(self._model.training)
        else:
            self._passes.refuse_other_threads()
        failed = True
        try:
            early, late = watched
            captured = self._captured(Call(module, args, options), early) if early else []
            output = forward(*args, **options)
            if late:
                captured += self._captured(Call(module, args, options, output), late)
            if captured:
                self._record(captured)
            if is_pass:
                self._record_replaced_parameters()
            failed = False
        finally:
            if is_pass:
                self._passes.end(failed)
        return output

    def _captured(self, call: Call, sites: Iterable[Site]) -> list[tuple[Site, Captured]]:
        captures = ((site, self._sources[site.key].capture) for site in sites)
        return [(site, self._kept(capture(call))) for site, capture in captures if capture is not None]

    def _kept(self, captured: Captured) -> Captured:
        tensor = _source.whole(captured.tensor)
        if tensor.is_nested:
            raise UnsupportedError(
                "an activation is a nested tensor, as torch's TransformerEncoder makes of a padded batch in "
                "evaluation; build it with enable_nested_tensor=False."
            )
        if self._copies and tensor.requires_grad:  # without a gradient it is evaluated before anything else runs
            tensor = tensor.clone()
        return captured if tensor is captured.tensor else Captured(tensor, captured.axes, captured.lengths)

    def _record(self, found: list[tuple[Site, Captured]]) -> None:
        passes = self._passes
        if passes.is_running and passes.wants_gradient and not torch.is_grad_enabled():
            raise SpecError(
                f"{found[0][0].layer!r} ran without gradients inside a pass that wants them (reentrant "
                "checkpointing?), so its penalty would have no gradient. Use checkpoint(..., use_reentrant=False)."
            )
        for site, captured in found:
            loss = self._activation_loss(site, captured)
            # Else a checkpoint's recomputation, which must save the same tensors, or a call outside a pass.
            if passes.is_running:
                passes.record(site.key, loss, tuple(captured.tensor.shape), self._model.training)

    def _activation_loss(self, site: Site, captured: Captured) -> Tensor:
        if not self._counts(site):
            return torch.zeros((), device=captured.tensor.device)
        given = self._passes.mask(site.layer)
        captured = captured if given is None else spread(given, captured, site.key)
        rule, tensor = site.rule, captured.tensor
        axes = self._layout.axes(site, captured)
        mask = self._mask(site, captured, axes)
        if must_gather(self._data_parallel, site.key):
            tensor, mask = gathered(tensor, mask, resolve_axes(tensor.dim(), axes).names)
        return value(rule.penalty, tensor, axes=axes, mean_over=rule.mean_over, mask=mask, numerics=rule.numerics)

    def _mask(self, site: Site, captured: Captured, axes: str | None) -> Tensor | None:
        if captured.lengths is None:
            given = self._passes.mask(site.layer)
            return None if given is None else aligned(given, captured, axes)
        steps = torch.arange(captured.tensor.shape[1], device=captured.tensor.device)
        return steps < captured.lengths.to(captured.tensor.device)[:, None]

    def _record_replaced_parameters(self) -> None:
        # Under torch.func.functional_call the weights of this pass are not those of the module.
        for site in self._sites:
            source = self._sources[site.key]
            if source.is_parameter and _source.is_replaced(source):
                self._passes.losses[site.key] = self._parameter_loss(site)
