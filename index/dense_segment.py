"""`DenseSegment`: the vectors of an index in use, and the ways to search them.

A score is `float32` of the float64 inner product of `kernels.dense_dot`, whatever found the row. faiss adds float32
products in an order of its own, by which it only nominates: a search is exact because it asks for more candidates until
no other row can reach the k-th score, whatever rounding has done.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.index.answers import best_of
from gossamer.index.dense_structure import StructureFile
from gossamer.index.dense_vectors import norms, rows_at_once
from gossamer.index.faiss_library import GPU, Device, faiss_library, faiss_threads
from gossamer.index.format import DenseEffort
from gossamer.index.segment import Found
from gossamer.kernels.dense_dot import dense_scores

_HALF_ULP = 2.0**-24
_HALF_ULP_OF_TF32 = 2.0**-11  # a GPU may round factors to that
_SMALLEST = 2.0**-126  # of a product; below, numbers may be flushed to zero
_LARGEST = 2.0**126  # of a score that float32 surely holds
_ALL_AT = 4  # all rows are scored exactly, if there are no more than this for each candidate
_CANDIDATES = 2  # a hit, at first


@dataclass(frozen=True)
class DenseCall:
    """What a search is told, whatever its way.

    Attributes:
        k: hits wanted.
        allowed: bool `[n_rows]`, or None.
        n_threads: threads of faiss.
        device: where faiss runs.
    """

    k: int
    allowed: NDArray[np.bool_] | None
    n_threads: int
    device: Device = "cpu"


@dataclass(frozen=True, eq=False)
class DenseSegment:
    """Rows, and where they are many a structure that finds candidates.

    Attributes:
        values: float32 `[n_rows, D]`, mapped.
        largest_norm: of a row.
        structure: what finds candidates, or None.
        flat_below: rows of fewer than which a search needs no structure.
        live: bool `[n_rows]`, which are not deleted; None for all.
    """

    values: NDArray[np.float32]
    largest_norm: float
    structure: StructureFile | None
    flat_below: int
    live: NDArray[np.bool_] | None = None

    @property
    def n_rows(self) -> int:
        """Number of rows, deleted ones included."""
        return len(self.values)

    def search(self, queries: NDArray[np.float32], call: DenseCall, effort: DenseEffort | None) -> Found:
        """Rows and scores `[Q, k]` of the hits.

        Args:
            queries: float32 `[Q, D]`, as `checked` makes them.
            call: k, mask, threads, device.
            effort: how much of the structure an approximate search looks at; None for an exact one.
        """
        allowed = call.allowed
        if self.live is not None:
            allowed = self.live if allowed is None else self.live & allowed
        rows = np.arange(self.n_rows) if allowed is None else np.flatnonzero(allowed)
        if effort is None or self.structure is None or len(rows) < max(self.flat_below, 1):
            return self._exact(queries, rows, call)
        wanted = min(math.ceil(call.k * effort.candidates_a_hit), len(rows))
        candidates = self.structure.candidates(
            queries, wanted, effort, allowed, n_threads=call.n_threads, device=call.device
        )
        found = self._best(queries, candidates, call.k)
        few = found[0][:, min(call.k, len(rows)) - 1] < 0
        if few.any():
            found[0][few], found[1][few] = self._exact(queries[few], rows, call)
        return found

    def _exact(self, queries: NDArray[np.float32], rows: NDArray[np.int64], call: DenseCall) -> Found:
        """The best of some rows."""
        lengths = norms(queries)
        slack = self._slack(lengths, call.device)
        safe = lengths * self.largest_norm < _LARGEST
        hits = np.full((len(queries), call.k), -1), np.full((len(queries), call.k), -np.inf, np.float32)
        wanted = _CANDIDATES * call.k
        waiting = np.flatnonzero(safe)
        while len(waiting) and _ALL_AT * wanted < len(rows):
            candidates, last = self._nominated(queries[waiting], rows, wanted, call)
            found = self._best(queries[waiting], candidates, call.k)
            hits[0][waiting], hits[1][waiting] = found
            complete = last + slack[waiting] < found[1][:, -1]
            waiting, wanted = waiting[~complete], 4 * wanted
        for query in [*waiting, *np.flatnonzero(~safe)]:  # one by one, as these rows may be many
            hits[0][query], hits[1][query] = self._best(queries[query : query + 1], rows[None], call.k)
        return hits

    def _slack(self, lengths: NDArray[np.float64], device: Device) -> NDArray[np.float64]:
        """The most by which a score of faiss differs from a true one, and that from its float32, `[Q]`.

        A sum of n products in any order is off by at most n half ulps of the sum of their magnitudes (Higham, "Accuracy
        and Stability of Numerical Algorithms", 2002, section 3.1), and that is bounded by the product of the lengths.
        """
        n_dims = self.values.shape[1]
        ulps = (n_dims + 4) * _HALF_ULP + (4 * _HALF_ULP_OF_TF32 if device == "cuda" else 0.0)
        return np.asarray(1.01 * ulps * lengths * self.largest_norm + 2 * n_dims * _SMALLEST, np.float64)

    def _nominated(
        self, queries: NDArray[np.float32], rows: NDArray[np.int64], n_wanted: int, call: DenseCall
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The candidates of faiss among some rows `[Q, n_wanted]`, and the score of the last of them `[Q]`."""
        step = rows_at_once(self.values.shape[1])
        best = np.full((len(queries), 0), -1), np.full((len(queries), 0), -np.inf, np.float32)
        for first in range(0, len(rows), step):
            some = rows[first : first + step]
            is_run = some[-1] - some[0] + 1 == len(some)
            values = self.values[some[0] : some[-1] + 1] if is_run else self.values[some]
            scores, places = _top(queries, values, min(n_wanted, len(some)), call)
            all_rows, all_scores = np.hstack([best[0], some[places]]), np.hstack([best[1], scores])
            if all_scores.shape[1] > n_wanted:
                kept = np.argpartition(-all_scores, n_wanted - 1, axis=1)[:, :n_wanted]
                all_rows, all_scores = (
                    np.take_along_axis(part, kept, axis=1) for part in (all_rows, all_scores)
                )
            best = all_rows, all_scores
        return best[0], best[1].min(axis=1).astype(np.float64)

    def _best(self, queries: NDArray[np.float32], rows: NDArray[np.int64], k: int) -> Found:
        """The k best of candidates `[Q, n]` by true scores: score descending, then row ascending."""
        rows = np.sort(rows, axis=1)
        with np.errstate(over="ignore"):  # a score beyond float32 is infinite, and that is its best rounding
            scores = dense_scores(queries, self.values, rows).astype(np.float32)
        return best_of(rows, scores, k)


def _top(
    queries: NDArray[np.float32], values: NDArray[np.float32], n_wanted: int, call: DenseCall
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """What faiss takes for the best rows of a matrix: scores and rows `[Q, n_wanted]`."""
    if call.device == "cuda":
        faiss = faiss_library()
        with GPU:
            found: tuple[Any, Any] = faiss.knn_gpu(
                faiss.StandardGpuResources(), queries, values, n_wanted, metric=faiss.METRIC_INNER_PRODUCT
            )
    else:
        with faiss_threads(call.n_threads) as faiss:
            found = faiss.knn(queries, values, n_wanted, metric=faiss.METRIC_INNER_PRODUCT)
    return found
