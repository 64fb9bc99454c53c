"""The order of keys and of sums."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from gossamer.index.ranking import best_sums, stable_argsort


@pytest.mark.parametrize("width", [0, 1, 2, 7, 64])
def test_the_order_is_the_stable_one(width: int) -> None:
    keys = np.random.default_rng(width).integers(0, 4, (5, width)) << 38
    np.testing.assert_array_equal(stable_argsort(keys), np.argsort(keys, axis=1, kind="stable"))


def test_sums_do_not_depend_on_the_order_of_entries() -> None:
    """Of 0.1, 0.2, 0.3, … the float64 sum differs with the order, and here float32 keeps the difference."""
    entries = [(3, 1e8, 2), (3, -1e8, 1), (3, 1e-9, 5), (3, 1e8, 4), (3, -1e8, 3)]
    found = set()
    for order in permutations(entries):
        rows, worth, ranks = (np.array([column]) for column in zip(*order, strict=True))
        best, sums = best_sums(rows.astype(np.int64), worth.astype(np.float64), ranks.astype(np.int64), 2)
        assert best.tolist() == [[3, -1]]
        assert sums[0, 1] == -np.inf
        found.add(float(sums[0, 0]))
    assert len(found) == 1


def test_signed_sums_and_both_zeros_are_in_order() -> None:
    rows = np.arange(6)[None]
    worth = np.array([[-0.0, 2.0, 0.0, -1.0, -3.5, 1e-42]])
    best, sums = best_sums(rows, worth, np.array([[2, 1, 1, 1, 1, 1]]), 6)
    assert best.tolist() == [[1, 5, 2, 0, 3, 4]]
    assert sums[0].tolist() == [2.0, float(np.float32(1e-42)), 0.0, 0.0, -1.0, -3.5]
