"""Regularize an existing nn.Module without rewriting it.

`attach` gives the model and the layers whose activations are penalized a subclass of their
own class whose `forward` also records penalties. A new class, unlike a hook, is something
that torch.compile guards on, so a model compiled before is compiled again.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from arspec import Site, Sites, Spec, SpecError
from arspec._schedules import scheduled_step
from arspec._sites import each_parameter_once, match_sites, unfired
from arspec_torch._activations import ActivationFinder
from arspec_torch._engine import value
from arspec_torch._layers import Source, describe, is_activation, parameter_of
from arspec_torch._namespace import XP

_ATTRIBUTE = "_arspec_regularization"
_WATCHED = "_arspec_sites"


class Regularization:
    """The penalties of an attached model, as the last forward pass gave them.

    Made by `attach`. Each call of the model starts anew; a layer that runs several times in
    one pass counts each time, a weight counts once.
    """

    def __init__(self, model: nn.Module, sites: Sites, sources: Mapping[str, Source]) -> None:
        self._model = model
        self._sites = sites
        self._sources = dict(sources)
        self._running = False
        self._wants_gradient = True
        self._losses: dict[str, Tensor] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}

    def losses(self) -> dict[str, Tensor]:
        """Return each penalty of the last forward pass, before its schedule, by name such as "hidden/output/l1".

        Returns
        -------
        0-d tensors, differentiable, in the order of the rules.

        Raises
        ------
        SpecError: a rule at an activation did not fire in the last forward pass.
        """
        missing = [s for s in self._sites if self._sources[s.key].parameter is None and s.key not in self._losses]
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
        scaled = [_scheduled(losses[site.key], site, step) for site in self._sites]
        if not scaled:
            return torch.zeros((), device=next((p.device for p in self._model.parameters()), None))
        total = scaled[0]
        for loss in scaled[1:]:
            total = total + loss.to(total.device)
        return total

    @property
    def sites(self) -> Sites:
        """The sites, with shapes and values of the last forward pass; print them."""
        values = {s.key: self._loss(s).item() for s in self._sites if self._is_known(s)}
        shapes = {s.key: tuple(parameter_of(self._sources[s.key]).shape) for s in self._sites if self._is_parameter(s)}
        return self._sites.with_results({**self._shapes, **shapes}, values)

    def detach(self) -> None:
        """Give the model its own classes back; afterwards it is as before `attach`."""
        for module in self._model.modules():
            if module.__dict__.get(_ATTRIBUTE) is self:
                module.__class__ = type(module).__bases__[0]
                del module.__dict__[_ATTRIBUTE], module.__dict__[_WATCHED]

    def __getstate__(self) -> dict[str, Any]:
        """Copy everything but the last pass, whose tensors belong to a graph."""
        return {**self.__dict__, "_losses": {}, "_shapes": {}}

    def __repr__(self) -> str:
        return repr(self.sites)

    def _is_parameter(self, site: Site) -> bool:
        return self._sources[site.key].parameter is not None

    def _is_known(self, site: Site) -> bool:
        return self._is_parameter(site) or site.key in self._losses

    def _loss(self, site: Site) -> Tensor:
        if site.key in self._losses:
            return self._losses[site.key]
        return self._evaluate(site, parameter_of(self._sources[site.key]))

    def _evaluate(self, site: Site, tensor: Tensor) -> Tensor:
        rule, axes = site.rule, self._sources[site.key].axes
        return value(rule.penalty, tensor, axes=axes, mean_over=rule.mean_over, numerics=rule.numerics)

    def _run(self, module: nn.Module, forward: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        is_pass = module is self._model and not self._running
        if is_pass:
            self._begin()
        try:
            output = forward(*args, **options)
            self._record(module, args, output)
            if is_pass:
                self._record_functional_parameters()
        finally:
            if is_pass:
                self._running = False
        return output

    def _begin(self) -> None:
        self._running = True
        self._wants_gradient = torch.is_grad_enabled()
        self._losses = {}
        self._shapes = {}

    def _record(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        watched: tuple[Site, ...] = module.__dict__[_WATCHED]
        if watched and self._running and self._wants_gradient and not torch.is_grad_enabled():
            raise SpecError(
                f"{watched[0].layer!r} ran without gradients inside a pass that wants them (reentrant "
                "checkpointing?), so its penalty would have no gradient. Use checkpoint(..., use_reentrant=False)."
            )
        for site in watched:
            tensor = self._tensor(site, args, output)
            loss = self._evaluate(site, tensor)
            if not self._running:
                continue  # a checkpoint's recomputation, which must save the same tensors, or a call outside a pass
            known = self._losses.get(site.key)
            self._losses[site.key] = loss if known is None else known + loss
            self._shapes[site.key] = tuple(tensor.shape)

    def _tensor(self, site: Site, args: tuple[Any, ...], output: Any) -> Tensor:
        source = self._sources[site.key]
        tensor = args[0] if source.of_input and args else output
        if not isinstance(tensor, Tensor):
            raise SpecError(
                f"{site.key}: {source.tensor} is a {type(tensor).__name__}, not one tensor; "
                "name a layer inside it that gives the tensor you mean."
            )
        return tensor if source.transform is None else source.transform(tensor)

    def _record_functional_parameters(self) -> None:
        # Under torch.func.functional_call the weights of this pass are not those of the module.
        for site in self._sites:
            if self._is_parameter(site):
                tensor = parameter_of(self._sources[site.key])
                if not isinstance(tensor, nn.Parameter):
                    self._losses[site.key] = self._evaluate(site, tensor)


def _scheduled(loss: Tensor, site: Site, step: int | Tensor | None) -> Tensor:
    if site.rule.schedule is None:
        return loss
    at_step = torch.as_tensor(step, dtype=torch.float64, device=loss.device)
    return loss * XP.lower(site.rule.schedule.factor(at_step, xp=XP), "float32")


def attach(model: nn.Module, spec: Spec, *, activations: Mapping[str, Any] | None = None) -> Regularization:
    """Regularize a model as `spec` says; add `total()` to the loss after each forward pass.

    Parameters
    ----------
    model : any nn.Module. Its parameters, buffers and state_dict stay as they are.
    spec : the rules. A layer is named by its path, "/" or "." between the parts.
    activations : for the placement "output" of a layer whose activation function arspec
        cannot find by itself: path of the layer to a function, to the path of a module, or
        to None if there is none.

    Returns
    -------
    A `Regularization`, with `total()`, `losses()`, `sites` and `detach()`.

    Raises
    ------
    SpecError: a rule matches nothing, the model is already attached, or a name is unknown.
    UnsupportedError: the tensor a rule names cannot be told; the text says the cure.

    Notes
    -----
    "pre_activation" of a Linear or convolution is its result; "output" is the result of the
    activation function applied to it. Penalties apply in training and evaluation alike, to
    frozen weights too.

    Example
    -------
    >>> import arspec, torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 500), torch.nn.ReLU(), torch.nn.Linear(500, 1))
    >>> spec = arspec.Spec([arspec.Rule(arspec.L1(1e-4), layer="0", placement="pre_activation")])
    >>> penalties = attach(model, spec)
    >>> loss = model(torch.ones(30, 2)).mean() + penalties.total()
    """
    model = _inner(model)
    finder = ActivationFinder(model, activations, is_activation)
    layers, found = describe(model, finder)
    sites = match_sites(spec, layers)
    sources = {site.key: found[site.layer, site.rule.placement] for site in sites}
    sites = each_parameter_once(sites, lambda site: _own_parameter(sources[site.key]))
    regularization = Regularization(model, sites, sources)
    watched: dict[nn.Module, list[Site]] = {model: []}
    for site in sites:
        if sources[site.key].parameter is None:
            watched.setdefault(sources[site.key].module, []).append(site)
    for module in watched:
        _check_forward(module)
    for module, of_module in watched.items():
        _subclass(module, regularization, tuple(of_module))
    return regularization


def _inner(model: nn.Module) -> nn.Module:
    if not isinstance(model, nn.Module):
        raise SpecError(f"model is a {type(model).__name__}; expected a torch.nn.Module.")
    inner = getattr(model, "_orig_mod", model)  # what torch.compile(model) wraps
    if any(_ATTRIBUTE in module.__dict__ for module in inner.modules()):
        raise SpecError("the model is already attached; put all rules into one Spec, or call detach() first.")
    return inner


def _own_parameter(source: Source) -> nn.Parameter | None:
    """Return the parameter itself; a computed one (a parametrization) is new each time it is read."""
    return dict(source.module.named_parameters(recurse=False)).get(source.parameter or "")


def _check_forward(module: nn.Module) -> None:
    if "forward" in module.__dict__:
        name = type(module).__name__
        raise SpecError(f"a {name} of the model has a patched forward; attach arspec before patching it.")


def _subclass(module: nn.Module, regularization: Regularization, watched: tuple[Site, ...]) -> None:
    cls = type(module)

    def forward(self: nn.Module, *args: Any, **options: Any) -> Any:
        return self.__dict__[_ATTRIBUTE]._run(self, super(penalized, self).forward, args, options)  # pyright: ignore

    penalized = type(cls.__name__, (cls,), {"forward": forward, "__module__": cls.__module__, "__doc__": cls.__doc__})
    module.__class__ = penalized
    module.__dict__[_ATTRIBUTE] = regularization
    module.__dict__[_WATCHED] = watched
