"""What an install does where nothing is promised: facts for the report, judged by nobody."""

import numpy as np

import arspec as ar
from arspec_conformance._adapter import Adapter
from arspec_conformance.bench import Bench
from arspec_conformance.cases import Case
from arspec_conformance.trials import Trial


def probe(adapter: Adapter, device: str) -> dict[str, str]:
    """Return a few facts about float32 on a device, in the first mode of the adapter."""
    bench = Bench(adapter, adapter.modes()[0], "float32", device, "probe")
    return {name: _outcome(bench, trial) for name, trial in _TRIALS.items()}


def _outcome(bench: Bench, trial: Trial) -> str:
    try:
        value, _ = bench.answer(trial)
    except Exception as error:  # a probe that cannot run is a fact too
        return f"{type(error).__name__}: {error}"[:120]
    return _READINGS[trial.case.name](float(value))


def _trial(name: str, penalty: ar.Penalty, x: np.ndarray, axes: str | None = None) -> Trial:
    return Trial(penalty, Case(name, x.astype(np.float32), axes))


# 1 + 2¹² · 2⁻²⁵ is 1 if the small ones are added to 1 in float32, one by one.
_SMALL = np.concatenate([[1.0], np.full(4096, 2.0**-25)])
# (1 + 2⁻¹¹)² - 1 needs 12 bits of 1 + 2⁻¹¹; TF32 has 11, bfloat16 8.
_NARROW = np.array([[1.0 + 2.0**-11]])

_TRIALS = {
    "subnormal input": _trial("flush", ar.L1(1.0), np.array([2.0**-127])),
    "float32 sums": _trial("sums", ar.L1(1.0), _SMALL),
    "matrix products": _trial("products", ar.SoftOrthogonal(1.0), _NARROW, "input output"),
}
_READINGS = {
    "flush": lambda value: "counts as 0" if value == 0 else "is kept",
    "sums": lambda value: f"of 1 and 4096 · 2⁻²⁵: {value:.9g} (exact: 1.00012207)",
    "products": lambda value: "narrower than float32 (TF32 or bfloat16)" if value == 0 else "float32 or wider",
}
