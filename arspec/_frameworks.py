"""The messages for an adapter whose framework, or whose backend of Keras, is not installed."""

import importlib.util


def require(adapter: str, framework: str, name: str, extra: str) -> None:
    """Raise ModuleNotFoundError, with the extra to install, unless `framework` is installed."""
    if importlib.util.find_spec(framework) is None:
        cure = f"{adapter} needs {name}, which is not installed. Try: pip install 'arspec[{extra}]'"
        raise ModuleNotFoundError(cure, name=framework)


def without_backend(error: ModuleNotFoundError) -> ModuleNotFoundError:
    """Return the error that says what to do where Keras misses its backend; any other one as it is."""
    backends = ("torch", "jax", "tensorflow")
    if error.name not in backends:
        return error
    there = [name for name in backends if name != error.name and importlib.util.find_spec(name) is not None]
    if there:
        cure = f"Say KERAS_BACKEND={there[0]} before Keras is imported, or install {error.name}."
    else:
        cure = f"Install {error.name}, or another one: pip install 'arspec[keras,jax]' and KERAS_BACKEND=jax."
    return ModuleNotFoundError(f"Keras wants to run on {error.name!r}, which is not installed. {cure}", name=error.name)
