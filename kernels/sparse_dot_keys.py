"""The small steps before and after a search, compiled, because for one query they would take as long as the search."""

import numpy as np
import numpy.typing as npt
from numba import njit

from gossamer.kernels.lanes import BLOCK
from gossamer.kernels.sparse_dot import LAST_ROW, NO_KEY

_FAULTS = ("", "indptr", "unknown", "order")
_LEAST = -(2**31)
_MINUS_INFINITY = -(2**23)  # the bits of a float32


def first_fault(
    indptr: npt.NDArray[np.int64], terms: npt.NDArray[np.int32], n_terms: int
) -> tuple[str, int, int]:
    """What is wrong with queries, if anything, and in which query and entry.

    Returns:
        `""`, or `"indptr"` if it does not rise from 0 to the number of terms, `"unknown"` for a term that is none of
        0..n_terms - 1, `"order"` for one that is not above the one before.
    """
    fault, query, entry = _first_fault(indptr, terms, n_terms)
    return _FAULTS[fault], query, entry


@njit(nogil=True, cache=True)
def _first_fault(indptr, terms, n_terms):  # type: ignore[no-untyped-def]
    size = len(indptr)
    if size == 0 or indptr[0] != 0 or indptr[size - 1] != len(terms):
        return 1, 0, 0
    for q in range(size - 1):
        if indptr[q + 1] < indptr[q]:
            return 1, q, 0
    for q in range(size - 1):
        for entry in range(indptr[q], indptr[q + 1]):
            if terms[entry] < 0 or terms[entry] >= n_terms:
                return 2, q, entry
    for q in range(size - 1):
        for entry in range(indptr[q] + 1, indptr[q + 1]):
            if terms[entry] <= terms[entry - 1]:
                return 3, q, entry
    return 0, 0, 0


@njit(nogil=True, cache=True)
def by_list(indptr, terms, weights, known):  # type: ignore[no-untyped-def]
    """Queries whose terms are their places among the known ones; the others are left out."""
    ends, places, kept = np.zeros_like(indptr), np.empty_like(terms), np.empty_like(weights)
    at = 0
    for q in range(len(indptr) - 1):
        place = 0
        for entry in range(indptr[q], indptr[q + 1]):
            place += np.searchsorted(known[place:], terms[entry])  # both ascend
            if place == len(known):
                break
            if known[place] == terms[entry]:
                places[at], kept[at] = place, weights[entry]
                at += 1
        ends[q + 1] = at
    return ends, places[:at], kept[:at]


@njit(nogil=True, cache=True)
def find_open_blocks(allowed, rows, window):  # type: ignore[no-untyped-def]
    """`Mask.open_blocks`: which blocks have a document that may be a hit."""
    n_documents = len(rows)
    blocks = -(-window // BLOCK)
    is_open = np.zeros(-(-n_documents // window) * blocks, np.bool_)
    for first in range(0, n_documents, window):
        at = first // window * blocks
        for begin in range(first, min(first + window, n_documents), BLOCK):
            end = min(begin + BLOCK, first + window, n_documents)
            any_open = False
            for position in range(np.uint64(begin), np.uint64(end)):
                row = np.uint64(rows[position])
                if row < np.uint64(len(allowed)) and allowed[row]:  # else the file is damaged
                    any_open = True
            is_open[at] = any_open
            at += 1
    return is_open


@njit(nogil=True, cache=True)
def largest_and_least(indptr, weights):  # type: ignore[no-untyped-def]
    """The largest sum of a query's weights, and the least weight (1 if there is none)."""
    largest, least = np.int64(0), np.int64(1)
    for q in range(len(indptr) - 1):
        total = np.int64(0)
        for entry in range(indptr[q], indptr[q + 1]):
            total += weights[entry]
            least = min(least, np.int64(weights[entry]))
        largest = max(largest, total)
    return largest, least


@njit(nogil=True, cache=True)
def cut(best, k):  # type: ignore[no-untyped-def]
    """Keep the k best keys, if there are so many; `best` is the keys, and how many they are with the k-th of them."""
    keys, state = best
    size = state[0]
    if size >= k:
        keys[:size] = np.partition(keys[:size], size - k)
        keys[:k] = keys[size - k : size].copy()
        state[:] = k, keys[0]


@njit(nogil=True, cache=True)
def read(keys_QN, k, is_float):  # type: ignore[no-untyped-def]
    """See `read_keys`; float32 scores are returned as their bits."""
    n_queries = len(keys_QN)
    rows_QK = np.full((n_queries, k), -1)
    scores_QK = np.full((n_queries, k), np.int32(_MINUS_INFINITY if is_float else _LEAST))
    for q in range(n_queries):
        keys = np.sort(keys_QN[q])
        for rank in range(min(k, len(keys))):
            key = keys[len(keys) - 1 - rank]
            if key == NO_KEY:
                break
            score = np.int32(key >> 32)
            if is_float and score < 0:
                score ^= np.int32(0x7FFFFFFF)
            rows_QK[q, rank] = LAST_ROW - (key & LAST_ROW)
            scores_QK[q, rank] = score
    return rows_QK, scores_QK


@njit(nogil=True, cache=True)
def merge_ranked(rows_SQK, scores_SQK, starts):  # type: ignore[no-untyped-def]
    """The K best hits of S ranked lists for each query; of equal scores those of an earlier list come first.

    Rows of list s count from `starts[s]`; -1 ends a list.
    """
    n_lists, n_queries, k = rows_SQK.shape
    rows_QK = np.full((n_queries, k), -1)
    scores_QK = np.full((n_queries, k), -np.inf)
    for q in range(n_queries):
        heads = np.zeros(n_lists, np.int64)
        for rank in range(k):
            best = -1
            for s in range(n_lists):
                if heads[s] == k or rows_SQK[s, q, heads[s]] < 0:
                    continue
                if best < 0 or scores_SQK[s, q, heads[s]] > scores_SQK[best, q, heads[best]]:
                    best = s
            if best < 0:
                break
            rows_QK[q, rank] = starts[best] + rows_SQK[best, q, heads[best]]
            scores_QK[q, rank] = scores_SQK[best, q, heads[best]]
            heads[best] += 1
    return rows_QK, scores_QK
