"""`sparse_dot_topk` on the CPU where bounds allow documents to be left out: uint8 impacts, weights above zero.

Window by window, and in a window for every query of the batch that cannot do without it, so that a window's postings
are read from memory once for all of them:

1. The runs of the query's *sparse* terms are added into one sum a document, which the first-level cache holds.
2. Each block of 32 documents gets a bound: the largest of its sums, plus for each *dense* term its weight times the
   block's largest impact. Two vector passes over the window.
3. Only in blocks whose bound reaches the k-th best score so far, the rows of the dense terms are added, 32 documents an
   instruction; what passes is kept as an integer that rises with the rank (see `read_keys`).

A window is left out where the sum of its terms' bounds is too small. Each query begins with its most promising window
and in it with the most promising blocks, so that its k-th best score is nearly final early on. Frequent terms make most
of a query's postings and rarely decide; here nearly all of their work is left out, without losing exactness: a bound is
the same integer arithmetic as the score. The parts are known: windows and sums in the cache from SINDI
(arXiv:2509.08395), bounds of document ranges from BMP (SIGIR 2024), splitting terms by what they can contribute from
MaxScore; the rows of dense terms and the bound that is partly a sum are ours.

Sums are int16 where no query of the batch can pass 32,767, else int32; the answer does not depend on it. All positions
are unsigned: for signed ones Numba adds a test for counting from the end, which doubles the time a posting.
"""

import numpy as np
from numba import njit

from gossamer.kernels.lanes import BLOCK, block_add, block_max, block_reaching, lowest_bit, prefetch
from gossamer.kernels.sparse_dot import LAST_ROW, NO_KEY

TOGETHER = 8  # queries that share a pass; the runs of more would not stay in the second-level cache


