"""Collections of `engines.py`: documents in shards, queries, and the truth to judge hits by.

The truth is the float64 product of the float32 input. A returned document counts if its true score reaches the true
k-th, up to one part in a million: so ties may be broken either way. Shards are mapped, and one at a time is read.
"""

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numba
import numpy as np
import topical
from numpy.typing import NDArray
from topical import N_TERMS, SHARD_ROWS

from gossamer.index.vectors import SparseVectors

TOPICAL = {"topical-20k": (20_000, 100), "topical-1m": (1_000_000, 500), "topical-8m": (8_000_000, 500)}
"""Documents and queries of what can be made up."""
REAL_FILES = "summaries-500k.npz", "summaries-queries-1k.npz"
TOLERANCE = 1e-6
_EXPECTED_K = 10

Csr = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]
"""`indptr`, `indices`, `values`, as the files have them."""


@dataclass(frozen=True)
class Collection:
    """Documents and queries over one vocabulary."""

    name: str
    folder: Path
    """Of the files; for a made-up one, its own."""
    data: Path
    """Where the truth is kept."""

    @classmethod
    def find(cls, name: str, real: Path, data: Path) -> "Collection":
        """`real`, or one of `TOPICAL`, which is made up unless its files are there."""
        if name == "real":
            return cls(name, real, data)
        folder = data / f"{name}-{hashlib.sha256(Path(topical.__file__).read_bytes()).hexdigest()[:8]}"
        for stale in data.glob(f"{name}-*"):  # made by another generator
            if stale.is_dir() and stale != folder:
                shutil.rmtree(stale)
        topical.write_topical(folder, *TOPICAL[name])
        return cls(name, folder, folder)

    @property
    def n_terms(self) -> int:
        """Size of the vocabulary."""
        return N_TERMS

    @cached_property
    def queries(self) -> SparseVectors:
        """All queries."""
        if self.name == "real":
            return _vectors(_load_npz(self.folder / REAL_FILES[1]))
        return _vectors(_map(self.folder, "queries"))

    @cached_property
    def n_documents(self) -> int:
        """Documents in all shards."""
        return int(sum(indptr.size - 1 for indptr, _, _ in self._shards))

    @cached_property
    def nnz(self) -> int:
        """Weights in all shards."""
        return int(sum(int(indptr[-1]) for indptr, _, _ in self._shards))

    @cached_property
    def longest(self) -> int:
        """The most terms of a document."""
        return max(int(np.diff(indptr).max()) for indptr, _, _ in self._shards)

    @cached_property
    def largest(self) -> float:
        """The largest weight of a document."""
        return max(float(values.max()) for _, _, values in self._shards)

    def shards(self) -> Iterator[SparseVectors]:
        """The documents in order, a part at a time."""
        return (_vectors(shard) for shard in self._shards)

    def parts(self) -> Iterator[Csr]:
        """The documents in order, as plain arrays with float32 values."""
        return ((indptr, indices, values.astype(np.float32)) for indptr, indices, values in self._shards)

    @cached_property
    def _shards(self) -> list[Csr]:
        if self.name == "real":
            return [_load_npz(self.folder / REAL_FILES[0])]
        count = -(-TOPICAL[self.name][0] // SHARD_ROWS)
        return [_map(self.folder, f"shard-{number:03d}") for number in range(count)]

    # -- truth -----------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Compute the truth unless its file is there; takes a minute for a million documents or so."""
        path = self._truth_path
        if not path.exists():
            half = path.with_suffix(".tmp.npy")
            np.save(half, self._best(_EXPECTED_K))
            half.replace(path)

    @cached_property
    def _truth_path(self) -> Path:
        if self.name in TOPICAL:  # its folder is of this generator only
            return self.data / f"top{_EXPECTED_K}.npy"
        contents = b"".join((self.folder / file).read_bytes() for file in REAL_FILES)
        return self.data / f"{self.name}-{hashlib.sha256(contents).hexdigest()[:8]}-top{_EXPECTED_K}.npy"

    def _best(self, k: int) -> NDArray[np.float64]:
        """The k largest scores of each query, descending; 0 where there are fewer documents that share a term."""
        queries = self.queries
        best = np.zeros((queries.n_rows, k))
        for shard in self.shards():
            columns = shard.to_scipy().tocsc()
            scores = np.zeros(shard.n_rows)
            for row in range(queries.n_rows):
                terms, weights = queries.row(row)
                scores[:] = 0
                _scan((columns.indptr, columns.indices, columns.data), terms, weights, scores)
                both = np.concatenate([best[row], scores])
                best[row] = np.sort(np.partition(both, -k)[-k:])[::-1]
        return best

    def recall(self, found: NDArray[np.int64]) -> float:
        """Mean over queries of the share of the true k that `found` `[Q, k]` has; rows below 0 are no hits."""
        k = found.shape[1]
        best = np.load(self._truth_path)[:, :k]
        threshold = np.array([row[row > 0].min(initial=np.inf) for row in best]) * (1 - TOLERANCE)
        wanted = (best > 0).sum(axis=1)
        right = (self._scores(found) >= threshold[:, None]).sum(axis=1)
        return float(np.mean(np.minimum(right, wanted)[wanted > 0] / wanted[wanted > 0]))

    def _scores(self, found: NDArray[np.int64]) -> NDArray[np.float64]:
        """The true scores of rows `[Q, k]`; minus infinity for a row that is below 0 or there twice."""
        scores = np.full(found.shape, -np.inf)
        first = 0
        queries = self.queries
        for indptr, indices, values in self._shards:
            in_shard = (found >= first) & (found < first + indptr.size - 1)
            for query in np.flatnonzero(in_shard.any(axis=1)):
                dense = np.zeros(N_TERMS)
                terms, weights = queries.row(int(query))
                dense[terms] = weights
                places = np.flatnonzero(in_shard[query])
                rows, firsts = np.unique(found[query, places], return_index=True)
                for row, place in zip(rows - first, places[firsts], strict=True):
                    part = slice(int(indptr[row]), int(indptr[row + 1]))
                    scores[query, place] = values[part].astype(np.float64) @ dense[indices[part]]
            first += indptr.size - 1
        return scores


@numba.njit(nogil=True)  # type: ignore[untyped-decorator]
def _scan(
    columns: Csr, terms: NDArray[Any], weights: NDArray[np.float32], scores: NDArray[np.float64]
) -> None:
    """Add a query's products to the scores of all documents, term by term."""
    offsets, rows, values = columns
    for place in range(terms.size):
        weight = np.float64(weights[place])
        for entry in range(offsets[terms[place]], offsets[np.int64(terms[place]) + 1]):
            scores[rows[entry]] += weight * values[entry]


def _map(folder: Path, name: str) -> Csr:
    indptr, indices, values = (
        np.load(folder / f"{name}-{part}.npy", mmap_mode="r") for part in ("indptr", "indices", "values")
    )
    return np.asarray(indptr), np.asarray(indices), np.asarray(values)


def _load_npz(path: Path) -> Csr:
    """Half precision makes zeros of some small weights: they are dropped."""
    with np.load(path, allow_pickle=False) as arrays:
        indptr, indices, values = arrays["indptr"], arrays["indices"], arrays["values"]
    kept = values != 0
    return np.concatenate([[0], np.cumsum(kept)])[indptr], indices[kept], values[kept]


def _vectors(parts: Csr) -> SparseVectors:
    indptr, indices, values = parts
    return SparseVectors(indptr, indices, values.astype(np.float32), N_TERMS)
