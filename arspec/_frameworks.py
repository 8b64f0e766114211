"""The message for an adapter whose framework is not installed."""

import importlib.util


def require(adapter: str, framework: str, name: str, extra: str) -> None:
    """Raise ModuleNotFoundError, with the extra to install, unless `framework` is installed."""
    if importlib.util.find_spec(framework) is None:
        cure = f"{adapter} needs {name}, which is not installed. Try: pip install 'arspec[{extra}]'"
        raise ModuleNotFoundError(cure, name=framework)
