"""A badge: how many clauses, how many waived, of which version; never a percentage."""

import json
from collections.abc import Mapping
from html import escape
from typing import Any

from arspec_conformance.suite_terminal import badge_text

GREEN, RED = "#2e7d32", "#c62828"
WIDTH = 6.6  # of a character of the badge's font at its size


def badge_svg(document: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    """Return the badge of one backend as an SVG image."""
    label, text = f"arspec {result['backend']}", _text(document, result)
    left, right = (round(WIDTH * len(part) + 12) for part in (label, text))
    colour = GREEN if result["conforms"] else RED
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + right}" height="20" role="img" '
        f'aria-label="{escape(label)}: {escape(text)}">'
        f'<rect width="{left}" height="20" fill="#444"/><rect x="{left}" width="{right}" height="20" fill="{colour}"/>'
        f'<g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11">'
        f'<text x="6" y="14">{escape(label)}</text><text x="{left + 6}" y="14">{escape(text)}</text></g></svg>\n'
    )


def badge_json(document: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    """Return the badge as the JSON that shields.io calls an endpoint."""
    colour = "brightgreen" if result["conforms"] else "red"
    shown = {"label": f"arspec {result['backend']}", "message": _text(document, result), "color": colour}
    return json.dumps({"schemaVersion": 1, **shown}) + "\n"


def _text(document: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    return f"{badge_text(result)}, spec {document['spec']}"
