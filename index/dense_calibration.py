"""From `recall=0.99` to how much of a structure is looked at: a curve measured on the index itself.

As `calibration` does it for sparse vectors: efforts from a fixed list are judged by tie-aware recall of the 10 exact
hits, and by the median time of a query. Without queries such as will be asked, documents are moved a step in a random
direction, as far as their 10th neighbour is away: where they stand themselves, they would be found too easily. Queries
of another kind than documents, such as questions, may still be harder to find neighbours for.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from gossamer.index.calibration import pareto
from gossamer.index.dense_config import Hnsw, IvfPq, Structure
from gossamer.index.dense_segment import DenseCall, DenseSegment
from gossamer.index.dense_structure import some_rows
from gossamer.index.dense_vectors import norms
from gossamer.index.format import DenseEffort, OperatingPoint
from gossamer.kernels.errors import InputError

_N_QUERIES = 256
_N_TIMED = 32  # of these for their time; recall is counted on all
_K = 10
_FOUND_ENOUGH = 0.999  # recall above which a search that looks at still more is not tried


def dense_curve_of(
    segment: DenseSegment, structure: Structure, queries: NDArray[np.float32] | None
) -> tuple[tuple[OperatingPoint, ...], int]:
    """The curve of a segment, and the number of queries behind it.

    Args:
        segment: its documents.
        structure: of the index.
        queries: float32 `[Q, D]`, such as will be asked; None draws documents.

    Raises:
        InputError: the segment has no structure, or there are no queries.
    """
    if segment.structure is None:
        raise InputError(
            "only segments with a structure can be calibrated, and this index has none: its searches are exact. Give "
            "it a structure with DenseConfig(structure=…), and at least flat_below documents."
        )
    if queries is None:
        queries = _moved(segment)
    if len(queries) == 0:
        raise InputError("there are no queries to calibrate on; give some.")
    return tuple(pareto([*_points(segment, structure, queries)])), len(queries)


def _moved(segment: DenseSegment) -> NDArray[np.float32]:
    """Some documents, each as far away from where it stands as its 10th neighbour."""
    rows = np.arange(segment.n_rows) if segment.live is None else np.flatnonzero(segment.live)
    documents = segment.values[rows[some_rows(len(rows), _N_QUERIES)]]
    found, _ = segment.search(documents, DenseCall(min(_K + 1, len(rows)), None, 1), None)
    distances = norms(segment.values[found[:, -1]] - documents)
    steps = np.random.default_rng(0).standard_normal(documents.shape)
    steps *= (distances / norms(steps.astype(np.float32)))[:, None]
    return (documents + steps).astype(np.float32)


def _points(
    segment: DenseSegment, structure: Structure, queries: NDArray[np.float32]
) -> Iterator[OperatingPoint]:
    exact, exact_us = _asked(segment, queries, None)
    worst = np.where(np.isfinite(exact), exact, np.inf).min(axis=1, initial=np.inf)
    yield OperatingPoint(effort=None, recall=1.0, query_us=exact_us)
    for efforts in _efforts(structure):
        for effort in efforts:
            found, query_us = _asked(segment, queries, effort)
            reached = np.isfinite(found) & (found >= worst[:, None])
            recall = float(reached.sum() / max(np.isfinite(exact).sum(), 1))
            yield OperatingPoint(effort=effort, recall=recall, query_us=query_us)
            if recall >= _FOUND_ENOUGH or query_us > exact_us:
                break


def _efforts(structure: Structure) -> Iterator[Iterator[DenseEffort]]:
    """Efforts in rows; along each, more and more is looked at."""
    if isinstance(structure, Hnsw):
        for candidates in (1.5, 4.0):
            yield (
                DenseEffort(ef_search=ef_search, candidates_a_hit=candidates)
                for ef_search in (16, 32, 64, 128, 256, 512, 1024)
            )
    if isinstance(structure, IvfPq):
        for candidates in (2.0, 8.0, 32.0):
            yield (
                DenseEffort(nprobe=nprobe, candidates_a_hit=candidates)
                for nprobe in (1, 2, 4, 8, 16, 32, 64, 128, 256)
            )


def _asked(
    segment: DenseSegment,
    queries: NDArray[np.float32],
    effort: DenseEffort | None,
) -> tuple[NDArray[np.float32], float]:
    """Scores `[Q, 10]` of the hits, and the median time of a query that is asked alone, in µs."""
    call = DenseCall(_K, None, 1)
    _, scores = segment.search(queries, call, effort)
    times = []
    for number in range(min(len(queries), _N_TIMED)):
        began = time.perf_counter()
        segment.search(queries[number : number + 1], call, effort)
        times.append(time.perf_counter() - began)
    return scores, float(np.median(times) * 1e6)
