"""Exact scores from the forward index, against dense products."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from gossamer.kernels.refine import DONE, MORE, SCAN, Forward, Rounding, judge, scan, stored_keys, true_keys
from gossamer.kernels.rounding import round_queries
from gossamer.kernels.sparse_dot import Queries, TopK, read_keys


def as_forward(weights_DV: npt.NDArray[Any], *, halves: bool) -> Forward:
    documents, terms = np.nonzero(weights_DV)
    stored = weights_DV[documents, terms]
    values = stored.view(np.uint16) if halves else stored.astype(np.float32)
    indptr = np.searchsorted(documents, np.arange(len(weights_DV) + 1))
    return Forward(indptr, terms.astype(np.uint16), values)


def as_queries(weights_QV: npt.NDArray[np.float32]) -> Queries:
    numbers, terms = np.nonzero(weights_QV)
    indptr = np.searchsorted(numbers, np.arange(len(weights_QV) + 1)).astype(np.int64)
    return Queries(indptr, terms.astype(np.int32), weights_QV[numbers, terms])


def ranked(
    rows: npt.NDArray[Any], scores: npt.NDArray[Any], k: int
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """The best k of each line, by score and then by row; rows below 0 are none."""
    found, best = np.full((len(rows), k), -1), np.full((len(rows), k), -np.inf)
    for q in range(len(rows)):
        hits = np.flatnonzero(rows[q] >= 0)
        order = hits[np.lexsort((rows[q, hits], -scores[q, hits]))][:k]
        found[q, : len(order)], best[q, : len(order)] = rows[q, order], scores[q, order]
    return found, best


@pytest.mark.parametrize("halves", [False, True])
@pytest.mark.parametrize("k", [1, 4, 20])
def test_the_best_by_dense_products(halves: bool, k: int) -> None:
    rng = np.random.default_rng(0)
    weights_DV = np.where(rng.random((40, 11)) < 0.4, rng.integers(-4, 5, (40, 11)) / 2, 0).astype(np.float16)
    weights_QV = np.where(rng.random((6, 11)) < 0.5, rng.integers(-4, 5, (6, 11)), 0).astype(np.float32)
    forward, queries = as_forward(weights_DV, halves=halves), as_queries(weights_QV)
    rows = np.stack([rng.permutation(40)[:9] for _ in range(6)])
    rows[rows > 35] = -1
    exact = weights_QV.astype(np.float64) @ weights_DV.astype(np.float64).T  # many ties, and zeros
    found = read_keys(true_keys(queries, forward, 11, rows), k, is_float=True)
    expected = ranked(rows, np.take_along_axis(exact, np.maximum(rows, 0), 1), k)
    np.testing.assert_array_equal(found.rows, expected[0])
    np.testing.assert_array_equal(found.scores, expected[1])

    rounded, _ = round_queries(queries, 127, 2**31 - 1)
    impacts = np.clip(np.rint(weights_DV.astype(np.float64) / 0.0125), -127, 127).astype(np.int64)
    dense = np.zeros((6, 11), np.int64)
    dense[np.repeat(np.arange(6), np.diff(rounded.indptr)), rounded.terms] = rounded.weights
    found = read_keys(stored_keys(rounded, forward, 11, rows, 0.0125, 127), k, is_float=False)
    expected = ranked(rows, np.take_along_axis(dense @ impacts.T, np.maximum(rows, 0), 1), k)
    np.testing.assert_array_equal(found.rows, expected[0])
    there = found.rows >= 0
    np.testing.assert_array_equal(found.scores[there], expected[1][there])


@pytest.mark.parametrize("halves", [False, True])
@pytest.mark.parametrize("k", [1, 3, 100])
def test_a_scan_finds_whatever_shares_a_term(halves: bool, k: int) -> None:
    rng = np.random.default_rng(1)
    weights_DV = np.where(rng.random((90, 11)) < 0.2, rng.integers(-4, 5, (90, 11)) / 2, 0).astype(np.float16)
    weights_QV = np.where(rng.random((5, 11)) < 0.5, rng.integers(-4, 5, (5, 11)), 0).astype(np.float32)
    weights_QV[2] = 0
    forward, queries = as_forward(weights_DV, halves=halves), as_queries(weights_QV)
    exact = weights_QV.astype(np.float64) @ weights_DV.astype(np.float64).T
    shares = ((weights_QV != 0).astype(int) @ (weights_DV != 0).astype(int).T) > 0
    for allowed in (None, rng.random(90) < 0.5):
        hits = shares if allowed is None else shares & allowed
        expected = ranked(np.where(hits, np.arange(90), -1), exact, k)
        for query in range(5):
            keys = scan(queries, forward, 11, query, allowed, k)
            assert keys.size < 2 * k + 1
            found = read_keys(keys, k, is_float=True)
            np.testing.assert_array_equal(found.rows[0], expected[0][query])
            np.testing.assert_array_equal(found.scores[0], expected[1][query])


def test_hits_are_ordered_by_what_is_shown() -> None:
    """As float32 scores: what only float64 tells apart is a tie; a negative number that vanishes is a zero."""
    forward = Forward(
        np.array([0, 1, 3, 4, 5]),
        np.array([0, 0, 1, 2, 3], np.uint16),
        np.array([1, 1, 2.0**-6, 1, 1], np.float32),
    )
    weights = np.array([1, 2.0**-20, -(2.0**-140), 2.0**-149], np.float32)
    queries = Queries(np.array([0, 4]), np.arange(4, dtype=np.int32), weights)
    forward = forward._replace(values=forward.values * np.array([1, 1, 1, 2.0**-20, 0.25], np.float32))
    found = read_keys(true_keys(queries, forward, 4, np.array([[3, 2, 1, 0]])), 4, is_float=True)
    assert found.rows.tolist() == [[0, 1, 2, 3]]
    assert found.scores.tolist() == [[1, 1, 0, 0]]


def test_candidates_suffice_if_nothing_can_reach_the_last_hit() -> None:
    given = Queries(np.array([0, 1]), np.zeros(1, np.int32), np.ones(1, np.float32))
    rounded = given._replace(weights=np.array([100], np.int16))
    rounding = Rounding(step=1.0, largest_weight=1.0, largest_error=0.25, drops=False)

    def verdict(last_sum: int, row: int, score: float, *, drops: bool = False) -> int:
        verdicts = judge(
            given,
            rounded,
            np.array([0.01]),
            rounding._replace(drops=drops),
            TopK(np.array([[3, row]]), np.array([[200, last_sum]], np.int32)),
            np.array([[2, score]], np.float32),
        )
        return int(verdicts[0])

    assert verdict(100, 7, 1.3) == DONE  # 1 + 0.25 + 0.01 / 2, and what floats lose
    assert verdict(100, 7, 1.25) == MORE
    assert verdict(100, -1, 1.25) == DONE
    assert verdict(100, -1, 0.2) == DONE
    assert verdict(100, -1, 0.2, drops=True) == SCAN
    assert verdict(-100, 7, 0.2, drops=True) == SCAN
    assert verdict(-100, 7, 0.26, drops=True) == DONE
    reach = np.float32(0.255 + 2.0**-23)
    assert verdict(0, 7, float(reach)) == MORE  # a tie may go to a smaller row
    assert verdict(0, 7, float(np.nextafter(reach, np.float32(1)))) == DONE


def test_a_damaged_file_leads_nowhere_else() -> None:
    forward = Forward(np.array([0, 2, 1, 900]), np.array([0, 65_535, 1], np.uint16), np.ones(3, np.float32))
    queries = Queries(np.array([0, 1]), np.zeros(1, np.int32), np.ones(1, np.float32))
    keys = true_keys(queries, forward, 2, np.array([[0, 1, 2, 3, 4_000_000_000]]))
    assert read_keys(keys, 3, is_float=True).rows.tolist() == [[0, -1, -1]]
    assert read_keys(scan(queries, forward, 2, 0, None, 3), 3, is_float=True).rows.tolist() == [[0, -1, -1]]
