"""The pytest plugin: `pytest --arspec-profile standard`.

It only adds the options, and an install of arspec brings it. In a checkout that is not installed,
`-p arspec_conformance.plugin` does; without it, `conformance(...)` runs the profile "quick" on the CPU.
"""

import pytest

PROFILES = ("smoke", "quick", "standard", "full", "hunt")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what `arspec_conformance.kit.conformance` reads."""
    group = parser.getgroup("arspec", "conformance of adapters with the specification of arspec")
    group.addoption("--arspec-profile", choices=PROFILES, default=None, help="how much is asked (quick)")
    group.addoption("--arspec-device", default=None, help="where: cpu, cuda:0, ... (cpu)")
