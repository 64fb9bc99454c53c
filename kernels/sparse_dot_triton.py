"""`sparse_dot_topk` for integer kinds on a GPU, in Triton: integer atomics into sums that the second-level cache holds.

A batch of queries visits the windows of documents together, so that a window's postings come from memory once for all
of them; each query begins with its most promising window. As many windows at once as have room for their sums in the
cache take two launches:

1. `add_runs` adds the runs of every query's *sparse* terms. A long run is split over several programs. Integer sums do
   not depend on the order of the adds, so the answer is the CPU's, bit for bit.
2. `keep_best` reads the sums, clears them, and bounds each block of 32 documents: the largest of its sums, plus for
   each *dense* term its weight times the block's largest impact. Only where a bound reaches the k-th best score so
   far, the dense terms' bytes are added, and what is better than the k-th is appended to the query's candidates, one
   atomic for 1,024 documents.

A window is left out where the sum of its terms' bounds is too small. The k best are cut from the candidates after 1, 4,
16, … windows, for which the host has to look at how many there are: six times a batch for eight million documents. If
they were more than there was room for, the windows since the last cut are visited again in two halves; one window
always fits. So the answer is exact whatever the order of the documents.

Where sums of zero or less may be hits (a weight or an impact is not above zero), all terms are added from their
postings, a byte a document says which were touched, and nothing is left out by bounds.

A candidate is a key: the score in its upper half, the row, inverted, in its lower half, so that one `topk` over plain
integers obeys the tie rule. With the environment variable `TRITON_INTERPRET=1`, set before Triton is imported, the same
kernels run on the CPU.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import triton
from torch import Tensor

from gossamer.kernels.errors import BackendError
from gossamer.kernels.sparse_dot import NO_KEY, Mask, Postings, Queries, TopK, read_keys
from gossamer.kernels.sparse_dot_triton_kernels import add_runs, keep_best
from gossamer.kernels.sparse_dot_upload import CACHE_BYTES, GROWTH, OnDevice, upload, uploaded

CANDIDATE_BYTES = 2**30
BLOCK = 256  # postings that a program adds together: 8 for each thread of a warp
SPAN = 2_048  # postings of the longest run that a program is given
TILE = 1_024  # documents of a program that selects; blocks of 32
ADD_WARPS, KEEP_WARPS = 1, 4


def sparse_dot_topk_triton(
    queries: Queries,
    postings: Postings,
    k: int,
    mask: Mask | None,
    max_windows: int | None,
) -> TopK:
    """Answer queries that `sparse_dot_topk` has checked.

    Raises:
        BackendError: There is no GPU, and kernels are not interpreted.
    """
    device = _device()
    n_queries = len(queries.indptr) - 1
    kept = max(1, min(k, postings.n_documents))
    found_QK = np.full((n_queries, kept), NO_KEY, np.int64)
    if postings.n_documents == 0 or len(queries.terms) == 0:
        return read_keys(found_QK, k, is_float=False)
    index = uploaded(postings, device)
    allowed = None if mask is None else upload(mask.allowed, device)
    above_zero = np.full(n_queries, index.above_zero)
    owners = np.repeat(np.arange(n_queries), np.diff(queries.indptr))
    above_zero[owners[queries.weights <= 0]] = False
    for is_above in (True, False):
        chosen = np.flatnonzero(above_zero == is_above)
        size = _batch_size(postings.window, kept, is_above)
        for begin in range(0, len(chosen), size):
            some = chosen[begin : begin + size]
            batch = _Batch(
                _take(queries, some),
                postings,
                index,
                k=kept,
                above_zero=is_above,
                max_windows=max_windows,
            )
            found_QK[some] = batch.search(allowed)
    return read_keys(found_QK, k, is_float=False)


def _batch_size(window: int, k: int, above_zero: bool) -> int:
    """Queries whose sums of one window fit in the cache, and whose candidates fit in the memory meant for them."""
    sums = CACHE_BYTES // (_sum_bytes(above_zero) * _width(window))
    return max(1, min(sums, CANDIDATE_BYTES // (8 * _capacity(window, k))))


def _sum_bytes(above_zero: bool) -> int:
    return 4 if above_zero else 5  # with a byte that says: touched


def _width(window: int) -> int:
    """Sums a window, in whole blocks."""
    return -(-window // 32) * 32


def _capacity(window: int, k: int) -> int:
    """Room for candidates: the k best so far, and all documents of a window."""
    return k + max(_width(window), 2 * k)


def _take(queries: Queries, chosen: npt.NDArray[np.int64]) -> Queries:
    lengths = np.diff(queries.indptr)
    taken = np.zeros(len(lengths), np.bool_)
    taken[chosen] = True
    entries = np.repeat(taken, lengths)
    indptr = np.concatenate([[0], np.cumsum(lengths[chosen])])
    return Queries(indptr, queries.terms[entries], queries.weights[entries])


class _Batch:
    """Queries that are answered together: their entries, the sums of some windows, the best keys so far."""

    def __init__(
        self,
        queries: Queries,
        postings: Postings,
        index: OnDevice,
        *,
        k: int,
        above_zero: bool,
        max_windows: int | None,
    ) -> None:
        device = index.local.device
        self.index, self.k, self.above_zero = index, k, above_zero
        self.n_windows, self.window, self.width = postings.n_windows, postings.window, _width(postings.window)
        self.n_queries = len(queries.indptr) - 1
        self.entries = _Entries.of(queries, index, lazy=above_zero)
        self.programs, self.dense, self.dense_starts = (upload(array, device) for array in self.entries)
        self.order_QW, self.bounds_QW = _visits(
            queries, index, self.n_windows, max_windows, bounded=above_zero
        )
        sum_bytes = self.n_queries * self.width * _sum_bytes(above_zero)
        self.at_once = max(1, min(CACHE_BYTES // sum_bytes, self.n_windows))
        n_sums = self.n_queries * self.at_once * self.width
        self.sums = torch.zeros(n_sums, dtype=torch.int32, device=device)
        self.touched = torch.zeros(0 if above_zero else n_sums, dtype=torch.uint8, device=device)
        capacity = _capacity(self.window, k)
        self.found_QC = torch.full((self.n_queries, capacity), NO_KEY, dtype=torch.int64, device=device)
        self.counts_Q = torch.full((self.n_queries,), k, dtype=torch.int32, device=device)
        self.last_Q = torch.full((self.n_queries,), NO_KEY, dtype=torch.int64, device=device)
        self.limits_Q = torch.full((self.n_queries,), int(above_zero), dtype=torch.int32, device=device)

    def search(self, mask: Tensor | None) -> npt.NDArray[np.int64]:
        """The k best keys of each query, `[Q, K]`."""
        done = 0
        while done < self.n_windows:
            end = min(max(1, GROWTH * done), self.n_windows)
            self._visit(done, end, mask)
            done = end
        best: npt.NDArray[np.int64] = self.found_QC[:, : self.k].cpu().numpy()
        return best

    def _visit(self, begin: int, end: int, mask: Tensor | None) -> None:
        """Bring the windows in places `begin` to `end` of each query's order into its k best."""
        for first in range(begin, end, self.at_once):
            self._launch(first, min(self.at_once, end - first), mask)
        most = int(self.counts_Q.max())
        overflowed = most > self.found_QC.shape[1]
        if most > self.k:
            if not overflowed:
                best_QK = self.found_QC[:, :most].topk(self.k, dim=1).values
                self.found_QC[:, : self.k] = best_QK
                self.last_Q = best_QK[:, -1].contiguous()
                if self.above_zero:
                    self.limits_Q = (self.last_Q >> 32).clamp(min=1).to(torch.int32)
            self.found_QC[:, self.k : most] = NO_KEY
            self.counts_Q.fill_(self.k)
        if overflowed:  # some were lost; the k best are still those of before
            middle = (begin + end) // 2
            self._visit(begin, middle, mask)
            self._visit(middle, end, mask)

    def _launch(self, first: int, n_places: int, mask: Tensor | None) -> None:
        index = self.index
        visits = (self.order_QW, self.bounds_QW, self.limits_Q, first, n_places, self.n_windows, self.width)
        if len(self.programs):
            add_runs[(len(self.programs) * n_places,)](
                self.sums,
                self.touched,
                *visits,
                self.programs,
                index.bases,
                index.offsets,
                index.local,
                index.impacts,
                ABOVE_ZERO=self.above_zero,
                BLOCK=BLOCK,
                num_warps=ADD_WARPS,
            )
        keep_best[(self.n_queries * n_places * triton.cdiv(self.width, TILE),)](
            self.sums,
            self.touched,
            *visits,
            self.last_Q,
            self.dense_starts,
            self.dense,
            self.sums if index.dense is None else index.dense,
            self.sums if index.block_max is None else index.block_max,
            index.rows,
            self.sums if mask is None else mask,
            self.found_QC,
            self.counts_Q,
            self.window,
            self.found_QC.shape[1],
            ABOVE_ZERO=self.above_zero,
            DENSE=len(self.dense) > 0,
            MASKED=mask is not None,
            TILE=TILE,
            num_warps=KEEP_WARPS,
        )


