"""Figures as SVG text that takes its ink from the page around it."""

import io
import re
from typing import Any

from matplotlib.figure import Figure

INK = "#010203"  # replaced by the page's own text colour, so that light and dark both work
COLOURS = {"torch": "#d1495b", "keras": "#8f63c7", "jax": "#219a8b"}
PALETTE = ("#3478d6", "#e0802b", "#219a8b", "#b8479e", "#8a9a1c", "#8f63c7", "#c4383a", "#4d9fb8")
OTHER_COLOUR = "#7a7f87"

STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "arspec",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.frameon": False,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
}


def svg(figure: Figure, label: str) -> str:
    """Return the figure as an element of an HTML page: no prolog, no namespaces, no metadata."""
    stream = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(stream, format="svg", transparent=True, metadata=nothing)
    text = stream.getvalue()
    text = text[text.index("<svg") :].replace("xlink:href", "href").replace(INK, "currentColor")
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text)
    opening = rf'<svg role="img" aria-label="{label}" viewBox="\1">'
    return re.sub(r'<svg[^>]*?viewBox="([^"]*)"[^>]*>', opening, text, count=1)