@njit(nogil=True, cache=True)
def search_bounded(queries, postings, bounds, mask, sums, max_windows, keys_QN, found_QK):  # type: ignore[no-untyped-def]  # noqa: PLR0917
    """Answer up to `TOGETHER` queries, all of whose weights are above zero.

    Args:
        queries: `Queries` as a plain tuple.
        postings: `Postings` as a plain tuple, without its bounds.
        bounds: `Bounds` as a plain tuple.
        mask: `Mask` as a plain tuple, whose arrays are empty where there is none.
        sums: int16 or int32, as many as the largest window has; zeros, and left so.
        max_windows: windows to look into.
        keys_QN: int64 [Q, at least 2 K + BLOCK]; room to work in.
        found_QK: int64 [Q, K]; the best keys, in any order.
    """
    indptr = queries[0]
    allowed, open_blocks = mask
    size, n_windows = postings[2], postings[4].shape[1] - 1
    n_queries, k = found_QK.shape
    blocks = -(-size // BLOCK)
    terms, weights, n_sparse = _sparse_terms_first(queries, bounds[1])
    bounds_QW = _window_bounds(queries, bounds[0], n_windows)
    first_Q = np.empty(n_queries, np.int64)
    for q in range(n_queries):
        first_Q[q] = _look_only_into(bounds_QW[q], max_windows)
    if len(open_blocks):
        for window in range(n_windows):
            if not open_blocks[window * blocks : (window + 1) * blocks].any():
                bounds_QW[:, window] = -1
        for q in range(n_queries):
            first_Q[q] = np.argmax(bounds_QW[q])
    upper = np.zeros(blocks + BLOCK, sums.dtype)  # the last ones stay zero, so that no block passes there
    chosen = np.empty(blocks + BLOCK, np.uint64)
    state_Q = np.zeros(
        (n_queries, 3), np.int64
    )  # how many keys; the score and the key that a hit has to reach
    state_Q[:, 1], state_Q[:, 2] = 1, NO_KEY
    for step in range(-1, n_windows):
        for q in range(n_queries):
            window = first_Q[q] if step < 0 else step
            best = keys_QN[q], state_Q[q]
            if bounds_QW[q, window] < best[1][1]:
                continue
            bounds_QW[q, window] = -1  # done
            entries = terms, weights, indptr[q], indptr[q] + n_sparse[q], indptr[q + 1]
            _fetch_next((terms, weights, indptr, n_sparse), postings, (step, q), first_Q, bounds_QW, state_Q)
            _add_sparse(entries, postings, window, sums)
            _bound_blocks(entries, bounds, window, blocks, sums, upper)
            if len(open_blocks):
                for block in range(np.uint64(blocks)):
                    if not open_blocks[np.uint64(window * blocks) + block]:
                        upper[block] = 0
            for stage in range(0 if step < 0 else 1, 2):
                limit = best[1][1]
                if stage == 0:  # the best eighth first
                    limit = max(limit, np.int64(upper.max()) * 7 // 8)
                n_chosen = _choose(upper, limit, blocks, chosen)
                _score(entries, postings, bounds, allowed, window, sums, upper, chosen[:n_chosen], best, k)
                _tighten(best, k)
            for i in range(np.uint64(blocks * BLOCK)):
                sums[i] = 0
    for q in range(n_queries):
        n_keys = state_Q[q, 0]
        found_QK[q, :n_keys] = keys_QN[q, :n_keys]


@njit(nogil=True, cache=True)
def _sparse_terms_first(queries, dense_terms):  # type: ignore[no-untyped-def]
    """Each query's terms in two groups, dense terms replaced by the numbers of their rows; and how many are sparse."""
    indptr, terms, weights = queries
    grouped, grouped_weights = np.empty(len(terms), np.int64), np.empty(len(terms), np.int64)
    n_sparse = np.zeros(len(indptr) - 1, np.int64)
    for q in range(len(indptr) - 1):
        front, back = indptr[q], indptr[q + 1]
        for entry in range(indptr[q], indptr[q + 1]):
            row = np.searchsorted(dense_terms, terms[entry])
            if row < len(dense_terms) and dense_terms[row] == terms[entry]:
                back -= 1
                grouped[back], grouped_weights[back] = row, weights[entry]
            else:
                grouped[front], grouped_weights[front] = terms[entry], weights[entry]
                front += 1
        n_sparse[q] = front - indptr[q]
    return grouped, grouped_weights, n_sparse


@njit(nogil=True, cache=True)
def _window_bounds(queries, window_max, n_windows):  # type: ignore[no-untyped-def]
    indptr, terms, weights = queries
    bounds_QW = np.zeros((len(indptr) - 1, n_windows), np.int32)
    for q in range(len(indptr) - 1):
        row = bounds_QW[q]
        for entry in range(indptr[q], indptr[q + 1]):
            weight, largest = np.int32(weights[entry]), window_max[terms[entry]]
            for window in range(np.uint64(n_windows)):
                row[window] += weight * np.int32(largest[window])
    return bounds_QW


@njit(nogil=True, cache=True)
def _look_only_into(bounds_W, max_windows):  # type: ignore[no-untyped-def]
    """Mark all but the best windows as done; returns the best one."""
    if max_windows < len(bounds_W):
        order = np.argsort(-bounds_W, kind="mergesort")
        bounds_W[order[max_windows:]] = -1
    return np.argmax(bounds_W)


@njit(nogil=True, cache=True)
def _fetch_next(queries, postings, at, first_Q, bounds_QW, state_Q):  # type: ignore[no-untyped-def]  # noqa: PLR0917
    """Ask for the runs that come up next: another query's in this window, or those of a single one in its next."""
    terms, _, indptr, n_sparse = queries
    step, q = at
    n_queries, n_windows = bounds_QW.shape
    if n_queries == 1:
        window = step + 1
        while window < n_windows and bounds_QW[0, window] < state_Q[0, 1]:
            window += 1
    else:
        window = step
        q += 1
        while q < n_queries:
            window = first_Q[q] if step < 0 else step
            if bounds_QW[q, window] >= state_Q[q, 1]:
                break
            q += 1
    if q == n_queries or window >= n_windows:
        return
    _, _, _, bases, offsets, local, impacts, _ = postings
    end = np.uint64(len(local))
    for entry in range(np.uint64(indptr[q]), np.uint64(indptr[q] + n_sparse[q])):
        term = np.uint64(terms[entry])
        base = np.uint64(bases[term])
        start = base + np.uint64(offsets[term, np.uint64(window)])
        stop = min(base + np.uint64(offsets[term, np.uint64(window) + np.uint64(1)]), end)
        for ahead in range(start, stop, BLOCK):  # a line holds 32 numbers of two bytes, or 64 of one
            prefetch(local, np.int64(ahead))
        for ahead in range(start, stop, 2 * BLOCK):
            prefetch(impacts, np.int64(ahead))


@njit(nogil=True, cache=True)
def _add_sparse(entries, postings, window, sums):  # type: ignore[no-untyped-def]
    terms, weights, begin, middle, _ = entries
    _, _, _, bases, offsets, local, impacts, _ = postings
    end = np.uint64(len(local))  # so that a damaged offset leads nowhere else
    kind = sums.dtype.type
    for entry in range(np.uint64(begin), np.uint64(middle)):
        term = np.uint64(terms[entry])
        weight = kind(weights[entry])
        base = np.uint64(bases[term])
        start = base + np.uint64(offsets[term, np.uint64(window)])
        stop = min(base + np.uint64(offsets[term, np.uint64(window) + np.uint64(1)]), end)
        for i in range(start, stop):
            sums[local[i]] += weight * kind(impacts[i])


@njit(nogil=True, cache=True)
def _bound_blocks(entries, bounds, window, blocks, sums, upper):  # type: ignore[no-untyped-def]  # noqa: PLR0917
    rows, weights, _, middle, end = entries
    block_maxima = bounds[3]
    kind = sums.dtype.type
    for block in range(blocks):
        upper[np.uint64(block)] = block_max(sums, block * BLOCK)
    first = np.uint64(window * blocks)
    for entry in range(np.uint64(middle), np.uint64(end)):
        weight, row = kind(weights[entry]), np.uint64(rows[entry])
        for block in range(np.uint64(blocks)):
            upper[block] += weight * kind(block_maxima[row, first + block])


@njit(nogil=True, cache=True)
def _choose(upper, limit, blocks, chosen):  # type: ignore[no-untyped-def]
    """The blocks whose bound reaches a limit."""
    n_chosen = np.uint64(0)
    for first in range(0, blocks, BLOCK):
        bits = block_reaching(upper, first, limit)
        while bits:
            chosen[n_chosen] = np.uint64(first + lowest_bit(bits))
            n_chosen += np.uint64(1)
            bits &= bits - np.uint32(1)
    return n_chosen


@njit(nogil=True, cache=True)
def _score(entries, postings, bounds, allowed, window, sums, upper, chosen, best, k):  # type: ignore[no-untyped-def]  # noqa: PLR0917
    """Finish the sums of the chosen blocks, and keep what may be among the best."""
    dense_rows, weights, _, middle, end = entries
    size, rows, dense = postings[2], postings[7], bounds[2]
    keys, state = best
    stride = dense.shape[1]
    flat = dense.reshape(-1)
    first = window * (-(-size // BLOCK)) * BLOCK
    for block in chosen:
        for entry in range(np.uint64(middle), np.uint64(end)):
            prefetch(flat, dense_rows[entry] * stride + first + np.int64(block) * BLOCK)
    for block in chosen:
        if upper[block] < state[1]:
            continue
        upper[block] = 0  # done
        at = np.int64(block) * BLOCK
        for entry in range(np.uint64(middle), np.uint64(end)):
            block_add(sums, at, flat, dense_rows[entry] * stride + first + at, weights[entry])
        bits = block_reaching(sums, at, state[1])
        while bits:
            place = np.uint64(at + lowest_bit(bits))
            bits &= bits - np.uint32(1)
            position = np.uint64(window * size) + place
            if position >= np.uint64(len(rows)):  # only a damaged file has postings there
                continue
            row = np.int64(rows[position])
            key = (np.int64(sums[place]) << 32) | (LAST_ROW - row)
            if key > state[2] and (len(allowed) == 0 or (row < len(allowed) and allowed[row])):
                keys[np.uint64(state[0])] = key
                state[0] += 1
                if state[0] >= 2 * k:
                    _tighten(best, k)


@njit(nogil=True, cache=True)
def _tighten(best, k):  # type: ignore[no-untyped-def]
    """Keep the k best keys, if there are so many; from then on a hit has to be better than the last of them."""
    keys, state = best
    size = state[0]
    if size < k:
        return
    if size > k:
        keys[:size] = np.partition(keys[:size], size - k)
        keys[:k] = keys[size - k : size].copy()
        state[0] = k
    state[2] = keys[:k].min()
    state[1] = max(1, state[2] >> 32)
