"""`Segment`: the arrays of an index in use, and the ways to search them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gossamer.index.format import Effort
from gossamer.index.impacts import ImpactScale, quantise_queries
from gossamer.index.vectors import SparseVectors
from gossamer.kernels.errors import InputError
from gossamer.kernels.refine import MORE, SCAN, Forward, Rounding, judge, scan, stored_keys, true_keys
from gossamer.kernels.sparse_dot import (
    Backend,
    Mask,
    Postings,
    Queries,
    TopK,
    answer,
    check_postings,
    mask_of,
    read_keys,
)

Rescore: TypeAlias = Literal["float"]
Found: TypeAlias = tuple[NDArray[np.int64], NDArray[Any]]
"""Rows and scores; these are float32, but float64 where they are compared with those of other segments."""

_COARSE_SUM = 2**15 - 1  # so that the kernel adds 16-bit sums
_COARSE_TERMS = 64  # of more, each would keep less than two levels
_FEWEST_HITS = 10  # what efforts are calibrated for; of fewer, a hit's place among candidates is as uncertain
_CELLS = 4_000_000  # candidates of all queries that are looked at together


@dataclass(frozen=True)
class Call:
    """What the kernel is told, whatever the way of the search.

    Attributes:
        k: hits wanted.
        allowed: bool `[n_documents]` by row, or None.
        backend, n_threads: see `sparse_dot_topk`.
    """

    k: int
    allowed: NDArray[np.bool_] | None
    backend: Backend
    n_threads: int


@dataclass(frozen=True, eq=False)
class Segment:
    """Postings, and where they were kept the rows as given.

    Attributes:
        postings: what is searched.
        forward: rows for exact scores, or None.
        scale: how weights are stored.
        largest_error: the largest difference between a weight and what is stored for it.
        live: bool `[n_documents]` by row, or None: the others are gone for good. Not written to afterwards.
    """

    postings: Postings
    forward: Forward | None
    scale: ImpactScale
    largest_error: float
    live: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        check_postings(self.postings)

    @cached_property
    def positions(self) -> NDArray[np.uint32]:
        """Where each row stands in the postings; 4 bytes a document, made when first asked for."""
        rows = self.postings.rows
        positions = np.empty_like(rows)
        positions[rows] = np.arange(len(rows), dtype=np.uint32)
        return positions

    @property
    def can_approximate(self) -> bool:
        """Whether there are bounds, and rows for exact scores."""
        return self.forward is not None and self.postings.bounds is not None

    @cached_property
    def _live(self) -> Mask | None:
        """Made once, as it serves every call."""
        return None if self.live is None else mask_of(self.live, self.postings, blocks=True)

    def _mask(self, call: Call) -> Mask | None:
        if call.allowed is None:
            return self._live
        allowed = call.allowed
        if self.live is not None and allowed.shape == self.live.shape:  # else it is refused
            allowed = allowed & self.live
        return mask_of(allowed, self.postings)

    def search(
        self, queries: SparseVectors, call: Call, effort: Effort | None, *, true: bool, wide: bool = False
    ) -> Found:
        """Rows and scores `[Q, k]` of the hits.

        Args:
            queries: Q queries over the vocabulary of the postings.
            call: k, mask, backend, threads.
            effort: what an approximate search leaves out; None for an exact one.
            true: whether scores are those of the weights as given. Impacts of float32 are these.
            wide: whether stored scores are float64, in which no two sums are one: to be compared with those of other
                segments.

        Raises:
            InputError: scores are to be true, and the weights as given were not kept.
        """
        true = true and self.scale.kind != "float32"
        mask = self._mask(call)
        if effort is None or not self.can_approximate or (queries.signed and (queries.values < 0).any()):
            return self._rescored(queries, call, mask) if true else self._exact(queries, call, mask, wide)
        return self._approximate(queries, call, mask, effort, true=true, wide=wide)

    def _exact(self, queries: SparseVectors, call: Call, mask: Mask | None, wide: bool) -> Found:
        """The best hits over the stored impacts, `[Q, k]`."""
        scaled = quantise_queries(queries, self.scale)
        top = self._top(scaled.queries, call.k, call, mask)
        return top.rows, scaled.wide_scores(top) if wide else scaled.scores(top)

    def _approximate(
        self, queries: SparseVectors, call: Call, mask: Mask | None, effort: Effort, *, true: bool, wide: bool
    ) -> Found:
        """Candidates from coarse queries without their smallest weights, in the best windows; then exact scores.

        Args:
            queries: Q queries, no weight of which is below zero.
            call: k, backend, threads. With a filter all windows are looked into, as the best ones may be empty.
            mask: what may be a hit.
            effort: what is left out.
            true: whether scores are those of the weights as given, instead of the stored ones.
            wide: see `search`.
        """
        coarse = quantise_queries(
            queries, self.scale, largest_sum=_COARSE_SUM, longest=_COARSE_TERMS, share=effort.query_share
        ).queries
        n_hits = max(call.k, _FEWEST_HITS)
        wanted = min(math.ceil(n_hits * effort.candidates_a_hit), self.postings.n_documents)
        windows = effort.max_windows if call.allowed is None else None
        top = self._top(coarse, max(wanted, 1), call, mask, windows)
        if true:
            return self._best(queries, top.rows, call.k)
        scaled = quantise_queries(queries, self.scale)
        step, levels = self.scale.step, self.scale.levels
        keys = stored_keys(scaled.queries, self._rows(), self.postings.n_terms, top.rows, step, levels)
        best = read_keys(keys, call.k, is_float=False)
        return best.rows, scaled.wide_scores(best) if wide else scaled.scores(best)

    def _rescored(
        self, queries: SparseVectors, call: Call, mask: Mask | None, wanted: int | None = None
    ) -> Found:
        """The best hits over the weights as given: exact, because no other document can reach them; see `judge`.

        Args:
            queries: Q queries.
            call: k, backend, threads.
            mask: what may be a hit.
            wanted: candidates a query to begin with, by stored scores; what they do not suffice for gets four times
                as many.
        """
        n_queries, n_documents = queries.n_rows, self.postings.n_documents
        wanted = max(min(wanted or 2 * call.k, n_documents), 1)
        if n_queries * wanted > _CELLS and n_queries > 1:
            halves = queries[: n_queries // 2], queries[n_queries // 2 :]
            first, second = (self._rescored(half, call, mask, wanted) for half in halves)
            return np.concatenate([first[0], second[0]]), np.concatenate([first[1], second[1]])
        scaled = quantise_queries(queries, self.scale)
        top = self._top(scaled.queries, wanted, call, mask)
        rows, scores = self._best(queries, top.rows, call.k)
        if wanted == n_documents and (top.rows[:, -1] >= 0).all():
            return rows, scores  # all documents are candidates
        given = Queries(queries.indptr, queries.indices, queries.values)
        verdicts = judge(given, scaled.queries, scaled.steps, self._rounding, top, scores)
        if verdicts.any():
            del top
            some = np.flatnonzero(verdicts == MORE)
            if len(some):
                rows[some], scores[some] = self._rescored(queries[some], call, mask, 4 * wanted)
            for query in np.flatnonzero(verdicts == SCAN).tolist():
                rows[query], scores[query] = self._scanned(queries, query, mask, call.k)
        return rows, scores

    def _top(
        self, queries: Queries, k: int, call: Call, mask: Mask | None, max_windows: int | None = None
    ) -> TopK:
        return answer(queries, self.postings, k, mask, max_windows, call.backend, call.n_threads)

    def _rows(self) -> Forward:
        if self.forward is None:
            raise InputError(
                "this index does not keep the weights as given; build it with BuildConfig(forward=True) to rescore."
            )
        return self.forward

    @cached_property
    def _rounding(self) -> Rounding:
        largest_weight = self.scale.levels * self.scale.step + self.largest_error
        drops = len(self._rows().terms) > len(self.postings.local)
        return Rounding(self.scale.step, largest_weight, self.largest_error, drops)

    def _best(self, queries: SparseVectors, rows: NDArray[np.int64], k: int) -> Found:
        """The k best of candidates by the weights as given."""
        given = Queries(queries.indptr, queries.indices, queries.values)
        return _read(true_keys(given, self._rows(), self.postings.n_terms, rows), k)

    def _scanned(self, queries: SparseVectors, query: int, mask: Mask | None, k: int) -> Found:
        """The k best of all rows for one of the queries."""
        given = Queries(queries.indptr, queries.indices, queries.values)
        allowed = None if mask is None else mask.allowed
        return _read(scan(given, self._rows(), self.postings.n_terms, query, allowed, k), k)


def _read(keys: NDArray[np.int64], k: int) -> Found:
    rows, scores = read_keys(keys, k, is_float=True)
    return rows, np.asarray(scores, np.float32)
