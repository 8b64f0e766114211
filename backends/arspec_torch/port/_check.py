"""Measuring a PyTorch target: a `Subject` over any nn.Module and its map."""

import copy
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from arspec import SpecError
from arspec.port import Bundle, Certificate, Fault, Written
from arspec.port._files import attribute_of
from arspec.port._kinds import LSTM, SimpleRNN
from arspec.port._library import Library
from arspec.port._probe import padding_mask, perturbed
from arspec.port._source import FIRST
from arspec.port._target import target_spec, trained_weights
from arspec_torch._attach import attach
from arspec_torch.port._recurrent import FINAL
from arspec_torch.port._write import write

Arrays = dict[str, np.ndarray]
_NAMED = {3: "batch feature time", 4: "batch feature height width", 5: "batch feature depth height width"}


def check(
    bundle: Bundle,
    written: Written,
    module: nn.Module,
    /,
    *,
    faults: bool = True,
    progress: Callable[[str], None] = lambda _: None,
) -> Certificate:
    """Compare a module with the evidence of a bundle, level by level.

    Parameters
    ----------
    bundle : of the source.
    written : the map of the target, from `write` or from the file beside the source code.
    module : the target with its weights loaded. It is not changed: a copy is measured.
    faults : whether faults are planted, which have to be noticed (L5); each is a target that
        arspec writes and measures again.

    Raises
    ------
    SpecError: the module has other tensors than the map says.
    """
    return _LIBRARY.certificate(bundle, written, module, faults, progress)


def _own_faults(bundle: Bundle) -> Iterator[Fault]:
    """Yield what goes wrong in torch alone: the second bias of a recurrent module trains, too."""
    for path, node in bundle.graph.walk():
        kind = getattr(node.layer, "layer", node.layer)
        if isinstance(kind, LSTM | SimpleRNN) and kind.use_bias:
            yield Fault("both biases of a recurrent layer trained", path, bundle, _unfrozen)
            return


def _unfrozen(written: Written) -> Written:
    text = re.sub(r"requires_grad_\(False\)", "requires_grad_(True)", written.text)
    return replace(written, text=text)


