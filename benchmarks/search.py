"""How long does an exact search take on one core, and does it find what the float32 input says?

Rows: our index with one query a call, and with all queries in one call; the obvious windowed scan over the same bytes
(`plain_scan.py`); and a float32 product by scipy. All are timed in turn in one process pinned to one core, several
times, and the median counts; CPU time is the figure to compare, wall time stands beside it. A posting is one stored
impact of one query term. Recall is tie-aware: a returned document counts if its true score reaches the true k-th;
"true" is the float64 product of the float32 input, or of the stored impacts.

    python benchmarks/search.py [--vectors DOCUMENTS.npz --queries QUERIES.npz] [--quick]

The files hold `indptr`, `indices`, `values` of a CSR matrix. Without them a topical collection is made up.
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
from numpy.typing import NDArray

from gossamer.index.impacts import quantise_queries
from gossamer.index.inverted import InvertedIndex
from gossamer.index.vectors import SparseVectors

HERE = Path(__file__)
SOURCES = [
    *(f"index/{name}.py" for name in ("forward", "impacts", "inverted", "postings", "segment", "vectors")),
    *(f"kernels/sparse_dot{name}.py" for name in ("", "_bounded", "_keys", "_numba")),
    *(f"kernels/{name}.py" for name in ("clustering", "inversion", "lanes", "refine", "rounding")),
    "benchmarks/plain_scan.py",
]
ROWS_AT_ONCE = 20


# -- cells: each runs in a process of its own ----------------------------------------------------------------


def build(vectors: str, queries: str) -> dict[str, Any]:
    """Seconds to build, and bytes."""
    documents, _ = _load(vectors, queries)
    with tempfile.TemporaryDirectory() as folder:
        wall, cpu = time.perf_counter(), time.process_time()
        index = InvertedIndex.build(Path(folder) / "index", documents)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        began = time.perf_counter()
        InvertedIndex.open(Path(folder) / "index")
        open_ms = (time.perf_counter() - began) * 1e3
        info = index.info()
    return {
        "documents": info.n_documents,
        "postings": info.nnz,
        "impacts": info.impacts,
        "build s CPU": cpu,
        "build s wall": wall,
        "open ms": open_ms,
        "index MB": sum(info.bytes.values()) / 1e6,
        "bytes a posting": info.bytes_per_posting,
        "largest error": info.largest_error,
    }


def speed(vectors: str, queries: str, k: int, runs: int, n_scipy: int) -> dict[str, Any]:
    """Median µs a query of each engine, timed in turn on one core; scipy on the first queries only."""
    from plain_scan import plain_scan

    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    documents, asked = _load(vectors, queries)
    single = [asked[row : row + 1] for row in range(asked.n_rows)]
    product = _ScipyProduct(documents)
    with tempfile.TemporaryDirectory() as folder:
        index = InvertedIndex.build(Path(folder) / "index", documents)
        scaled = quantise_queries(asked, index.segments[0].scale)
        engines: dict[str, tuple[Callable[[], Any], int]] = {
            "ours, a query a call": (
                lambda: [index.search(query, k, backend="numba") for query in single],
                asked.n_rows,
            ),
            "ours, one batch": (lambda: index.search(asked, k, backend="numba"), asked.n_rows),
            "plain scan": (lambda: plain_scan(scaled.queries, index.segments[0].postings, k), asked.n_rows),
            "scipy, float32": (lambda: [product.search(query, k) for query in single[:n_scipy]], n_scipy),
        }
        lengths = np.diff(index.segments[0].postings.bases)
        touched = [int(lengths[query.row(0)[0]].sum()) for query in single]
        timed: dict[str, list[tuple[float, float]]] = {name: [] for name in engines}
        for run in range(runs + 1):  # the first warms up
            for name, (answer, n_queries) in engines.items():
                wall, cpu = time.perf_counter(), time.process_time()
                answer()
                wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
                if run:
                    timed[name].append((cpu / n_queries, wall / n_queries))
    rows = []
    for name, (_, n_queries) in engines.items():
        cpu, wall = (statistics.median(times) for times in zip(*timed[name], strict=True))
        per_posting = cpu / statistics.mean(touched[:n_queries]) * 1e9
        rows.append(
            {"engine": name, "µs CPU": cpu * 1e6, "µs wall": wall * 1e6, "ns CPU a posting": per_posting}
        )
    return {"postings a query": statistics.mean(touched), "rows": rows}


def quality(vectors: str, queries: str, k: int, n_queries: int) -> dict[str, Any]:
    """Tie-aware recall of ours and of the plain scan, against the input and against what is stored."""
    from plain_scan import plain_scan

    documents, asked = _load(vectors, queries)
    asked = asked[:n_queries]
    with tempfile.TemporaryDirectory() as folder:
        index = InvertedIndex.build(Path(folder) / "index", documents)
        scaled = quantise_queries(asked, index.segments[0].scale)
        found = {
            "ours": index.search(asked, k, backend="numba").rows,
            "plain scan": plain_scan(scaled.queries, index.segments[0].postings, k),
        }
        stored = index.vectors()
    levels = np.rint(stored.values.astype(np.float64) / index.info().step)
    rounded = scaled.queries.weights.astype(np.float32)
    integers = SparseVectors(scaled.queries.indptr, scaled.queries.terms, rounded, asked.n_cols, signed=True)
    truths = {
        "input": (documents, documents.values, asked),
        "stored": (stored, levels, integers),
    }
    result: dict[str, Any] = {"queries": asked.n_rows}
    for truth, (rows, values, query_rows) in truths.items():
        recalls = _recall(rows, values, query_rows, k, found)
        result |= {f"{name}, {truth}": value for name, value in recalls.items()}
    return result


class _ScipyProduct:
    """Exact search by sparse products: a row of queries times the transposed documents, then the k largest."""

    def __init__(self, documents: SparseVectors, values: NDArray[Any] | None = None) -> None:
        matrix = documents.to_scipy()
        if values is not None:
            matrix = matrix.astype(np.float64)
            matrix.data = values.astype(np.float64)
        self._columns = matrix.T.tocsr()

    def scores(self, queries: SparseVectors) -> Any:
        return queries.to_scipy().astype(self._columns.dtype) @ self._columns

    def search(self, query: SparseVectors, k: int) -> NDArray[Any]:
        row = self.scores(query)
        best = np.argpartition(-row.data, k)[:k] if row.nnz > k else np.arange(row.nnz)
        order = best[np.lexsort((row.indices[best], -row.data[best]))]
        rows: NDArray[Any] = row.indices[order]
        return rows


def _recall(
    documents: SparseVectors,
    values: NDArray[Any],
    queries: SparseVectors,
    k: int,
    found: dict[str, NDArray[np.int64]],
) -> dict[str, float]:
    product = _ScipyProduct(documents, values)
    shares: dict[str, list[float]] = {name: [] for name in found}
    for start in range(0, queries.n_rows, ROWS_AT_ONCE):
        scores = product.scores(queries[start : start + ROWS_AT_ONCE]).toarray()
        for offset, row in enumerate(scores):
            wanted = min(k, int((row > 0).sum()))
            if wanted == 0:
                continue
            threshold = np.partition(row, -wanted)[-wanted]
            for name, rows in found.items():
                hits = rows[start + offset]
                shares[name].append(float((row[hits[hits >= 0]] >= threshold).sum()) / wanted)
    return {name: statistics.mean(of) for name, of in shares.items()}


def _load(vectors: str, queries: str) -> tuple[SparseVectors, SparseVectors]:
    """Documents and queries; zeros, which half precision makes of small weights, are dropped."""
    from scipy import sparse

    both = []
    for path in (vectors, queries):
        with np.load(path, allow_pickle=False) as arrays:
            parts = {name: arrays[name] for name in arrays.files}
        both.append((parts["values"].astype(np.float32), parts["indices"].astype(np.int32), parts["indptr"]))
    n_cols = max(int(indices.max(initial=0)) + 1 for _, indices, _ in both)
    matrices = [sparse.csr_array(part, shape=(part[2].size - 1, n_cols)) for part in both]
    signed = any(bool((matrix.data < 0).any()) for matrix in matrices)
    documents, asked = (SparseVectors.from_scipy(matrix, signed=signed) for matrix in matrices)
    return documents, asked


# -- a made-up collection ------------------------------------------------------------------------------------


def make_up(folder: Path, n_documents: int, n_queries: int, n_terms: int = 8_000) -> tuple[Path, Path]:
    """Topical rows: each draws most of its terms from one of 100 topics, each a Zipf law over its own terms."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    topics = np.stack([rng.permutation(n_terms) for _ in range(100)])
    zipf = np.cumsum(1 / np.arange(1, n_terms + 1) ** 1.1)
    paths = folder / f"made-up-{n_documents}.npz", folder / f"made-up-{n_documents}-queries.npz"
    for path, n_rows, length in zip(paths, (n_documents, n_queries), (60, 25), strict=True):
        ranks = np.searchsorted(zipf, rng.random((n_rows, length)) * zipf[-1])
        of_topic = topics[rng.integers(0, 100, (n_rows, 1)), ranks]
        terms = np.sort(np.where(rng.random(ranks.shape) < 0.8, of_topic, ranks), axis=1)
        first = np.diff(terms, axis=1, prepend=-1) > 0
        weights = rng.lognormal(0, 0.6, terms.shape).astype(np.float32)
        indptr = np.concatenate([[0], np.cumsum(first.sum(axis=1))])
        np.savez(path, indptr=indptr, indices=terms[first].astype(np.uint16), values=weights[first])
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--vectors", type=Path, help="documents as .npz, or a folder with one and its queries"
    )
    parser.add_argument(
        "--queries", type=Path, help="queries as .npz; by default *queries*.npz beside the documents"
    )
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument(
        "--quick", action="store_true", help="fewer runs, and a small collection if none is given"
    )
    options = parser.parse_args()
    if options.vectors is None:
        size = (20_000, 200) if options.quick else (200_000, 500)
        options.vectors, options.queries = make_up(RESULTS / "data", *size)
    if options.queries is None:
        folder = options.vectors if options.vectors.is_dir() else options.vectors.parent
        found = sorted(folder.glob("*queries*.npz"))
        if len(found) != 1:
            parser.error(f"--queries is missing, and {folder} holds {len(found)} files named *queries*.npz")
        options.queries = found[0]
    if options.vectors.is_dir():
        others = [path for path in sorted(options.vectors.glob("*.npz")) if path != options.queries]
        if len(others) != 1:
            parser.error(f"name one .npz of documents: {options.vectors} holds {len(others)}")
        options.vectors = others[0]
    inputs = {"vectors": str(options.vectors.resolve()), "queries": str(options.queries.resolve())}
    few = options.quick
    cells = [
        Cell(HERE, function, {**inputs, **params}, SOURCES, [Path(path) for path in inputs.values()], cost_s)
        for function, params, cost_s in [
            ("build", {}, 10.0),
            ("speed", {"k": options.k, "runs": 3 if few else 7, "n_scipy": 20 if few else 100}, 60.0),
            ("quality", {"k": options.k, "n_queries": 100 if few else 1_000}, 120.0),
        ]
    ]
    built, timed, judged = run_cells(cells)
    for failed in (outcome for outcome in (built, timed, judged) if "not_run" in outcome):
        print(f"not run: {failed['not_run']}")
    print_table(f"Index of {options.vectors.name}", [_without(built, inputs)])
    if "rows" in timed:
        title = f"Search of the best {options.k}, one core, {timed['postings a query']:,.0f} postings a query"
        print_table(title, [{**row, **_recalls(row["engine"], judged, options.k)} for row in timed["rows"]])


def _recalls(engine: str, judged: dict[str, Any], k: int) -> dict[str, Any]:
    """The recall columns of an engine; scipy's product of the input is the truth itself."""
    name = "ours" if engine.startswith("ours") else engine
    return {f"recall@{k}, {truth}": judged.get(f"{name}, {truth}", "") for truth in ("input", "stored")}


def _without(outcome: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    return {name: value for name, value in outcome.items() if name not in names}


if __name__ == "__main__":
    main()
