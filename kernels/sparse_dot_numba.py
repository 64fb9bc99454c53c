"""`sparse_dot_topk` on the CPU: windowed accumulation, compiled by Numba.

For each query and each window of documents, the runs of the query's terms are added into one small array of sums that
stays in the core's cache (the layout of SINDI, arXiv:2509.08395, without its pruning). Then the window's sums are read
once, in blocks, and set back to zero: a block where nothing passes the k-th best score so far is done after one
vectorised comparison.

Windows and their documents come in ascending order, so once k hits are known a later document has to be strictly
better: equal scores go to the earlier row by themselves. Positive sums need no record of which documents were touched.
Hits with sums of zero or less can matter only while fewer than k are above; then the runs are read again.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from gossamer.kernels.sparse_dot import MAX_WINDOW, Postings, Queries, TopK, empty_top_k

BLOCK = (
    128  # sums compared together; LLVM unrolls a shorter loop before it could vectorise it: 10 times slower
)


class _Heap(NamedTuple):
    """The best hits so far, the worst of them first."""

    rows: npt.NDArray[np.int64]
    scores: npt.NDArray[np.int32 | np.float32]
    size: npt.NDArray[np.int64]  # one entry


def sparse_dot_topk_numba(
    queries: Queries, postings: Postings, k: int, allowed: npt.NDArray[np.bool_] | None, n_threads: int
) -> TopK:
    """Answer queries that `sparse_dot_topk` has checked."""
    n_queries = len(queries.indptr) - 1
    top = empty_top_k(n_queries, k, postings.impacts)
    queries = Queries(*(_read_only(array) for array in queries))
    postings = Postings(*postings[:3], *(_read_only(array) for array in postings[3:]))
    mask = _read_only(np.empty(0, np.bool_) if allowed is None else allowed)

    def answer(begin: int, end: int) -> None:
        # As many as the largest window has, whose pages a smaller one leaves alone, so that no 2-byte number in a
        # damaged file can point outside; and new ones, so that it can spoil no other search.
        sums = np.zeros(MAX_WINDOW, top.scores.dtype)
        part = queries._replace(indptr=queries.indptr[begin : end + 1])
        _search(part, postings, mask, sums, TopK(top.rows[begin:end], top.scores[begin:end]))

    if n_threads == 1 or n_queries <= 1:
        answer(0, n_queries)
    else:
        cuts = np.linspace(0, n_queries, min(n_queries, 4 * n_threads) + 1).astype(int).tolist()
        with ThreadPoolExecutor(n_threads) as pool:
            list(pool.map(answer, cuts[:-1], cuts[1:]))
    return top


def _read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A plain read-only view, so that arrays and maps of files share one compiled version."""
    view = np.ascontiguousarray(array).view(np.ndarray)
    view.flags.writeable = False
    return view


@njit(nogil=True, cache=True)
def _search(queries, postings, allowed, sums, top):  # type: ignore[no-untyped-def]  # Numba types it by its arguments
    """Answer the queries one by one; `sums` comes filled with zeros and is left so."""
    for query in range(len(queries.indptr) - 1):
        heap = _Heap(top.rows[query], top.scores[query], np.zeros(1, np.int64))
        entries = range(queries.indptr[query], queries.indptr[query + 1])
        for window in range(len(postings.bases) - 1 if len(entries) > 0 else 0):
            row = window * postings.window
            n_sums = min(postings.window, postings.n_documents - row)
            n_postings = 0
            for entry in entries:
                run = _run(postings, window, queries.terms[entry])
                _add(sums, run, queries.weights[entry])
                n_postings += len(run[0])
            if n_postings == 0:
                continue
            _take_positive(sums, n_sums, row, allowed, heap)
            if heap.size[0] < len(heap.rows) or heap.scores[0] < 0:
                for entry in entries:
                    _add(sums, _run(postings, window, queries.terms[entry]), queries.weights[entry])
                for entry in entries:
                    _take_rest(sums, _run(postings, window, queries.terms[entry]), row, allowed, heap)
                sums[:n_sums] = 0
        _sort(heap)


