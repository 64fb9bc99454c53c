"""Dense vectors for tests, and brute force over them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gossamer.index.dense import DenseIndex
from gossamer.index.dense_config import DenseConfig, Hnsw, Metric
from gossamer.index.dense_vectors import DenseVectors
from gossamer.kernels.dense_dot import dense_scores_reference
from tests.contracts.oracle import Answer


def brute_force(
    documents: NDArray[np.float32],
    queries: NDArray[np.float32],
    k: int,
    metric: Metric = "dot",
    allowed: NDArray[np.bool_] | None = None,
) -> Answer:
    """All scores, one full sort a query."""
    if metric == "cosine":
        documents, queries = (_of_length_1(array) for array in (documents, queries))
    rows = np.full((len(queries), k), -1, np.int64)
    scores = np.full((len(queries), k), -np.inf, np.float32)
    with np.errstate(over="ignore"):
        all_scores = dense_scores_reference(queries, documents).astype(np.float32)
    every = np.arange(len(documents)) if allowed is None else np.flatnonzero(allowed)
    for number, own in enumerate(all_scores):
        order = every[np.lexsort((every, -own[every]))][:k]
        rows[number, : len(order)], scores[number, : len(order)] = order, own[order]
    return Answer(rows, scores)


def _of_length_1(array: NDArray[np.float32]) -> NDArray[np.float32]:
    wide = array.astype(np.float64)
    return np.asarray(wide / np.sqrt((wide * wide).sum(axis=1, keepdims=True)), np.float32)


def clustered(n_rows: int, n_dims: int, seed: int = 0, few_values: bool = False) -> NDArray[np.float32]:
    """Rows around forty centres; with few different values there are many ties."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((40, n_dims))
    rows = centres[rng.integers(0, 40, n_rows)] + 0.5 * rng.standard_normal((n_rows, n_dims))
    return (np.rint(rows) if few_values else rows).astype(np.float32)


def build(path: Path, n_rows: int = 40, *, replace: bool = False, documents: Any = None) -> DenseIndex:
    """An index with a structure, for the contract of storage."""
    ids = [f"d{row}" for row in range(n_rows)]
    if documents is None:
        documents = pa.table({"id": ids, "text": ["some text"] * n_rows, "year": list(range(n_rows))})
    vectors = DenseVectors(clustered(n_rows, 6), ids)
    config = DenseConfig(structure=Hnsw(m=4), flat_below=1, calibrate=False)
    return DenseIndex.build(path, vectors, documents=documents, config=config, replace=replace)
