"""`export`: an nn.Module as a bundle."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from arspec import Spec, SpecError, UnsupportedError
from arspec._placements import ACTIVATIONS
from arspec.port import Bundle, PortedSite, WeightMap, Written
from arspec.port._environment import environment
from arspec.port._graph import Graph, Input
from arspec.port._kinds import Activation, Embedding, refuse
from arspec.port._probe import gather, make_probe
from arspec.port._source import FIRST, LAST, Place
from arspec_torch._attach import attach, inside
from arspec_torch._extract import extract
from arspec_torch.port import _fx_attention, _fx_modules, _fx_own, _fx_recurrent, _fx_spatial
from arspec_torch.port._builder import Builder, Seen, first, last
from arspec_torch.port._check import TorchSubject
from arspec_torch.port._fx import Trace, trace
from arspec_torch.port._fx_call import Call
from arspec_torch.port._fx_functions import read_function
from arspec_torch.port._own import helper_of

READERS = {**_fx_modules.READERS, **_fx_spatial.READERS, **_fx_attention.READERS, **_fx_recurrent.READERS}


def export(
    model: nn.Module,
    /,
    example_inputs: Tensor | Sequence[Tensor],
    spec: Spec | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    *,
    progress: Callable[[str], None] = lambda _: None,
) -> Bundle:
    """Return an nn.Module as a bundle: graph, weights, rules, and the evidence of a certificate.

    Parameters
    ----------
    model : whose forward torch.fx can trace, of torch's own layers and functions.
    example_inputs : one tensor per argument of forward, the batch as its first axis. The
        other sizes are those of the port; images are (batch, channel, height, width).
    spec : the rules; by default those that the model and its optimizer carry, as
        `arspec_torch.extract` finds them: a coupled weight decay is an L2 penalty.
    optimizer : whose weight decay counts, where `spec` is left out.
    progress : is told what is being measured.

    Returns
    -------
    A `Bundle`, to be written with `arspec.port.write_bundle`. The model is not changed. Its
    inputs and outputs are channels last there, (batch, height, width, channel); layers keep
    the paths of their modules, "block/0/conv".

    Raises
    ------
    SpecError: a rule matches nothing, or the model does not run on the examples.
    UnsupportedError: the model cannot be traced, or a layer, a function, a setting or a tied
        weight cannot be ported exactly; it is named.

    Notes
    -----
    Evidence is measured in float64, at weights where those whose entries are all alike (fresh
    biases and statistics) are moved apart, without dropout.

    Example
    -------
    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU())
    >>> bundle = export(model, torch.zeros(1, 2))
    >>> [(node.name, type(node.layer).__name__) for node in bundle.graph.nodes]
    [('0', 'Dense'), ('1', 'Activation')]
    """
    model = inside(model)
    if spec is not None and optimizer is not None:
        raise SpecError("spec and optimizer are both given; the decay of an optimizer is read where spec is left out.")
    examples = example_tensors(example_inputs)
    rules = extract(model, optimizer) if spec is None else spec
    progress("tracing the model")
    reading = read_module(model, examples)
    state = reading.state
    weights = reading.map.to_canonical(state, reading.shapes)
    found = _sites(reading, rules)
    written = reading.written(found)
    subject_sites = tuple(site for site, _, _ in found)
    empty = make_probe(reading.graph, [])
    bundle = Bundle(reading.graph, rules, subject_sites, weights, empty, {}, _environment(), exact=True)
    return _measured(bundle, written, reading.model, progress)


def _measured(bundle: Bundle, written: Written, model: nn.Module, progress: Callable[[str], None]) -> Bundle:
    subject = TorchSubject(bundle, written, model)
    shapes = [output.shape for output in subject.outputs(bundle.probe.inputs["a"], training=False)]
    probe = make_probe(bundle.graph, shapes)
    evidence = gather(subject, probe, progress)
    return replace(bundle, probe=probe, evidence=evidence)


class Reading:
    """A graph, and where everything in it is in the module it was read from."""

    def __init__(self, traced: Trace, builder: Builder, inputs: list[Input], outputs: list[Seen]) -> None:
        self.model = traced.model
        name = type(traced.model).__name__
        references = tuple(output.reference for output in outputs)
        self.graph = Graph(name, tuple(inputs), tuple(builder.nodes), references)
        self.layouts = tuple(_layout(output.axes) or LAST for output in outputs)
        self.heads, self.modules, self.shapes = builder.heads, builder.modules, builder.shapes
        self.axes = builder.axes
        self.state = {path: _numpy(tensor) for path, tensor in traced.model.state_dict().items()}
        shapes = {path: array.shape for path, array in self.state.items()}
        self.map = WeightMap(tuple(builder.entries), shapes, builder.derived, builder.modules)

    def written(self, sites: Sequence[tuple[PortedSite, str, str]]) -> Written:
        """Return the model as if it had been written from its own graph."""
        inputs = tuple(FIRST if _is_image(one.shape) else LAST for one in self.graph.inputs)
        traced = {
            layer: Place(module, layout)
            for layer, module in self.modules.items()
            if (layout := _layout(self.axes[layer])) is not None
        }
        original = tuple((layer, placement) for _, layer, placement in sites)
        layouts = tuple(self.layout_of(site) for site, _, _ in sites)
        return Written("torch", "", self.graph.name, self.map, inputs, self.layouts, original, layouts, traced)

    def layout_of(self, site: PortedSite) -> str:
        """Return the layout of the tensor of a site."""
        if site.placement not in ACTIVATIONS:
            return LAST
        node = next((node for node in self.graph.nodes if node.name == site.layer), None)
        if node is None:  # one direction of a recurrent layer
            return LAST
        reference = node.inputs[0] if site.placement == "input" else node.id
        # Of axes in another order, such as time first, `attach` knows the names itself or asks for them.
        return _layout(self.axes[str(reference)]) or LAST


def read_module(model: nn.Module, examples: Sequence[Tensor]) -> Reading:
    """Return the graph of a module, and where its weights are.

    Raises
    ------
    UnsupportedError: it cannot be traced, or what it holds or computes has no kind; named.
    """
    if type(model) in READERS:
        raise SpecError(f"model is a single {type(model).__name__}; export nn.Sequential(it).")
    traced = trace(model, examples)
    _require_untied(traced.model)
    builder = Builder(traced)
    inputs: list[Input] = []
    outputs: list[Seen] = []
    for node in traced.graph.nodes:
        if node.op == "placeholder" and node.target in traced.names:
            builder.values[node], one = _input(builder, node, traced)
            inputs.append(one)
        elif node.op == "output":
            outputs = _outputs(builder, node)
        elif traced.is_tensor(node) and node.users:
            builder.values[node] = _tensor(builder, node)
    reading = Reading(traced, builder, _limited(inputs, builder), outputs)
    _require_used(reading)
    return reading


def _tensor(b: Builder, node: fx.Node) -> Seen:
    if node.op == "get_attr":
        raise refuse(str(node.target), "a tensor that forward uses by itself", "Put it into a layer of torch.nn.")
    if node.op != "call_module":
        return read_function(b, node)
    module, path = b.trace.model.get_submodule(str(node.target)), str(node.target)
    reader = READERS.get(type(module)) or _fx_own.READERS.get(helper_of(module))
    call = Call(b, module, path, node)
    if reader is None:
        raise call.refuse(f"the module {type(module).__name__}", "Build it of layers that are known, or replace it.")
    given = [*node.args, *(v for k, v in node.kwargs.items() if k in ("input", "query", "key", "value", "src"))]
    tensors = [b.operand(each) for each in given if isinstance(each, fx.Node) and b.trace.is_tensor(each)]
    return reader(call, *tensors)


def _input(b: Builder, node: fx.Node, traced: Trace) -> tuple[Seen, Input]:
    sizes = traced.sizes(node)
    axes = first(len(sizes)) if _is_image(sizes[1:]) else last(len(sizes))
    shape = b.sizes(node, axes)
    dtype = traced.results[0][node].dtype
    paths = {path for path, _ in traced.model.named_modules()}
    name = f"{node.target}_input" if node.target in paths else str(node.target)
    if dtype is None or not (dtype.is_floating_point or dtype in (torch.int64, torch.int32)):
        raise UnsupportedError(f"input {name!r} has dtype {dtype}; expected a float, int32 or int64.")
    b.taken[name] += 1
    b.axes[name] = axes
    return Seen(name, shape, axes), Input(name, shape, "float32" if dtype.is_floating_point else "int32")


def _is_image(shape: Sequence[Any]) -> bool:
    return len(shape) >= 3


def _limited(inputs: Sequence[Input], b: Builder) -> list[Input]:
    rows = {
        reference: node.layer.rows for node in b.nodes if isinstance(node.layer, Embedding) for reference in node.inputs
    }
    return [replace(one, limit=rows.get(one.name)) for one in inputs]


def _outputs(b: Builder, node: fx.Node) -> list[Seen]:
    given: Any = node.args[0]
    parts = list(given) if isinstance(given, list | tuple) else [given]
    found = []
    for index, part in enumerate(parts):
        seen = b.operand(part) if isinstance(part, fx.Node) else None
        if not isinstance(seen, Seen):
            raise UnsupportedError(f"result {index} of forward is {part!r}; expected a tensor that a layer gives.")
        found.append(seen if _layout(seen.axes) is not None else b.arrange(seen, last(seen.rank), f"output_{index}"))
    return found


def _layout(axes: tuple[int, ...]) -> str | None:
    """Return the name of an order of axes, None if it has none."""
    return LAST if axes == last(len(axes)) else FIRST if axes == first(len(axes)) else None


def _require_untied(model: nn.Module) -> None:
    held: dict[int, str] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        other = held.setdefault(id(tensor), name)
        if other != name:
            raise UnsupportedError(
                f"{other!r} and {name!r} are one tensor (tied weights), which a graph of layers cannot say. Untie them."
            )


def _require_used(reading: Reading) -> None:
    moved = {entry.target for entry in reading.map.entries}
    unused = [name for name in reading.state if name not in moved and name not in reading.map.derived]
    if unused:
        raise UnsupportedError(
            f"{', '.join(map(repr, unused[:6]))}: in the model, and never used in its forward. Delete it first."
        )
    if not any(parameter.requires_grad for parameter in reading.model.parameters()):
        raise UnsupportedError("nothing in the model trains, so there is no step to compare. Unfreeze a parameter.")
    reading.map.require_bijective(reading.shapes)


def _sites(reading: Reading, rules: Spec) -> list[tuple[PortedSite, str, str]]:
    """Return each site, in names of the graph, with layer and placement in the module."""
    if not rules.rules:
        return []
    model = copy.deepcopy(reading.model)
    position = {id(rule): index for index, rule in enumerate(rules.rules)}
    found = []
    for site in attach(model, rules).sites:
        layer, placement = _in_graph(reading, site.layer, site.rule.placement)
        ported = PortedSite(site.key, position[id(site.rule)], layer, placement)
        found.append((ported, site.layer, site.rule.placement))
    return found


def _in_graph(reading: Reading, layer: str, placement: str) -> tuple[str, str]:
    """Return where in the graph the tensor of a placement is."""
    if placement == "input" and layer in reading.heads:
        return reading.heads[layer], placement
    if placement != "output":
        return layer, placement
    readers = [node for node in reading.graph.nodes if layer in node.inputs]
    kind = next((node.layer for node in reading.graph.nodes if node.name == layer), None)
    if hasattr(kind, "activation") and len(readers) == 1 and isinstance(readers[0].layer, Activation):
        return readers[0].name, placement
    return layer, placement


def example_tensors(given: Tensor | Sequence[Tensor]) -> list[Tensor]:
    found = [given] if isinstance(given, Tensor) else list(given)
    wrong = [type(each).__name__ for each in found if not isinstance(each, Tensor) or each.dim() == 0 or not len(each)]
    if wrong or not found:
        raise SpecError(
            f"example_inputs holds {wrong or 'nothing'}; expected a tensor per argument of forward, the batch as its "
            "first axis."
        )
    return found


def _numpy(tensor: Tensor) -> np.ndarray:
    plain = tensor.detach().cpu()
    return (plain.float() if plain.dtype == torch.bfloat16 else plain).numpy().copy()


def _environment() -> dict[str, str]:
    return environment("torch", "torch", dtype="float64")
