"""From `recall=0.99` to what a search leaves out: a curve of efforts that were shown to keep a recall on this index.

The recall is that of the 10 best hits, tie-aware: a hit counts if its score by the weights as given reaches the 10th of
the exact ones. Some queries try a fixed list of efforts, and the best trades of recall for time make a chain. Other
queries judge the chain, from the exact search towards the fastest, so that what looked best by chance is not taken at
its word: an effort is worth the lower end of a 95 % confidence interval of its recall, and no more than what came
before it. For a chain that is fixed beforehand this is a test at 95 %, whatever its length (fixed sequence testing;
Angelopoulos et al., "Learn then Test", 2021).

Without queries such as will be asked, three kinds are made of documents, and an effort is worth what the worst kind
shows. The document that a query was made of is left out of its hits: it would always be found.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gossamer.index.format import DenseEffort, Effort, OperatingPoint
from gossamer.index.pseudo_queries import Asked, pseudo_queries
from gossamer.index.segment import Call, Segment
from gossamer.index.vectors import SparseVectors
from gossamer.kernels.errors import InputError

WORTH_CALIBRATING = 50_000  # documents; exact search of fewer takes about as long as any other
_N_TRYING, _N_JUDGING = 32, 256  # queries of each kind that are made of documents
_K = 10
_Z = 1.645  # standard errors below which a normal variable is in 5 of 100 cases
_SHARES = (1.0, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6)
_CANDIDATES = (2.0, 4.0, 8.0)
_HOPELESS = 0.8  # recall below which a search that leaves out still more is not tried
_FASTER = 0.97  # of the time; less of a gain is noise


def curve_of(segment: Segment, queries: SparseVectors | None) -> tuple[tuple[OperatingPoint, ...], int]:
    """The curve of a segment, and the number of queries behind it.

    Args:
        segment: its documents.
        queries: such as will be asked, a quarter to try efforts and the others to judge them; None makes some of
            documents.

    Raises:
        InputError: there are no bounds, no forward index, or no queries.
    """
    if not segment.can_approximate or segment.forward is None:
        raise InputError(
            "only an index of uint8 impacts with a forward index can be calibrated: build it from weights that are "
            "not negative, with BuildConfig(forward=True)."
        )
    if queries is None:
        kinds = pseudo_queries(segment.forward, segment.postings.n_terms, _N_TRYING + _N_JUDGING)
    else:
        kinds = [Asked(queries)]
    n_queries = sum(kind.queries.n_rows for kind in kinds)
    if n_queries == 0:
        raise InputError("there are no queries to calibrate on; give some, or an index with documents.")
    trying, judging = zip(*map(_halves, kinds), strict=True)
    efforts = chain([*_tried(_Trial(segment, trying))])
    return tuple(pareto([*judged(_Trial(segment, judging), efforts)])), n_queries


def choose(curve: Sequence[OperatingPoint], recall: float) -> Effort | DenseEffort | None:
    """The effort of the fastest point that was shown to have the recall; None is exact."""
    return next((point.effort for point in curve if point.recall >= recall), None)


class Trial(Protocol):
    """Queries of some kinds that try efforts."""

    @property
    def exact_us(self) -> float:
        """Time of a query of the exact search, in µs."""

    def recalls(self, effort: Any) -> tuple[list[NDArray[np.float64]], float]:
        """For each kind the recall of every query that has hits; and the time of a query in µs."""


def _halves(kind: Asked) -> tuple[Asked, Asked]:
    """Queries for trying and for judging; of fewer than four, one does both."""
    order = np.random.default_rng(0).permutation(kind.queries.n_rows)
    n_trying = min(len(order) // 4, 4 * _N_TRYING)
    return kind[order[: max(n_trying, 1)]], kind[order[n_trying:]]


class _Trial:
    """Queries of some kinds, asked one by one, and their exact hits to compare with."""

    def __init__(self, segment: Segment, kinds: Sequence[Asked]) -> None:
        self._segment = segment
        self.n_windows = segment.postings.n_windows
        self._kinds = [
            ([kind.queries[row : row + 1] for row in range(kind.queries.n_rows)], kind.own) for kind in kinds
        ]
        self._exact, self.exact_us = self._ask(None)

    def recalls(self, effort: Effort) -> tuple[list[NDArray[np.float64]], float]:
        """For each kind the recall of every query that has hits; and the time of a query in µs."""
        answers, query_us = self._ask(effort)
        return [recalls_of(*both) for both in zip(self._exact, answers, strict=True)], query_us

    def _ask(self, effort: Effort | None) -> tuple[list[NDArray[np.float32]], float]:
        """Scores `[Q, 10]` of each kind, and the mean over kinds of the median time of a query in µs."""
        answers, medians = [], []
        for singles, own in self._kinds:
            call, tried = Call(_K, None, "numba", 1), effort
            if own is not None:  # one hit more, and no more than one candidate more
                call = Call(_K + 1, None, "numba", 1)
                tried = effort and _one_candidate_more(effort)
            self._segment.search(
                singles[0], call, tried, true=True
            )  # compiles, where that is still to be done
            found, times = [], []
            for query in singles:
                began = time.thread_time()  # others may be using this core
                found.append(self._segment.search(query, call, tried, true=True))
                times.append(time.thread_time() - began)
            rows, scores = (np.concatenate(parts) for parts in zip(*found, strict=True))
            answers.append(scores if own is None else _without(own, rows, scores))
            medians.append(float(np.median(times) * 1e6))
        return answers, float(np.mean(medians))


def _one_candidate_more(effort: Effort) -> Effort:
    candidates = math.ceil(_K * effort.candidates_a_hit) + 1
    return effort.model_copy(update={"candidates_a_hit": (candidates - 0.5) / (_K + 1)})  # will be rounded up


def _without(
    own: NDArray[np.int64], rows: NDArray[np.int64], scores: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The 10 best scores of 11, descending, that are not those of a query's own document."""
    others = np.where(rows == own[:, None], -np.inf, scores)
    return np.asarray(-np.sort(-others, axis=1)[:, :_K], np.float32)


