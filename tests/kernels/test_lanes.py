"""Blocks of 32 numbers as vectors, against NumPy, at positions of any alignment."""

from typing import Any

import numpy as np
import pytest
from numba import njit

from gossamer.kernels.lanes import BLOCK, block_add, block_max, block_reaching, lowest_bit, prefetch

maxima = njit(lambda sums, at: block_max(sums, at))
reaching = njit(lambda sums, at, threshold: block_reaching(sums, at, threshold))
add = njit(lambda sums, at, impacts, start, weight: block_add(sums, at, impacts, start, weight))
lowest = njit(lambda bits: lowest_bit(bits))
fetch = njit(lambda array, at: prefetch(array, at))


@pytest.mark.parametrize("kind", [np.int16, np.int32])
@pytest.mark.parametrize("at", [0, 1, 31, 77])
def test_equals_numpy(kind: type, at: int) -> None:
    rng = np.random.default_rng(at)
    limits = np.iinfo(kind)
    sums: Any = rng.integers(limits.min, limits.max, 200, endpoint=True).astype(kind)
    block = sums[at : at + BLOCK]
    assert maxima(sums, at) == block.max()
    for threshold in (int(limits.min), int(np.median(block)), int(block.max())):
        bits = int(reaching(sums, at, threshold))
        assert [bits >> i & 1 for i in range(BLOCK)] == (block >= threshold).tolist()
    small: Any = rng.integers(0, 100, 200).astype(kind)
    impacts = rng.integers(0, 256, 300).astype(np.uint8)
    expected = small.copy()
    expected[at : at + BLOCK] += 100 * impacts[9 : 9 + BLOCK].astype(kind)
    fetch(impacts, 1_000_000)  # beyond the end: nothing happens
    add(small, at, impacts, 9, 100)
    np.testing.assert_array_equal(small, expected)


def test_the_lowest_bit() -> None:
    assert [lowest(np.uint32(bits)) for bits in (1, 6, 2**31, 0)] == [0, 1, 31, 32]
