"""Scores of chosen rows, from the rows themselves: what ends a search whose first part was not exact.

The forward index holds every row's terms and weights side by side, so that a row is read in a few cache lines. The
query is spread over an array of the vocabulary's size, and a row's score is the sum over its terms. Hits are keys (see
`read_keys`), so they are ordered by what is shown: the score as float32 or int32, then the row.
"""

import threading
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from gossamer.kernels.lanes import BLOCK, prefetch
from gossamer.kernels.sparse_dot import LAST_ROW, NO_KEY, Queries, TopK
from gossamer.kernels.sparse_dot_keys import cut

DONE, MORE, SCAN = 0, 1, 2


class Forward(NamedTuple):
    """The rows of an index as they were given; arrays may be read-only maps of files."""

    indptr: npt.NDArray[np.int64]
    """int64 [N + 1]."""
    terms: npt.NDArray[np.uint16 | np.int32]
    """uint16 or int32 [nnz]: strictly ascending within a row."""
    values: npt.NDArray[np.float32 | np.uint16]
    """[nnz]: the weights; float32, or the bits of float16 where these are the same numbers."""


class Rounding(NamedTuple):
    """What was lost when the documents' weights were stored as impacts."""

    step: float
    """The weight that one level of an impact stands for."""
    largest_weight: float
    """The largest magnitude of a weight, or more."""
    largest_error: float
    """The largest difference between a weight and what is stored for it."""
    drops: bool
    """Whether some weights were rounded to zero, and so have no posting."""


