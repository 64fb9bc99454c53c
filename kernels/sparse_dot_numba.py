"""`sparse_dot_topk` on the CPU, compiled by Numba: threads, the choice of a scan, and the scan that leaves nothing out.

Where there are bounds and a query's weights are all above zero, `sparse_dot_bounded` answers it. Everything else is
scanned whole, one query at a time: in each window of documents the runs of the query's terms are added into one small
array of sums that stays in the core's cache (the layout of SINDI, arXiv:2509.08395, without its pruning). Then the
window's sums are read once, in blocks: a block where nothing reaches the k-th best score so far is done after one
vectorised comparison. Positive sums need no record of which documents were touched. Hits with sums of zero or less can
matter only while fewer than k are above; then the runs are read again.

The hits that may be among the k best are held as integers that rise with the rank (see `read_keys`), and cut back to k
whenever there are twice as many: a few steps a hit whatever k is.

Only plain tuples of arrays cross into compiled code: Numba's cache would store a named tuple by its class's name, and
not load once that has moved.
"""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from gossamer.kernels.lanes import BLOCK
from gossamer.kernels.sparse_dot import LAST_ROW, MAX_WINDOW, NO_KEY, Mask, Postings, Queries, TopK, read_keys
from gossamer.kernels.sparse_dot_bounded import TOGETHER, search_bounded
from gossamer.kernels.sparse_dot_keys import cut, largest_and_least

_GROUP = (
    128  # sums compared together. LLVM unrolls a shorter loop before it could vectorise it: 10 times slower.
)
_LARGEST_SHORT = 2**15 - 1
_ALL = np.empty(0, np.bool_)
_ALL.flags.writeable = False
_ABOVE_ZERO = 2**32  # the smallest key of a hit whose score is above zero


def sparse_dot_topk_numba(  # noqa: PLR0917
    queries: Queries,
    postings: Postings,
    k: int,
    mask: Mask | None,
    max_windows: int | None,
    n_threads: int,
) -> TopK:
    """Answer queries that `sparse_dot_topk` has checked."""
    n_queries = len(queries.indptr) - 1
    found_QK = np.full((n_queries, max(1, min(k, postings.n_documents))), NO_KEY, np.int64)
    if postings.n_documents == 0 or n_queries == 0:
        return read_keys(found_QK, k, is_float=postings.impacts.dtype == np.float32)
    queries = Queries(*(_read_only(array) for array in queries))
    arrays = (_ALL, _ALL) if mask is None else tuple(_read_only(array) for array in mask)
    search = None
    if postings.bounds is not None:
        largest, least = largest_and_least(queries.indptr, queries.weights)
        if (
            least > 0 and 255 * largest < _ABOVE_ZERO // 2
        ):  # bounds add up what no document has to have at once
            kind = np.int16 if 255 * largest <= _LARGEST_SHORT else np.int32
            search = _bounded(queries, postings, arrays, max_windows or postings.n_windows, kind, found_QK)
        elif least <= 0 and n_queries > 1:
            return _each_alone(queries, postings, k, mask, max_windows, n_threads)
    if search is None:
        search = _exhaustive(queries, postings, arrays[0], found_QK)
    if n_threads == 1 or n_queries <= 1:
        search(0, n_queries)
    else:
        cuts = np.linspace(0, n_queries, min(n_queries, 4 * n_threads) + 1).astype(int).tolist()
        with ThreadPoolExecutor(n_threads) as pool:
            list(pool.map(search, cuts[:-1], cuts[1:]))
    return read_keys(found_QK, k, is_float=postings.impacts.dtype == np.float32)