class TorchSubject:
    """A copy of a module in float64, at the perturbed weights of a bundle, without dropout."""

    def __init__(self, bundle: Bundle, written: Written, module: nn.Module) -> None:
        self._bundle, self._written = bundle, written
        self.module = copy.deepcopy(module).double()
        weights = written.weights.to_target(perturbed(bundle.weights))
        self.module.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
        for part in self.module.modules():
            if hasattr(part, "p") and isinstance(part.p, float):
                part.p = 0.0
            part.__class__ = _EXACT.get(type(part), type(part))
        self._reset = {name: tensor.clone() for name, tensor in self.module.state_dict().items()}
        self._penalties = self._attached()
        self._passes: dict[tuple[int, bool], tuple[list[np.ndarray], dict[str, float]]] = {}
        self._slopes: dict[int, tuple[Arrays, Arrays]] = {}

    def _attached(self) -> Any:
        rules = target_spec(self._bundle, self._written)
        return attach(self.module, rules, axes=self._axes()) if rules.rules else None

    def _axes(self) -> dict[str, str]:
        """Say the order of axes of activations that are channels first."""
        layouts = zip(self._bundle.sites, self._written.sites, self._written.site_layouts, strict=True)
        shapes = {path: node.shapes[0] for path, node in self._bundle.graph.walk()}
        return {
            layer: _NAMED[len(shapes[site.layer]) + 1]
            for site, (layer, _), layout in layouts
            if layout == FIRST and len(shapes[site.layer]) >= 2
        }

    def outputs(self, inputs: Sequence[np.ndarray], *, training: bool) -> list[np.ndarray]:
        """Return the outputs, channels last."""
        return self._passed(inputs, training)[0]

    def trace(self, inputs: Sequence[np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
        """Return the results of the layers that are modules, in the order of the graph."""
        modules, seen, handles = dict(self.module.named_modules()), {}, []
        for path, place in self._written.traced.items():
            if place.path in modules:
                hook = _recorder(seen, path, place.layout)
                handles.append(modules[place.path].register_forward_hook(hook))
        with torch.no_grad(), self._mode(False):
            self._run(inputs)
        for handle in handles:
            handle.remove()
        order = [path for path, _ in self._bundle.graph.walk() if path in seen]
        return ((path, _canonical(seen[path], self._written.traced[path].layout)) for path in dict.fromkeys(order))

    def penalties(self, inputs: Sequence[np.ndarray], *, training: bool) -> dict[str, float]:
        """Return every penalty by its key in the source."""
        return self._passed(inputs, training)[1]

    def gradients(self, inputs: Sequence[np.ndarray], cotangents: Sequence[np.ndarray] | None) -> Arrays:
        """Return the gradients of every trainable weight."""
        if cotangents is None:
            return self._sloped(inputs, ())[1]
        return self._sloped(inputs, cotangents)[0]

    def _passed(self, inputs: Sequence[np.ndarray], training: bool) -> tuple[list[np.ndarray], dict[str, float]]:
        """Run a batch once; weights are always put back, so its results never change."""
        key = id(inputs), training
        if key not in self._passes:
            with torch.no_grad(), self._mode(training):
                found = zip(self._run(inputs), self._written.outputs, strict=True)
                outputs = [_canonical(y, layout) for y, layout in found]
                losses = [] if self._penalties is None else self._penalties.losses().values()
                pairs = zip(self._bundle.sites, losses, strict=True)
                self._passes[key] = outputs, {site.key: loss.item() for site, loss in pairs}
        return self._passes[key]

    def _sloped(self, inputs: Sequence[np.ndarray], cotangents: Sequence[np.ndarray]) -> tuple[Arrays, Arrays]:
        """Return the gradients of the data loss and of the penalties, of one pass."""
        if id(inputs) not in self._slopes:
            with self._mode(True):
                losses = self._losses(inputs, cotangents)
                found = [self._gradients(loss) for loss in losses]
            moved = (self._written.weights.to_canonical(each, self._bundle.shapes) for each in found)
            data, penalty = (self._trainable(each) for each in moved)
            self._slopes[id(inputs)] = data, penalty
        return self._slopes[id(inputs)]

    def step(self, inputs: Sequence[np.ndarray], cotangents: Sequence[np.ndarray], rate: float) -> Arrays:
        """Return every weight after one step of torch's SGD."""
        with self._mode(True):
            sum(self._losses(inputs, cotangents)).backward()
            torch.optim.SGD([p for p in self.module.parameters() if p.requires_grad], lr=rate).step()
            self.module.zero_grad()
            state = {name: tensor.numpy().copy() for name, tensor in self.module.state_dict().items()}
        found = self._written.weights.to_canonical(state, self._bundle.shapes)
        for name, constant in self._written.weights.derived.items():
            if not name.endswith("num_batches_tracked") and (state[name] != constant).any():
                found[f"{name}, which should stay {constant}"] = state[name]
        return found

    def _trainable(self, found: Arrays) -> Arrays:
        allowed = trained_weights(self._bundle.graph)
        return {path: gradient for path, gradient in found.items() if path in allowed}

    def _parameters(self) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self.module.named_parameters() if p.requires_grad}

    def _gradients(self, loss: Tensor) -> Arrays:
        parameters = self._parameters()
        zero = {name: np.zeros(tuple(p.shape)) for name, p in parameters.items()}
        if not loss.requires_grad:
            return zero
        found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True, retain_graph=True)
        return zero | {n: g.numpy() for n, g in zip(parameters, found, strict=True) if g is not None}

    def _losses(self, inputs: Any, cotangents: Any) -> tuple[Tensor, Any]:
        """Return the data loss and the penalties of one pass."""
        triples = zip(self._run(inputs), cotangents, self._written.outputs, strict=True)
        data: Any = sum((y * _native(cotangent, layout)).sum() for y, cotangent, layout in triples) / len(inputs[0])
        return data, torch.zeros(()) if self._penalties is None else self._penalties.total()

    def _run(self, inputs: Sequence[np.ndarray]) -> tuple[Tensor, ...]:
        given = [_native(x, layout) for x, layout in zip(inputs, self._written.inputs, strict=True)]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "the penalties of the forward pass before", UserWarning)
            with self._masked(inputs):
                found = self.module(*given)
        return found if isinstance(found, tuple) else (found,)

    def _masked(self, inputs: Sequence[np.ndarray]) -> AbstractContextManager[None]:
        """Say which steps of padded sequences count, in the order in which a layer walks over them."""
        graph, found = self._bundle.graph, {}
        modules, nodes = dict(self.module.named_modules()), dict(graph.walk())
        for site, (layer, _) in zip(self._bundle.sites, self._written.sites, strict=True):
            if site.mask:
                valid = padding_mask(graph, site.mask, inputs)
                turned = getattr(nodes[_without_side(site.layer)].layer, "reverse", False)
                recurrent = isinstance(modules.get(_without_side(layer).replace("/", ".")), nn.RNNBase)
                found[layer] = torch.from_numpy(valid[:, ::-1].copy() if turned and recurrent else valid)
        return self._penalties.masks(found) if found else nullcontext()

    @contextmanager
    def _mode(self, training: bool) -> Iterator[None]:
        """Set the mode, and put every tensor back that a pass or a step changed."""
        self.module.train(training)
        try:
            yield
        finally:
            with torch.no_grad():
                for name, tensor in self.module.state_dict().items():
                    tensor.copy_(self._reset[name])


