"""Watching layers: which taps the placements of some sites ask for."""

from collections.abc import Iterable

import keras
from arspec_keras._bound import Bound
from arspec_keras._layers import Found
from arspec_keras._recurrent import is_walked, tap_directions, tap_steps
from arspec_keras._taps import Recorder, Wrapped, tap

Wanted = dict[int, tuple[keras.Layer, frozenset[str]]]


class Watch:
    """The taps in a model; they follow what is wanted."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.taps: dict[tuple[int, frozenset[str]], list[Wrapped]] = {}

    def set(self, wanted: Wanted) -> None:
        """Watch these layers for these placements, and no others."""
        keys = {(key, placements): layer for key, (layer, placements) in wanted.items()}
        for key in self.taps.keys() - keys.keys():
            for wrapped in reversed(self.taps.pop(key)):
                wrapped.restore()
        for key in keys.keys() - self.taps.keys():
            self.taps[key] = self._taps_of(keys[key], key[1])

    def restore(self) -> None:
        """Take every tap out."""
        self.set({})

    def _taps_of(self, layer: keras.Layer, placements: frozenset[str]) -> list[Wrapped]:
        taps = [tap(layer, self.recorder)]
        if is_walked(layer):
            taps.append(tap_steps(layer, self.recorder, placements))
        if isinstance(layer, keras.layers.Bidirectional):
            taps.append(tap_directions(layer))
        return taps


def watch(bound: Iterable[Bound], found: Iterable[Found], recorder: Recorder) -> Watch:
    """Watch the layers of the sites that are activations."""
    watching = Watch(recorder)
    watching.set(wanted_by(bound, (entry.layer for entry in found)))
    return watching


def wanted_by(bound: Iterable[Bound], layers: Iterable[keras.Layer]) -> Wanted:
    """Return what the sites ask of the layers of a model; a Bidirectional has to run what is inside it."""
    wanted: Wanted = {}
    for entry in (entry for entry in bound if entry.is_activation):
        _, placements = wanted.get(id(entry.layer), (entry.layer, frozenset()))
        wanted[id(entry.layer)] = entry.layer, placements | {entry.site.rule.placement}
    for layer in layers:
        directions = isinstance(layer, keras.layers.Bidirectional) and (layer.forward_layer, layer.backward_layer)
        if directions and any(id(direction) in wanted for direction in directions):
            wanted.setdefault(id(layer), (layer, frozenset()))
    return wanted
