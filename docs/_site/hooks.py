"""What MkDocs calls while it builds the site: pages made from data, and links that lead out of docs/."""

import re
from pathlib import Path
from typing import Any

from generated import pages
from mkdocs.structure.files import File, Files

from reports import filled

ROOT = Path(__file__).resolve().parents[2]

# Pages that are files elsewhere in the repository.
ELSEWHERE = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:|#|mailto:)([^)\s#]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that no file in docs/ holds."""
    texts = {page: (ROOT / name).read_text(encoding="utf-8") for name, page in ELSEWHERE.items()}
    for page, text in {**{page: linked(text, "") for page, text in texts.items()}, **pages()}.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **kwargs: Any) -> str:
    """Add what reports and benchmarks found; write links to parts of the repository that the site lacks as text."""
    return markdown if page.file.generated_by else filled(linked(markdown, "docs"))


def linked(text: str, folder: str) -> str:
    """Return text whose links, relative to `folder` in the repository, are those of the site."""

    def relinked(met: re.Match[str]) -> str:
        path = Path("/", folder, met[2]).resolve().relative_to("/").as_posix()
        target = ELSEWHERE.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else None)
        return f"[{met[1]}]({target}{met[3] or ''})" if target else met[1]

    return _LINK.sub(relinked, text)
