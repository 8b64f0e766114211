"""Tracing an nn.Module: what it calls in which order, and the size of every tensor.

The model is traced by torch.fx, once in training and once in evaluation, and run on two
batches: the axis whose size differs between them is the batch.
"""

import copy
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from arspec import SpecError, UnsupportedError
from arspec_torch.port._own import helper_of

BATCHES = (5, 3)
Sizes = tuple[int | None, ...]
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@dataclass(frozen=True, slots=True)
class Result:
    """What a node of the graph gave: a tensor's sizes, dtype and memory, or a plain value."""

    sizes: tuple[int, ...] | None
    dtype: torch.dtype | None = None
    memory: int = 0
    value: Any = None


@dataclass(frozen=True, slots=True)
class Trace:
    """A model, its graph, and what each node of it gave for each of the two batches."""

    model: nn.Module
    graph: fx.Graph
    results: tuple[Mapping[fx.Node, Result], Mapping[fx.Node, Result]]
    names: tuple[str, ...]

    def is_tensor(self, node: fx.Node) -> bool:
        """Return whether a node gives a tensor."""
        return self.results[0][node].sizes is not None

    def sizes(self, node: fx.Node) -> Sizes:
        """Return the size of each axis of a tensor in torch's order, None for the batch.

        Raises
        ------
        UnsupportedError: the batch is no axis of its own.
        """
        one, other = (each[node].sizes or () for each in self.results)
        found = tuple(None if a != b else a for a, b in zip(one, other, strict=True)) if len(one) == len(other) else ()
        batch = [position for position, size in enumerate(found) if size is None]
        if len(batch) != 1 or (one[batch[0]], other[batch[0]]) != BATCHES:
            raise UnsupportedError(
                f"{node.name!r} ({described(node)}) gives {one} for a batch of {BATCHES[0]} and {other} for one of "
                f"{BATCHES[1]}: the batch is no axis of its own there. Keep it apart, as in x.flatten(1)."
            )
        return found

    def static(self, given: Any) -> Any:
        """Replace, in an argument of a call, every number that the graph computes by its value.

        Raises
        ------
        UnsupportedError: it depends on the size of the batch, or is a tensor.
        """
        if isinstance(given, fx.Node):
            one, other = (each[given] for each in self.results)
            if one.sizes is not None or one.value != other.value:
                raise UnsupportedError(
                    f"{given.name!r} ({described(given)}) is an argument that is computed from data or from the size "
                    "of the batch. Make it a number."
                )
            return one.value
        if isinstance(given, list | tuple):
            return tuple(self.static(each) for each in given)
        return given


def trace(model: nn.Module, examples: Sequence[Tensor]) -> Trace:
    """Trace a copy of a model.

    Parameters
    ----------
    examples : for each argument of `forward`, a tensor whose first axis is the batch. Those
        left out have their defaults.

    Raises
    ------
    UnsupportedError: torch.fx cannot trace it, it computes something else in training, or it
        changes a tensor in place that is read afterwards.
    SpecError: the model cannot run on the examples.
    """
    copied = copy.deepcopy(model)
    names, rest = _arguments(copied, len(examples))
    training, graph = (_graph(copied.train(mode), rest) for mode in (True, False))
    _require_alike(training, graph)
    results = [_run(copied, graph, names, [_batch(x, size) for x in examples]) for size in BATCHES]
    found = Trace(copied, training, (_by_position(results[0], training), _by_position(results[1], training)), names)
    _require_unread(found)
    return found


def described(node: fx.Node) -> str:
    """Return what a node calls, for people."""
    if node.op == "call_module":
        return f"the module {node.target}"
    if node.op == "call_method":
        return f"Tensor.{node.target}"
    return getattr(node.target, "__name__", str(node.target))


class _Tracer(fx.Tracer):
    """Looks into people's modules, not into torch's own nor into those that `write` wrote."""

    path = ""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if isinstance(m, _CONTAINERS):
            return False
        return type(m).__module__.startswith("torch.nn.") or bool(helper_of(m))

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        outer, self.path = self.path, self.path_of_module(m)
        result = super().call_module(m, forward, args, kwargs)
        self.path = outer
        return result


def _graph(model: nn.Module, defaults: Mapping[str, Any]) -> fx.Graph:
    tracer = _Tracer()
    try:
        return tracer.trace(model, concrete_args=dict(defaults) or None)
    except Exception as error:  # a forward that cannot be traced may raise anything
        where = f"{type(model).__name__}.{tracer.path}" if tracer.path else type(model).__name__
        raise UnsupportedError(
            f"torch.fx cannot trace the forward of {where}: {type(error).__name__}: {_line(error)}. "
            "A model is read where its forward is the same for any input: no `if` or `for` over tensors or their "
            "sizes. Export the parts that are (a module at a time), or build them of torch's own layers."
        ) from error


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0].rstrip(".")


