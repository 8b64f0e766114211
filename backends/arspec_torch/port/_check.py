"""Measuring a PyTorch target: a `Subject` over any nn.Module and its map."""

import copy
import importlib.util
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from arspec import Spec, SpecError
from arspec.port import Bundle, Certificate, Written, certify
from arspec.port._environment import environment
from arspec.port._probe import perturbed
from arspec.port._source import FIRST
from arspec_torch._attach import attach

Arrays = dict[str, np.ndarray]
_NAMED = {3: "batch feature time", 4: "batch feature height width", 5: "batch feature depth height width"}


def check(
    bundle: Bundle, written: Written, module: nn.Module, /, *, progress: Callable[[str], None] = lambda _: None
) -> Certificate:
    """Compare a module with the evidence of a bundle, level by level.

    Parameters
    ----------
    bundle : of the source.
    written : the map of the target, from `write` or from the file beside the source code.
    module : the target with its weights loaded. It is not changed: a copy is measured.

    Raises
    ------
    SpecError: the module has other tensors than the map says.
    """
    held = {name: tensor.detach().cpu().numpy().copy() for name, tensor in module.state_dict().items()}
    _require_tensors(held, written)
    subject = TorchSubject(bundle, written, module)
    where = environment("torch", "torch", dtype="float64")
    return certify(bundle, subject, written.weights, held, where, progress=progress)


class TorchSubject:
    """A copy of a module in float64, at the perturbed weights of a bundle, without dropout."""

    def __init__(self, bundle: Bundle, written: Written, module: nn.Module) -> None:
        self._bundle, self._written = bundle, written
        self.module = _copy(module).double()
        weights = written.weights.to_target(perturbed(bundle.weights))
        self.module.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
        for part in self.module.modules():
            if hasattr(part, "p") and isinstance(part.p, float):
                part.p = 0.0
        self._reset = {name: tensor.clone() for name, tensor in self.module.state_dict().items()}
        self._penalties = self._attached()

    def _attached(self) -> Any:
        sites, rules = self._bundle.sites, self._bundle.spec.rules
        if not sites:
            return None
        found = [
            replace(rules[site.rule], layer=layer, placement=placement)
            for site, (layer, placement) in zip(sites, self._written.sites, strict=True)
        ]
        return attach(self.module, Spec(found), axes=self._axes())

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
        with torch.no_grad(), self._mode(training):
            return [_canonical(y, layout) for y, layout in zip(self._run(inputs), self._written.outputs, strict=True)]

    def trace(self, inputs: Sequence[np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
        """Return the results of the layers that are modules, in the order of the graph."""
        modules, seen, handles = dict(self.module.named_modules()), {}, []
        for path, place in self._written.traced.items():
            if place.path in modules:
                hook = _recorder(seen, path)
                handles.append(modules[place.path].register_forward_hook(hook))
        with torch.no_grad(), self._mode(False):
            self._run(inputs)
        for handle in handles:
            handle.remove()
        order = [path for path, _ in self._bundle.graph.walk() if path in seen]
        return ((path, _canonical(seen[path], self._written.traced[path].layout)) for path in dict.fromkeys(order))

    def penalties(self, inputs: Sequence[np.ndarray], *, training: bool) -> dict[str, float]:
        """Return every penalty by its key in the source."""
        if self._penalties is None:
            return {}
        with torch.no_grad(), self._mode(training):
            self._run(inputs)
            losses = [loss.item() for loss in self._penalties.losses().values()]
        return {site.key: loss for site, loss in zip(self._bundle.sites, losses, strict=True)}

    def gradients(self, inputs: Sequence[np.ndarray], cotangents: Sequence[np.ndarray] | None) -> Arrays:
        """Return the gradients of every trainable weight."""
        if cotangents is None and self._penalties is None:
            found = {name: np.zeros(tuple(p.shape)) for name, p in self._parameters().items()}
        else:
            found = self._gradients(inputs, cotangents, with_penalties=cotangents is None)
        return self._trainable(self._written.weights.to_canonical(found, self._bundle.shapes))

    def step(self, inputs: Sequence[np.ndarray], cotangents: Sequence[np.ndarray], rate: float) -> Arrays:
        """Return every weight after one step of torch's SGD."""
        with self._mode(True):
            self._loss(inputs, cotangents, with_penalties=self._penalties is not None).backward()
            torch.optim.SGD([p for p in self.module.parameters() if p.requires_grad], lr=rate).step()
            self.module.zero_grad()
            state = {name: tensor.numpy().copy() for name, tensor in self.module.state_dict().items()}
        return self._written.weights.to_canonical(state, self._bundle.shapes)

    def _trainable(self, found: Arrays) -> Arrays:
        allowed = {
            path
            for path, node, role in self._bundle.graph.weights()
            if role not in getattr(node.layer, "state", ()) and role not in node.frozen
        }
        return {path: gradient for path, gradient in found.items() if path in allowed}

    def _parameters(self) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self.module.named_parameters() if p.requires_grad}

    def _gradients(self, inputs: Any, cotangents: Any, *, with_penalties: bool) -> Arrays:
        parameters = self._parameters()
        with self._mode(True):
            loss = self._loss(inputs, cotangents, with_penalties=with_penalties)
            found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        return {
            name: np.zeros(tuple(p.shape)) if gradient is None else gradient.numpy()
            for (name, p), gradient in zip(parameters.items(), found, strict=True)
        }

    def _loss(self, inputs: Any, cotangents: Any, *, with_penalties: bool) -> Tensor:
        outputs = self._run(inputs)
        loss = torch.zeros((), dtype=torch.float64)
        if cotangents is not None:
            for y, cotangent, layout in zip(outputs, cotangents, self._written.outputs, strict=True):
                loss = loss + (y * _native(cotangent, layout)).sum() / len(inputs[0])
        return loss + self._penalties.total() if with_penalties else loss

    def _run(self, inputs: Sequence[np.ndarray]) -> tuple[Tensor, ...]:
        given = [_native(x, layout) for x, layout in zip(inputs, self._written.inputs, strict=True)]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "the penalties of the forward pass before", UserWarning)
            found = self.module(*given)
        return found if isinstance(found, tuple) else (found,)

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


