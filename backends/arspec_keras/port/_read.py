"""Reading a Keras model: its graph, and which variable is which canonical weight."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from typing import Any

import keras
from arspec import SpecError, UnsupportedError
from arspec.port._graph import Graph, Input, Node, Reference, require_name
from arspec.port._kinds import Dropout, Embedding, Kind, refuse
from arspec_keras.port._layers import read_layer, read_operation
from arspec_keras.port._masks import Masks
from arspec_keras.port._sequences import called, result_shapes


@dataclass(slots=True)
class Reading:
    """A graph, by path "layer/role" the variable of each weight, and the masks of layers.

    `masks` has the path of a mask for (path of a layer, "input", "output" or "steps").
    """

    graph: Graph
    variables: dict[str, Any] = field(default_factory=dict)
    masks: dict[tuple[str, str], str] = field(default_factory=dict)


def read_model(model: keras.Model) -> Reading:
    """Return the graph of a built Sequential or functional model, and its variables.

    Raises
    ------
    UnsupportedError: the model is subclassed, or a layer has no exact counterpart; named.
    """
    found = _Parts()
    graph = _graph(model, "", found)
    held = {id(variable) for variable in found.variables.values()}
    lost = [v.path for v in model.weights if id(v) not in held and not _is_counter(v)]
    if lost:
        raise UnsupportedError(f"{', '.join(lost[:6])}: a weight that no layer's description has.")
    return Reading(graph, found.variables, found.masks)


def _is_counter(variable: Any) -> bool:
    # The state of a random generator, and how much data a Normalization has seen: no part of what is computed.
    return not str(variable.dtype).startswith(("float", "bfloat"))


@dataclass(slots=True)
class _Parts:
    """What is found on the way beside the graph."""

    variables: dict[str, Any] = field(default_factory=dict)
    masks: dict[tuple[str, str], str] = field(default_factory=dict)


def _graph(model: keras.Model, prefix: str, reading: _Parts) -> Graph:
    if isinstance(model, keras.Sequential):
        calls, inputs, outputs = _sequential_calls(model)
    elif hasattr(model, "operations") and isinstance(model, keras.Model):
        calls, inputs, outputs = _functional_calls(model)
    else:
        raise UnsupportedError(
            f"{model.name!r} is a {type(model).__name__}, whose graph Keras does not know. Write it as a functional "
            "model, keras.Model(inputs, outputs), or port its parts."
        )
    masks = Masks(prefix, [name for name, _ in inputs] + [call.operation.name for call in calls])
    nodes = tuple(
        node
        for call in calls
        if not masks.is_operation(call)
        for node in masks.read(call, _node(call, prefix, reading))
    )
    masks.require_inside(outputs)
    reading.masks.update(masks.sites)
    limits, paddings = _limits(nodes), masks.all_paddings(nodes, [name for name, _ in inputs])
    read = tuple(_input(tensor, name, limits.get(name), paddings.get(name)) for name, tensor in inputs)
    return Graph(_name(model.name), read, nodes, tuple(outputs))


def _limits(nodes: Sequence[Node]) -> dict[str, int]:
    """Return how many rows the embeddings have that read an input."""
    found: dict[str, int] = {}
    for node in nodes:
        inner = node.layer.inputs if isinstance(node.layer, Graph) else ()
        rows = [node.layer.rows] if isinstance(node.layer, Embedding) else [one.limit for one in inner]
        pairs = zip(node.inputs, rows, strict=False)
        found |= {str(reference): limit for reference, limit in pairs if limit is not None}
    return found


@dataclass(frozen=True, slots=True)
class _Call:
    """One run of a layer or operation."""

    operation: Any
    call: int
    inputs: tuple[Reference, ...]
    options: Mapping[str, Any]
    input_shapes: tuple[tuple[int | None, ...], ...]
    shapes: tuple[tuple[int | None, ...], ...]
    mask: str | None = None  # where a mask that is given by name comes from


def _node(call: _Call, prefix: str, reading: _Parts) -> Node:
    operation, name = call.operation, _name(call.operation.name)
    path = prefix + name
    if isinstance(operation, keras.Model):
        inner = _graph(operation, path + "/", reading if call.call == 0 else _Parts())
        return Node(name, inner, call.inputs, call.shapes, call.call)
    if not isinstance(operation, keras.Layer):
        kind, inputs = read_operation(operation, call.inputs, call.options, path)
        return Node(name, kind, inputs, call.shapes, call.call)
    kind, held = read_layer(operation, path, call.input_shapes)
    # Keras records training=False for every symbolic call, also where nobody said so, and lets the mode
    # of the whole model overrule it.
    if call.options.get("training") and _tells_modes_apart(kind):
        raise refuse(path, "training=True", "Leave it to the mode of the whole model.")
    kind = called(kind, call.options, path)
    if call.call == 0:
        reading.variables |= {f"{path}/{role}": variable for role, variable in held.items()}
    frozen = tuple(role for role, v in held.items() if role in _trainable(kind) and not v.trainable)
    if frozen and _keeps_statistics(kind):
        raise UnsupportedError(
            f"{path!r} is a frozen BatchNormalization, which Keras runs with its moving statistics even in training. "
            "Unfreeze it before the export, and freeze it in the target."
        )
    return Node(name, kind, call.inputs, result_shapes(kind, call.shapes), call.call, frozen)


def _trainable(kind: Kind) -> tuple[str, ...]:
    return tuple(role for role in kind.roles() if role not in kind.state)


def _tells_modes_apart(kind: Kind) -> bool:
    return _keeps_statistics(kind) or isinstance(kind, Dropout)


def _keeps_statistics(kind: Kind) -> bool:
    return "moving_mean" in kind.state


def _sequential_calls(model: keras.Sequential) -> tuple[list[_Call], list[tuple[str, Any]], list[str]]:
    tensor = model.inputs[0]
    name = _name(tensor.name)
    reference, shape, calls = name, tuple(tensor.shape), []
    for layer in model.layers:
        given = shape
        shape = tuple(layer.compute_output_shape(shape))
        calls.append(_Call(layer, 0, (reference,), {}, (given[1:],), (shape[1:],)))
        reference = _name(layer.name)
    return calls, [(name, tensor)], [reference]


def _functional_calls(model: Any) -> tuple[list[_Call], list[tuple[str, Any]], list[str]]:
    config = model.get_config()
    operations = {operation.name: operation for operation in model.operations}
    runs: dict[tuple[str, int], Any] = {}
    shapes: dict[tuple[str, int, int], tuple[int | None, ...]] = {}
    for entry in config["layers"]:
        for position, node in enumerate(entry["inbound_nodes"]):
            runs[entry["name"], position] = node
            for tensor in _tensors(node):
                shapes[tuple(tensor["keras_history"])] = tuple(tensor["shape"][1:])
    outputs = [_without_own_run(each, operations) for each in _flat_histories(config["output_layers"])]
    for history, tensor in zip(outputs, model.outputs, strict=True):
        shapes[history] = tuple(tensor.shape[1:])
    inputs = [tuple(each) for each in _flat_histories(config["input_layers"])]
    fed = {history[0] for history in inputs}
    depends = {key: [tuple(t["keras_history"][:2]) for t in _tensors(node)] for key, node in runs.items()}
    order = [key for key in TopologicalSorter(depends).static_order() if key[0] not in fed]
    # Sub-runs that nothing in this model uses belong to another model that shares the layer.
    numbers = _numbered(order)
    name_of = lambda history: _reference(history, fed, numbers)  # noqa: E731
    calls = [_call(operations[key[0]], runs[key], numbers[key], name_of, shapes, key) for key in order]
    given = [(_name(history[0]), tensor) for history, tensor in zip(inputs, model.inputs, strict=True)]
    return calls, given, [name_of(history) for history in outputs]


def _without_own_run(history: Sequence[Any], operations: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return where an output comes from; Keras counts the runs of a functional model from 1 there, and only there."""
    name, position, index = history
    operation = operations[name]
    return name, position - (isinstance(operation, keras.Model) and not isinstance(operation, keras.Sequential)), index


