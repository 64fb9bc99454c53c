"""The engines that `engines.py` compares, each behind the same four calls.

An engine is made from a collection, which puts the documents into the form that it takes (not timed); `build` makes an
index and keeps it on the disk (timed); `asker` prepares the queries in the engine's cheapest form (not timed) and
returns what answers all of them (timed), one a call unless said otherwise; `rows` reads the answers (not timed).
Packages are imported when an engine is made, so that what is absent or broken fails its own cells only.
"""
# ruff: noqa: D102  # `Engine` says what the methods do

import json
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from collection import Collection
from numpy.typing import NDArray

from gossamer.index.vectors import SparseVectors

Asker = Callable[[], list[Any]]
_IN_MEMORY_DOCUMENTS = 2_000_000


class Engine(Protocol):
    """What is measured."""

    @property
    def build(self) -> Callable[..., None]:
        """Make an index in the folder, from the engine's own parameters."""

    @property
    def asker(self) -> Callable[..., Asker]:
        """Of queries, k, and search parameters: what answers all queries; `batch` is the number of queries a call."""

    def rows(self, answer: Any) -> list[NDArray[np.int64]]:
        """The rows that an element of the answers names: an array for each query of the call."""


class Ours:
    """`InvertedIndex`; documents in memory, or as Parquet where they are many."""

    def __init__(self, documents: Collection, folder: Path) -> None:
        from gossamer.index.inverted import InvertedIndex

        self._class, self._path = InvertedIndex, folder / "index"
        self._vectors: SparseVectors | Path
        if documents.n_documents <= _IN_MEMORY_DOCUMENTS:
            self._vectors = SparseVectors.concat(list(documents.shards()))
        else:
            self._vectors = folder / "vectors"
            self._vectors.mkdir()
            for number, shard in enumerate(documents.shards()):
                shard.write_parquet(self._vectors / f"{number:03d}.parquet")

    def build(self, **parameters: Any) -> None:
        self._index = self._class.build(self._path, self._vectors, **parameters)

    def asker(self, queries: SparseVectors, k: int, *, batch: int = 1, **search: Any) -> Asker:
        asked = [queries[start : start + batch] for start in range(0, queries.n_rows, batch)]
        index = self._index
        return lambda: [index.search(query, k, backend="numba", **search) for query in asked]

    def rows(self, answer: Any) -> list[NDArray[np.int64]]:
        return list(answer.rows)


class Seismic:
    """pyseismic-lsr: clustered postings with summaries, and a forward index."""

    def __init__(self, documents: Collection, folder: Path) -> None:
        import seismic

        self._module: Any = seismic
        self._documents, self._path = documents, folder / "index"

    def build(self, **parameters: Any) -> None:
        dataset = self._module.SeismicDataset()
        first = 0
        for indptr, indices, values in self._documents.parts():
            ids = [str(row) for row in range(first, first + indptr.size - 1)]
            dataset.add_documents_by_id(ids, indices.astype(np.int64), values, indptr.astype(np.int64))
            first += len(ids)
        self._index = self._module.SeismicIndex.build_from_dataset(dataset, num_threads=1, **parameters)
        self._index.save(str(self._path))

    def asker(
        self,
        queries: SparseVectors,
        k: int,
        *,
        query_cut: int,
        heap_factor: float,
        n_knn: int = 0,
        batch: int = 1,
    ) -> Asker:
        text = self._module.get_seismic_string()
        asked = [queries.row(row) for row in range(queries.n_rows)]
        terms = [np.array([str(term) for term in indices.tolist()], dtype=text) for indices, _ in asked]
        weights = [values.copy() for _, values in asked]
        if batch > 1:
            names = np.array([str(row) for row in range(queries.n_rows)], dtype=text)
            many = self._index.batch_search
            return lambda: list(many(names, terms, weights, k, query_cut, heap_factor, n_knn, True, 1))
        one, pairs = self._index.search, list(zip(terms, weights, strict=True))
        return lambda: [
            one("", term, weight, k, query_cut, heap_factor, n_knn, True) for term, weight in pairs
        ]

    def rows(self, answer: Any) -> list[NDArray[np.int64]]:
        return [np.array([int(row) for _, _, row in answer], dtype=np.int64)]


