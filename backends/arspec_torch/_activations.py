"""Which activation function belongs to a layer of an nn.Module.

In torch an activation function is a module of its own or a call in `forward`, so "the
output of layer `hidden`, after its activation" has to be found out: from what the caller
says, from the neighbour in an nn.Sequential, or from a torch.fx trace. What stays unknown
is refused with the cure, never guessed.
"""

import operator
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from arspec import SpecError
from arspec_torch._source import inner, named_inside
from arspec_torch._watch import own_classes

_FUNCTIONS = (
    *(F.relu, F.relu6, F.leaky_relu, F.elu, F.selu, F.celu, F.gelu, F.silu, F.mish, F.softplus, F.softsign),
    *(F.hardtanh, F.hardsigmoid, F.hardswish, F.hardshrink, F.softshrink, F.tanhshrink, F.logsigmoid, F.threshold),
    *(F.tanh, F.sigmoid, torch.relu, torch.tanh, torch.sigmoid, torch.selu, torch.celu),
)
_METHODS = {"relu": torch.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid}
_LINEAR_FUNCTIONS = {
    *(operator.add, operator.sub, operator.mul, operator.matmul, operator.getitem, getattr),
    *(torch.add, torch.sub, torch.mul, torch.cat, torch.stack, torch.flatten, torch.reshape, torch.squeeze),
    *(torch.unsqueeze, torch.permute, torch.transpose, torch.matmul, torch.bmm, torch.mean, torch.sum),
    *(F.dropout, F.linear, F.layer_norm, F.batch_norm, F.softmax, F.log_softmax, torch.softmax, torch.log_softmax),
}
_LINEAR_METHODS = {"view", "reshape", "flatten", "permute", "transpose", "squeeze", "unsqueeze", "contiguous", "size"}
_LINEAR_METHODS |= {"mean", "sum", "add", "mul", "chunk", "split", "softmax", "log_softmax", "detach", "float"}


@dataclass(frozen=True, slots=True)
class Activation:
    """An activation function: a module that runs once per pass, or a function to apply."""

    name: str
    module: nn.Module | None = None
    function: Callable[[Tensor], Tensor] | None = None


@dataclass(frozen=True, slots=True)
class Unknown:
    """Why the activation function of a layer cannot be told, and what to do."""

    reason: str


