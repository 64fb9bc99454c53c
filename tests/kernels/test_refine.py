"""Exact scores from the forward index, against dense products."""

import numpy as np
import pytest

from gossamer.kernels.refine import NO_SUM, Forward, best_of, stored_scores, true_scores
from gossamer.kernels.rounding import round_queries
from gossamer.kernels.sparse_dot import Queries


@pytest.mark.parametrize("halves", [False, True])
def test_scores_equal_dense_products(halves: bool) -> None:
    rng = np.random.default_rng(0)
    weights_DV = np.where(rng.random((40, 11)) < 0.4, rng.uniform(-2, 2, (40, 11)), 0).astype(np.float16)
    weights_QV = np.where(rng.random((6, 11)) < 0.5, rng.normal(size=(6, 11)), 0).astype(np.float32)
    documents, terms = np.nonzero(weights_DV)
    stored = weights_DV[documents, terms]
    values = stored.view(np.uint16) if halves else stored.astype(np.float32)
    forward = Forward(np.searchsorted(documents, np.arange(41)), terms.astype(np.uint16), values)
    numbers, query_terms = np.nonzero(weights_QV)
    indptr = np.searchsorted(numbers, np.arange(7)).astype(np.int64)
    queries = Queries(indptr, query_terms.astype(np.int32), weights_QV[numbers, query_terms])
    rows = rng.integers(-1, 40, (6, 9))
    exact = weights_QV.astype(np.float64) @ weights_DV.astype(np.float64).T
    found = true_scores(queries, forward, 11, rows)
    expected = np.where(rows < 0, -np.inf, np.take_along_axis(exact, np.maximum(rows, 0), 1))
    np.testing.assert_allclose(found, expected, rtol=1e-12)

    rounded, _ = round_queries(queries, 127, 2**31 - 1)
    impacts = np.clip(np.rint(weights_DV.astype(np.float64) / 0.0125), -127, 127).astype(np.int64)
    dense = np.zeros((6, 11), np.int64)
    dense[np.repeat(np.arange(6), np.diff(rounded.indptr)), rounded.terms] = rounded.weights
    sums = np.where(rows < 0, NO_SUM, np.take_along_axis(dense @ impacts.T, np.maximum(rows, 0), 1))
    np.testing.assert_array_equal(stored_scores(rounded, forward, 11, rows, 0.0125, 127), sums)


def test_the_best_go_by_score_and_then_by_row() -> None:
    rows = np.array([[7, 3, -1, 5, 1], [-1, -1, -1, -1, -1]])
    scores = np.array([[1.0, 2.0, -np.inf, 2.0, -np.inf], [-np.inf] * 5])
    found, best = best_of(rows, scores, 4)
    assert found.tolist() == [[3, 5, 7, 1], [-1] * 4]
    assert best.tolist() == [[2.0, 2.0, 1.0, -np.inf], [-np.inf] * 4]
    found, best = best_of(rows, np.where(np.isfinite(scores), scores, NO_SUM).astype(np.int64), 7)
    assert found[0].tolist() == [3, 5, 7, 1, -1, -1, -1]
    assert best[0, -1] == NO_SUM


def test_a_damaged_file_leads_nowhere_else() -> None:
    forward = Forward(np.array([0, 2, 1, 900]), np.array([0, 65_535, 1], np.uint16), np.ones(3, np.float32))
    queries = Queries(np.array([0, 1]), np.zeros(1, np.int32), np.ones(1, np.float32))
    found = true_scores(queries, forward, 2, np.array([[0, 1, 2, 3, 4_000_000_000]]))
    assert found.tolist() == [[1.0, -np.inf, -np.inf, -np.inf, -np.inf]]
