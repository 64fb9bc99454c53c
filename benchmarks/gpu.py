"""How long does an exact search take on a GPU, and what should it take?

First a table that needs no GPU: what a query moves and adds, counted on the CPU, and the least time that this can take
on an H100 by the figures of `kernels/gpu_model.py`. **It is modelled, not measured.** For 8.84 million documents the
counts are those of the first million of `topical.py`, times 8.84 (k likewise); the others are of the collection itself.

Then, where PyTorch sees a GPU, the comparison: our Triton kernels; plain PyTorch, which adds all postings of a batch to
one array of sums with `index_add_` and takes `topk` of it; and our CPU kernel on all cores. Every answer of ours has
to equal the CPU's. Without a GPU this part is not run, and says so. To beat, as published by GPUSparse
(arXiv 2606.26441): 0.515 ms a query at batch 256, k = 1,000, 8.84 million SPLADE documents, on an H100.

    python benchmarks/gpu.py [--collection topical-20k,topical-1m,topical-8m] [--quick]
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from cells import RESULTS, Cell, print_table, run_cells
from collection import TOPICAL, Collection
from numpy.typing import NDArray

from gossamer.index.impacts import quantise_queries
from gossamer.index.inverted import BuildConfig, InvertedIndex
from gossamer.index.vectors import SparseVectors
from gossamer.kernels.gpu_model import H100, PUBLISHED_MS, SPLADE_8M, Work, count_work, modelled
from gossamer.kernels.sparse_dot import Postings, Queries, TopK, sparse_dot_topk
from gossamer.kernels.sparse_dot_upload import bytes_a_posting, upload

HERE = Path(__file__)
SOURCES = [
    *(f"index/{name}.py" for name in ("impacts", "inverted", "postings")),
    *(f"kernels/{name}.py" for name in ("gpu_model", "inversion", "clustering", "sparse_dot")),
    *(f"kernels/sparse_dot_{name}.py" for name in ("bounded", "numba", "triton", "triton_kernels", "upload")),
    *(f"benchmarks/{name}.py" for name in ("collection", "topical")),
]
BATCHES = 1, 16, 64, 256
KS = 10, 1_000
PLAIN_SUMS = 2**30  # of the plain version, at once


# -- cells: each runs in a process of its own ----------------------------------------------------------------


def counted(name: str, n_queries: int) -> dict[str, Any]:
    """What the kernels would do for a query of the collection; with bounds, and with nothing left out."""
    with tempfile.TemporaryDirectory() as folder:
        postings, queries = _index(name, Path(folder))
        few = _first(queries, n_queries)
        rows = [
            {"k": k, "bounds": bounded, "work": count_work(some, few, k)._asdict()}
            for k in KS
            for bounded, some in ((True, postings), (False, postings._replace(bounds=None)))
        ]
        return {"documents": postings.n_documents, "bytes a posting": bytes_a_posting(postings), "rows": rows}


def compared(name: str, runs: int) -> dict[str, Any]:
    """Median ms a query of each engine, batch and k; and whether ours equals the CPU."""
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    cores = os.cpu_count() or 1
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        postings, queries = _index(name, Path(folder))
        plain = _Plain(postings, device)
        for k in KS:
            for batch in BATCHES:
                some = _first(queries, batch)
                if len(some.indptr) - 1 < batch:
                    continue
                ms, ours = _timed(_search(some, postings, k, "triton", 1), batch, runs)
                plain_ms, by_plain = _timed(_plain_search(plain, some, k), batch, runs)
                cpu_ms, cpu = _timed(_search(some, postings, k, "numba", cores), batch, runs)
                row: dict[str, Any] = {"k": k, "batch": batch, "ours ms": ms, "plain PyTorch ms": plain_ms}
                row |= {f"CPU ms, {cores} threads": cpu_ms, "times faster than plain": plain_ms / ms}
                equal = all(np.array_equal(a, b) for a, b in zip(ours, cpu, strict=True))
                row["equals the CPU"] = "yes" if equal else "NO"
                row["plain's scores are equal"] = "yes" if np.array_equal(by_plain, cpu.scores) else "NO"
                rows.append(row)
    card = torch.cuda.get_device_name() if device.type == "cuda" else "interpreter on the CPU"
    return {"documents": postings.n_documents, "card": card, "rows": rows}


def _search(queries: Queries, postings: Postings, k: int, backend: Any, n_threads: int) -> Callable[[], TopK]:
    return lambda: sparse_dot_topk(queries, postings, k, backend=backend, n_threads=n_threads)


def _plain_search(plain: "_Plain", queries: Queries, k: int) -> Callable[[], NDArray[np.int32]]:
    return lambda: plain.search(queries, k)


def _timed(answer: Callable[[], Any], n_queries: int, runs: int) -> tuple[float, Any]:
    """Every engine's answer is in the host's memory when it returns, so the clock needs no synchronisation."""
    found, times = answer(), []  # the first warms up
    for _ in range(runs):
        began = time.perf_counter()
        answer()
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e3 / n_queries, found


class _Plain:
    """The obvious way in PyTorch: 4-byte rows, all postings of the batch's terms added to sums of all documents."""

    def __init__(self, postings: Postings, device: Any) -> None:
        self.n_documents, self.device = postings.n_documents, device
        self.bases = postings.bases
        rows = np.empty(len(postings.local), np.int32)
        for term in range(postings.n_terms):
            part = slice(int(postings.bases[term]), int(postings.bases[term + 1]))
            lengths = np.diff(postings.offsets[term].astype(np.int64))
            first = np.repeat(np.arange(postings.n_windows) * postings.window, lengths)
            rows[part] = postings.rows[first + postings.local[part]]
        self.rows, self.impacts = upload(rows, device), upload(postings.impacts, device)

    def search(self, queries: Queries, k: int) -> NDArray[np.int32]:
        """The k largest scores of each query."""
        n_queries = len(queries.indptr) - 1
        at_once = max(1, PLAIN_SUMS // self.n_documents)
        parts = [
            self._search(queries, first, min(first + at_once, n_queries), k)
            for first in range(0, n_queries, at_once)
        ]
        return np.concatenate(parts)

    def _search(self, queries: Queries, first: int, last: int, k: int) -> NDArray[np.int32]:
        import torch

        sums = torch.zeros(last - first, self.n_documents, dtype=torch.int32, device=self.device)
        for query in range(first, last):
            entries = slice(queries.indptr[query], queries.indptr[query + 1])
            terms, weights = queries.terms[entries].tolist(), queries.weights[entries].tolist()
            for term, weight in zip(terms, weights, strict=True):
                part = slice(int(self.bases[term]), int(self.bases[term + 1]))
                products = self.impacts[part].to(torch.int32) * weight
                sums[query - first].index_add_(0, self.rows[part], products)
        best: NDArray[np.int32] = sums.topk(k, dim=1).values.cpu().numpy()
        return best


def _index(name: str, folder: Path) -> tuple[Postings, Queries]:
    collection = Collection.find(name, Path(), RESULTS / "data")
    index = InvertedIndex.build(
        folder / "index", _together(collection), config=BuildConfig(forward=False, calibrate=False)
    )
    return index.segments[0].postings, quantise_queries(collection.queries, index.segments[0].scale).queries


def _together(collection: Collection) -> SparseVectors:
    """All shards as one; written in place, so that memory holds them once."""
    indptr = np.zeros(collection.n_documents + 1, np.int64)
    indices, values = np.empty(collection.nnz, np.uint16), np.empty(collection.nnz, np.float32)
    row = entry = 0
    for shard in collection.shards():
        indptr[row + 1 : row + shard.n_rows + 1] = entry + shard.indptr[1:]
        indices[entry : entry + shard.nnz], values[entry : entry + shard.nnz] = shard.indices, shard.values
        row, entry = row + shard.n_rows, entry + shard.nnz
    return SparseVectors(indptr, indices, values, collection.n_terms)


def _first(queries: Queries, n_queries: int) -> Queries:
    """The first queries; fewer if there are no more."""
    indptr = queries.indptr[: n_queries + 1]
    return Queries(indptr, queries.terms[: indptr[-1]], queries.weights[: indptr[-1]])


# -- tables --------------------------------------------------------------------------------------------------


def model_rows(work: Work, **labels: Any) -> list[dict[str, Any]]:
    """A row for each batch."""
    rows = []
    for batch in BATCHES:
        figures = modelled(work, H100, batch)
        halved = modelled(work, H100._replace(atomics=H100.atomics / 2), batch)
        rows.append(
            {
                **labels,
                "batch": batch,
                "atomic adds": figures.atomics,
                "L2 MB": figures.l2_bytes / 1e6,
                "DRAM MB": figures.dram_bytes / 1e6,
                "sums MiB": figures.sums_bytes / 2**20,
                "launches": figures.launches,
                "ms: adds": figures.atomics_ms,
                "L2": figures.l2_ms,
                "DRAM": figures.dram_ms,
                "launching": figures.launch_ms,
                "at least ms": figures.least_ms,
                "adds half as fast": halved.least_ms,
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--collection", choices=list(TOPICAL), help="by default topical-1m")
    parser.add_argument("--quick", action="store_true", help="a small collection, fewer runs")
    options = parser.parse_args()
    name = options.collection or ("topical-20k" if options.quick else "topical-1m")
    n_documents = TOPICAL[name][0]
    count = Cell(
        HERE,
        "counted",
        {"name": name, "n_queries": 20 if options.quick else 100},
        SOURCES,
        cost_s=5 + n_documents / 3e4,
        memory_gb=32,
    )
    (outcome,) = run_cells([count])
    rows = [
        row
        for (k, bounded), work in SPLADE_8M.items()
        for row in model_rows(work, documents="8.84 M", k=k, bounds="used" if bounded else "none")
    ]
    print_table("MODELLED, NOT MEASURED: a query on an H100, 8.84 million SPLADE-like documents", rows)
    print(f"published, measured (GPUSparse, H100, batch 256, k = 1,000): {PUBLISHED_MS} ms a query")
    if "not_run" in outcome:
        print(f"{name}: not run: {outcome['not_run']}")
    else:
        rows = [
            row
            for counts in outcome["rows"]
            for row in model_rows(
                Work(**counts["work"]), k=counts["k"], bounds="used" if counts["bounds"] else "none"
            )
        ]
        taken = f"{outcome['bytes a posting']:.2f} bytes a posting on the GPU"
        print_table(f"MODELLED, NOT MEASURED: a query on an H100, {name}, {taken}", rows)
    _compare(name, n_documents, options.quick)


def _compare(name: str, n_documents: int, quick: bool) -> None:
    import torch

    if not torch.cuda.is_available():
        print("comparison on a GPU: not run: no GPU (PyTorch sees none)")
        return
    params = {"name": name, "runs": 3 if quick else 7}
    cost_s = 60 + n_documents / 1e4
    # a GPU's driver reserves address space that would count as memory
    cell = Cell(HERE, "compared", params, SOURCES, cost_s=cost_s, memory_gb=4_096, packages=["triton"])
    (outcome,) = run_cells([cell], too_long_s=3_600)
    if "not_run" in outcome:
        print(f"comparison on a GPU: not run: {outcome['not_run']}")
        return
    print_table(f"MEASURED: {name} on {outcome['card']}, ms a query", outcome["rows"])
    if any(row["equals the CPU"] != "yes" for row in outcome["rows"]):
        raise SystemExit("an answer of the GPU does not equal the CPU's")


if __name__ == "__main__":
    main()
