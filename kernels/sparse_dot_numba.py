"""`sparse_dot_topk` on the CPU: windowed accumulation, compiled by Numba.

For each query and each window of documents, the runs of the query's terms are added into one small array of sums that
stays in the core's cache (the layout of SINDI, arXiv:2509.08395, without its pruning). Then the window's sums are read
once, in blocks, and set back to zero; a block without a sum above the k-th best score so far costs one comparison a
document, which vectorises.

Rows come in ascending order, so once k hits are known a later document has to be strictly better: equal scores go to the
earlier row by themselves. Positive sums need no record of which documents were touched. Hits with sums of zero or less can
matter only while there are fewer than k positive ones; then the runs are read a second time.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from gossamer.kernels.sparse_dot import MAX_WINDOW, Postings, Queries, TopK, empty_top_k

BLOCK = 64  # sums that are compared together


def sparse_dot_topk_numba(
    queries: Queries, postings: Postings, k: int, allowed: npt.NDArray[np.bool_] | None, n_threads: int
) -> TopK:
    """Answer queries that `sparse_dot_topk` has checked."""
    n_queries = len(queries.indptr) - 1
    top = empty_top_k(n_queries, k, postings.impacts)
    arrays = [_read_only(array) for array in (*queries, *postings[3:])]
    mask = _read_only(np.empty(0, np.bool_) if allowed is None else allowed)
    # zeroed pages are handed out when touched, so a small window costs no more for this size, and a wrong
    # 2-byte document number in a damaged file cannot write outside it
    sum_type = top.scores.dtype

    def answer(begin: int, end: int) -> None:
        sums = np.zeros(MAX_WINDOW, sum_type)
        _search(*arrays, postings.n_documents, postings.window, mask, sums, begin, end, top.rows, top.scores)

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
def _search(  # type: ignore[no-untyped-def]  # Numba compiles it for the types it meets
    indptr,
    terms,
    weights,
    bases,
    offsets,
    local,
    impacts,
    n_documents,
    window,
    allowed,
    sums,
    begin,
    end,
    rows,
    scores,
):
    """Answer queries begin to end; `sums` comes zeroed and is left so."""
    for query in range(begin, end):
        first, last = indptr[query], indptr[query + 1]
        heap = rows[query], scores[query]
        n_hits = 0
        for w in range(len(bases) - 1 if last > first else 0):
            base, row = bases[w], w * window
            size = min(window, n_documents - row)
            for entry in range(first, last):
                start, stop = base + offsets[w, terms[entry]], base + offsets[w, terms[entry] + 1]
                _add(sums, local[start:stop], impacts[start:stop], sums.dtype.type(weights[entry]))
            n_hits = _take_positive(sums[:size], row, allowed, heap, n_hits)
            if n_hits == len(heap[0]) and heap[1][0] >= 0:
                continue
            for entry in range(first, last):
                start, stop = base + offsets[w, terms[entry]], base + offsets[w, terms[entry] + 1]
                _add(sums, local[start:stop], impacts[start:stop], sums.dtype.type(weights[entry]))
            for entry in range(first, last):
                start, stop = base + offsets[w, terms[entry]], base + offsets[w, terms[entry] + 1]
                n_hits = _take_rest(sums, local[start:stop], row, allowed, heap, n_hits)
            sums[:size] = 0
        _sort(heap, n_hits)


@njit(nogil=True, cache=True)
def _add(sums, local, impacts, weight):  # type: ignore[no-untyped-def]
    for i in range(len(local)):
        sums[local[i]] += weight * impacts[i]


@njit(nogil=True, cache=True)
def _take_positive(sums, first_row, allowed, heap, n_hits):  # type: ignore[no-untyped-def]
    """Offer every positive sum to the heap, and set all sums to zero."""
    threshold = max(sums.dtype.type(0), heap[1][0]) if n_hits == len(heap[0]) else sums.dtype.type(0)
    for start in range(0, len(sums), BLOCK):
        block = sums[start : start + BLOCK]
        better = False
        for i in range(len(block)):
            better |= block[i] > threshold
        if better:
            for i in range(len(block)):
                row = first_row + start + i
                if block[i] > threshold and (len(allowed) == 0 or allowed[row]):
                    n_hits = _offer(heap, n_hits, row, block[i])
                    if n_hits == len(heap[0]):
                        threshold = max(sums.dtype.type(0), heap[1][0])
        block[:] = 0
    return n_hits


@njit(nogil=True, cache=True)
def _take_rest(sums, local, first_row, allowed, heap, n_hits):  # type: ignore[no-untyped-def]
    """Offer the sums of zero or less of the documents in a run; a sum of one marks those that were offered."""
    for i in range(len(local)):
        score, row = sums[local[i]], first_row + local[i]
        if score <= 0:
            sums[local[i]] = 1
            if len(allowed) == 0 or allowed[row]:
                n_hits = _offer(heap, n_hits, row, score)
    return n_hits


@njit(nogil=True, cache=True)
def _worse(heap, a, b):  # type: ignore[no-untyped-def]
    rows, scores = heap
    return scores[a] < scores[b] or (scores[a] == scores[b] and rows[a] > rows[b])


@njit(nogil=True, cache=True)
def _offer(heap, n_hits, row, score):  # type: ignore[no-untyped-def]
    """Keep a hit if it is among the k best so far, the worst of which is at the heap's root."""
    rows, scores = heap
    if n_hits < len(rows):
        at = n_hits
        rows[at], scores[at] = row, score
        while at > 0 and _worse(heap, at, (at - 1) // 2):
            _swap(heap, at, (at - 1) // 2)
            at = (at - 1) // 2
        return n_hits + 1
    if score > scores[0] or (score == scores[0] and row < rows[0]):
        rows[0], scores[0] = row, score
        _sink(heap, n_hits)
    return n_hits


@njit(nogil=True, cache=True)
def _sink(heap, size):  # type: ignore[no-untyped-def]
    """Restore the heap's order after its root was replaced."""
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
def _swap(heap, a, b):  # type: ignore[no-untyped-def]
    rows, scores = heap
    rows[a], rows[b] = rows[b], rows[a]
    scores[a], scores[b] = scores[b], scores[a]


@njit(nogil=True, cache=True)
def _sort(heap, n_hits):  # type: ignore[no-untyped-def]
    """Turn the heap into a list, best hit first."""
    for last in range(n_hits - 1, 0, -1):
        _swap(heap, 0, last)
        _sink(heap, last)
