"""What to install where a command needs a package that is not there."""

# By the name that is imported; the extras are those of pyproject.toml, which a test compares.
EXTRAS = {
    "typer": ("typer", "cli"),
    "rich": ("rich", "cli"),
    "hypothesis": ("hypothesis", "conformance"),
    "jinja2": ("jinja2", "conformance"),
    "ml_dtypes": ("ml_dtypes", "conformance"),
    "mpmath": ("mpmath", "conformance"),
    "pytest": ("pytest", "conformance"),
    "matplotlib": ("matplotlib", "studies"),
    "sklearn": ("scikit-learn", "studies"),
}


def cure(module: str | None) -> str | None:
    """Return what to say of a module that cannot be found, or None where arspec does not know it."""
    if module is None or module.partition(".")[0] not in EXTRAS:
        return None
    package, extra = EXTRAS[module.partition(".")[0]]
    return f"this command needs {package}, which is not installed. Try: pip install 'arspec[{extra}]'"
