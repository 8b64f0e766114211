"""A regularized model saved, loaded, cloned, copied and pickled keeps its penalties (TRAPS C18)."""

import copy
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import arspec as ar
import arspec_keras
import keras
from arspec_keras import attach, detach, losses, sites
from bits import assert_same_bits
from keras_models import KEYS, SPEC, X, Y, compiled, functional, number, sequential, with_weights

LAYERS = keras.layers


@keras.saving.register_keras_serializable("tests")
class Custom(keras.Model):
    def __init__(self, units: int = 5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.hidden = LAYERS.Dense(units, activation="relu", name="hidden")
        self.head = LAYERS.Dense(2, name="head")

    def call(self, x: Any) -> Any:
        return self.head(self.hidden(x))

    def get_config(self) -> Any:
        return {"units": self.units, **super().get_config()}


MODELS = pytest.mark.parametrize("make", [sequential, functional, Custom])


def trained(make: Callable[[], keras.Model]) -> keras.Model:
    """Return a regularized model after one step, so that its optimizer has state."""
    model = attach(with_weights(make()), SPEC)
    model.compile(keras.optimizers.Adam(0.01), keras.losses.MeanSquaredError())
    model.train_on_batch(X, Y)
    model(X)
    return model


def assert_alive(model: keras.Model, like: keras.Model) -> None:
    model(X), like(X)
    assert list(losses(model)) == KEYS
    for key, loss in losses(model).items():
        assert_same_bits(number(loss), number(losses(like)[key]), key)


@MODELS
def test_c18_save_and_load(make: Any, tmp_path: Path) -> None:
    model = trained(make)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert_alive(loaded, model)
    assert repr(sites(loaded)) == repr(sites(model))
    assert_same_bits(loaded.train_on_batch(X, Y), model.train_on_batch(X, Y), "loss of the next step")
    for one, other in zip(loaded.get_weights(), model.get_weights(), strict=True):
        assert_same_bits(one, other, "weight after the next step")
    assert type(detach(loaded)) is type(detach(model))


@MODELS
def test_c18_save_and_load_hdf5(make: Any, tmp_path: Path) -> None:
    """Keras 3.15 loses the state of the optimizer of any model here, so that nothing is trained afterwards."""
    model = trained(make)
    model.save(tmp_path / "model.h5")
    assert_alive(keras.saving.load_model(tmp_path / "model.h5", compile=False), model)


@MODELS
@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))], ids=["copy", "pickle"]
)
def test_c18_copies(make: Any, copied: Any) -> None:
    model = trained(make)
    assert_alive(copied(model), model)


@MODELS
def test_c18_from_config(make: Any) -> None:
    model = trained(make)
    built = type(model).from_config(model.get_config())
    built(X)
    built.set_weights(model.get_weights())
    assert_alive(built, model)
    read = keras.models.model_from_json(model.to_json())
    read(X)
    read.set_weights(model.get_weights())
    assert_alive(read, model)


@pytest.mark.parametrize("make", [functional, Custom])
def test_c18_clone_model(make: Any) -> None:
    model = trained(make)
    clone = keras.models.clone_model(model)
    clone(X)
    clone.set_weights(model.get_weights())
    assert_alive(clone, model)
    assert clone.layers[-1] is not model.layers[-1]


def test_c18_clone_model_would_lose_the_penalties_of_a_sequential() -> None:
    with pytest.raises(ar.UnsupportedError, match=r"clone_model would lose the penalties.*copy\.deepcopy\(model\)"):
        keras.models.clone_model(trained(sequential))


def test_c18_a_regularized_model_inside_another(tmp_path: Path) -> None:
    inputs = keras.Input((3,))
    inner = trained(functional)
    outer = keras.Model(inputs, LAYERS.Dense(1, name="last")(inner(inputs)))
    outer(X)
    expected = [number(loss) for loss in outer.losses]
    assert len(expected) == 5
    outer.save(tmp_path / "outer.keras")
    loaded = keras.saving.load_model(tmp_path / "outer.keras")
    loaded(X)
    for found, loss in zip(loaded.losses, expected, strict=True):
        assert_same_bits(number(found), loss, "loss")


@pytest.mark.filterwarnings("ignore:You are saving a model that has not yet been built")
def test_c18_a_model_saved_before_it_is_built(tmp_path: Path) -> None:
    attach(sequential(), SPEC).save(tmp_path / "model.keras")
    loaded = with_weights(keras.saving.load_model(tmp_path / "model.keras"))
    assert_alive(loaded, attach(with_weights(sequential()), SPEC))


def test_the_file_holds_the_document_of_the_spec(tmp_path: Path) -> None:
    trained(functional).save(tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as file:
        config = json.loads(file.read("config.json"))
    assert config["registered_name"] == "arspec>Regularized"
    assert ar.Spec.from_document(config["config"]["spec"]) == SPEC
    assert config["config"]["model"]["class_name"] == "Functional"


def test_a_broken_file_is_an_error() -> None:
    config = trained(functional).get_config()
    config["spec"]["rules"][0]["penalty"]["name"] = "l7"
    with pytest.raises(ar.SpecError, match=r"rules\[0\]\.penalty: unknown penalty 'l7'"):
        keras.saving.deserialize_keras_object(
            {"module": None, "class_name": "Regularized", "registered_name": "arspec>Regularized", "config": config}
        )
    with pytest.raises(ar.SpecError, match=r"this is no regularized model: its config has the keys model"):
        arspec_keras._carried.Regularized.from_config({"model": config["model"]})


def test_weights_alone_go_in_and_out(tmp_path: Path) -> None:
    model = trained(functional)
    model.save_weights(tmp_path / "model.weights.h5")
    plain = functional()
    plain.load_weights(tmp_path / "model.weights.h5")
    for one, other in zip(plain.get_weights(), model.get_weights(), strict=True):
        assert_same_bits(one, other, "weight")
    model.load_weights(tmp_path / "model.weights.h5")


def test_a_model_looks_as_before() -> None:
    model, plain = attach(functional(), SPEC), functional()
    assert isinstance(model, type(plain))
    assert repr(model).startswith("<Functional name=")
    assert type(detach(model)) is type(plain)


@pytest.mark.parametrize("make", [sequential, functional])
def test_fit_after_loading(make: Any, tmp_path: Path) -> None:
    model = compiled(attach(with_weights(make()), SPEC))
    model.optimizer.learning_rate = 0.0
    expected = model.fit(X, Y, verbose=0).history["loss"]
    weightless = compiled(type(model).from_config(model.get_config()))
    weightless.build(X.shape)
    weightless.set_weights(model.get_weights())
    weightless.optimizer.learning_rate = 0.0
    np.testing.assert_allclose(weightless.fit(X, Y, verbose=0).history["loss"], expected, rtol=1e-6)
