"""What a query costs on a GPU, counted and modelled: bytes moved, atomic adds, and the least time these can take.

`count_work` follows `sparse_dot_triton` on the CPU and counts exactly what its kernels would do for a query: which
windows and blocks are left out depends on the data only. `modelled` turns the counts into traffic and time by the
figures of a `Gpu`. **Nothing here is measured on a GPU**: the counts are facts, the bytes follow from the layout, the
times are lower bounds that rest on assumptions, which stand beside each figure.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gossamer.kernels.sparse_dot import Postings, Queries
from gossamer.kernels.sparse_dot_upload import CACHE_BYTES, GROWTH

SECTOR = 32
PUBLISHED_MS = 0.515
"""GPUSparse (arXiv 2606.26441), measured: a query at batch 256, k = 1,000, 8.84 million SPLADE documents, H100."""


class Gpu(NamedTuple):
    """What a GPU does in a second."""

    dram_bytes: float
    """Of memory; from the vendor's data sheet."""
    l2_bytes: float
    """Of the second-level cache, read; an assumption: 5,120 bytes a clock, as the vendor states for the A100."""
    atomics: float
    """Scattered 32-bit integer adds in the second-level cache; an assumption: no vendor publishes it."""
    launch_s: float
    """Seconds until the host has launched a kernel; an assumption."""


H100 = Gpu(dram_bytes=3.35e12, l2_bytes=5_120 * 1.7e9, atomics=96 * 1.7e9 / 2, launch_s=10e-6)
"""H100 SXM5. Atomics: 96 cache slices, each with one 32-byte sector every second clock at 1.7 GHz: 82 a nanosecond. The
   slices and their rate are assumed; `benchmarks/gpu.py` shows the time at half that rate too."""


class Work(NamedTuple):
    """What the kernels do for a query, in the mean over queries."""

    window: int
    n_windows: float
    index_bytes: float
    """What the postings and dense rows take on the GPU, all told."""
    terms: float
    """Terms of the query that are added from their postings."""
    dense_terms: float
    """Terms of the query that have a row of bytes."""
    all_postings: float
    """Postings of all the query's terms, in all windows: what an engine adds that leaves nothing out."""
    windows: float
    """Windows looked into."""
    postings: float
    """Postings added: atomic adds."""
    live_blocks: float
    """Blocks of 32 documents to which the rows of dense terms are added."""
    candidates: float
    """Keys appended."""

    def scaled(self, factor: float) -> "Work":
        """The same collection `factor` times as large, which k stands for then as well.

        Too many rather than too few: each query's first window, where nothing is left out yet, is multiplied too.
        """
        kept = {"window", "terms", "dense_terms"}
        return self._replace(
            **{name: getattr(self, name) * factor for name in self._fields if name not in kept}
        )


SPLADE_8M = {
    (k, bounded): Work(8_192, 123, *counts).scaled(8.84)
    for k, bounded, counts in (
        (10, True, (424_425_558, 36.97, 3.19, 1_289_227, 122.04, 268_225, 258.5, 6_340)),
        (10, False, (360_001_110, 40.16, 0, 1_289_227, 123, 1_289_227, 284.7, 5_944)),
        (1_000, True, (424_425_558, 36.97, 3.19, 1_289_227, 122.56, 268_301, 529.3, 6_619)),
        (1_000, False, (360_001_110, 40.16, 0, 1_289_227, 123, 1_289_227, 993.8, 7_594)),
    )
}
"""By k and whether bounds are used: 8.84 million documents of 120 terms, queries of 40. Counted by `count_work` at a
   million documents of `benchmarks/topical.py` (100 queries; its k was 1 and 113), times 8.84."""


class Modelled(NamedTuple):
    """A query's part of a batch. Bytes and counts follow from the layout; the times are lower bounds, not measured."""

    atomics: float
    l2_bytes: float
    """Through the second-level cache, without the atomic adds."""
    dram_bytes: float
    """From memory: what a query of the batch has read already is in the cache."""
    launches: float
    sums_bytes: float
    """Of the accumulators of the whole batch, at most 24 MiB."""
    atomics_ms: float
    l2_ms: float
    dram_ms: float
    launch_ms: float
    least_ms: float
    """The largest of the four: as if all overlapped."""


