"""Pages made from data and from docstrings, so that they cannot disagree with the code."""

import ast
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import typer
from docstrings import escaped

import arspec as ar
from arspec import cli
from arspec._placements import ACTIVATIONS, PARAMETERS
from arspec.cli._known import KNOWN, PACKAGES
from arspec_conformance.traps import TRAPS

ROOT = Path(__file__).resolve().parents[2]

PACKAGE_PAGES = {
    "api-arspec.md": ("arspec", "arspec"),
    "api-layers.md": ("arspec.layers", "arspec/layers"),
    "api-dialects.md": ("arspec.dialects", "arspec/dialects"),
    "api-port.md": ("arspec.port", "arspec/port"),
    "api-torch.md": ("arspec_torch", "backends/arspec_torch"),
    "api-keras.md": ("arspec_keras", "backends/arspec_keras"),
    "api-jax.md": ("arspec_jax", "backends/arspec_jax"),
    "api-tensorflow.md": ("arspec_tensorflow", "backends/arspec_tensorflow"),
    "api-conformance.md": ("arspec_conformance", "conformance/arspec_conformance"),
}
LIGHTNING = ("arspec_torch.lightning.PenaltyLogger", "arspec_torch.lightning.StatisticsLogger")

# The readers and writers of each framework stand on the page of the bundle that they share.
PORTS = {f"{name}.port": f"backends/{name}/port" for name in ("arspec_torch", "arspec_keras", "arspec_jax")}

# What is public in a module of its own, because it needs more than its package does.
MODULES = {"arspec_conformance": ("arspec_conformance.kit.conformance",), "arspec_torch": LIGHTNING}


def pages() -> dict[str, str]:
    """Return every generated page by its name."""
    found = {name: package_page(package, ROOT / folder) for name, (package, folder) in PACKAGE_PAGES.items()}
    for package, folder in PORTS.items():
        found["api-port.md"] += "\n" + package_page(package, ROOT / folder).replace("# ", "## ", 1)
    return found | {
        "penalties.md": penalties_page(),
        "placements.md": placements_page(),
        "commands.md": commands_page(),
        "traps.md": traps_page(),
        "versions.md": versions_page(),
    }


def penalties_page() -> str:
    """Return every penalty with its equation, then its documentation."""
    classes = [getattr(ar, name) for name in exported(ROOT / "arspec") if _is_penalty(getattr(ar, name))]
    rows = [(f"[{c.__name__}](#arspec.{c.__name__})", f"`{c.name}`", _equation(c)) for c in classes]
    text = (
        "# Penalties\n\nEach is a frozen class that is its equation, with the gradient written out; every framework "
        "runs these lines. They add, and multiply with numbers >= 0: `L1(1e-4) + 0.5 * L2(1e-3)`. "
        "[Write a penalty](howto-penalty.md) of your own.\n\n"
    )
    bodies = [f"::: arspec.{c.__name__}\n    options:\n      members: false\n" for c in classes]
    return text + table(("class", "in JSON", "equation"), rows) + "\n\n" + "\n".join(bodies)


def _is_penalty(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, ar.Penalty) and value not in (ar.Penalty, ar.Sum)


def _equation(penalty: type) -> str:
    """The first paragraph of the docstring up to the gradient."""
    first = (penalty.__doc__ or "").strip().split("\n\n")[0]
    return escaped(" ".join(first.split()).partition(";")[0].rstrip("."))


def placements_page() -> str:
    """Return every placement with its meaning."""
    return "\n\n".join(
        [
            "# Placements",
            "A rule names a tensor of a layer by what it is, not by what a framework calls it. "
            "[`arspec.layers`](api-layers.md) defines each by a layer in NumPy, and the adapters are tested against "
            "these layers. What a layer does not have is refused, and the error says what it has.",
            "## Activations",
            "Averaged over the batch unless a rule says `mean_over`.",
            table(("placement", "the tensor"), ((f"`{name}`", text) for name, text in ACTIVATIONS.items())),
            "## Parameters",
            "Summed unless a rule says `mean_over`. A weight that several layers share counts once.",
            table(("placement", "the tensor"), ((f"`{name}`", text) for name, text in PARAMETERS.items())),
            "A layer is named by its path, `encoder/0` or `encoder.0`, or by a glob: `*` stands for one part of a "
            "path, `**` for any number. How the paths of a framework read: [PyTorch](torch.md), [Keras](keras.md), "
            "[JAX](jax.md).\n",
        ]
    )


