"""Cutting a query to a share of its weight; the rounding itself is tested with the index's scale."""

import numpy as np

from gossamer.kernels.rounding import round_queries
from gossamer.kernels.sparse_dot import Queries


def test_the_smallest_weights_beyond_the_share_are_left_out() -> None:
    values = np.array([4, 1, 3, 2, -5, 1, 1], np.float32)
    queries = Queries(np.array([0, 4, 4, 7]), np.array([0, 3, 5, 9, 1, 2, 3], np.uint16), values)
    for share, kept in [(1.0, 7), (0.95, 7), (0.9, 6), (0.75, 5), (0.7, 3), (0.01, 2)]:
        rounded, _ = round_queries(queries, 255, 2**31 - 1, share=share)
        assert len(rounded.terms) == kept, share
    rounded, _ = round_queries(queries, 255, 2**31 - 1, share=0.9)
    assert rounded.terms.tolist() == [
        0,
        5,
        9,
        1,
        2,
        3,
    ]  # of a query, 9 of 10; of equal weights the later one goes
    assert rounded.indptr.tolist() == [0, 3, 3, 6]


def test_a_smaller_range_is_kept_and_used() -> None:
    rng = np.random.default_rng(0)
    values = rng.lognormal(size=30).astype(np.float32)
    queries = Queries(np.array([0, 30]), np.arange(30, dtype=np.int32), values)
    rounded, steps = round_queries(queries, 255, 2**15 - 1)
    total = 255 * rounded.weights.astype(int).sum()
    assert 0.5 * 2**15 < total <= 2**15 - 1
    dense = np.zeros(30)
    dense[rounded.terms] = rounded.weights * steps[0]
    assert np.abs(dense - values).max() <= steps[0] / 2 * 1.0001
