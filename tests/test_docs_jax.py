"""docs/jax.md is true: its program prints what it shows."""

import contextlib
import io
import re
from pathlib import Path

PAGE = (Path(__file__).parent.parent / "docs" / "jax.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"^```python\n(.*?)^```\n+^```text\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_program_prints_what_is_shown() -> None:
    [(code, shown)] = PROGRAMS
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "jax.md", "exec"), {"__name__": "__main__"})
    assert printed.getvalue() == shown
