"""Assert that arrays have the same bits, as NUMERICS defines identity."""

from typing import Any

import numpy as np

from arspec_conformance.bits import canonical as canonical


def assert_same_bits(got: Any, expected: Any, what: str) -> int:
    """Assert identity and return how many elements were compared."""
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.dtype == expected.dtype, f"{what}: dtype {got.dtype}, expected {expected.dtype}"
    assert got.shape == expected.shape, f"{what}: shape {got.shape}, expected {expected.shape}"
    different = canonical(got) != canonical(expected)
    if different.any():
        where = tuple(int(i[0]) for i in np.nonzero(np.atleast_1d(different)))
        raise AssertionError(
            f"{what}: {int(different.sum())} of {different.size} elements differ; first at {where}: "
            f"got {np.atleast_1d(got)[where]!r}, expected {np.atleast_1d(expected)[where]!r}"
        )
    return int(different.size)
