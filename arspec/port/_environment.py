"""Environment: versions that belong to a measurement."""

from importlib.metadata import PackageNotFoundError, version


def environment(framework: str, *packages: str, **settings: str) -> dict[str, str]:
    """Return what is to be known about the process that measures."""
    return {"framework": framework, **settings, **{name: _version(name) for name in (*packages, "numpy", "arspec")}}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # a source tree on the path
        return "not installed"