class _Entries(NamedTuple):
    """The terms of a batch's queries, as the kernels read them."""

    programs: npt.NDArray[np.int32]
    """int32 [P, 5]: query, term, weight, which part of the run, of how many; for terms added from their postings."""
    dense: npt.NDArray[np.int32]
    """int32 [N, 2]: row of bytes, weight; for the others."""
    dense_starts: npt.NDArray[np.int32]
    """int32 [Q + 1]: where each query's start in `dense`."""

    @classmethod
    def of(cls, queries: Queries, index: OnDevice, *, lazy: bool) -> "_Entries":
        owners = np.repeat(np.arange(len(queries.indptr) - 1), np.diff(queries.indptr))
        rows = index.dense_rows[queries.terms]
        is_dense = (rows >= 0) & lazy
        dense_starts = np.concatenate([[0], np.cumsum(is_dense)])[queries.indptr]
        dense = np.stack([rows[is_dense], queries.weights[is_dense]], axis=1)
        terms = queries.terms[~is_dense]
        n_parts = -(-index.longest[terms] // SPAN)
        last = np.cumsum(n_parts)
        parts = np.arange(n_parts.sum()) - np.repeat(last - n_parts, n_parts)
        columns = owners[~is_dense], terms, queries.weights[~is_dense], n_parts
        query, term, weight, of_parts = (np.repeat(column, n_parts) for column in columns)
        programs = np.stack([query, term, weight, parts, of_parts], axis=1)
        return cls(programs.astype(np.int32), dense.astype(np.int32), dense_starts.astype(np.int32))


def _visits(
    queries: Queries, index: OnDevice, n_windows: int, max_windows: int | None, *, bounded: bool
) -> tuple[Tensor, Tensor]:
    """For each query the windows in the order in which it visits them: the most promising one, then the others.

    Returns:
        int32 [Q, W]: number of the window; and what a sum can reach there, -1 if it is not to be visited.
    """
    n_queries, device = len(queries.indptr) - 1, index.local.device
    order_QW = torch.arange(n_windows, dtype=torch.int32, device=device).repeat(n_queries, 1)
    unbounded_QW = torch.full_like(order_QW, 2**31 - 1)
    if index.window_max is None:
        return order_QW, unbounded_QW
    bounds_QW = torch.zeros_like(order_QW)
    owners = upload(np.repeat(np.arange(n_queries), np.diff(queries.indptr)), device)
    terms, weights = upload(queries.terms, device), upload(queries.weights.astype(np.int32), device)
    step = 2**26 // n_windows + 1  # entries whose products are in memory together
    for begin in range(0, len(owners), step):
        some = slice(begin, begin + step)
        products = weights[some, None] * index.window_max[terms[some]].to(torch.int32)
        bounds_QW.index_add_(0, owners[some], products)
    ranked_QW = bounds_QW.sort(dim=1, descending=True, stable=True).indices
    if not bounded:
        bounds_QW = unbounded_QW
    if max_windows is not None:
        bounds_QW.scatter_(1, ranked_QW[:, max_windows:], -1)
    best_Q = ranked_QW[:, :1]
    order_QW[:, 1:] = order_QW[:, :-1] + (order_QW[:, :-1] >= best_Q)
    order_QW[:, :1] = best_Q
    return order_QW, bounds_QW.gather(1, order_QW.long())


def _is_interpreted() -> bool:
    return not isinstance(add_runs, triton.runtime.JITFunction)


def _device() -> torch.device:
    if _is_interpreted():
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda")
    raise BackendError(
        "backend 'triton' needs a CUDA GPU, and PyTorch sees none; choose backend 'numba', or set TRITON_INTERPRET=1 "
        "before Python starts to run the kernels, slowly, on the CPU"
    )