def modelled(work: Work, gpu: Gpu, batch: int) -> Modelled:
    """The traffic and the least time of one query in a batch of `batch`."""
    width = -(-work.window // 32) * 32
    together = min(batch, CACHE_BYTES // (4 * width))  # queries whose sums fit
    at_once = max(1, min(int(CACHE_BYTES // (4 * width * together)), int(work.n_windows)))
    runs = work.terms * work.windows
    # A run begins and ends within a sector, in each of its two arrays; finding it takes five sectors.
    posting_bytes = 3 * work.postings + runs * 2 * SECTOR
    finding_bytes = runs * 5 * SECTOR
    row_bytes = work.dense_terms * (work.windows * width / 32 + work.live_blocks * 32)
    sums_bytes = work.windows * width * 4 * 2  # read and cleared
    key_bytes = work.candidates * 8 * 2
    l2_bytes = posting_bytes + finding_bytes + row_bytes + sums_bytes + key_bytes
    dram_bytes = min(together * (posting_bytes + row_bytes), work.index_bytes) / together + key_bytes
    n_cuts = int(np.ceil(np.log(max(work.n_windows, 1)) / np.log(GROWTH))) + 1
    launches = (
        2 * max(n_cuts, work.n_windows / at_once) + 8 * n_cuts
    ) / together  # 8: a cut by PyTorch's kernels
    adds_ms, l2_ms, dram_ms, launch_ms = (
        1e3 * work.postings / gpu.atomics,
        1e3 * l2_bytes / gpu.l2_bytes,
        1e3 * dram_bytes / gpu.dram_bytes,
        1e3 * launches * gpu.launch_s,
    )
    return Modelled(
        atomics=work.postings,
        l2_bytes=l2_bytes,
        dram_bytes=dram_bytes,
        launches=launches,
        sums_bytes=4.0 * together * at_once * width,
        atomics_ms=adds_ms,
        l2_ms=l2_ms,
        dram_ms=dram_ms,
        launch_ms=launch_ms,
        least_ms=max(adds_ms, l2_ms, dram_ms, launch_ms),
    )


def count_work(postings: Postings, queries: Queries, k: int) -> Work:
    """Count what the kernels would do for the queries, whose weights and impacts are all above zero.

    Args:
        postings: With or without bounds.
        queries: Q queries; one at a time has sums of all documents in memory.
        k: Hits wanted.
    """
    bounds = postings.bounds
    is_dense = np.zeros(postings.n_terms, np.bool_)
    index_bytes = 3 * len(postings.local)
    if bounds is not None:
        is_dense[bounds.dense_terms] = True
        index_bytes += bounds.dense.nbytes + bounds.block_max.nbytes
    n_queries = len(queries.indptr) - 1
    counted = [_count_one(postings, queries, query, is_dense, k) for query in range(n_queries)]
    return Work(postings.window, postings.n_windows, index_bytes, *np.mean(counted, axis=0).tolist())


def _count_one(
    postings: Postings, queries: Queries, query: int, is_dense: npt.NDArray[np.bool_], k: int
) -> tuple[float, ...]:
    """The fields of `Work` from `terms` on, for one query."""
    entries = slice(queries.indptr[query], queries.indptr[query + 1])
    terms, weights = queries.terms[entries], queries.weights[entries].astype(np.int64)
    n_windows, width = postings.n_windows, -(-postings.window // 32) * 32
    sums = np.zeros(n_windows * width, np.int64)
    blocks = np.zeros(n_windows * width // 32, np.int64)
    bounds_W = np.zeros(n_windows, np.int64)
    runs_W = np.zeros(n_windows, np.int64)
    rest = np.zeros_like(sums)
    for term, weight in zip(terms.tolist(), weights, strict=True):
        part = slice(int(postings.bases[term]), int(postings.bases[term + 1]))
        lengths = np.diff(postings.offsets[term].astype(np.int64))
        at = np.repeat(np.arange(n_windows) * width, lengths) + postings.local[part]
        if is_dense[term]:
            assert postings.bounds is not None
            row = int(np.searchsorted(postings.bounds.dense_terms, term))
            blocks += weight * postings.bounds.block_max[row]
            rest[at] += weight * postings.impacts[part].astype(np.int64)
        else:
            runs_W += lengths
            sums[at] += weight * postings.impacts[part].astype(np.int64)
        if postings.bounds is not None:
            bounds_W += weight * postings.bounds.window_max[term].astype(np.int64)
    blocks += sums.reshape(-1, 32).max(axis=1)
    scores_WS = (sums + rest).reshape(n_windows, width)
    bounded = postings.bounds is not None
    visited, live, candidates = _visit(scores_WS, blocks.reshape(n_windows, -1), bounds_W, bounded, k)
    n_postings = float(np.diff(postings.bases)[terms].sum())
    n_dense = float(is_dense[terms].sum())
    return (
        len(terms) - n_dense,
        n_dense,
        n_postings,
        float(visited.sum()),
        float(runs_W[visited].sum()),
        live,
        candidates,
    )


def _visit(
    scores_WS: npt.NDArray[np.int64],
    blocks_WB: npt.NDArray[np.int64],
    bounds_W: npt.NDArray[np.int64],
    bounded: bool,
    k: int,
) -> tuple[npt.NDArray[np.bool_], float, float]:
    """Which windows are looked into, how many blocks are finished, and how many keys are appended."""
    n_windows = len(bounds_W)
    best = int(np.argmax(bounds_W))
    order = np.concatenate([[best], np.delete(np.arange(n_windows), best)])
    visited = np.zeros(n_windows, np.bool_)
    kept, limit, live, candidates, done = np.zeros(0, np.int64), 1, 0.0, 0.0, 0
    while done < n_windows:
        end = max(1, GROWTH * done)
        windows = order[done:end]
        if bounded:
            windows = windows[bounds_W[windows] >= limit]
        visited[windows] = True
        live += float((blocks_WB[windows] >= limit).sum())
        scores = scores_WS[windows]
        scores = scores[scores >= limit]
        candidates += len(scores)
        kept = np.concatenate([kept, scores])
        if len(kept) >= k:
            kept = np.partition(kept, len(kept) - k)[len(kept) - k :]
            limit = max(1, int(kept[0]))
        done = end
    return visited, live, candidates
