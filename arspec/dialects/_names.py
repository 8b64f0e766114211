"""Dialects by name, as the command line calls them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from arspec._errors import SpecError, unknown
from arspec._rule import Rule
from arspec._spec import Spec
from arspec.dialects._dialect import Conversion, Dialect, named_rules
from arspec.dialects._keras import keras, tf_keras
from arspec.dialects._language_models import awd_lstm, awd_lstm_paper, fastai
from arspec.dialects._optimizers import haiku, optax, torch
from arspec.dialects._sparse_autoencoders import dictionary_learning, openai_sparse_autoencoder, sae_lens
from arspec.dialects._tensorflow import sonnet, tf_nn, tf_slim


@dataclass(frozen=True, slots=True)
class Arspec(Dialect):
    """Spec documents themselves, so that they can be one end of a conversion."""

    name: str = "arspec"
    about: str = "spec documents of arspec"

    def reading(self, document: Any) -> Conversion:
        return Conversion(Spec.from_document(document))

    def writing(self, rules: Rule | Iterable[Rule]) -> Conversion:
        return Conversion(Spec(rule for _, rule in named_rules(rules)).to_document())


_PLAIN: tuple[Dialect, ...] = (
    Arspec(),
    tf_keras,
    torch,
    optax,
    haiku,
    tf_slim,
    tf_nn,
    sonnet,
    awd_lstm,
    awd_lstm_paper,
    fastai,
    sae_lens,
    dictionary_learning,
    openai_sparse_autoencoder,
)
_KERAS = ("keras==VERSION", "a version of Keras, such as keras==3.15.1 or keras==2.3.1")


def known() -> list[tuple[str, str]]:
    """Return the name and the convention of every dialect."""
    first, *others = [(dialect.name, dialect.about) for dialect in _PLAIN]
    return [first, _KERAS, *others]


def dialect(name: str) -> Dialect:
    """Return a dialect by its name, such as "torch", "tf-slim" or "keras==3.15.1".

    Raises
    ------
    SpecError: no dialect has that name, or "keras" without a version.

    Example
    -------
    >>> from arspec import dialects
    >>> rules = dialects.dialect("tf-slim").read(
    ...     {"terms": [{"regularizer": "l2_regularizer", "scale": 0.002, "layer": "**", "placement": "kernel"}]}
    ... )
    >>> dialects.dialect("keras==3.15.1").write(rules)["layers"]["**"]["kernel_regularizer"]["config"]
    {'l2': 0.001}
    """
    if not isinstance(name, str):
        raise SpecError(f"name={name!r}; expected the name of a dialect, such as 'torch'.")
    if name == "keras":
        raise SpecError("'keras' needs a version, such as 'keras==3.15.1': what it means changed four times.")
    if name.startswith("keras=="):
        return keras(version=name.removeprefix("keras=="))
    for plain in _PLAIN:
        if plain.name == name:
            return plain
    raise unknown("dialect", name, [name for name, _ in known()])