def _arguments(model: nn.Module, given: int) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Return the names of the arguments with an example, and the defaults of the rest."""
    parameters = list(inspect.signature(model.forward).parameters.values())
    taken = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    missing = [p.name for p in taken[given:] if p.default is p.empty]
    if missing or len(taken) < given:
        expected = ", ".join(p.name for p in taken)
        raise SpecError(f"example_inputs holds {given} tensors; forward of {type(model).__name__} takes {expected}.")
    return tuple(p.name for p in taken[:given]), {p.name: p.default for p in taken[given:]}


def _batch(example: Tensor, size: int) -> Tensor:
    return example[torch.arange(size) % len(example)]


class _Recorder(fx.Interpreter):
    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.seen: dict[fx.Node, Result] = {}

    def run_node(self, n: fx.Node) -> Any:
        found = super().run_node(n)
        self.seen[n] = _result(found)
        return found


def _result(found: Any) -> Result:
    if isinstance(found, tuple) and found and isinstance(found[0], Tensor):
        found = found[0]  # what attention and recurrent layers give besides is looked at where it is read
    if isinstance(found, Tensor):
        return Result(tuple(found.shape), found.dtype, found.untyped_storage().data_ptr())
    return Result(None, value=tuple(found) if isinstance(found, torch.Size) else found)


def _run(model: nn.Module, graph: fx.Graph, names: Sequence[str], inputs: Sequence[Tensor]) -> list[Result]:
    recorder = _Recorder(fx.GraphModule(model, graph))
    given = iter(inputs)
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    arguments = [next(given) if node.target in names else node.args[0] for node in placeholders]
    try:
        with torch.no_grad():
            recorder.run(*arguments)
    except Exception as error:
        raise SpecError(
            f"{type(model).__name__} does not run on a batch of {len(inputs[0])} made from example_inputs: {error}"
        ) from error
    return [recorder.seen[node] for node in graph.nodes]


def _by_position(results: Sequence[Result], graph: fx.Graph) -> dict[fx.Node, Result]:
    return dict(zip(graph.nodes, results, strict=True))


def _require_alike(training: fx.Graph, evaluation: fx.Graph) -> None:
    one, other = ([_written(node) for node in graph.nodes] for graph in (training, evaluation))
    if one != other:
        differing = [a for a, b in zip(one, other, strict=False) if a != b] or [("", "its end", "", "")]
        raise UnsupportedError(
            f"forward computes something else in training than in evaluation, from {differing[0][1]} on. Use modules "
            "such as nn.Dropout and nn.BatchNorm2d for what differs."
        )


def _written(node: fx.Node) -> tuple[str, str, str, str]:
    is_dropout = "dropout" in str(getattr(node.target, "__name__", ""))
    args = node.args[:1] if is_dropout else node.args
    options = {} if is_dropout else node.kwargs
    texts = (node.op, described(node), repr(args), repr(options))
    # A constant in the code gets another number in each trace.
    op, called, given, named = (re.sub(r"_tensor_constant\d+", "_tensor_constant", text) for text in texts)
    return op, called, given, named


def _require_unread(found: Trace) -> None:
    """Refuse a tensor that is changed in place and read, under its old name, afterwards."""
    nodes, results = list(found.graph.nodes), found.results[0]
    for position, node in enumerate(nodes):
        if not (_is_in_place(node, found.model) and found.is_tensor(node)):
            continue
        memory, before = results[node].memory, set(nodes[:position])
        for later in nodes[position + 1 :]:
            stale = [each for each in _read(later) if each in before and results[each].memory == memory != 0]
            if stale:
                raise UnsupportedError(
                    f"{node.name!r} ({described(node)}) changes {stale[0].name!r} in place, which {later.name!r} reads "
                    "afterwards. Take inplace=True, or the in-place operator, off."
                )


def _read(node: fx.Node) -> Iterator[fx.Node]:
    yield from node.all_input_nodes


def _is_in_place(node: fx.Node, model: nn.Module) -> bool:
    if node.op == "call_module":
        return bool(getattr(model.get_submodule(str(node.target)), "inplace", False))
    if node.op == "call_method":
        return str(node.target).endswith("_") and not str(node.target).endswith("__")
    name = getattr(node.target, "__name__", "")
    operators = ("iadd", "isub", "imul", "itruediv")
    return bool(node.kwargs.get("inplace")) or name in operators or (name.endswith("_") and not name.endswith("__"))
