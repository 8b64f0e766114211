"""Every page is true: what it says to type is typed, and what it shows is what comes out.

A new page is tested because it is there. A page with a test of its own is named in ELSEWHERE.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import arspec as ar
from pages import ROOT, Block, Reader, blocks, same_output

ELSEWHERE = {
    "README.md": "test_readme.py",
    "CONTRIBUTING.md": "test_contributing.py",
    "docs/torch.md": "test_docs_torch.py",
    "docs/jax.md": "test_docs_jax.py",
    "docs/keras.md": "keras/test_guide.py",
    "docs/writing-an-adapter.md": "test_adapter_guide.py",
}
EVERY = sorted(path.relative_to(ROOT).as_posix() for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
PAGES = [name for name in EVERY if name not in ELSEWHERE and blocks((ROOT / name).read_text(encoding="utf-8"))]


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Two processes that each wait with two threads for two cores take many times as long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", PAGES)
def test_page(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Reader(name, tmp_path).read(blocks((ROOT / name).read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", ELSEWHERE)
def test_a_page_that_is_left_out_here_is_tested_there(name: str) -> None:
    assert name in EVERY
    assert Path(name).name in (ROOT / "tests" / ELSEWHERE[name]).read_text(encoding="utf-8")


# the reader can fail


@pytest.mark.parametrize(
    "page",
    [
        [Block("python", "print(1)"), Block("text", "2\n")],
        [Block("python", "print(0.123)"), Block("text", "0.125\n")],
        [Block("python", "print(1)")],
        [Block("python", "1 / 0")],
        [Block("text", "1\n")],
        [Block("", "print(1)")],
        [Block("yaml", "a: 1")],
        [Block("json", '{"arspec": "2026.1", "rules": [{}]}')],
        [Block("bash", "arspec spec valdate x.json")],
        [Block("bash", "arspec spec validate --nonsense x.json")],
        [Block("bash", "make nonsense")],
        [Block("bash", "rm -rf /")],
        [Block("bash", "pip install 'arspec[nonsense]'")],
        [Block("bash", "python nonsense.py")],
        [Block("python", "# a.py\nprint(1)"), Block("bash", "python a.py"), Block("text", "2")],
    ],
)
def test_what_is_not_true_is_found(page: list[Block], tmp_path: Path) -> None:
    with pytest.raises((Exception, pytest.fail.Exception)):
        Reader("page", tmp_path).read(page)


def test_a_true_page(tmp_path: Path) -> None:
    page = (
        "Say:\n\n```python\nx = 0.1234567\n```\n\n```python\nprint(x)\n```\n\n```text\n0.1234561\n```\n"
        "  - in a list\n\n    ```python\n    # a.py\n    print('a')\n    ```\n\n    make test # all\n"
    )
    found = blocks(page)
    assert [block.language for block in found] == ["python", "python", "text", "python", "bash"]
    Reader("page", tmp_path).read(found[:3])


def test_words_count_not_spaces() -> None:
    same_output("a  b\n1.0", "a b\n1.0000001")


CALL = re.compile(r"`((?:ar\.)?([A-Z]\w+)\([^`.…]*(?:\d\.[^`…]*)?\))`")


@pytest.mark.parametrize("name", EVERY)
def test_penalties_in_the_text_can_be_made(name: str) -> None:
    """Prose has code, too: what looks like a penalty must be one, its arguments right. c is any number."""
    for code, word in CALL.findall((ROOT / name).read_text(encoding="utf-8")):
        if hasattr(ar, word):
            eval(code, {**vars(ar), "ar": ar, "c": 0.1})
