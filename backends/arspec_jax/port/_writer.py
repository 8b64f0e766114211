"""What the writers for NNX and Equinox share."""

from arspec.port import ModuleWriter
from arspec.port._graph import Node
from arspec.port._source import Value


class JaxWriter(ModuleWriter):
    """A `ModuleWriter` for a module of JAX."""

    def extra(self, node: Node, suffix: str) -> str:
        """Return the attribute for a second module of a layer."""
        names, key = self.scope.names, f"{node.name}:{suffix}"
        if key not in names:
            text = f"{self.name_layer(node)}_{suffix}"
            while text in names.values():
                text += "_"
            names[key] = text
        return names[key]


def returning(lines: list[str], results: str) -> list[str]:
    """End a function with its results; an assignment to them just before becomes the return."""
    name, equals, text = lines[-1].strip().partition(" = ")
    if equals and name == results:
        return [*lines[:-1], f"        return {text}"]
    return [*lines, f"        return {results}"]


def options(**given: str) -> str:
    """Return keyword arguments, without those whose text is empty."""
    return "".join(f", {name}={text}" for name, text in given.items() if text)


def channels(x: Value) -> int:
    """Return the size of the last axis."""
    return int(x.shape[-1] or 0)
