"""Brute force over dense arrays: what an index must answer, written without any of its code."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gossamer.index.vectors import SparseVectors

Kind = Literal["uint8", "int8", "float32"]
_LEVELS = {"uint8": 255, "int8": 127}


class Answer(NamedTuple):
    rows: NDArray[np.int64]
    scores: NDArray[np.float32]


def dense(vectors: SparseVectors) -> NDArray[np.float32]:
    array = np.zeros(vectors.shape, dtype=np.float32)
    for row in range(vectors.n_rows):
        terms, values = vectors.row(row)
        array[row, terms] = values
    return array


def levels_of(documents: NDArray[np.float32], kind: Kind) -> tuple[NDArray[Any], float]:
    """The impacts of a dense matrix, and the weight of one level."""
    if kind == "float32":
        return documents, 1.0
    step = float(np.float32(np.abs(documents).max(initial=0) / _LEVELS[kind])) or 1.0
    return np.rint(documents.astype(np.float64) / step).astype(np.int64), step


def brute_force(
    documents: SparseVectors,
    queries: SparseVectors,
    k: int,
    kind: Kind,
    allowed: NDArray[np.bool_] | None = None,
    *,
    largest_sum: float = 2**31 - 1,
) -> Answer:
    """All scores by dense products, one full sort a query; no sum of magnitudes passes `largest_sum`."""
    impacts, step = levels_of(dense(documents), kind)
    rows = np.full((queries.n_rows, k), -1, dtype=np.int64)
    scores = np.full((queries.n_rows, k), -np.inf, dtype=np.float32)
    for number, query in enumerate(dense(queries)):
        if kind == "float32":
            weights, unit = query, 1.0
            sums = np.zeros(documents.n_rows, dtype=np.float32)
            for term in np.flatnonzero(query):
                sums += query[term] * impacts[:, term]
        else:
            query_step = _query_step(query, _LEVELS[kind], largest_sum)
            weights = np.rint(query.astype(np.float64) / query_step).astype(np.int64)
            unit = float(np.float32(query_step * step))
            sums = impacts @ weights
        hit = (impacts[:, weights != 0] != 0).any(axis=1)
        if allowed is not None:
            hit &= allowed
        order = sorted(np.flatnonzero(hit), key=lambda row: (-sums[row], row))[:k]
        rows[number, : len(order)] = order
        scores[number, : len(order)] = (sums[order].astype(np.float64) * unit).astype(np.float32)
    return Answer(rows, scores)


def _query_step(query: NDArray[np.float32], levels: int, largest_sum: float) -> float:
    largest, finest = float(np.abs(query).max(initial=0)), 32_767.0
    while largest:
        step = largest / finest
        total = float(np.abs(np.rint(query.astype(np.float64) / step)).sum()) * levels
        if total <= largest_sum:
            return step
        finest = min(np.floor(finest * largest_sum / total), finest - 1)
    return 1.0


def random_vectors(
    rng: np.random.Generator,
    n_rows: int,
    n_cols: int,
    density: float = 0.1,
    *,
    signed: bool = False,
    few_values: bool = False,
    names: str | None = "d",
) -> SparseVectors:
    """Random rows, some of them empty; with few different values there are many ties."""
    array = rng.random((n_rows, n_cols)) < density
    values = rng.integers(1, 4, array.shape) / 2 if few_values else rng.lognormal(0, 1, array.shape)
    signs = rng.choice([-1, 1], array.shape) if signed else 1
    array[rng.random(n_rows) < 0.1] = False
    ids = None if names is None else [f"{names}{row}" for row in range(n_rows)]
    return SparseVectors.from_dense(array * values * signs, ids=ids, signed=signed)
