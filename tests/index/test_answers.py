"""What a search of several segments makes of their answers."""

from __future__ import annotations

import numpy as np
import pytest

from gossamer.index.answers import best_of_segments


@pytest.mark.parametrize("n_segments", [0, 1, 2, 5])
@pytest.mark.parametrize("k", [1, 4])
def test_the_best_of_segments_are_those_of_one_sorted_list(n_segments: int, k: int) -> None:
    """With ties within segments and between them, lists that end early, and scores below zero."""
    rng = np.random.default_rng(n_segments)
    found, everything = [], [[] for _ in range(3)]  # type: ignore[var-annotated]
    starts = np.arange(n_segments + 1) * 10
    for start in starts[:-1].tolist():
        rows, scores = np.full((3, k), -1), np.full((3, k), -np.inf, np.float32)
        for query in range(3):
            drawn = rng.integers(-2, 3, rng.integers(0, k + 1)).tolist()
            hits = sorted(zip(np.negative(drawn), rng.permutation(10).tolist(), strict=False))
            for rank, (negative, row) in enumerate(hits):
                rows[query, rank], scores[query, rank] = row, -negative
            everything[query] += [(negative, start + row) for negative, row in hits]
        found.append((rows, scores))
    best_rows, best_scores = best_of_segments(found, starts, 3, k)
    for query in range(3):
        expected = sorted(everything[query])[:k]
        filled = best_rows[query] >= 0
        assert best_rows[query, filled].tolist() == [row for _, row in expected]
        assert best_scores[query, filled].tolist() == [-negative for negative, _ in expected]
        assert (best_scores[query, ~filled] == -np.inf).all()
        assert filled.sum() == len(expected)
