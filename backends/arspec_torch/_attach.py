"""`attach`: regularize an existing nn.Module without rewriting it."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from arspec import Sites, Spec, SpecError
from arspec._placements import PARAMETERS
from arspec._sites import each_parameter_once, match_sites
from arspec_torch import _source
from arspec_torch._activations import ActivationFinder
from arspec_torch._attention import TRANSFORMERS, keep_slow_path
from arspec_torch._layers import Context, describe, is_activation, named_layers
from arspec_torch._layout import Layout
from arspec_torch._native import own_rules
from arspec_torch._regularization import Regularization
from arspec_torch._source import Source
from arspec_torch._watch import check_watchable, owner_of, refuse_lazy, watch


def attach(
    model: nn.Module,
    spec: Spec | None = None,
    *,
    activations: Mapping[str, Any] | None = None,
    axes: Mapping[str, str] | None = None,
    roles: Mapping[type[nn.Module], Mapping[str, str]] | None = None,
    data_parallel: bool | None = None,
) -> Regularization:
    """Regularize a model as `spec` says; add `total()` to the loss after each forward pass.

    Parameters
    ----------
    model : any nn.Module. Its parameters, buffers and state_dict stay as they are.
    spec : the rules. A layer is named by its path, "/" or "." between the parts. None: only
        those of the `ActivityRegularization` layers, which are found in any case.
    activations : for the placement "output" of a layer whose activation function arspec
        cannot find by itself: path of the layer to a function, to the path of a module, or
        to None if there is none.
    axes : names of the axes of an activation where they cannot be told, by path or glob,
        such as {"head": "time batch feature"}.
    roles : for classes of modules that arspec does not know, what their parameters are:
        {MyLinear: {"weight": "kernel: input output", "bias": "bias: output"}}.
    data_parallel : under torch.distributed, whether each process holds a part of the batch
        and gradients are averaged, as DistributedDataParallel and FSDP do: then a penalty of
        activations is that of the whole batch, which is gathered. False where each process
        sees the whole batch. None: True if `model` is a DistributedDataParallel; else an
        error where it matters. Where anything is gathered, sharded parameters too, `total()`,
        `losses()` and `sites` are for all processes to call.

    Returns
    -------
    A `Regularization`, with `total()`, `losses()`, `sites`, `masks()` and `detach()`.

    Raises
    ------
    SpecError: a rule matches nothing, the model is already attached, or a name is unknown.
    UnsupportedError: the tensor a rule names cannot be told; the text says the cure.

    Notes
    -----
    "pre_activation" of a Linear or convolution is its result; "output" is the result of the
    activation function applied to it. A rule with when="train" counts where the model is in
    training mode.

    A recurrent module has its states and gates at its own path, "lstm"; several layers are
    "lstm/0", "lstm/1", two directions "lstm/forward", "lstm/backward", both
    "lstm/0/forward". What dropout between its layers changes is seen by the next layer
    only. An attention has query_kernel, key_kernel, value_kernel and output_kernel, and
    their biases, wherever torch keeps them. A depthwise convolution (groups = channels) has
    a kernel (input, output per channel, ...).

    Example
    -------
    >>> import arspec, torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 500), torch.nn.ReLU(), torch.nn.Linear(500, 1))
    >>> spec = arspec.Spec([arspec.Rule(arspec.L1(1e-4), layer="0", placement="pre_activation")])
    >>> penalties = attach(model, spec)
    >>> loss = model(torch.ones(30, 2)).mean() + penalties.total()
    """
    if data_parallel is None and isinstance(model, nn.parallel.DistributedDataParallel):
        data_parallel = True
    model = unwrapped(model)
    spec = with_own_rules(model, spec)
    sites, sources = find_sites(model, spec, activations, roles)
    regularization = Regularization(model, spec, sites, sources, Layout.of(model, axes), data_parallel)
    for module in regularization._watched:
        check_watchable(module)
    for module in regularization._watched:
        watch(module, regularization)
    regularization._handles = slow_paths(model, regularization._watched)
    return regularization


def inside(model: nn.Module) -> nn.Module:
    """Return the model inside of what torch.compile, DDP and DataParallel put around it.

    Raises
    ------
    SpecError: it is no module.
    """
    if not isinstance(model, nn.Module):
        raise SpecError(f"model is a {type(model).__name__}; expected a torch.nn.Module.")
    while _source.inner(model) is not model or isinstance(model, _REPLICATED):
        model = model.module if isinstance(model, _REPLICATED) else _source.inner(model)
    return model


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model `inside`, to which nothing is attached.

    Raises
    ------
    SpecError: it is no module, or rules are attached to a part of it already.
    """
    model = inside(model)
    refuse_lazy(model)
    if any(owner_of(module) is not None for module in model.modules()):
        raise SpecError("the model is already attached; put all rules into one Spec, or call detach() first.")
    return model


