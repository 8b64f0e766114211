"""The worked example of a new penalty in CONTRIBUTING.md runs, and is true."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np

import arspec as ar

CONTRIBUTING = (Path(__file__).parent.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"^```python\n(.*?)^```$", CONTRIBUTING, re.MULTILINE | re.DOTALL)
(OUTPUT,) = (
    text for text in re.findall(r"^```text\n(.*?)^```$", CONTRIBUTING, re.MULTILINE | re.DOTALL) if "{" in text
)


def test_the_example_prints_what_is_shown(tmp_path: Path) -> None:
    program = tmp_path / "log_cosh.py"
    program.write_text("import torch\n" + "".join(PROGRAMS), encoding="utf-8")
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == OUTPUT


def test_the_example_is_its_equation() -> None:
    namespace: dict[str, object] = {"__name__": "log_cosh_example"}
    exec(PROGRAMS[0], namespace)
    penalty = namespace["LogCosh"](0.5)
    x = np.array([-3.0, -0.25, 0.0, 0.5, 2.0])
    np.testing.assert_allclose(ar.value(penalty, x), 0.5 * np.log(np.cosh(x)).sum(), rtol=1e-15)
    np.testing.assert_allclose(ar.gradient(penalty, x), 0.5 * np.tanh(x), rtol=1e-15)
    assert float(ar.value(penalty, np.array([1e300]))) == 0.5e300
    np.testing.assert_allclose(ar.value(penalty, np.array([1e-8])), 0.25e-16, rtol=1e-15)
