"""`Segment`: the arrays of an index in use, and the ways to search them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gossamer.index.format import Effort
from gossamer.index.impacts import LARGEST_SUM, ImpactScale, ScaledQueries, quantise_queries
from gossamer.index.vectors import SparseVectors
from gossamer.kernels.errors import InputError
from gossamer.kernels.refine import Forward, best_of, stored_scores, true_scores
from gossamer.kernels.rounding import magnitudes
from gossamer.kernels.sparse_dot import (
    Backend,
    Mask,
    Postings,
    Queries,
    TopK,
    answer,
    check_postings,
    mask_of,
)

Rescore: TypeAlias = Literal["float"]
Found: TypeAlias = tuple[NDArray[np.int64], NDArray[np.float32]]

_COARSE_SUM = 2**15 - 1  # so that the kernel adds 16-bit sums
_COARSE_TERMS = 64  # of more, each would keep less than two levels


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


@dataclass(frozen=True)
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

    def search(self, queries: SparseVectors, call: Call, effort: Effort | None, *, true: bool) -> Found:
        """Rows and scores `[Q, k]` of the hits.

        Args:
            queries: Q queries over the vocabulary of the postings.
            call: k, mask, backend, threads.
            effort: what an approximate search leaves out; None for an exact one.
            true: whether scores are those of the weights as given. Impacts of float32 are these.

        Raises:
            InputError: scores are to be true, and the weights as given were not kept.
        """
        true = true and self.scale.kind != "float32"
        mask = self._mask(call)
        if effort is None or not self.can_approximate or (queries.signed and (queries.values < 0).any()):
            return self._rescored(queries, call, mask) if true else self._exact(queries, call, mask)
        return self._approximate(queries, call, mask, effort, true=true)

    def _exact(self, queries: SparseVectors, call: Call, mask: Mask | None) -> Found:
        """The best hits over the stored impacts, `[Q, k]`."""
        scaled = quantise_queries(queries, self.scale)
        top = self._top(scaled.queries, call.k, call, mask)
        return top.rows, scaled.scores(top)

    def _approximate(
        self, queries: SparseVectors, call: Call, mask: Mask | None, effort: Effort, *, true: bool
    ) -> Found:
        """Candidates from coarse queries without their smallest weights, in the best windows; then exact scores.

        Args:
            queries: Q queries, no weight of which is below zero.
            call: k, backend, threads. With a filter all windows are looked into, as the best ones may be empty.
            mask: what may be a hit.
            effort: what is left out.
            true: whether scores are those of the weights as given, instead of the stored ones.
        """
        is_long = np.diff(queries.indptr).max(initial=0) > _COARSE_TERMS
        largest_sum = LARGEST_SUM if is_long else _COARSE_SUM
        coarse = quantise_queries(
            queries, self.scale, largest_sum=largest_sum, share=effort.query_share
        ).queries
        wanted = min(math.ceil(call.k * effort.candidates_a_hit), self.postings.n_documents)
        windows = effort.max_windows if call.allowed is None else None
        top = self._top(coarse, max(wanted, 1), call, mask, windows)
        if true:
            rows, scores = best_of(top.rows, self._true(queries, top.rows), call.k)
            with np.errstate(over="ignore"):
                return rows, scores.astype(np.float32)
        scaled = quantise_queries(queries, self.scale)
        sums = stored_scores(
            scaled.queries,
            self._rows(),
            self.postings.n_terms,
            top.rows,
            self.scale.step,
            self.scale.levels,
        )
        rows, best = best_of(top.rows, sums, call.k)
        return rows, scaled.scores(TopK(rows, best))

    def _rescored(self, queries: SparseVectors, call: Call, mask: Mask | None) -> Found:
        """The best hits over the weights as given: exact, because no other document can reach them.

        A stored score differs from the true one by no more than the rounding of both sides allows. So candidates are
        enough if the last of them, raised by that, is below the k-th true score; else there have to be more.
        """
        scaled = quantise_queries(queries, self.scale)
        difference = self._largest_difference(queries, scaled)
        n_documents = self.postings.n_documents
        wanted = min(2 * call.k, max(n_documents, 1))
        rows = np.full((queries.n_rows, call.k), -1)
        best = np.full(rows.shape, -np.inf)
        waiting = np.arange(queries.n_rows)
        while len(waiting):
            some = _Some(queries, scaled.queries, waiting)
            top = self._top(some.rounded, wanted, call, mask)
            found, true = best_of(top.rows, self._true(some.given, top.rows), call.k)
            rows[waiting], best[waiting] = found, true
            reach = top.scores[:, -1] * (scaled.steps[waiting] * self.scale.step) + difference[waiting]
            complete = (top.rows[:, -1] < 0) | (reach < true[:, -1])
            waiting = waiting[~complete] if wanted < n_documents else waiting[:0]
            wanted = min(4 * wanted, n_documents)
        self._add_unstored(queries, call.k, mask, difference, rows, best)
        with np.errstate(over="ignore"):  # a score beyond float32 is infinite, and that is its best rounding
            return rows, best.astype(np.float32)

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

    def _true(self, queries: SparseVectors, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        given = Queries(queries.indptr, queries.indices, queries.values)
        return true_scores(given, self._rows(), self.postings.n_terms, rows)

    def _largest_difference(self, queries: SparseVectors, scaled: ScaledQueries) -> NDArray[np.float64]:
        """Of a stored score and a true one: what rounding each side can do, `[Q]`."""
        lengths = np.diff(queries.indptr)
        magnitude = magnitudes(queries.indptr, queries.values)
        largest_weight = self.scale.levels * self.scale.step + self.largest_error
        # a query's weight is off by half a step at most, and the unit of scores is rounded to float32
        rounding = lengths * scaled.steps / 2 * largest_weight + magnitude * largest_weight * 2.0**-23
        return np.asarray(magnitude * self.largest_error + rounding, np.float64)

    def _add_unstored(
        self,
        queries: SparseVectors,
        k: int,
        mask: Mask | None,
        reach: NDArray[np.float64],
        rows: NDArray[np.int64],
        best: NDArray[np.float64],
    ) -> None:
        """Documents may share only terms whose weights were rounded to zero: no hits yet, but within `reach` of 0."""
        few = (rows[:, -1] < 0) | (best[:, -1] <= reach)
        for number in np.flatnonzero(few & (np.diff(queries.indptr) > 0)):
            every = np.arange(self.postings.n_documents)
            every = every if mask is None else every[mask.allowed]
            query = queries[number : number + 1]
            shares = self._shares_a_term(query)
            every = every[shares[every]][None]
            rows[number], best[number] = best_of(every, self._true(query, every), k)

    def _shares_a_term(self, query: SparseVectors) -> NDArray[np.bool_]:
        forward = self._rows()
        is_term = np.zeros(self.postings.n_terms, np.bool_)
        is_term[query.indices] = True
        hits = np.concatenate([[0], np.cumsum(is_term[forward.terms])])[forward.indptr]
        return np.diff(hits) > 0


class _Some:
    """Some of the queries, as given and as rounded."""

    def __init__(self, given: SparseVectors, rounded: Queries, chosen: NDArray[np.int64]) -> None:
        self.given, self.rounded = given, rounded
        if len(chosen) < given.n_rows:
            self.given = given[chosen]
            lengths = np.diff(rounded.indptr)
            is_chosen = np.zeros(len(lengths), np.bool_)
            is_chosen[chosen] = True
            kept = np.repeat(is_chosen, lengths)
            indptr = np.concatenate([[0], np.cumsum(lengths[chosen])])
            self.rounded = Queries(indptr, rounded.terms[kept], rounded.weights[kept])