class _Tracer(fx.Tracer):
    """Looks into people's modules and into containers, not into torch's layers and subclasses of them."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return _is_leaf(m)


def _is_leaf(module: nn.Module) -> bool:
    if isinstance(module, _CONTAINERS):
        return False
    bases = [cls for cls in type(module).__mro__ if cls is not nn.Module]
    return any(cls.__module__.startswith("torch.nn.modules.") for cls in bases)


_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def _has_hooks(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


class ActivationFinder:
    """Answers, for a path, which activation function follows that layer."""

    def __init__(
        self, model: nn.Module, given: Mapping[str, Any] | None, is_activation: Callable[[nn.Module], bool]
    ) -> None:
        self._model = model
        self._is_activation = is_activation
        self._modules = named_inside(model)
        self._given = {_dotted(path): given_for for path, given_for in (given or {}).items()}
        for path in self._given:
            if path not in self._modules:
                raise SpecError(f"activations names the layer {path!r}, which the model does not have.")
        self._uses = Counter(id(m) for _, m in model.named_modules(remove_duplicate=False))

    def __call__(self, path: str) -> Activation | Unknown | None:
        """Return the activation, None if there is none, or Unknown."""
        name = _dotted(path)
        if name in self._given:
            return self._from_caller(name, self._given[name])
        parent = self._modules.get(name.rpartition(".")[0])
        if isinstance(parent, nn.TransformerEncoderLayer | nn.TransformerDecoderLayer):
            return self._in_transformer(parent, name)
        if isinstance(parent, nn.Sequential) and name in self._modules:
            follower = self._neighbour(parent, name)
            if follower is not None:
                return follower if follower.module is None or self._is_activation(follower.module) else None
        return self._from_graph(name)

    def _from_caller(self, name: str, given: Any) -> Activation | None:
        if given is None:
            return None
        if isinstance(given, str):
            if _dotted(given) not in self._modules:
                raise SpecError(f"activations[{name!r}]={given!r}; expected the path of a module, a function or None.")
            return Activation(_dotted(given), module=self._modules[_dotted(given)])
        if not callable(given):
            raise SpecError(f"activations[{name!r}]={given!r}; expected the path of a module, a function or None.")
        function: Any = given
        return Activation(getattr(given, "__name__", type(given).__name__), function=function)

    def _in_transformer(self, parent: Any, name: str) -> Activation | None:
        holder, _, child = name.rpartition(".")
        if child != "linear1":
            return None
        function: Any = parent.activation
        if isinstance(function, nn.Module):
            return self._module_activation(f"{holder}.activation".strip("."), function, self._uses[id(function)])
        return Activation(getattr(function, "__name__", type(function).__name__), function=function)

    def _neighbour(self, parent: nn.Sequential, name: str) -> Activation | None:
        children = [(child, inner(module)) for child, module in parent.named_children()]
        position = [child for child, _ in children].index(name.rpartition(".")[2])
        if position + 1 == len(children):
            return None
        child, module = children[position + 1]
        return self._module_activation(f"{name.rpartition('.')[0]}.{child}".strip("."), module, self._uses[id(module)])

    def _module_activation(self, name: str, module: nn.Module, uses: int) -> Activation:
        if uses == 1 or not self._is_activation(module):
            return Activation(name, module=module)
        return Activation(name, function=partial(_recompute, module))

    @cached_property
    def _graph(self) -> fx.Graph | None:
        # Hooks run in a trace as well, and see symbols: those of FSDP2 set up the model for good.
        if any(_has_hooks(module) for module in self._model.modules() if not _is_leaf(module)):
            return None
        try:
            # Statistics look at models that are attached already: a penalty cannot run on symbols.
            with own_classes(self._model):
                return _Tracer().trace(self._model)
        except Exception:  # a forward that cannot be traced may raise anything
            return None

    def _from_graph(self, name: str) -> Activation | Unknown | None:
        cure = f"say it: attach(model, spec, activations={{{name!r}: torch.relu}}), or None for no activation"
        nodes = [] if self._graph is None else [n for n in self._graph.nodes if _calls(n, name)]
        if not nodes:
            return Unknown(f"torch.fx could not see which activation function follows it; {cure}.")
        found = [self._from_users(node) for node in nodes]
        if any(isinstance(one, Unknown) for one in found) or len({_identity(one) for one in found}) > 1:
            return Unknown(f"its result does not go into exactly one known activation function; {cure}.")
        return found[0]

    def _from_users(self, node: fx.Node) -> Activation | Unknown | None:
        users = [self._from_user(node, user) for user in node.users]
        if all(user is None for user in users):
            return None
        return users[0] if len(users) == 1 else Unknown("several users")

    def _from_user(self, node: fx.Node, user: fx.Node) -> Activation | Unknown | None:
        if user.op == "output":
            return None
        if user.op == "call_module":
            module = self._modules[str(user.target)]
            uses = sum(1 for n in user.graph.nodes if _calls(n, str(user.target)))
            return self._module_activation(str(user.target), module, uses) if self._is_activation(module) else None
        return _from_call(node, user)


def _from_call(node: fx.Node, user: fx.Node) -> Activation | Unknown | None:
    table: Any = _METHODS if user.op == "call_method" else {f: f for f in _FUNCTIONS}
    linear: Any = _LINEAR_METHODS if user.op == "call_method" else _LINEAR_FUNCTIONS
    if user.target in table and user.args[:1] == (node,):
        options = {key: value for key, value in user.kwargs.items() if key != "inplace"}
        function = partial(_with_options, table[user.target], user.args[1:], options)
        return Activation(table[user.target].__name__, function=function)
    return None if user.target in linear else Unknown("unknown function")


def _with_options(function: Callable[..., Tensor], args: tuple[Any, ...], options: dict[str, Any], x: Tensor) -> Tensor:
    return function(x, *args, **options)


def _recompute(module: nn.Module, x: Tensor) -> Tensor:
    # An in-place module must not overwrite the tensor that the model goes on with.
    return module.forward(x.clone() if getattr(module, "inplace", False) else x)


def _identity(found: Activation | Unknown | None) -> object:
    return (found.name, id(found.module)) if isinstance(found, Activation) else found


def _calls(node: fx.Node, name: str) -> bool:
    return node.op == "call_module" and node.target == name


def _dotted(path: str) -> str:
    return path.replace("/", ".")
