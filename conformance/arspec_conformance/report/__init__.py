"""A report of the suite in every format: JSON, Markdown, JUnit XML, one HTML page, a badge."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from arspec_conformance.report._badge import badge_json, badge_svg
from arspec_conformance.report._html import html_page
from arspec_conformance.report._junit import junit
from arspec_conformance.report._markdown import markdown
from arspec_conformance.report._records import runs_page as runs_page
from arspec_conformance.report._records import summary_json as summary_json
from arspec_conformance.report._records import write_kills as write_kills
from arspec_conformance.report._summary import in_page as in_page
from arspec_conformance.report._summary import readme_table as readme_table
from arspec_conformance.report._summary import summary as summary
from arspec_conformance.report._summary import write_readme as write_readme


def write(document: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write a report into a folder, and return the files.

    Parameters
    ----------
    document : what `suite.document` gave, or what stands in a report.json.
    """
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "report.json": json.dumps(document, indent=1, allow_nan=False) + "\n",
        "report.md": markdown(document),
        "report.xml": junit(document),
        "report.html": html_page(document),
    }
    for result in document["results"]:
        if not result["not_run"]:
            texts[f"badge-{_file_name(result['backend'])}.svg"] = badge_svg(document, result)
            texts[f"badge-{_file_name(result['backend'])}.json"] = badge_json(document, result)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in texts]


def _file_name(backend: str) -> str:
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in backend)