def with_own_rules(model: nn.Module, spec: Spec | None) -> Spec:
    """Return a Spec and the rules that layers of the model say themselves.

    Raises
    ------
    SpecError: there is neither, or `spec` is none.
    """
    own = own_rules(model, named_layers(model))
    if spec is None and not own:
        raise SpecError("no spec, and no ActivityRegularization in the model; expected one of them.")
    if spec is not None and not isinstance(spec, Spec):
        raise SpecError(f"spec={spec!r}; expected a Spec, such as Spec([Rule(...)]) or load('spec.json').")
    return Spec([*(() if spec is None else spec.rules), *own])


_REPLICATED = (nn.DataParallel, nn.parallel.DistributedDataParallel)


def find_sites(
    model: nn.Module,
    spec: Spec,
    activations: Mapping[str, Any] | None = None,
    roles: Mapping[type[nn.Module], Mapping[str, str]] | None = None,
) -> tuple[Sites, dict[str, Source]]:
    """Return which rule of a Spec meets which tensor of a model, and where the tensors come from."""
    finder = ActivationFinder(model, activations, is_activation)
    # To find an activation function may take a symbolic run of the model: only where a rule asks for it.
    asked = any(rule.placement == "output" for rule in spec.rules)
    layers, found = describe(model, Context(finder if asked else None, checked_roles(roles)))
    matched = match_sites(spec, layers, serves=("when", "trainable_only"))
    sources = {site.key: found[site.layer, site.rule.placement] for site in matched}
    tokens: dict[Any, object] = {}
    known = {key: _source.identity(source) for key, source in sources.items()}
    once = each_parameter_once(matched, lambda site: _token(tokens, known[site.key]))
    return once, {site.key: sources[site.key] for site in once}


def _token(tokens: dict[Any, object], identity: tuple[object, ...] | None) -> object:
    """Return one object for equal identities, None for none."""
    return None if identity is None else tokens.setdefault(identity, object())


def checked_roles(roles: Mapping[type[nn.Module], Mapping[str, str]] | None) -> dict[type[nn.Module], dict[str, str]]:
    """Return `roles`, checked.

    Raises
    ------
    SpecError: a key is no class of modules, or a value does not name a placement of parameters.
    """
    checked: dict[type[nn.Module], dict[str, str]] = {}
    for cls, held in (roles or {}).items():
        if not isinstance(cls, type) or not issubclass(cls, nn.Module) or not isinstance(held, Mapping):
            raise SpecError(f"roles[{cls!r}]={held!r}; expected a class of modules and a dict of roles.")
        for attribute, role in held.items():
            if not isinstance(role, str) or role.partition(":")[0].strip() not in PARAMETERS:
                raise SpecError(
                    f"roles[{cls.__name__}][{attribute!r}]={role!r}; expected a placement and the names of its axes, "
                    "such as 'kernel: input output'."
                )
        checked[cls] = dict(held)
    return checked


def slow_paths(model: nn.Module, watched: Iterable[nn.Module]) -> list[Any]:
    """Keep torch from fusing the Transformer layers that hold watched modules; return the handles."""
    met = set(watched)
    holders = [module for module in model.modules() if isinstance(module, TRANSFORMERS)]
    held = [h for h in holders if any(inner is not h and inner in met for inner in h.modules())]
    return [nn.Module.register_forward_pre_hook(holder, keep_slow_path) for holder in held]
