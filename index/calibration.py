"""From `recall=0.99` to what a search leaves out: a curve measured on the index itself.

Efforts are tried from a fixed list on a sample of queries, each judged against the exact hits by the weights as given:
tie-aware recall at 10 (a hit counts if its score reaches the 10th of the exact hits), and the median time of a query.
What is both slower and worse than another is left out of the curve; the exact search stands at its end. Choosing an
effort asks for a recall that holds one standard error below the sample's, and never for more time than exact search
takes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from gossamer.index.format import DenseEffort, Effort, OperatingPoint
from gossamer.index.segment import Call, Found, Segment
from gossamer.index.vectors import SparseVectors
from gossamer.kernels.errors import InputError

WORTH_CALIBRATING = 50_000  # documents; exact search of fewer takes about as long as any other
_N_QUERIES = 256
_K = 10
_SHARES = (1.0, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6)
_CANDIDATES = (2.0, 4.0, 8.0)
_HOPELESS = 0.8  # recall below which a search that leaves out still more is not tried


def curve_of(segment: Segment, queries: SparseVectors | None) -> tuple[tuple[OperatingPoint, ...], int]:
    """The curve of a segment, and the number of queries behind it.

    Args:
        segment: its documents.
        queries: such as will be asked; None draws documents.

    Raises:
        InputError: there are no bounds, no forward index, or no queries.
    """
    if not segment.can_approximate:
        raise InputError(
            "only an index of uint8 impacts with a forward index can be calibrated: build it from weights that are "
            "not negative, with BuildConfig(forward=True)."
        )
    queries = _drawn(segment) if queries is None else queries
    if queries.n_rows == 0:
        raise InputError("there are no queries to calibrate on; give some, or an index with documents.")
    return tuple(pareto([*_points(segment, queries)])), queries.n_rows


def choose(curve: Sequence[OperatingPoint], n_queries: int, recall: float) -> Effort | DenseEffort | None:
    """The effort of the fastest point that had the recall, with a margin of one standard error; None is exact.

    No sample shows that nothing at all is missed: the margin is one hit at least, and 1 is exact.
    """
    n_hits = max(n_queries * _K, 1)
    for point in curve:
        error = max(math.sqrt(point.recall * (1 - point.recall) / n_hits), 1 / n_hits)
        if point.recall - error >= recall:
            return point.effort
    return None


def _drawn(segment: Segment) -> SparseVectors:
    """Some documents as queries, each cut to the larger half of its terms: queries are shorter than documents."""
    forward, n_terms = segment.forward, segment.postings.n_terms
    assert forward is not None
    filled = np.flatnonzero(np.diff(forward.indptr) > 0)
    chosen = np.random.default_rng(0).choice(filled, min(_N_QUERIES, len(filled)), replace=False)
    rows = []
    for row in chosen:
        entries = slice(forward.indptr[row], forward.indptr[row + 1])
        values = forward.values[entries]
        weights = values.view(np.float16) if values.dtype == np.uint16 else values
        terms = forward.terms[entries].astype(np.int64)
        largest = np.argsort(-weights.astype(np.float32), kind="stable")[: -(-len(terms) // 2)]
        rows.append(dict(zip(terms[largest].tolist(), weights[largest].tolist(), strict=True)))
    return SparseVectors.from_dicts(rows, n_terms)


def _points(segment: Segment, queries: SparseVectors) -> Iterator[OperatingPoint]:
    singles = [queries[row : row + 1] for row in range(queries.n_rows)]
    exact, exact_us = _timed(segment, singles, None)
    worst = exact[1][:, -1]
    yield OperatingPoint(effort=None, recall=1.0, query_us=exact_us)
    for max_windows in _window_counts(segment.postings.n_windows):
        best = 0.0
        for candidates in _CANDIDATES:
            for share in _SHARES:
                effort = Effort(query_share=share, candidates_a_hit=candidates, max_windows=max_windows)
                found, query_us = _timed(segment, singles, effort)
                recall = _recall(exact, found, worst)
                yield OperatingPoint(effort=effort, recall=recall, query_us=query_us)
                best = max(best, recall)
                if recall < _HOPELESS:
                    break
        if best < _HOPELESS:
            return


def _window_counts(n_windows: int) -> Iterator[int | None]:
    """All windows, then fewer and fewer."""
    yield None
    count = n_windows // 2
    while count >= 1:
        yield count
        count = count * 2 // 3


def _timed(segment: Segment, singles: Sequence[SparseVectors], effort: Effort | None) -> tuple[Found, float]:
    """The hits of all queries, asked one by one, and the median time of one in µs."""
    call = Call(_K, None, "numba", 1)
    times, found = [], []
    segment.search(singles[0], call, effort, true=True)  # compiles, where that is still to be done
    for query in singles:
        began = time.perf_counter()
        found.append(segment.search(query, call, effort, true=True))
        times.append(time.perf_counter() - began)
    rows, scores = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return (rows, scores), float(np.median(times) * 1e6)


def _recall(exact: Found, found: Found, worst: NDArray[np.float32]) -> float:
    wanted = (exact[0] >= 0).sum()
    reached = (found[0] >= 0) & (found[1] >= worst[:, None])
    return float(reached.sum() / max(wanted, 1))


def pareto(points: list[OperatingPoint]) -> Iterator[OperatingPoint]:
    """Those that no other point beats in both, fastest first; nothing slower than exact search."""
    best = -1.0
    for point in sorted(points, key=lambda point: (point.query_us, -point.recall)):
        if point.recall > best or point.effort is None:
            best = point.recall
            yield point
        if point.effort is None:
            return
