"""Scores of chosen dense rows are those of the reference, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from gossamer.kernels.dense_dot import dense_scores, dense_scores_reference


@pytest.mark.parametrize("shape", [(0, 5, 3), (1, 1, 1), (3, 17, 31), (7, 2, 768)])
@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_chosen_rows_have_the_scores_of_the_reference(shape: tuple[int, int, int], size: float) -> None:
    rng = np.random.default_rng(0)
    n_queries, n_rows, n_dims = shape
    queries = (rng.standard_normal((n_queries, n_dims)) * size).astype(np.float32)
    values = (rng.standard_normal((n_rows, n_dims)) * size).astype(np.float32)
    values.flags.writeable = False
    rows = rng.integers(0, n_rows, (n_queries, 9))
    expected = np.take_along_axis(dense_scores_reference(queries, values), rows, axis=1)
    np.testing.assert_array_equal(dense_scores(queries, values, rows), expected)


def test_what_is_no_row_has_no_score() -> None:
    ones = np.ones((1, 2), np.float32)
    assert dense_scores(ones, ones, np.array([[0, -1, 1]])).tolist() == [[2.0, -np.inf, -np.inf]]