def _numbered(order: Sequence[tuple[str, int]]) -> dict[tuple[str, int], int]:
    seen: dict[str, int] = {}
    found = {}
    for name, position in order:
        found[name, position] = seen.get(name, 0)
        seen[name] = found[name, position] + 1
    return found


def _reference(history: Sequence[Any], fed: set[str], numbers: Mapping[tuple[str, int], int]) -> str:
    name, position, index = history
    call = 0 if name in fed else numbers[name, position]
    text = _name(name) + (f"@{call}" if call else "")
    return text + (f":{index}" if index else "")


def _call(operation: Any, node: Any, number: int, name_of: Any, shapes: Any, key: tuple[str, int]) -> _Call:
    inputs: list[Reference] = []
    given = []
    for value in _leaves(node["args"]):
        if isinstance(value, dict):
            inputs.append(name_of(value["keras_history"]))
            given.append(tuple(value["shape"][1:]))
        elif isinstance(value, int | float) and not isinstance(value, bool):
            inputs.append(float(value))
    options, mask = dict(node["kwargs"]), None
    for name, value in sorted(options.items(), key=lambda item: item[0] == "key"):  # Keras takes query, value, key
        tensors = [each for each in _leaves([value]) if isinstance(each, dict)]
        if tensors and name in ("value", "key", "x2", "initial_state"):
            inputs += [name_of(each["keras_history"]) for each in tensors]
            given += [tuple(each["shape"][1:]) for each in tensors]
            del options[name]
        elif len(tensors) == 1 and name == "mask":
            mask = name_of(tensors[0]["keras_history"])
        elif tensors:
            raise UnsupportedError(f"{operation.name!r} is given a tensor as {name!r}, which is not known here.")
    found = []
    while (*key, len(found)) in shapes:
        found.append(shapes[(*key, len(found))])
    outputs = tuple(found) or _own_shape(operation)
    return _Call(operation, number, tuple(inputs), options, tuple(given), outputs, mask)


