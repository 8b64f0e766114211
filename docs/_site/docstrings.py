"""Docstrings as Markdown: an extension of Griffe, which mkdocstrings reads sources with.

The sections of numpydoc become short headings; "name : text" becomes an entry of a list;
examples become code.
"""

import re
from collections.abc import Callable
from typing import Any

from griffe import Extension

_SECTION = re.compile(r"^(\w[\w ]*)\n-{3,}\n", re.MULTILINE)
_ENTRY = re.compile(r"^([\w\\*]+(?:, [\w\\*]+)*) ?: (.*)$")
_CODE = re.compile(r"(`[^`]+`)")


class Docstrings(Extension):
    """Turn every docstring into Markdown once the whole package is read."""

    def on_object(self, *, obj: Any, **kwargs: Any) -> None:
        """Griffe calls this for every module, class, function and attribute."""
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value)


def markdown(docstring: str) -> str:
    """Return a docstring in the house style as Markdown."""
    parts = _SECTION.split(docstring.strip() + "\n")
    written = [_prose(parts[0])]
    for name, body in zip(parts[1::2], parts[2::2], strict=True):
        written.append(f"**{name}**\n\n{_SECTIONS.get(name, _prose)(body.strip())}")
    return "\n\n".join(written)


def _prose(text: str) -> str:
    return "\n\n".join(_paragraph(part) for part in re.split(r"\n\s*\n", text.strip("\n")))


def _paragraph(text: str) -> str:
    if text.lstrip().startswith(">>>"):
        return f"```pycon\n{text}\n```"
    return text if text.lstrip().startswith("| ") else escaped(text)


def _entries(text: str) -> str:
    """Turn "name : text", continued by indented lines, into a list."""
    lines = []
    for line in escaped(text).splitlines():
        met = _ENTRY.match(line)
        if met:
            names = ", ".join(f"`{name}`" for name in met[1].replace("\\", "").split(", "))
            lines.append(f"- {names}: {met[2]}")
        else:
            lines.append(line if line.startswith(" ") or not line else f"- {line}")
    return "\n".join(lines)


def _references(text: str) -> str:
    return "\n".join(f"{escaped(line)}  " for line in text.splitlines())


def _returned(text: str) -> str:
    return _entries(text) if _ENTRY.match(text) else _prose(text)


def escaped(text: str) -> str:
    """Keep Markdown from seeing marks in words such as "**" or l1_l2, outside of code."""
    parts = _CODE.split(text)
    return "".join(p if p.startswith("`") else re.sub(r"([*_[])", r"\\\1", p).replace("<", "&lt;") for p in parts)


_SECTIONS: dict[str, Callable[[str], str]] = {
    "Parameters": _entries,
    "Attributes": _entries,
    "Raises": _entries,
    "Warns": _entries,
    "Returns": _returned,
    "References": _references,
}
