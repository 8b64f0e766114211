"""The order in which the modules of a model run, and which reads the results of which, from one pass."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from arspec.port._order import reached
from arspec_torch.port._read import example_tensors


def order_of_calls(
    model: nn.Module, example_inputs: Tensor | Sequence[Tensor], paths: Mapping[nn.Module, str]
) -> tuple[list[str], dict[str, frozenset[str]]]:
    """Run a model once in evaluation, and return the paths that ran, and for each those that it reads.

    What reads what is followed back through the graph of gradients, so that it holds whatever
    stands between two modules; where nothing has a gradient there is nothing to follow.
    """
    calls: list[str] = []
    made: dict[Any, str] = {}  # the node of the graph that a result has -> the path
    before: dict[str, set[str]] = {}

    def ran(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        path = paths[module]
        if path not in before:
            calls.append(path)
        given = before.setdefault(path, set())
        for tensor in _tensors((args, kwargs)):
            given |= _sources(tensor, made)
        made.update({tensor.grad_fn: path for tensor in _tensors(output) if tensor.grad_fn is not None})

    hooks = [module.register_forward_hook(ran, with_kwargs=True) for module in paths]
    modes = [(module, module.training) for module in model.modules()]
    examples = [x.clone().requires_grad_(x.is_floating_point()) for x in example_tensors(example_inputs)]
    try:
        model.eval()
        with torch.enable_grad():
            model(*examples)
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes:
            module.training = training
    return calls, reached(calls, before)


def _tensors(held: Any) -> Iterator[Tensor]:
    if isinstance(held, Tensor):
        yield held
    elif isinstance(held, Mapping):
        for each in held.values():
            yield from _tensors(each)
    elif isinstance(held, tuple | list):
        for each in held:
            yield from _tensors(each)


def _sources(tensor: Tensor, made: Mapping[Any, str]) -> set[str]:
    """Return the nearest modules whose results a tensor is computed from."""
    found: set[str] = set()
    met: set[Any] = set()
    todo = [tensor.grad_fn]
    while todo:
        node = todo.pop()
        if node is None or node in met:
            continue
        met.add(node)
        if node in made:
            found.add(made[node])
        else:
            todo += [each for each, _ in node.next_functions]
    return found
