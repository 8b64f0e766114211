"""docs/keras.md is true: its code runs on every backend and prints what it shows."""

import re
from pathlib import Path
from typing import Any

import pytest

GUIDE = (Path(__file__).parents[2] / "docs" / "keras.md").read_text(encoding="utf-8")
PAIRS = re.findall(r"^```python\n(.*?)^```\n+^```text\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)


def test_every_program_shows_what_it_prints() -> None:
    assert len(PAIRS) == GUIDE.count("```python") == 2


@pytest.mark.parametrize("index", range(len(PAIRS)))
def test_programs_print_what_is_shown(index: int, capsys: Any) -> None:
    code, shown = PAIRS[index]
    exec(compile(code, "docs/keras.md", "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out == shown