class Sindi:
    """pyvsag's SINDI: windows of postings, scanned; with pruning, candidates are scored again."""

    def __init__(self, documents: Collection, folder: Path) -> None:
        import pyvsag

        self._make: Callable[[str, str], Any] = pyvsag.Index
        self._path, self._n_terms, self._longest = folder / "index", documents.n_terms, documents.longest
        # on the disk and mapped: what the engine is given is no memory of its own
        shapes = {"indptr": documents.n_documents + 1, "indices": documents.nnz, "values": documents.nnz}
        self._arrays = {
            name: np.lib.format.open_memmap(
                folder / f"{name}.npy", "w+", np.float32 if name == "values" else np.uint32, (size,)
            )
            for name, size in shapes.items()
        }
        row, end = 0, 0
        for indptr, indices, values in documents.parts():
            self._arrays["indptr"][row : row + indptr.size] = indptr + end
            self._arrays["indices"][end : end + indices.size] = indices
            self._arrays["values"][end : end + indices.size] = values
            row, end = row + indptr.size - 1, end + indices.size

    def build(self, **parameters: Any) -> None:
        described = {
            "dtype": "sparse",
            "dim": self._longest,
            "metric_type": "ip",
            "index_param": {"term_id_limit": self._n_terms, **parameters},
        }
        self._index = self._make("sindi", json.dumps(described))
        indptr, indices, values = self._arrays.values()
        numbers = np.arange(indptr.size - 1, dtype=np.int64)
        self._index.build(index_pointers=indptr, indices=indices, values=values, ids=numbers)
        self._index.save(str(self._path))

    def asker(self, queries: SparseVectors, k: int, **search: Any) -> Asker:
        asked = []
        for row in range(queries.n_rows):
            terms, weights = queries.row(row)
            asked.append((np.array([0, terms.size], np.uint32), terms.astype(np.uint32), weights.copy()))
        one, parameters = self._index.knn_search, json.dumps({"sindi": search})
        return lambda: [one(indptr, terms, weights, k, parameters) for indptr, terms, weights in asked]

    def rows(self, answer: Any) -> list[NDArray[np.int64]]:
        return [np.asarray(answer[0], dtype=np.int64).ravel()]


class Bmp:
    """bmp 0.2.8: blocks of documents, visited by their bounds.

    Weights are a byte, and queries are rounded to 32 levels inside, so that alpha = beta = 1 is exact for the rounded
    query only. Its last block in the order of visits is never scored, 16-bit sums wrap, and a query with a term that
    no document has ends it: such terms are left out here.
    """

    def __init__(self, documents: Collection, folder: Path) -> None:
        import bmp

        self._module: Any = bmp
        self._documents, self._path = documents, folder / "index"
        self._known = np.zeros(documents.n_terms, dtype=bool)
        for _, indices, _ in documents.parts():
            self._known[indices] = True

    def build(self, *, block: int, compress: bool) -> None:
        writer = self._module.Indexer(str(self._path), bsize=block, compress_range=compress)
        scale = 255 / self._documents.largest
        names = np.array([str(term) for term in range(self._documents.n_terms)], dtype=object)
        first = 0
        for indptr, indices, values in self._documents.parts():
            impacts = np.maximum(np.rint(values * scale), 1).astype(int)
            bounds = indptr.tolist()
            for row, (start, end) in enumerate(pairwise(bounds)):
                document = dict(zip(names[indices[start:end]], impacts[start:end].tolist(), strict=True))
                writer.add_document(str(first + row), document)
            first += len(bounds) - 1
        writer.finish()
        self._searcher = self._module.Searcher(str(self._path))

    def asker(self, queries: SparseVectors, k: int, *, alpha: float, beta: float) -> Asker:
        asked = [
            {str(term): weight for term, weight in query.items() if self._known[term]}
            for query in queries.to_dicts()
        ]
        one = self._searcher.search
        return lambda: [one(query, k=k, alpha=alpha, beta=beta) if query else ([], []) for query in asked]

    def rows(self, answer: Any) -> list[NDArray[np.int64]]:
        return [np.array([int(row) for row in answer[0]], dtype=np.int64)]


def engines() -> Mapping[str, Callable[[Collection, Path], Engine]]:
    """By name."""
    from lucene import Lucene

    return {"ours": Ours, "Seismic": Seismic, "SINDI": Sindi, "BMP": Bmp, "Lucene": Lucene}
