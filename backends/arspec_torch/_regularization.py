"""Regularization: the penalties of an attached model, as its forward passes give them."""

import threading
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
from arspec_torch._mask import NamedMask, aligned, named_masks
from arspec_torch._parallel import gathered, must_gather
from arspec_torch._schedule import scheduled
from arspec_torch._source import Call, Captured, Source, by_module
from arspec_torch._watch import owner_of, unwatch

_COMPILED = 1  # stands for the thread of a pass where the compiler runs, which cannot ask for it


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
        self._masks: dict[str, NamedMask] = {}
        self._pass_masks: dict[str, NamedMask] = {}
        self._handles: list[Any] = []
        self._running = 0
        self._wants_gradient = True
        self._losses: dict[str, Tensor] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}

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
            of valid entries. Sequences that come packed need no mask.

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
        before, self._masks = self._masks, named_masks(masks, self._sites)
        try:
            yield
        finally:
            self._masks = before

    @contextmanager
    def _undisturbed(self) -> Iterator[None]:
        """Run the model inside of `with` as if it had not run: the last pass stays what it was."""
        before = self._losses, self._shapes
        try:
            yield
        finally:
            self._losses, self._shapes = before

    @property
    def spec(self) -> Spec:
        """The rules, those of `ActivityRegularization` layers among them."""
        return self._spec

    @property
    def sites(self) -> Sites:
        """The sites, with shapes and values of the last forward pass; print them."""
        values = {s.key: self._loss(s).item() for s in self._sites if self._is_known(s)}
        parameters = [s.key for s in self._sites if self._sources[s.key].is_parameter]
        shapes = {key: tuple(_source.read_parameter(self._sources[key]).shape) for key in parameters}
        return self._sites.with_results({**self._shapes, **shapes}, values)

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

    def __getstate__(self) -> dict[str, Any]:
        """Copy everything but the last pass, whose tensors belong to a graph."""
        return {**self.__dict__, "_losses": {}, "_shapes": {}, "_pass_masks": {}, "_running": 0}

    def __repr__(self) -> str:
        return repr(self.sites)

    def _is_known(self, site: Site) -> bool:
        return self._sources[site.key].is_parameter or site.key in self._losses

    def _loss(self, site: Site) -> Tensor:
        known = self._losses.get(site.key)
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
        is_pass = module is self._model and not self._running
        if is_pass:
            self._begin()
        elif self._is_another_thread():
            raise UnsupportedError("the model runs in two threads at once; give each thread a deep copy.")
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
        except BaseException:
            if is_pass:
                self._losses = {}
            raise
        finally:
            if is_pass:
                self._running = 0
        return output

    def _is_another_thread(self) -> bool:
        if torch.compiler.is_compiling() or self._running <= _COMPILED:
            return False
        return self._running != threading.get_ident()

    def _begin(self) -> None:
        self._running = _COMPILED if torch.compiler.is_compiling() else threading.get_ident()
        self._wants_gradient = torch.is_grad_enabled()
        self._pass_masks = self._masks
        self._losses = {}
        self._shapes = {}

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
        if self._copies:
            tensor = tensor.clone()
        return captured if tensor is captured.tensor else Captured(tensor, captured.axes, captured.lengths)

    def _record(self, found: list[tuple[Site, Captured]]) -> None:
        if self._running and self._wants_gradient and not torch.is_grad_enabled():
            raise SpecError(
                f"{found[0][0].layer!r} ran without gradients inside a pass that wants them (reentrant "
                "checkpointing?), so its penalty would have no gradient. Use checkpoint(..., use_reentrant=False)."
            )
        for site, captured in found:
            loss = self._activation_loss(site, captured)
            if not self._running:
                continue  # a checkpoint's recomputation, which must save the same tensors, or a call outside a pass
            known = self._losses.get(site.key)
            self._losses[site.key] = loss if known is None else known + loss
            self._shapes[site.key] = tuple(captured.tensor.shape)

    def _activation_loss(self, site: Site, captured: Captured) -> Tensor:
        rule, tensor = site.rule, captured.tensor
        if not self._counts(site):
            return torch.zeros((), device=tensor.device)
        axes = self._layout.axes(site, captured)
        mask = self._mask(site, captured, axes)
        if must_gather(self._data_parallel, site.key):
            tensor, mask = gathered(tensor, mask, resolve_axes(tensor.dim(), axes).names)
        return value(rule.penalty, tensor, axes=axes, mean_over=rule.mean_over, mask=mask, numerics=rule.numerics)

    def _mask(self, site: Site, captured: Captured, axes: str | None) -> Tensor | None:
        # A checkpoint runs its part again in the backward pass, after the masks were taken away.
        given = (self._masks if self._running else self._pass_masks).get(site.layer)
        if captured.lengths is None:
            if given is None:
                return None
            return aligned(given, captured, axes)
        if given is not None:
            raise SpecError(f"{site.key}: its sequence is packed, which says what is valid; leave the mask out.")
        steps = torch.arange(captured.tensor.shape[1], device=captured.tensor.device)
        return steps < captured.lengths.to(captured.tensor.device)[:, None]

    def _record_replaced_parameters(self) -> None:
        # Under torch.func.functional_call the weights of this pass are not those of the module.
        for site in self._sites:
            source = self._sources[site.key]
            if source.is_parameter and _source.is_replaced(source):
                self._losses[site.key] = self._parameter_loss(site)