def _own_shape(operation: Any) -> tuple[tuple[int | None, ...], ...]:
    outputs = operation.output if isinstance(operation.output, list | tuple) else [operation.output]
    return tuple(tuple(tensor.shape[1:]) for tensor in outputs)


def _tensors(node: Any) -> Iterator[dict[str, Any]]:
    return (value for value in _leaves([node["args"], node["kwargs"]]) if isinstance(value, dict))


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        if value.get("class_name") == "__keras_tensor__":
            yield value["config"]
        else:
            for each in value.values():
                yield from _leaves(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _leaves(each)
    else:
        yield value


def _flat_histories(value: Any) -> list[Any]:
    """Return the histories of a nested structure: [name, call, result] is one."""
    if isinstance(value, list | tuple) and len(value) == 3 and isinstance(value[0], str):
        return [value]
    parts = value.values() if isinstance(value, dict) else value
    return [history for part in parts for history in _flat_histories(part)]


def _input(tensor: Any, name: str, limit: int | None, padding: float | None) -> Input:
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    if not dtype.startswith(("float", "int", "uint")):
        raise UnsupportedError(f"input {name!r} has dtype {dtype}; numbers can be ported.")
    return Input(name, tuple(tensor.shape[1:]), "float32" if dtype.startswith("float") else "int32", limit, padding)


def _name(given: str) -> str:
    try:
        return require_name(given)
    except SpecError as error:
        raise UnsupportedError(f"{error} Rename the layer {json.dumps(given)}.") from None