def true_keys(
    queries: Queries, forward: Forward, n_terms: int, rows_QN: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Keys `[Q, N]` of rows by their dot products with float32 queries: sums in float64, then rounded to float32.

    Args:
        queries: Q queries with float32 weights.
        forward: the rows.
        n_terms: size of the vocabulary.
        rows_QN: int64 [Q, N]; where -1 the key is `NO_KEY`.
    """
    keys_QN = np.empty(rows_QN.shape, np.int64)
    _true_keys(tuple(queries), tuple(forward), _HALVES, _table(n_terms, np.float64), rows_QN, keys_QN)
    return keys_QN


def stored_keys(  # noqa: PLR0917
    queries: Queries,
    forward: Forward,
    n_terms: int,
    rows_QN: npt.NDArray[np.int64],
    step: float,
    levels: int,
) -> npt.NDArray[np.int64]:
    """Keys `[Q, N]` of rows by the sums that `sparse_dot_topk` finds for them, from the rows' weights.

    Args:
        queries: Q queries with int16 weights.
        forward: the rows.
        n_terms: size of the vocabulary.
        rows_QN: int64 [Q, N]; where -1 the key is `NO_KEY`.
        step: the weight that one level of an impact stands for.
        levels: the largest impact.
    """
    keys_QN = np.empty(rows_QN.shape, np.int64)
    table = _table(n_terms, np.int64)
    _stored_keys(tuple(queries), tuple(forward), _HALVES, table, rows_QN, step, levels, keys_QN)
    return keys_QN


def scan(  # noqa: PLR0917
    queries: Queries,
    forward: Forward,
    n_terms: int,
    query: int,
    allowed: npt.NDArray[np.bool_] | None,
    k: int,
) -> npt.NDArray[np.int64]:
    """Keys, as `true_keys` makes them, of the k best rows `[1, K]` that share a term with a query: a look at every row.

    Args:
        queries: queries with float32 weights.
        forward: the rows.
        n_terms: size of the vocabulary.
        query: which of the queries.
        allowed: bool [N], rows that may be hits; None for all.
        k: keys wanted; there are fewer where fewer rows share a term.
    """
    entries = slice(*queries.indptr[query : query + 2])
    terms, weights = queries.terms[entries], queries.weights[entries]
    mask = np.empty(0, np.bool_) if allowed is None else allowed
    k = max(1, min(k, len(forward.indptr) - 1))
    table = _table(n_terms, np.float64)
    keys: npt.NDArray[np.int64] = _scan(terms, weights, tuple(forward), _HALVES, table, mask, k)
    return keys[None]


def judge(  # noqa: PLR0917
    given: Queries,
    rounded: Queries,
    steps: npt.NDArray[np.float64],
    rounding: Rounding,
    candidates: TopK,
    scores_QK: npt.NDArray[np.float32],
) -> npt.NDArray[np.uint8]:
    """Whether the k best of some candidates by true scores are the k best of all rows.

    A stored score differs from the true one by no more than the rounding of both sides allows, so no row beyond the
    candidates has more than the last candidate's stored score, raised by that. Candidates are enough if this, rounded
    to float32 as scores are, is below the k-th score: rounding keeps order, and a tie could go to either row. Rows that
    share only terms that were rounded to zero are no candidates at all, but are within the same reach of 0.

    Args:
        given: Q queries as they are.
        rounded: the same with int16 weights.
        steps: float64 [Q]; the weight that 1 stands for in each rounded query.
        rounding: of the documents.
        candidates: [Q, N], the best by stored sums.
        scores_QK: float32 [Q, K], the best true scores of the candidates; -inf where there are fewer.

    Returns:
        uint8 [Q]: `DONE`; `MORE` where more candidates are needed; `SCAN` where rows beside them may be hits.
    """
    verdicts = np.empty(len(steps), np.uint8)
    queries = given.indptr, given.weights, rounded.indptr
    _judge(queries, steps, tuple(rounding), tuple(candidates), scores_QK, verdicts)
    return verdicts


@njit(nogil=True, cache=True)
def _judge(queries, steps, rounding, candidates, scores_QK, verdicts):  # type: ignore[no-untyped-def]  # noqa: PLR0917
    indptr, weights, rounded_indptr = queries
    step, largest_weight, largest_error, drops = rounding
    rows_QN, sums_QN = candidates
    for q in range(len(verdicts)):
        length = indptr[q + 1] - indptr[q]
        magnitude = 0.0
        for entry in range(indptr[q], indptr[q + 1]):
            magnitude += abs(np.float64(weights[entry]))
        # a query's weight is off by half a step at most; the last part is more than floats lose in all that is added
        reach = magnitude * largest_error + length * steps[q] / 2 * largest_weight
        reach += magnitude * largest_weight * 2.0**-23
        last_row, last_score = rows_QN[q, -1], scores_QK[q, -1]
        below = np.float32(sums_QN[q, -1] * (steps[q] * step) + reach)
        hides = drops or rounded_indptr[q + 1] - rounded_indptr[q] < length
        verdicts[q] = DONE
        if last_row >= 0 and below >= last_score:
            verdicts[q] = MORE
        elif hides and last_score <= np.float32(reach):
            verdicts[q] = SCAN


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
def _float_key(score, row, room):  # type: ignore[no-untyped-def]
    """A key of a float score; `room` is a float32 in memory, whose bits are read."""
    room[0] = np.float32(score) + np.float32(0)  # a negative zero is no less than zero
    bits = room.view(np.int32)[0]
    if bits < 0:
        bits ^= np.int32(0x7FFFFFFF)
    return (np.int64(bits) << 32) | (LAST_ROW - row)


@njit(nogil=True, cache=True)
def _true_keys(queries, forward, halves, table, rows_QN, keys_QN):  # type: ignore[no-untyped-def]  # noqa: PLR0917
    indptr, terms, weights = queries
    starts, row_terms, values = forward
    room = np.empty(1, np.float32)
    for q in range(len(rows_QN)):
        for entry in range(indptr[q], indptr[q + 1]):
            table[terms[entry]] = weights[entry]
        _fetch(forward, rows_QN[q])
        for n in range(rows_QN.shape[1]):
            row = rows_QN[q, n]
            keys_QN[q, n] = NO_KEY
            if _is_sound(forward, row):
                score = 0.0
                for entry in range(np.uint64(starts[row]), np.uint64(starts[row + 1])):
                    term = np.uint64(row_terms[entry])
                    if term < np.uint64(len(table)):  # else the file is damaged
                        score += table[term] * _weight(values, halves, entry)
                keys_QN[q, n] = _float_key(score, row, room)
        for entry in range(indptr[q], indptr[q + 1]):
            table[terms[entry]] = 0


@njit(nogil=True, cache=True)
def _stored_keys(queries, forward, halves, table, rows_QN, step, levels, keys_QN):  # type: ignore[no-untyped-def]  # noqa: PLR0917
    indptr, terms, weights = queries
    starts, row_terms, values = forward
    for q in range(len(rows_QN)):
        for entry in range(indptr[q], indptr[q + 1]):
            table[terms[entry]] = weights[entry]
        _fetch(forward, rows_QN[q])
        for n in range(rows_QN.shape[1]):
            row = rows_QN[q, n]
            keys_QN[q, n] = NO_KEY
            if _is_sound(forward, row):
                total = np.int64(0)
                for entry in range(np.uint64(starts[row]), np.uint64(starts[row + 1])):
                    impact = np.rint(_weight(values, halves, entry) / step)
                    impact = min(max(impact, -levels), levels)
                    term = np.uint64(row_terms[entry])
                    if term < np.uint64(len(table)):
                        total += table[term] * np.int64(impact)
                keys_QN[q, n] = (total << 32) | (LAST_ROW - row)
        for entry in range(indptr[q], indptr[q + 1]):
            table[terms[entry]] = 0


@njit(nogil=True, cache=True)
def _scan(terms, weights, forward, halves, table, allowed, k):  # type: ignore[no-untyped-def]  # noqa: PLR0917
    starts, row_terms, values = forward
    keys, state = np.empty(2 * k, np.int64), np.zeros(2, np.int64)
    state[1] = NO_KEY
    room = np.empty(1, np.float32)
    for entry in range(len(terms)):
        table[terms[entry]] = weights[entry]
    for row in range(len(starts) - 1):
        if (len(allowed) and not allowed[row]) or not _is_sound(forward, row):
            continue
        score, shares = 0.0, False
        for entry in range(np.uint64(starts[row]), np.uint64(starts[row + 1])):
            term = np.uint64(row_terms[entry])
            if term < np.uint64(len(table)) and table[term] != 0:
                score += table[term] * _weight(values, halves, entry)
                shares = True
        if shares:
            key = _float_key(score, row, room)
            if key > state[1]:
                keys[state[0]] = key
                state[0] += 1
                if state[0] == 2 * k:
                    cut((keys, state), k)
    for entry in range(len(terms)):
        table[terms[entry]] = 0
    return keys[: state[0]]
