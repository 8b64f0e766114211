"""docs/torch.md is true: its programs print what it shows."""

import contextlib
import io
import re
from pathlib import Path

import pytest
import torch  # noqa: F401  the programs of the page need it

PAGE = (Path(__file__).parent.parent / "docs" / "torch.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"^```python\n(.*?)^```\n+^```text\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"\d+\.\d+%?")


def test_there_are_programs() -> None:
    assert len(PROGRAMS) == PAGE.count("```python") == 3


@pytest.mark.parametrize("index", range(len(PROGRAMS)))
def test_programs_print_what_is_shown(index: int) -> None:
    code, shown = PROGRAMS[index]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, f"torch.md[{index}]", "exec"), {"__name__": "__main__"})
    assert NUMBER.sub("#", printed.getvalue()).split() == NUMBER.sub("#", shown).split()
    for mine, theirs in zip(NUMBER.findall(printed.getvalue()), NUMBER.findall(shown), strict=True):
        assert float(mine.rstrip("%")) == pytest.approx(float(theirs.rstrip("%")), rel=1e-3)
