"""`sparse_dot_topk` on the CPU: windowed accumulation, compiled by Numba.

For each query and each window of documents, the runs of the query's terms are added into one small array of sums that
stays in the core's cache (the layout of SINDI, arXiv:2509.08395, without its pruning). Then the window's sums are read
once, in blocks, and set back to zero: a block where nothing passes the k-th best score so far is done after one
vectorised comparison.

Windows and their documents come in ascending order, so once k hits are known a later document has to be strictly
better: equal scores go to the earlier row by themselves. Positive sums need no record of which documents were touched.
Hits with sums of zero or less can matter only while fewer than k are above; then the runs are read again.

The hits that may be among the k best are held as integers that rise with the rank (see `read_keys`), and cut back to k
whenever there are twice as many: a few steps a hit whatever k is.

Only plain tuples of arrays cross into compiled code: Numba's cache would store a named tuple by its class's name, and
not load once that has moved.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from gossamer.kernels.sparse_dot import LAST_ROW, MAX_WINDOW, NO_KEY, Postings, Queries, TopK, read_keys

# Sums compared together. LLVM unrolls a shorter loop before it could vectorise it: 10 times slower.
BLOCK = 128


def sparse_dot_topk_numba(
    queries: Queries, postings: Postings, k: int, allowed: npt.NDArray[np.bool_] | None, n_threads: int
) -> TopK:
    """Answer queries that `sparse_dot_topk` has checked."""
    n_queries = len(queries.indptr) - 1
    found_QK = np.full((n_queries, max(1, min(k, postings.n_documents))), NO_KEY, np.int64)
    sum_type = np.float32 if postings.impacts.dtype == np.float32 else np.int32
    queries = Queries(*(_read_only(array) for array in queries))
    postings = Postings(*postings[:3], *(_read_only(array) for array in postings[3:]))
    mask = _read_only(np.empty(0, np.bool_) if allowed is None else allowed)

    def answer(begin: int, end: int) -> None:
        # As many as the largest window has, whose pages a smaller one leaves alone, so that no 2-byte number in a
        # damaged file can point outside; and new ones, so that it can spoil no other search.
        sums = np.zeros(MAX_WINDOW, sum_type)
        part = queries.indptr[begin : end + 1], queries.terms, queries.weights
        _search(part, tuple(postings), mask, sums, found_QK[begin:end])

    if n_threads == 1 or n_queries <= 1:
        answer(0, n_queries)
    else:
        cuts = np.linspace(0, n_queries, min(n_queries, 4 * n_threads) + 1).astype(int).tolist()
        with ThreadPoolExecutor(n_threads) as pool:
            list(pool.map(answer, cuts[:-1], cuts[1:]))
    return read_keys(found_QK, k, postings.impacts)


def _read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A plain read-only view, so that arrays and maps of files share one compiled version."""
    view = np.ascontiguousarray(array).view(np.ndarray)
    view.flags.writeable = False
    return view


@njit(nogil=True, cache=True)
def _search(queries, postings, allowed, sums, found_QK):  # type: ignore[no-untyped-def]  # Numba types it by its arguments
    """Answer the queries one by one; `sums` comes filled with zeros and is left so."""
    indptr, terms, weights = queries
    n_documents, size, n_windows = postings[0], postings[2], len(postings[3]) - 1
    k = found_QK.shape[1]
    keys = np.empty(2 * k + BLOCK, np.int64)
    state = np.empty(2, np.int64)  # how many keys, and the k-th best of them when it was last looked for
    best = keys, state
    # Read as integers, floats above zero have the same order, and those below it the reverse, which `flip` mends.
    bits = sums.view(np.int32)
    flip = np.int32(0x7FFFFFFF if sums.dtype.type(0.5) > 0 else 0)
    for query in range(len(indptr) - 1):
        state[:] = 0, NO_KEY
        entries = range(indptr[query], indptr[query + 1])
        for window in range(n_windows):
            row = window * size
            n_sums = min(size, n_documents - row)
            n_postings = 0
            for entry in entries:
                run = _run(postings, window, terms[entry])
                _add(sums, run, weights[entry])
                n_postings += len(run[0])
            if n_postings == 0:
                continue
            _take_positive(bits, n_sums, row, allowed, best, k)
            if state[1] < 0:
                _cut(best, k)
            if state[1] < 0:
                for entry in entries:
                    _add(sums, _run(postings, window, terms[entry]), weights[entry])
                for entry in entries:
                    _take_rest(bits, flip, _run(postings, window, terms[entry])[0], row, allowed, best, k)
                sums[:n_sums] = 0
        _cut(best, k)
        found_QK[query, : state[0]] = keys[: state[0]]


@njit(nogil=True, cache=True)
def _run(postings, window, term):  # type: ignore[no-untyped-def]
    """The documents of a window that have a term, and their impacts."""
    _, _, _, bases, offsets, local, impacts = postings
    start = bases[window] + np.int64(offsets[window, term])
    stop = bases[window] + np.int64(offsets[window, term + 1])
    return local[start:stop], impacts[start:stop]


@njit(nogil=True, cache=True)
def _add(sums, run, weight):  # type: ignore[no-untyped-def]
    local, impacts = run
    weight = sums.dtype.type(weight)
    for i in range(len(local)):
        sums[local[i]] += weight * sums.dtype.type(impacts[i])


@njit(nogil=True, cache=True)
def _take_positive(bits, n_sums, first_row, allowed, best, k):  # type: ignore[no-untyped-def]  # noqa: PLR0917
    """Take every positive sum that may be among the best, and set all sums to zero."""
    keys, state = best
    threshold = max(state[1] >> 32, 0)  # a later row has to be better
    for start in range(0, n_sums, BLOCK):
        block = bits[start : start + BLOCK]
        any_passes = False
        for i in range(BLOCK):
            any_passes |= block[i] > np.int32(threshold)
        if any_passes:
            size = state[0]
            for i in range(min(BLOCK, n_sums - start)):
                row = first_row + start + i
                if block[i] > threshold and (len(allowed) == 0 or allowed[row]):
                    keys[size] = (np.int64(block[i]) << 32) | (LAST_ROW - row)
                    size += 1
            state[0] = size
            if size >= 2 * k:
                _cut(best, k)
                threshold = max(state[1] >> 32, 0)
        for i in range(BLOCK):
            block[i] = 0


@njit(nogil=True, cache=True)
def _take_rest(bits, flip, local, first_row, allowed, best, k):  # type: ignore[no-untyped-def]  # noqa: PLR0917
    """Take the sums of zero or less in a run; a positive number marks those that were taken."""
    keys, state = best
    for document in local:
        score, row = bits[document], first_row + np.int64(document)
        if score <= 0:
            bits[document] = 1
            if score < 0:
                score ^= flip
            key = (np.int64(score) << 32) | (LAST_ROW - row)
            if key > state[1] and (len(allowed) == 0 or allowed[row]):
                keys[state[0]] = key
                state[0] += 1
                if state[0] >= 2 * k:
                    _cut(best, k)


@njit(nogil=True, cache=True)
def _cut(best, k):  # type: ignore[no-untyped-def]
    """Keep the k best, if there are so many."""
    keys, state = best
    size = state[0]
    if size >= k:
        keys[:size] = np.partition(keys[:size], size - k)
        keys[:k] = keys[size - k : size].copy()
        state[:] = k, keys[0]