def recalls_of(exact: NDArray[np.float32], found: NDArray[np.float32]) -> NDArray[np.float64]:
    """The share of each query's exact hits that was found; without the queries that have none."""
    wanted = np.isfinite(exact)
    worst = np.where(wanted, exact, np.inf).min(axis=1)
    reached = (found >= worst[:, None]) & np.isfinite(found)
    some = wanted.any(axis=1)
    return np.asarray(reached[some].sum(axis=1) / wanted[some].sum(axis=1), np.float64)


def _lower_bound(recalls: NDArray[np.float64]) -> float:
    """The lower end of a one-sided 95 % interval for the mean recall of such queries; 0 if there are none.

    Wilson's interval for a share of hits, with their number divided by the design effect, as the hits of a query are
    missed together (Franco et al., "Comparative study of confidence intervals for proportions in complex sample
    surveys", 2019). Where nothing is missed it is below 1: no sample shows that nothing ever is.
    """
    n_queries = len(recalls)
    if n_queries == 0:
        return 0.0
    mean = float(recalls.mean())
    variance_of_a_hit, variance = mean * (1 - mean), float(recalls.var(ddof=min(n_queries - 1, 1)))
    effect = max(_K * variance / variance_of_a_hit, 1.0) if variance_of_a_hit > 0 else 1.0
    n_hits = n_queries * _K / effect
    slack = _Z**2 / n_hits
    middle = mean + slack / 2
    return (middle - math.sqrt(slack * (variance_of_a_hit + slack / 4))) / (1 + slack)


def _tried(trial: _Trial) -> Iterator[OperatingPoint]:
    """All efforts that are worth it, with the recall of the worst kind."""
    yield OperatingPoint(effort=None, recall=1.0, query_us=trial.exact_us)
    for max_windows in _window_counts(trial.n_windows):
        best = 0.0
        for candidates in _CANDIDATES:
            for share in _SHARES:
                effort = Effort(query_share=share, candidates_a_hit=candidates, max_windows=max_windows)
                recalls, query_us = trial.recalls(effort)
                recall = min(float(kind.mean()) if len(kind) else 0.0 for kind in recalls)
                yield OperatingPoint(effort=effort, recall=recall, query_us=query_us)
                best = max(best, recall)
                if recall < _HOPELESS:
                    break
        if best < _HOPELESS:
            return


def _window_counts(n_windows: int) -> Iterator[int | None]:
    """All windows, then fewer and fewer."""
    yield None
    count = n_windows * 2 // 3
    while count >= 1:
        yield count
        count = count * 2 // 3


def chain(points: Sequence[OperatingPoint]) -> Iterator[Effort | DenseEffort]:
    """From the slowest on: each effort clearly faster than the one before, and none that a faster one surpasses.

    Of efforts that take about the same time this is the one of the highest recall, whatever the noise of a clock.
    """
    last_us = next(point.query_us for point in points if point.effort is None)
    best, better = -1.0, []
    for point in sorted(points, key=lambda point: (point.query_us, point.recall)):
        if point.recall >= best:
            best = point.recall
            better.append(point)
    for point in reversed(better):
        if point.effort is not None and point.query_us <= _FASTER * last_us:
            last_us = point.query_us
            yield point.effort


def judged(trial: Trial, efforts: Iterable[Effort | DenseEffort]) -> Iterator[OperatingPoint]:
    """What each effort of a chain was shown to have: no more than those before it."""
    yield OperatingPoint(effort=None, recall=1.0, query_us=trial.exact_us)
    shown = 1.0
    for effort in efforts:
        recalls, query_us = trial.recalls(effort)
        shown = min(shown, *map(_lower_bound, recalls))
        yield OperatingPoint(effort=effort, recall=shown, query_us=query_us)
        if shown < _HOPELESS:
            return


def pareto(points: Sequence[OperatingPoint]) -> Iterator[OperatingPoint]:
    """Those that no other point beats in both, fastest first; nothing slower than exact search."""
    best = -1.0
    for point in sorted(points, key=lambda point: (point.query_us, -point.recall)):
        if point.recall > best or point.effort is None:
            best = point.recall
            yield point
        if point.effort is None:
            return