@njit(nogil=True, cache=True)
def _run(postings, window, term):  # type: ignore[no-untyped-def]
    """The documents of a window that have a term, and their impacts."""
    start = postings.bases[window] + np.int64(postings.offsets[window, term])
    stop = postings.bases[window] + np.int64(postings.offsets[window, term + 1])
    return postings.local[start:stop], postings.impacts[start:stop]


@njit(nogil=True, cache=True)
def _add(sums, run, weight):  # type: ignore[no-untyped-def]
    local, impacts = run
    weight = sums.dtype.type(weight)
    for i in range(len(local)):
        sums[local[i]] += weight * sums.dtype.type(impacts[i])


@njit(nogil=True, cache=True)
def _take_positive(sums, n_sums, first_row, allowed, heap):  # type: ignore[no-untyped-def]
    """Offer every positive sum to the heap, in order, and set all sums to zero."""
    threshold = _threshold(heap)
    for start in range(0, n_sums, BLOCK):
        block = sums[start : start + BLOCK]
        any_passes = False
        for i in range(BLOCK):
            any_passes |= block[i] > threshold
        if any_passes:
            for i in range(min(BLOCK, n_sums - start)):
                row = first_row + start + i
                if block[i] > threshold and (len(allowed) == 0 or allowed[row]):
                    _offer(heap, row, block[i])
                    threshold = _threshold(heap)
        for i in range(BLOCK):
            block[i] = 0


@njit(nogil=True, cache=True)
def _threshold(heap):  # type: ignore[no-untyped-def]
    """What a later row's positive sum has to exceed."""
    zero = heap.scores.dtype.type(0)
    return max(zero, heap.scores[0]) if heap.size[0] == len(heap.rows) else zero


@njit(nogil=True, cache=True)
def _take_rest(sums, run, first_row, allowed, heap):  # type: ignore[no-untyped-def]
    """Offer the sums of zero or less in a run; a sum of 1 marks those that were offered."""
    for document in run[0]:
        score, row = sums[document], first_row + np.int64(document)
        if score <= 0:
            sums[document] = 1
            if len(allowed) == 0 or allowed[row]:
                _offer(heap, row, score)


@njit(nogil=True, cache=True)
def _offer(heap, row, score):  # type: ignore[no-untyped-def]
    """Keep a hit if it is among the best so far."""
    at = heap.size[0]
    if at < len(heap.rows):
        heap.rows[at], heap.scores[at] = row, score
        heap.size[0] += 1
        while at > 0 and _worse(heap, at, (at - 1) // 2):
            _swap(heap, at, (at - 1) // 2)
            at = (at - 1) // 2
    elif score > heap.scores[0] or (score == heap.scores[0] and row < heap.rows[0]):
        heap.rows[0], heap.scores[0] = row, score
        _sink(heap, at)


@njit(nogil=True, cache=True)
def _sink(heap, size):  # type: ignore[no-untyped-def]
    """Restore the order of the first `size` entries after the root was replaced."""
    at = 0
    while 2 * at + 1 < size:
        child = 2 * at + 1
        if child + 1 < size and _worse(heap, child + 1, child):
            child += 1
        if not _worse(heap, child, at):
            return
        _swap(heap, at, child)
        at = child


@njit(nogil=True, cache=True)
def _worse(heap, a, b):  # type: ignore[no-untyped-def]
    return heap.scores[a] < heap.scores[b] or (
        heap.scores[a] == heap.scores[b] and heap.rows[a] > heap.rows[b]
    )


@njit(nogil=True, cache=True)
def _swap(heap, a, b):  # type: ignore[no-untyped-def]
    heap.rows[a], heap.rows[b] = heap.rows[b], heap.rows[a]
    heap.scores[a], heap.scores[b] = heap.scores[b], heap.scores[a]


@njit(nogil=True, cache=True)
def _sort(heap):  # type: ignore[no-untyped-def]
    """Turn the heap into a list, best hit first."""
    for last in range(heap.size[0] - 1, 0, -1):
        _swap(heap, 0, last)
        _sink(heap, last)
