"""What the forward passes of one model have recorded."""

import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from arspec import UnsupportedError
from arspec_torch._mask import NamedMask

UNASKED = (
    "the penalties of the forward pass before this one were never asked for, and are lost. Add penalties.total() to "
    "the loss after each pass; several passes for one loss add up in `with penalties.passes():`."
)
_COMPILED = 1  # stands for the thread of a pass where the compiler runs, which cannot ask for it


class Passes:
    """The losses and shapes of the last pass, or of several that add up, by the keys of sites.

    Attributes
    ----------
    losses, shapes : what was recorded.
    given : the masks that hold now, by layer.
    wants_gradient : whether the pass began with gradients enabled.
    """

    def __init__(self) -> None:
        self.losses: dict[str, Tensor] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.given: Mapping[str, NamedMask] = {}
        self.wants_gradient = True
        self._thread = 0
        self._masks: Mapping[str, NamedMask] | None = {}
        self._adds_up = False
        self._is_unasked = False

    @property
    def is_running(self) -> bool:
        """Whether a pass is under way."""
        return self._thread != 0

    def begin(self, is_training: bool) -> None:
        """Start a pass; warn if the one before it was to train and nobody asked for its penalties."""
        if not self._adds_up and self._is_unasked and is_training and not torch.compiler.is_compiling():
            warnings.warn(UNASKED, stacklevel=6)
        self.wants_gradient = torch.is_grad_enabled()
        if self._adds_up:
            self._masks = self.given if not self.losses or self._masks is self.given else None
        else:
            self._forget()
            self._masks = self.given
        self._thread = _COMPILED if torch.compiler.is_compiling() else threading.get_ident()

    def end(self, failed: bool) -> None:
        """End a pass; one that failed leaves nothing behind."""
        self._thread = 0
        if failed:
            self._forget()

    def record(self, key: str, loss: Tensor, shape: tuple[int, ...], is_training: bool) -> None:
        """Add a loss to what the site has already."""
        known = self.losses.get(key)
        self.losses[key] = loss if known is None else known + loss
        self.shapes[key] = shape
        self._is_unasked = self.wants_gradient and is_training

    def asked(self) -> None:
        """Note that the losses were asked for."""
        self._is_unasked = False

    def refuse_other_threads(self) -> None:
        """Refuse a call from another thread than that of the pass under way.

        Raises
        ------
        UnsupportedError: two threads run one model at once.
        """
        if torch.compiler.is_compiling() or self._thread <= _COMPILED:
            return
        if self._thread != threading.get_ident():
            raise UnsupportedError("the model runs in two threads at once; give each thread a deep copy.")

    def mask(self, layer: str) -> NamedMask | None:
        """Return the mask of a layer in the pass under way, or in the last one where a checkpoint runs again.

        Raises
        ------
        UnsupportedError: the passes that a checkpoint may belong to had different masks.
        """
        masks = self.given if self.is_running else self._masks
        if masks is None:
            raise UnsupportedError("a checkpoint runs again, and the passes that add up had different masks.")
        return masks.get(layer)

    @contextmanager
    def adding_up(self) -> Iterator[None]:
        """Let the passes inside of `with` add up."""
        self._forget()
        self._adds_up = True
        try:
            yield
        finally:
            self._adds_up = False

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Run the model inside of `with` as if it had not run: the last pass stays what it was."""
        before = self.__dict__.copy()
        self._adds_up = False
        self._forget()
        try:
            yield
        finally:
            self.__dict__.update(before)

    def __getstate__(self) -> dict[str, Any]:
        """Copy nothing of a pass, whose tensors belong to a graph."""
        return {**Passes().__dict__, "given": self.given}

    def _forget(self) -> None:
        self.losses, self.shapes, self._is_unasked = {}, {}, False
