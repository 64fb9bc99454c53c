"""From `recall=0.99` to how much of a structure is looked at: a curve of efforts that were shown to keep a recall.

As `calibration` does it for sparse vectors, but for the efforts that are tried. Without queries such as will be asked,
documents are moved a step in a random direction, as far as their 10th neighbour is away: where they stand themselves,
they would be found too easily. Queries of another kind than documents, such as questions, may still be harder to find
neighbours for.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from gossamer.index.calibration import chain, judged, pareto, recalls_of
from gossamer.index.dense_config import Hnsw, IvfPq, Structure
from gossamer.index.dense_segment import DenseCall, DenseSegment
from gossamer.index.dense_structure import some_rows
from gossamer.index.dense_vectors import norms
from gossamer.index.format import DenseEffort, OperatingPoint
from gossamer.kernels.errors import InputError

_N_TRYING, _N_JUDGING = 64, 256  # queries that are made of documents
_N_TIMED = 64  # queries that are asked for their time; recall is counted on all
_K = 10
_FOUND_ENOUGH = 0.999  # recall above which a search that looks at still more is not tried


def dense_curve_of(
    segment: DenseSegment, structure: Structure, queries: NDArray[np.float32] | None
) -> tuple[tuple[OperatingPoint, ...], int]:
    """The curve of a segment, and the number of queries behind it.

    Args:
        segment: its documents.
        structure: of the index.
        queries: float32 `[Q, D]`, such as will be asked, a fifth to try efforts and the others to judge them; None
            makes some of documents.

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
        raise InputError("there are no queries to calibrate on; give some, or an index with documents.")
    order = np.random.default_rng(0).permutation(len(queries))
    n_trying = max(min(len(order) // 5, _N_TRYING), 1)
    efforts = chain([*_tried(_Trial(segment, queries[order[:n_trying]]), structure)])
    judging = _Trial(segment, queries[order[n_trying:] if len(order) > n_trying else order])
    return tuple(pareto([*judged(judging, efforts)])), len(queries)


def _moved(segment: DenseSegment) -> NDArray[np.float32]:
    """Some documents, each as far away from where it stands as its 10th neighbour."""
    rows = np.arange(segment.n_rows) if segment.live is None else np.flatnonzero(segment.live)
    documents = segment.values[rows[some_rows(len(rows), _N_TRYING + _N_JUDGING)]]
    if len(documents) == 0:
        return documents
    found, _ = segment.search(documents, DenseCall(min(_K + 1, len(rows)), None, 1), None)
    distances = norms(segment.values[found[:, -1]] - documents)
    steps = np.random.default_rng(0).standard_normal(documents.shape)
    steps *= (distances / norms(steps.astype(np.float32)))[:, None]
    return (documents + steps).astype(np.float32)


class _Trial:
    """Queries, and their exact hits to compare with."""

    def __init__(self, segment: DenseSegment, queries: NDArray[np.float32]) -> None:
        self._segment, self._queries = segment, queries
        self._exact, self.exact_us = self._ask(None)

    def recalls(self, effort: DenseEffort) -> tuple[list[NDArray[np.float64]], float]:
        """The recall of every query, and the time of a query in µs."""
        scores, query_us = self._ask(effort)
        return [recalls_of(self._exact, scores)], query_us

    def _ask(self, effort: DenseEffort | None) -> tuple[NDArray[np.float32], float]:
        """Scores `[Q, 10]` of all queries, and the median time of one that is asked alone, in µs."""
        call, times = DenseCall(_K, None, 1), []
        _, scores = self._segment.search(self._queries, call, effort)
        for number in range(min(len(self._queries), _N_TIMED)):
            began = time.thread_time()  # others may be using this core
            self._segment.search(self._queries[number : number + 1], call, effort)
            times.append(time.thread_time() - began)
        return scores, float(np.median(times) * 1e6)


def _tried(trial: _Trial, structure: Structure) -> Iterator[OperatingPoint]:
    """All efforts that are worth it, with their recall."""
    yield OperatingPoint(effort=None, recall=1.0, query_us=trial.exact_us)
    for efforts in _efforts(structure):
        for effort in efforts:
            (recalls,), query_us = trial.recalls(effort)
            recall = float(recalls.mean())
            yield OperatingPoint(effort=effort, recall=recall, query_us=query_us)
            if recall >= _FOUND_ENOUGH or query_us > trial.exact_us:
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
