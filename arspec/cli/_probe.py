"""Try one adapter in a process of its own: `python -m arspec.cli._probe torch` prints JSON.

A framework can be installed and broken. The probe imports it, asks it for its devices, and
compares value and gradient of a penalty with the definition, at a kink too.
"""

import contextlib
import importlib
import json
import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

import arspec as ar

PENALTY = ar.L1(0.5) + ar.L2(0.25)
X = np.array([[0.0, -1.5, 2.0], [3.0, 0.0, -0.1]], np.float32)


def torch() -> dict[str, Any]:
    torch, adapter = _imported("torch", "arspec_torch")
    x = torch.tensor(X, requires_grad=True)
    value = adapter.value(PENALTY, x, mean_over="batchmean")
    value.backward()
    cuda = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return _result(value.item(), x.grad.numpy(), ["cpu", *cuda, *mps])


def jax() -> dict[str, Any]:
    jax, adapter = _imported("jax", "arspec_jax")
    value, gradient = jax.value_and_grad(lambda x: adapter.value(PENALTY, x, mean_over="batchmean"))(jax.numpy.array(X))
    return _result(float(value), np.asarray(gradient), [str(device) for device in jax.devices()])


def tensorflow() -> dict[str, Any]:
    tf, adapter = _imported("tensorflow", "arspec_tensorflow")
    x = tf.Variable(X)
    with tf.GradientTape() as tape:
        value = adapter.value(PENALTY, x, mean_over="batchmean")
    devices = [device.name.removeprefix("/physical_device:") for device in tf.config.list_physical_devices()]
    return _result(float(value), tape.gradient(value, x).numpy(), devices)


def keras() -> dict[str, Any]:
    adapter, keras = _imported("arspec_keras", "keras")
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, name="only")])
    model.layers[0].kernel.assign(X)
    adapter.attach(model, ar.Spec([ar.Rule(PENALTY, layer="only", placement="kernel")]))
    model(np.ones((1, 2), "float32"))
    (value,) = (float(keras.ops.convert_to_numpy(loss)) for loss in model.losses)
    same = value == float(ar.value(PENALTY, X))
    return {"works": same, "backend": keras.backend.backend(), "devices": [], "error": None if same else _OTHER}


def _imported(*names: str) -> tuple[Any, ...]:
    return tuple(map(importlib.import_module, names))


def _result(value: float, gradient: np.ndarray, devices: list[str]) -> dict[str, Any]:
    same = value == float(ar.value(PENALTY, X, mean_over="batchmean"))
    same = same and bool((gradient == ar.gradient(PENALTY, X, mean_over="batchmean")).all())
    return {"works": same, "devices": devices, "error": None if same else _OTHER}


_OTHER = "value or gradient differ from the definition; `arspec identity` says where"
PROBES: dict[str, Callable[[], dict[str, Any]]] = {"torch": torch, "jax": jax, "tensorflow": tensorflow, "keras": keras}


def main(name: str) -> None:
    """Print the result of one probe as one line of JSON, whatever the framework prints besides."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with contextlib.redirect_stdout(sys.stderr):
        try:
            found = PROBES[name]()
        except Exception as error:  # whatever a broken installation raises is the result
            found = {"works": False, "devices": [], "error": f"{type(error).__name__}: {error}"}
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
