"""The pytest plugin: `pytest -p arspec_conformance.plugin --arspec-profile standard`.

It only adds the options. Without it, `conformance(...)` runs the profile "quick" on the CPU.
"""

import pytest

PROFILES = ("smoke", "quick", "standard", "full", "hunt")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what `arspec_conformance.kit.conformance` reads."""
    group = parser.getgroup("arspec", "conformance of adapters with the specification of arspec")
    group.addoption("--arspec-profile", choices=PROFILES, default=None, help="how much is asked (quick)")
    group.addoption("--arspec-device", default=None, help="where: cpu, cuda:0, ... (cpu)")
