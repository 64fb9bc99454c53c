"""Sparse vectors of all shapes, for hypothesis."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from gossamer.index.vectors import SparseVectors

_WEIGHTS = st.one_of(
    st.floats(2**-20, 4, width=32),
    st.sampled_from([0.5, 1.0, 1.5, 4.0]),  # so that there are ties
)


@st.composite
def sparse_vectors(
    draw: st.DrawFn,
    *,
    n_cols: st.SearchStrategy[int] | int | None = None,
    max_rows: int = 12,
    signed: bool | None = None,
    named: bool | None = None,
) -> SparseVectors:
    """Rows with a few weights each, some empty, maybe signed, maybe with ids."""
    if n_cols is None:
        n_cols = st.sampled_from([1, 2, 9, 65_536, 65_537, 2**31 - 1])
    width = n_cols if isinstance(n_cols, int) else draw(n_cols)
    signed = draw(st.booleans()) if signed is None else signed
    weight = st.one_of(_WEIGHTS, _WEIGHTS.map(lambda w: -w)) if signed else _WEIGHTS
    rows = draw(st.lists(st.dictionaries(st.integers(0, width - 1), weight, max_size=8), max_size=max_rows))
    ids = None
    if draw(st.booleans()) if named is None else named:
        ids = draw(st.lists(st.text(max_size=5), min_size=len(rows), max_size=len(rows), unique=True))
    return SparseVectors.from_dicts(rows, width, ids=ids, signed=signed)


def rows_as_sets(vectors: SparseVectors) -> list[set[tuple[int, float]]]:
    return [set(row.items()) for row in vectors.to_dicts()]


def permutation(n: int, seed: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.random.default_rng(seed).permutation(n)