def load_class(file: str | Path, name: str) -> Any:
    """Import a Python file, which runs it, and return a class of it.

    Raises
    ------
    SpecError: there is no such file or class.
    """
    path = Path(file)
    if not path.is_file():
        raise SpecError(f"{path} is no file.")
    spec = importlib.util.spec_from_file_location(f"arspec_ported_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise SpecError(f"{path} is no Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    if not hasattr(module, name):
        raise SpecError(f"{path} has no class {name!r}.")
    return getattr(module, name)


def build(bundle: Bundle, written: Written) -> nn.Module:
    """Return a module of the source code that was written, with the weights of the bundle."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "written.py"
        file.write_text(written.text, encoding="utf-8")
        module = load_class(file, written.class_name)()
    weights = written.weights.to_target(bundle.weights)
    module.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    return module


def _copy(module: nn.Module) -> nn.Module:
    return copy.deepcopy(module)


def _recorder(seen: dict[str, Tensor], path: str) -> Callable[..., None]:
    def hook(module: nn.Module, args: Any, output: Any) -> None:
        seen.setdefault(path, (output[0] if isinstance(output, tuple) else output).clone())

    return hook


def _native(x: np.ndarray, layout: str) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1) if layout == FIRST and x.ndim > 2 else x))


def _canonical(x: Tensor, layout: str) -> np.ndarray:
    array = x.detach().numpy()
    return np.moveaxis(array, 1, -1) if layout == FIRST and array.ndim > 2 else array


def _require_tensors(held: Mapping[str, np.ndarray], written: Written) -> None:
    expected = written.weights.shapes
    missing, foreign = sorted(set(expected) - set(held)), sorted(set(held) - set(expected))
    wrong = [
        f"{name} has shape {held[name].shape}, not {tuple(shape)}"
        + (", looks transposed" if held[name].shape[::-1] == tuple(shape) else "")
        for name, shape in expected.items()
        if name in held and held[name].shape != tuple(shape)
    ]
    if missing or foreign or wrong:
        raise SpecError(f"the module is not that of the map: missing {missing}, not in the map {foreign}, {wrong}.")