def _bounded(  # noqa: PLR0917
    queries: Queries,
    postings: Postings,
    mask: tuple[Any, ...],
    max_windows: int,
    kind: type,
    found_QK: npt.NDArray[np.int64],
) -> Callable[[int, int], None]:
    assert postings.bounds is not None
    flat, bounds = _flat(postings), tuple(_read_only(array) for array in postings.bounds)
    n_keys = 2 * found_QK.shape[1] + BLOCK

    def search(begin: int, end: int) -> None:
        sums = _sums(kind, -(-postings.window // BLOCK) * BLOCK)
        keys_QN = np.empty((min(TOGETHER, end - begin), n_keys), np.int64)
        for first in range(begin, end, TOGETHER):
            last = min(first + TOGETHER, end)
            part = _part(queries, first, last)
            keys = keys_QN[: last - first]
            search_bounded(part, flat, bounds, mask, sums, max_windows, keys, found_QK[first:last])

    return search


def _exhaustive(
    queries: Queries, postings: Postings, allowed: npt.NDArray[np.bool_], found_QK: npt.NDArray[np.int64]
) -> Callable[[int, int], None]:
    flat = _flat(postings)
    kind = np.float32 if postings.impacts.dtype == np.float32 else np.int32

    def search(begin: int, end: int) -> None:
        # One group more, so that the last comparison of the largest window stays inside.
        _search(_part(queries, begin, end), flat, allowed, _sums(kind, postings.window), found_QK[begin:end])

    return search


def _each_alone(  # noqa: PLR0917
    queries: Queries,
    postings: Postings,
    k: int,
    mask: Mask | None,
    max_windows: int | None,
    n_threads: int,
) -> TopK:
    """Some weights are below zero: those queries are scanned whole, the rest can use bounds."""
    below = np.zeros(len(queries.indptr) - 1, np.bool_)
    below[np.repeat(np.arange(len(below)), np.diff(queries.indptr))[queries.weights <= 0]] = True
    scanned = postings._replace(bounds=None)
    found = []
    for chosen, searched in ((below, scanned), (~below, postings)):
        part = _rows(queries, chosen)
        found.append(sparse_dot_topk_numba(part, searched, k, mask, max_windows, n_threads))
    rows = np.empty((len(below), k), np.int64)
    scores = np.empty((len(below), k), found[0].scores.dtype)
    for chosen, top in zip((below, ~below), found, strict=True):
        rows[chosen], scores[chosen] = top.rows, top.scores
    return TopK(rows, scores)


def _rows(queries: Queries, chosen: npt.NDArray[np.bool_]) -> Queries:
    """Some of the queries."""
    lengths = np.diff(queries.indptr)
    kept = np.repeat(chosen, lengths)
    indptr = np.concatenate([[0], np.cumsum(lengths[chosen])]).astype(np.int64)
    return Queries(indptr, queries.terms[kept], queries.weights[kept])


def _part(queries: Queries, begin: int, end: int) -> tuple[Any, Any, Any]:
    """Consecutive queries, as compiled code takes them; positions stay those of the whole."""
    return queries.indptr[begin : end + 1], queries.terms, queries.weights


def _flat(postings: Postings) -> tuple[Any, ...]:
    return (*postings[:3], *(_read_only(array) for array in postings[3:8]))


def _read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A plain read-only view, so that arrays and maps of files share one compiled version."""
    if type(array) is np.ndarray and array.flags.c_contiguous and not array.flags.writeable:
        return array
    view = np.ascontiguousarray(array).view(np.ndarray)
    view.flags.writeable = False
    return view


_SCRATCH = threading.local()


def _sums(kind: type, size: int) -> npt.NDArray[Any]:
    """Zeros to add into, which a search leaves as zeros; a thread's own, and kept.

    There are as many as the largest window has, so that no 2-byte number in a damaged file can point outside. What it
    may leave behind lies beyond `size`, where no search that gets this array looks.
    """
    kept: dict[tuple[type, int], npt.NDArray[Any]] = vars(_SCRATCH).setdefault("sums", {})
    if (kind, size) not in kept:
        kept[kind, size] = np.zeros(MAX_WINDOW + _GROUP, kind)
    return kept[kind, size]


@njit(nogil=True, cache=True)
def _search(queries, postings, allowed, sums, found_QK):  # type: ignore[no-untyped-def]  # Numba types it by its arguments
    """Answer the queries one by one; `sums` comes filled with zeros and is left so."""
    indptr, terms, weights = queries
    n_documents, size, n_windows = postings[0], postings[2], postings[4].shape[1] - 1
    k = found_QK.shape[1]
    keys = np.empty(2 * k + _GROUP, np.int64)
    state = np.empty(2, np.int64)  # how many keys, and the k-th best of them when it was last looked for
    best = keys, state
    # Read as integers, floats above zero have the same order, and those below it the reverse, which `flip` mends.
    bits = sums.view(np.int32)
    flip = np.int32(0x7FFFFFFF if sums.dtype.type(0.5) > 0 else 0)
    for query in range(len(indptr) - 1):
        state[:] = 0, NO_KEY
        entries = range(indptr[query], indptr[query + 1])
        for window in range(n_windows):
            first = window * size
            n_sums = min(size, n_documents - first)
            rows = postings[7][first : first + n_sums]
            n_postings = 0
            for entry in entries:
                run = _run(postings, window, terms[entry])
                _add(sums, run, weights[entry])
                n_postings += len(run[0])
            if n_postings == 0:
                continue
            _take_positive(bits, rows, allowed, best, k)
            if state[1] < _ABOVE_ZERO:
                cut(best, k)
            if state[1] < _ABOVE_ZERO:
                for entry in entries:
                    _add(sums, _run(postings, window, terms[entry]), weights[entry])
                for entry in entries:
                    _take_rest(bits, flip, _run(postings, window, terms[entry])[0], rows, allowed, best, k)
                sums[:n_sums] = 0
        cut(best, k)
        found_QK[query, : state[0]] = keys[: state[0]]
    if n_documents % size:  # a damaged file may have added beyond the last document
        sums[:size] = 0


@njit(nogil=True, cache=True)
def _run(postings, window, term):  # type: ignore[no-untyped-def]
    """The documents of a window that have a term, and their impacts."""
    bases, offsets, local, impacts = postings[3], postings[4], postings[5], postings[6]
    start = bases[term] + np.int64(offsets[term, window])
    stop = bases[term] + np.int64(offsets[term, window + 1])
    return local[start:stop], impacts[start:stop]


@njit(nogil=True, cache=True)
def _add(sums, run, weight):  # type: ignore[no-untyped-def]
    local, impacts = run
    weight = sums.dtype.type(weight)
    for i in range(len(local)):
        sums[local[i]] += weight * sums.dtype.type(impacts[i])


@njit(nogil=True, cache=True)
def _take_positive(bits, rows, allowed, best, k):  # type: ignore[no-untyped-def]
    """Take every positive sum that may be among the best, and set all sums to zero."""
    keys, state = best
    threshold = max(state[1] >> 32, 1)
    for start in range(0, len(rows), _GROUP):
        group = bits[start : start + _GROUP]
        any_passes = False
        for i in range(_GROUP):
            any_passes |= group[i] >= np.int32(threshold)
        if any_passes:
            size = state[0]
            for i in range(min(_GROUP, len(rows) - start)):
                if group[i] >= threshold:
                    row = np.int64(rows[start + i])
                    key = (np.int64(group[i]) << 32) | (LAST_ROW - row)
                    if key > state[1] and (len(allowed) == 0 or allowed[row]):
                        keys[size] = key
                        size += 1
            state[0] = size
            if size >= 2 * k:
                cut(best, k)
                threshold = max(state[1] >> 32, 1)
        for i in range(_GROUP):
            group[i] = 0


@njit(nogil=True, cache=True)
def _take_rest(bits, flip, local, rows, allowed, best, k):  # type: ignore[no-untyped-def]  # noqa: PLR0917
    """Take the sums of zero or less in a run; a positive number marks those that were taken."""
    keys, state = best
    for document in local:
        score = bits[document]
        if score <= 0:
            bits[document] = 1
            if score < 0:
                score ^= flip
            row = np.int64(rows[document])
            key = (np.int64(score) << 32) | (LAST_ROW - row)
            if key > state[1] and (len(allowed) == 0 or allowed[row]):
                keys[state[0]] = key
                state[0] += 1
                if state[0] >= 2 * k:
                    cut(best, k)