def load(file: str | Path, class_name: str, weights: Mapping[str, np.ndarray]) -> nn.Module:
    """Run a Python file, make a module of a class in it, and give it weights by the names of its state_dict.

    Raises
    ------
    SpecError: there is no such file or class, the class needs arguments, or the weights do not fit.
    """
    try:
        module = attribute_of(file, class_name)()
    except TypeError as error:
        raise SpecError(f"{file}: {class_name}() cannot be made without arguments: {error}.") from None
    if not isinstance(module, nn.Module):
        raise SpecError(f"{file}: {class_name} is no nn.Module.")
    try:
        module.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    except RuntimeError as error:
        raise SpecError(f"{file}: {error}") from None
    return module


def build(bundle: Bundle, written: Written) -> nn.Module:
    """Return a module of the source code that was written, with the weights of the bundle."""
    return _LIBRARY.build(bundle, written)


class _Hardsigmoid(nn.Hardsigmoid):
    """torch's own kernel has 1/6 in float32, in float64 too."""

    def forward(self, input: Tensor) -> Tensor:
        return (input + 3.0).clamp(0.0, 6.0) / 6.0


class _Hardswish(nn.Hardswish):
    def forward(self, input: Tensor) -> Tensor:
        return input * (input + 3.0).clamp(0.0, 6.0) / 6.0


_EXACT: dict[type[nn.Module], Any] = {nn.Hardsigmoid: _Hardsigmoid, nn.Hardswish: _Hardswish}


def _without_side(layer: str) -> str:
    """Return the path of a module; the directions of a recurrent one are no modules."""
    return layer.removesuffix("/forward").removesuffix("/backward")


def _recorder(seen: dict[str, Tensor], path: str, layout: str) -> Callable[..., None]:
    def hook(module: nn.Module, args: Any, output: Any) -> None:
        if layout == FINAL:  # of a recurrent module: the states in which its walks end, side by side
            states = output[1][0] if isinstance(output[1], tuple) else output[1]
            output = torch.cat(tuple(states), -1)
        seen.setdefault(path, (output[0] if isinstance(output, tuple) else output).clone())

    return hook


def _native(x: np.ndarray, layout: str) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1) if layout == FIRST and x.ndim > 2 else x))


def _canonical(x: Tensor, layout: str) -> np.ndarray:
    array = x.detach().numpy()
    return np.moveaxis(array, 1, -1) if layout == FIRST and array.ndim > 2 else array


def _arrays(module: nn.Module) -> dict[str, np.ndarray]:
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in module.state_dict().items()}


_LIBRARY = Library("torch", ("torch",), write, load, _arrays, TorchSubject, _own_faults)
