"""Query weights as int16, each query with its own step, so coarse that no sum of products leaves a given range."""

import numpy as np
import numpy.typing as npt
from numba import njit

from gossamer.kernels.errors import InputError
from gossamer.kernels.sparse_dot import Queries

LARGEST_WEIGHT = 2**15 - 1
LARGEST_SUM = 2**31 - 1
_LARGEST_UNIT = float(np.finfo(np.float32).max)


def round_queries(
    queries: Queries, levels: int, largest_sum: int, *, share: float = 1.0, longest: int | None = None
) -> tuple[Queries, npt.NDArray[np.float64]]:
    """Round each query, and leave out what rounds to zero.

    Args:
        queries: Q queries with float32 weights; terms of any integer type.
        levels: the largest magnitude of an impact.
        largest_sum: what a sum of rounded weights times `levels` may be, in magnitude.
        longest: the terms that a query may have for `largest_sum` to bind it; more may sum up to 2**31 - 1.
        share: of a query's total magnitude; its smallest weights, which are not needed for it, are left out first.

    Returns:
        Queries with int16 weights, and float64 [Q], the weight that 1 stands for in each.

    Raises:
        InputError: A query has so many terms that even weights of 1 could pass `largest_sum`.
    """
    longest = len(queries.terms) if longest is None else longest
    wrong, indptr, terms, weights, steps = _round(tuple(queries), levels, largest_sum, longest, share)
    if wrong >= 0:
        length = queries.indptr[wrong + 1] - queries.indptr[wrong]
        raise InputError(
            f"query {wrong} has {length:,} terms, too many for exact sums in 32 bits; keep its best with top()."
        )
    rounded = Queries(indptr, terms, weights)
    for array in rounded:
        array.flags.writeable = False  # as search takes them, without a view of each
    return rounded, steps


@njit(nogil=True, cache=True)
def scores_of(sums_QK, rows_QK, steps, step):  # type: ignore[no-untyped-def]
    """Scores float32 [Q, K] of sums: `float32(float64(sum) * unit)`, infinite beyond float32; -inf at row -1."""
    scores_QK = np.empty(sums_QK.shape, np.float32)
    for q in range(len(sums_QK)):
        unit = np.float64(np.float32(min(steps[q] * step, _LARGEST_UNIT)))
        for rank in range(sums_QK.shape[1]):
            score = -np.inf
            if rows_QK[q, rank] >= 0:
                score = np.float64(sums_QK[q, rank]) * unit
            scores_QK[q, rank] = np.float32(score)
    return scores_QK


@njit(nogil=True, cache=True)
def _round(queries, levels, largest_sum, longest, share):  # type: ignore[no-untyped-def]
    """Returns the query that cannot be rounded, or -1, and what `round_queries` does."""
    indptr, terms, values = queries
    ends, steps = np.zeros(len(indptr), np.int64), np.ones(len(indptr) - 1)
    kept_terms, weights = np.empty(len(terms), np.int32), np.empty(len(terms), np.int16)
    at, wrong = 0, -1
    for q in range(len(indptr) - 1):
        row = values[indptr[q] : indptr[q + 1]].astype(np.float64)
        if share < 1.0 and len(row) > 1:
            _cut_to_share(row, share)
        largest = 0.0
        for i in range(len(row)):
            largest = max(largest, abs(row[i]))
        if largest > 0:
            steps[q] = _step(row, largest, levels, largest_sum if len(row) <= longest else LARGEST_SUM)
            if steps[q] == 0:
                wrong = q
                break
            for i in range(len(row)):
                weight = np.rint(row[i] / steps[q])
                if weight != 0:
                    kept_terms[at], weights[at] = terms[indptr[q] + i], np.int16(weight)
                    at += 1
        ends[q + 1] = at
    return wrong, ends, kept_terms[:at], weights[:at], steps


@njit(nogil=True, cache=True)
def _step(row, largest, levels, largest_sum):  # type: ignore[no-untyped-def]
    """The finest step that keeps the sum in range; 0 if there is none. Sums of such numbers are exact in float64."""
    finest = float(LARGEST_WEIGHT)
    while True:
        step = largest / finest
        total = 0.0
        for i in range(len(row)):
            total += abs(np.rint(row[i] / step))
        total *= levels
        if total <= largest_sum:
            return step
        if finest == 1:
            return 0.0
        finest = min(max(np.floor(finest * largest_sum / total), 1.0), finest - 1)


@njit(nogil=True, cache=True)
def _cut_to_share(row, share):  # type: ignore[no-untyped-def]
    """Set the smallest weights to zero while the rest has the share of the whole; of equal ones the later first."""
    order = np.argsort(-np.abs(row), kind="mergesort")
    wanted = share * np.abs(row).sum()
    total = 0.0
    for place in order:
        if total >= wanted:
            row[place] = 0.0
        else:
            total += abs(row[place])
