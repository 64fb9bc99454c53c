"""Scores of chosen rows, from the rows themselves: what ends a search whose first part was not exact.

The forward index holds every row's terms and weights side by side, so that a row is read in a few cache lines. The
query is spread over an array of the vocabulary's size, and a row's score is the sum over its terms.
"""

import threading
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from gossamer.kernels.lanes import BLOCK, prefetch
from gossamer.kernels.sparse_dot import Queries

NO_SUM = -(2**62)  # below every sum, and its negative is no overflow


class Forward(NamedTuple):
    """The rows of an index as they were given; arrays may be read-only maps of files."""

    indptr: npt.NDArray[np.int64]
    """int64 [N + 1]."""
    terms: npt.NDArray[np.uint16 | np.int32]
    """uint16 or int32 [nnz]: strictly ascending within a row."""
    values: npt.NDArray[np.float32 | np.uint16]
    """[nnz]: the weights; float32, or the bits of float16 where these are the same numbers."""


def true_scores(
    queries: Queries, forward: Forward, n_terms: int, rows_QN: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Dot products of float32 queries with rows, `[Q, N]`: float64 sums of exact products, in ascending order of term.

    Args:
        queries: Q queries with float32 weights.
        forward: the rows.
        n_terms: size of the vocabulary.
        rows_QN: int64 [Q, N]; where -1 the score is -inf.
    """
    scores_QN = np.full(rows_QN.shape, -np.inf)
    table = _table(n_terms, np.float64)
    _true_scores(tuple(queries), tuple(forward), _HALVES, table, rows_QN, scores_QN)
    return scores_QN


def stored_scores(  # noqa: PLR0917
    queries: Queries,
    forward: Forward,
    n_terms: int,
    rows_QN: npt.NDArray[np.int64],
    step: float,
    levels: int,
) -> npt.NDArray[np.int64]:
    """The sums that `sparse_dot_topk` finds for these rows, `[Q, N]`, from the rows' weights.

    Args:
        queries: Q queries with int16 weights.
        forward: the rows.
        n_terms: size of the vocabulary.
        rows_QN: int64 [Q, N]; where -1 the sum is `NO_SUM`.
        step: the weight that one level of an impact stands for.
        levels: the largest impact.
    """
    sums_QN = np.full(rows_QN.shape, NO_SUM)
    table = _table(n_terms, np.int64)
    _stored_scores(tuple(queries), tuple(forward), _HALVES, table, rows_QN, step, levels, sums_QN)
    return sums_QN


def best_of(
    rows_QN: npt.NDArray[np.int64], scores_QN: npt.NDArray[np.float64 | np.int64], k: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[Any]]:
    """The k best of candidates, `[Q, K]`: score descending, then row ascending; row -1 past the last one."""
    rows_QK = np.full((len(rows_QN), k), -1)
    lowest = -np.inf if scores_QN.dtype == np.float64 else NO_SUM
    scores_QK = np.full(rows_QK.shape, lowest, scores_QN.dtype)
    _best_of(rows_QN, scores_QN, rows_QK, scores_QK)
    return rows_QK, scores_QK


@njit(nogil=True, cache=True)
def _best_of(rows_QN, scores_QN, rows_QK, scores_QK):  # type: ignore[no-untyped-def]
    k = rows_QK.shape[1]
    for q in range(len(rows_QN)):
        by_row = np.argsort(rows_QN[q])
        order = by_row[np.argsort(-scores_QN[q][by_row], kind="mergesort")]
        rank = 0
        for place in order:
            if rank == k:
                break
            if rows_QN[q, place] >= 0:
                rows_QK[q, rank], scores_QK[q, rank] = rows_QN[q, place], scores_QN[q, place]
                rank += 1


_KEPT = threading.local()


def _table(n_terms: int, kind: type) -> npt.NDArray[Any]:
    """Zeros to spread a query over, which are left as zeros; a thread's own, and kept: new ones cost page faults."""
    kept: dict[type, npt.NDArray[Any]] = vars(_KEPT).setdefault("tables", {})
    if kind not in kept or len(kept[kind]) < n_terms:
        kept[kind] = np.zeros(n_terms, kind)
    return kept[kind]


_HALVES = (
    np.arange(65_536, dtype=np.uint16).view(np.float16).astype(np.float32)
)  # a float16's bits: its number


@njit(nogil=True, cache=True)
def _is_sound(forward, row):  # type: ignore[no-untyped-def]
    """Whether there is such a row, and its entries are inside: a damaged file must not lead elsewhere."""
    starts, terms, _ = forward
    return 0 <= row < len(starts) - 1 and 0 <= starts[row] <= starts[row + 1] <= len(terms)


@njit(nogil=True, cache=True)
def _fetch(forward, rows):  # type: ignore[no-untyped-def]
    """Ask for the rows that come up, so that their way from memory overlaps."""
    starts, terms, values = forward
    for row in rows:
        if row >= 0:
            prefetch(starts, row)
    for row in rows:
        if _is_sound(forward, row):
            for entry in range(starts[row], starts[row + 1], BLOCK):
                prefetch(terms, entry)
                prefetch(values, entry)


@njit(nogil=True, cache=True)
def _weight(values, halves, entry):  # type: ignore[no-untyped-def]
    """A weight, whichever way it is stored."""
    value = values[entry]
    if values.dtype.type(0.5) > 0:  # a float32; for the bits of a float16 that is 0
        return np.float64(value)
    return np.float64(halves[np.uint64(value)])


@njit(nogil=True, cache=True)
def _true_scores(queries, forward, halves, table, rows_QN, scores_QN):  # type: ignore[no-untyped-def]  # noqa: PLR0917
    indptr, terms, weights = queries
    starts, row_terms, values = forward
    for q in range(len(rows_QN)):
        for entry in range(indptr[q], indptr[q + 1]):
            table[terms[entry]] = weights[entry]
        _fetch(forward, rows_QN[q])
        for n in range(rows_QN.shape[1]):
            row = rows_QN[q, n]
            if _is_sound(forward, row):
                score = 0.0
                for entry in range(np.uint64(starts[row]), np.uint64(starts[row + 1])):
                    term = np.uint64(row_terms[entry])
                    if term < np.uint64(len(table)):  # else the file is damaged
                        score += table[term] * _weight(values, halves, entry)
                scores_QN[q, n] = score
        for entry in range(indptr[q], indptr[q + 1]):
            table[terms[entry]] = 0


@njit(nogil=True, cache=True)
def _stored_scores(queries, forward, halves, table, rows_QN, step, levels, sums_QN):  # type: ignore[no-untyped-def]  # noqa: PLR0917
    indptr, terms, weights = queries
    starts, row_terms, values = forward
    for q in range(len(rows_QN)):
        for entry in range(indptr[q], indptr[q + 1]):
            table[terms[entry]] = weights[entry]
        _fetch(forward, rows_QN[q])
        for n in range(rows_QN.shape[1]):
            row = rows_QN[q, n]
            if _is_sound(forward, row):
                total = np.int64(0)
                for entry in range(np.uint64(starts[row]), np.uint64(starts[row + 1])):
                    impact = np.rint(_weight(values, halves, entry) / step)
                    impact = min(max(impact, -levels), levels)
                    term = np.uint64(row_terms[entry])
                    if term < np.uint64(len(table)):
                        total += table[term] * np.int64(impact)
                sums_QN[q, n] = total
        for entry in range(indptr[q], indptr[q + 1]):
            table[terms[entry]] = 0
