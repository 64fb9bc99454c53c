"""Parquet shards for the tests of builds."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gossamer.index import BuildConfig, InvertedIndex, SparseVectors

N_TERMS = 120
_POPULARITY = 1 / np.arange(3, N_TERMS + 3)
_POPULARITY /= _POPULARITY.sum()
CONFIG = BuildConfig(window=256, calibrate=False)


def some_rows(n_rows: int, first: int = 0, *, seed: int = 0, signed: bool = False) -> SparseVectors:
    """Rows of one to twelve terms with ids `d0`, `d1`, …; a function of the seed and of which rows they are."""
    rng = np.random.default_rng((seed, first))
    rows = []
    for _ in range(n_rows):
        terms = np.sort(rng.choice(N_TERMS, rng.integers(1, 13), replace=False, p=_POPULARITY))
        weights = rng.gamma(2, 0.5, len(terms)) * (rng.choice([-1, 1], len(terms)) if signed else 1)
        rows.append(dict(zip(terms.tolist(), weights.tolist(), strict=True)))
    ids = [f"d{row}" for row in range(first, first + n_rows)]
    return SparseVectors.from_dicts(rows, N_TERMS, ids=ids, signed=signed)


def write_shards(folder: Path, *, n_rows: int, n_files: int, signed: bool = False) -> None:
    """Files `part-0.parquet`, `part-1.parquet`, … of about as many rows each."""
    folder.mkdir()
    ends = np.linspace(0, n_rows, n_files + 1).astype(int).tolist()
    for number, (first, last) in enumerate(pairwise(ends)):
        some_rows(last - first, first, signed=signed).write_parquet(folder / f"part-{number}.parquet")


def damage(path: Path, *, row: int) -> None:
    """Make a weight of a row infinite."""
    table = pq.read_table(path)
    values = table["values"].to_pylist()
    values[row][0] = float("inf")
    at = table.schema.get_field_index("values")
    pq.write_table(
        table.set_column(at, table.schema.field("values"), pa.array(values, pa.list_(pa.float32()))), path
    )


def same_files(one: InvertedIndex, other: InvertedIndex) -> bool:
    """Whether two indexes consist of the same bytes, but for when they were made."""
    return one._snapshot.manifest.files == other._snapshot.manifest.files
