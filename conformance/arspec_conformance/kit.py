"""An adapter's whole test file: `TestMine = conformance(MyAdapter())`."""

from collections.abc import Callable
from typing import Any

import pytest

from arspec_conformance._adapter import Adapter, load_adapter
from arspec_conformance.clauses import CLAUSES
from arspec_conformance.runner import FAIL, QUALITY, UNSUPPORTED, Question, questions, run

PROFILE, DEVICE = "quick", "cpu"


def conformance(
    adapter: Adapter | str | Callable[[], Adapter], *, profile: str | None = None, device: str | None = None
) -> type:
    """Return a new test class that asks an adapter every clause, one test per mode and dtype.

    Parameters
    ----------
    adapter : an adapter, what makes one, its registered name, or "module:object".
    profile : as of `arspec conformance run`; by default that of `--arspec-profile`, "quick".
    device : where; by default that of `--arspec-device`, "cpu".

    Returns
    -------
    A class for pytest. It is a new one each time: one class that several modules shared
    would share what Hypothesis knows about its tests.

    Example
    -------
    >>> TestTorch = conformance("torch", profile="smoke")
    """

    def made() -> Adapter:
        if isinstance(adapter, str):
            return load_adapter(adapter)
        if not isinstance(adapter, type) and isinstance(adapter, Adapter):
            return adapter
        return adapter()

    class Conformance:
        """Every clause, for one adapter."""

        def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
            """Make one test per question; the profile is known only now."""
            chosen = profile or _option(metafunc.config, "--arspec-profile", PROFILE)
            where = device or _option(metafunc.config, "--arspec-device", DEVICE)
            the_adapter = made()
            asked = list(questions(the_adapter, CLAUSES, device=where, profile=chosen))
            given = [(the_adapter, question, where, chosen) for question in asked]
            metafunc.parametrize("asked", given, ids=[_id(question) for question in asked])

        def test_clause(self, asked: Any, record_property: Callable[[str, object], None]) -> None:
            """Ask one question."""
            the_adapter, question, where, chosen = asked
            (result,) = run(the_adapter, [question], device=where, profile=chosen)
            record_property("observed", result.observed)
            if result.status == UNSUPPORTED:
                pytest.skip(result.message)
            if result.status == QUALITY:
                record_property("quality", result.message)
            if result.status == FAIL:
                pytest.fail(
                    f"{question.clause.id}: {question.clause.sentence}\n{result.message}\n"
                    f"arspec conformance repro {result.token}",
                    pytrace=False,
                )

    return Conformance


def _id(question: Question) -> str:
    return f"{question.clause.id}-{question.mode.name}-{question.dtype}"


def _option(config: pytest.Config, name: str, default: str) -> str:
    """Return an option of the plugin, or its default where the plugin is not loaded."""
    return config.getoption(name, default) or default