def traps_page() -> str:
    """Return the list of traps for readers, and what tested versions do."""
    known = [(k.id, f"{k.package} {k.versions}".strip(), escaped(k.happens), escaped(k.cure)) for k in KNOWN]
    return "\n\n".join(
        [
            "# Traps",
            "Where regularization silently goes wrong, between frameworks, versions and devices. In arspec each is "
            "*right* (the number is that of the definition) or *loud* (an error names it), and each has a test: "
            "`arspec traps`, in a checkout, lists them. The letters: A mathematics, B reduction, C placement and "
            "capture.",
            table(("row", "elsewhere", "here"), ((t.id, escaped(t.sentence), t.stance) for t in TRAPS)),
            "## What frameworks do by themselves",
            "`arspec doctor` prints the lines for the versions that you have. D is for porting.",
            table(("row", "package", "what happens", "what to do instead"), known) + "\n",
        ]
    )


def versions_page() -> str:
    """Return the versions that are supported and tested."""
    rows = [(p.name, p.needed, p.tested, f"`{p.extra}`" if p.extra else "") for p in PACKAGES]
    text = (
        "# Tested versions\n\nThe whole test suite runs with one set of versions, on CPUs, on Python 3.11; "
        "`constraints.txt` in the repository pins it. `arspec doctor` compares with what you have, and tries it.\n\n"
    )
    return text + table(("package", "oldest", "tested", "extra"), rows) + "\n"


def commands_page() -> str:
    """Return the help text of every command."""
    parts = [
        "# Command line",
        "`pip install 'arspec[cli]'`. Results go to standard output, progress and errors to standard error. Exit "
        "codes: 0, all is well; 1, what was checked failed; 2, it could not be run as asked. "
        "`arspec --install-completion` teaches your shell to complete commands and options.",
    ]
    root = typer.main.get_command(cli.build())
    for path, command in commands(root):
        name = " ".join(["arspec", *path])
        context = command.make_context(name, [], resilient_parsing=True, terminal_width=92, max_content_width=92)
        parts += [f"## arspec {' '.join(path)}", f"```text\n{command.get_help(context).strip()}\n```"]
    return "\n\n".join(parts) + "\n"


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterable[tuple[tuple[str, ...], Any]]:
    """Yield every command that is no group, with its path."""
    children = getattr(command, "commands", None)
    if children is None:
        yield path, command
    for name, child in (children or {}).items():
        yield from commands(child, (*path, name))


# What people type comes before what authors of penalties and adapters need.
FIRST = ("Rule", "Spec", "load", "value", "gradient", "SpecError", "UnsupportedError", "Site", "Sites")
LAST = ("register", "registered", "Penalty", "Sum", "Axes", "Layer", "Namespace")
# Their members are for adapters; docs/writing-an-adapter.md says which matter.
CLOSED = ("arspec.Namespace",)


def package_page(package: str, folder: Path) -> str:
    """Return what a package exports, in its order, without penalties."""
    names = [f"{package}.{name}" for name in exported(folder)]
    if package == "arspec":
        public = [n for n in exported(folder) if not _is_penalty(getattr(ar, n)) and n != "SPEC_VERSION"]
        rest = [name for name in public if name not in FIRST + LAST]
        names = [f"arspec.{name}" for name in (*FIRST, *rest, *LAST)]
    names += MODULES.get(package, ())
    doc = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))) or ""
    return f"# {package}\n\n{escaped(doc.split('>>>')[0]).strip()}\n\n" + "\n".join(
        f"::: {name}\n" + ("    options:\n      members: false\n" if name in CLOSED else "") for name in names
    )


def exported(folder: Path) -> list[str]:
    """Return the names that a package exports by `from ... import x as x`; nothing is imported."""
    tree = ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))
    nodes = [node for top in tree.body for node in (top.body if isinstance(top, ast.If) else [top])]
    names = [name.asname for node in nodes if isinstance(node, ast.ImportFrom) for name in node.names]
    return [name for name in names if name and not name.startswith("_")]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
