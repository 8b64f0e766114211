"""`statistics`: what the activations of a model are like over a set of data."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from arspec import Site, Spec, SpecError
from arspec._axes import resolve_axes
from arspec._sites import unfired
from arspec._statistics import Accumulator, Statistics, rules_at_activations
from arspec_torch._attach import find_sites, inside, slow_paths
from arspec_torch._layout import Layout
from arspec_torch._source import Call, Captured, Source, whole
from arspec_torch._watch import owner_of


def statistics(
    model: nn.Module,
    data: Iterable[Any],
    spec: Spec | None = None,
    *,
    activations: Mapping[str, Any] | None = None,
    axes: Mapping[str, str] | None = None,
) -> Statistics:
    """Run a model over data and describe the activations that a Spec names.

    Parameters
    ----------
    model : any nn.Module, attached or not. It runs in evaluation mode, without gradients and
        uncompiled, and is left as it was.
    data : batches: a DataLoader, a list, or one tensor, which is one batch. Of a tuple or
        list the first entry is the input; a dict is the keyword arguments.
    spec : its rules at activations say where to look, and nothing else. None: the attached
        rules.
    activations, axes : as for `attach`.

    Returns
    -------
    A table: mean activation, fraction of exact zeros, dead units and Hoyer sparsity per
    site; `to_document()`, `plot()`. Packed sequences count their steps only.

    Raises
    ------
    SpecError: no rule is at an activation, a rule matches nothing or never fires, or there
        are no data.

    Example
    -------
    >>> import arspec, torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU())
    >>> rule = arspec.Rule(arspec.L1(1.0), layer="0", placement="output")
    >>> found = statistics(model, torch.ones(4, 2), arspec.Spec([rule]))
    >>> found[0].count, found[0].units
    (4, 3)
    """
    model = inside(model)
    owner = next((o for o in map(owner_of, model.modules()) if o is not None), None)
    rules = _rules(spec if spec is not None else getattr(owner, "spec", None))
    layout = Layout.of(model, axes) if axes is not None or owner is None else owner._layout
    seen = Accumulator()
    fired: set[str] = set()
    with ExitStack() as stack:
        if owner is not None:
            stack.enter_context(owner._passes.undisturbed())
        sites, sources = find_sites(model, Spec(rules), activations)
        for site in _each_place_once(sites):
            stack.enter_context(_listening(site, sources[site.key], layout, seen, fired))
        for handle in slow_paths(model, [sources[site.key].module for site in sites]):
            stack.callback(handle.remove)
        stack.enter_context(_evaluating(model))
        _run(model, data)
    missing = [site for site in sites if f"{site.layer}/{site.rule.placement}" not in fired]
    if missing:
        raise unfired(missing)
    return seen.result()


def _rules(spec: Any) -> list[Any]:
    if not isinstance(spec, Spec):
        raise SpecError(f"spec={spec!r}; expected a Spec, or a model that one is attached to.")
    return rules_at_activations(spec)


def _each_place_once(sites: Iterable[Site]) -> list[Site]:
    return list({(site.layer, site.rule.placement): site for site in sites}.values())


@contextmanager
def _listening(site: Site, source: Source, layout: Layout, seen: Accumulator, fired: set[str]) -> Iterator[None]:
    """Add what a site captures to `seen` while the context lasts."""

    def look(module: nn.Module, args: tuple[Any, ...], options: dict[str, Any], output: Any = None) -> None:
        if source.capture is not None:
            captured = source.capture(Call(module, args, options, output))
            _add(site, captured, layout, seen)
            fired.add(f"{site.layer}/{site.rule.placement}")

    register = source.module.register_forward_pre_hook if source.before else source.module.register_forward_hook
    handle = register(look, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _add(site: Site, captured: Captured, layout: Layout, seen: Accumulator) -> None:
    tensor = whole(captured.tensor)
    names = resolve_axes(tensor.dim(), layout.axes(site, captured, by_feature=True)).names
    mask = None
    if captured.lengths is not None:
        mask = (torch.arange(tensor.shape[1]) < captured.lengths[:, None])[..., None].numpy()
    seen.add(site.layer, site.rule.placement, tensor.double().cpu().numpy(), names, mask)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Run in evaluation mode, without gradients and uncompiled; then as it was."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            yield
    finally:
        for module, training in modes.items():
            module.training = training


def _run(model: nn.Module, data: Any) -> None:
    batches = 0
    for batch in [data] if isinstance(data, Tensor) else data:
        batches += 1
        if isinstance(batch, Mapping):
            model(**batch)
        else:
            model(batch[0] if type(batch) in (tuple, list) else batch)
    if not batches:
        raise SpecError("data has no batches; expected at least one.")
