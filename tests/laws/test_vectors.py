"""Laws of `SparseVectors`: nothing is lost on the way to another form and back, and parts make the whole."""

from __future__ import annotations

import tempfile
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.index.vectors import SparseVectors
from tests.laws.strategies import permutation, sparse_vectors

laws = settings(deadline=None, max_examples=60)


@given(vectors=sparse_vectors())
@laws
def test_dicts_round_trip(vectors: SparseVectors) -> None:
    again = SparseVectors.from_dicts(
        vectors.to_dicts(), vectors.n_cols, ids=vectors.ids, signed=vectors.signed
    )
    assert again.equals(vectors)


@given(vectors=sparse_vectors())
@laws
def test_scipy_round_trips(vectors: SparseVectors) -> None:
    again = SparseVectors.from_scipy(vectors.to_scipy(), ids=vectors.ids, signed=vectors.signed)
    assert again.equals(vectors)


@given(vectors=sparse_vectors(n_cols=st.integers(1, 40)))
@laws
def test_dense_round_trips(vectors: SparseVectors) -> None:
    dense = vectors.to_scipy().toarray()
    assert SparseVectors.from_dense(dense, ids=vectors.ids, signed=vectors.signed).equals(vectors)


@given(vectors=sparse_vectors())
@laws
def test_arrow_round_trips_with_its_vocabulary_and_sign(vectors: SparseVectors) -> None:
    again = SparseVectors.from_arrow(vectors.to_arrow())
    assert again.signed == vectors.signed
    assert again.with_ids(vectors.ids).equals(vectors) if vectors.ids is not None else again.equals(vectors)


@given(vectors=sparse_vectors(), batch_rows=st.integers(1, 20))
@laws
def test_parquet_round_trips_whole_and_in_parts(vectors: SparseVectors, batch_rows: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        vectors.write_parquet(Path(folder) / "v.parquet")
        whole = SparseVectors.read_parquet(Path(folder) / "v.parquet")
        parts = list(SparseVectors.stream_parquet(Path(folder) / "v.parquet", batch_rows=batch_rows))
    assert whole.signed == vectors.signed
    assert whole.to_dicts() == vectors.to_dicts()
    assert max(part.n_rows for part in parts) <= batch_rows
    assert SparseVectors.concat(parts).equals(whole)
    if vectors.n_rows:
        assert whole.equals(vectors)


@pytest.mark.skipif(find_spec("torch") is None, reason="needs torch")
@given(vectors=sparse_vectors())
@laws
def test_torch_round_trips(vectors: SparseVectors) -> None:
    again = SparseVectors.from_torch(vectors.to_torch(), ids=vectors.ids, signed=vectors.signed)
    assert again.equals(vectors)


@given(
    vectors=sparse_vectors(), start=st.integers(-15, 15), stop=st.integers(-15, 15), step=st.integers(-3, 3)
)
@laws
def test_a_slice_is_the_slice_of_the_rows(vectors: SparseVectors, start: int, stop: int, step: int) -> None:
    part = slice(start, stop, step or None)
    assert vectors[part].to_dicts() == vectors.to_dicts()[part]
    if vectors.ids is not None:
        ids = vectors[part].ids
        assert ids is not None
        assert ids.to_pylist() == vectors.ids.to_pylist()[part]


@given(vectors=sparse_vectors(), data=st.data())
@laws
def test_rows_by_number_and_by_mask(vectors: SparseVectors, data: st.DataObject) -> None:
    rows = data.draw(
        st.lists(st.integers(0, max(vectors.n_rows - 1, 0)), max_size=20 if vectors.n_rows else 0)
    )
    everything = vectors.to_dicts()
    assert vectors[np.array(rows, dtype=int)].to_dicts() == [everything[row] for row in rows]
    mask = np.array(
        data.draw(st.lists(st.booleans(), min_size=vectors.n_rows, max_size=vectors.n_rows)), dtype=bool
    )
    assert vectors[mask].to_dicts() == [row for row, kept in zip(everything, mask, strict=True) if kept]
    for row in range(vectors.n_rows):
        terms, weights = vectors.row(row)
        assert dict(zip(terms.tolist(), weights.tolist(), strict=True)) == everything[row]


@given(vectors=sparse_vectors(), cuts=st.lists(st.integers(0, 12), max_size=4))
@laws
def test_parts_make_the_whole(vectors: SparseVectors, cuts: list[int]) -> None:
    bounds = [0, *sorted(cuts), 12]
    parts = [vectors[start:stop] for start, stop in pairwise(bounds)]
    assert SparseVectors.concat(parts).equals(vectors)


@given(vectors=sparse_vectors(), seed=st.integers(0, 999))
@laws
def test_a_permutation_and_its_inverse_cancel(vectors: SparseVectors, seed: int) -> None:
    order = permutation(vectors.n_rows, seed)
    assert vectors[order][np.argsort(order)].equals(vectors)


@given(vectors=sparse_vectors(), k=st.integers(1, 10))
@laws
def test_top_keeps_the_largest_magnitudes(vectors: SparseVectors, k: int) -> None:
    top = vectors.top(k)
    for kept, row in zip(top.to_dicts(), vectors.to_dicts(), strict=True):
        best = sorted(row.items(), key=lambda entry: (-abs(entry[1]), entry[0]))[:k]
        assert kept == dict(best)
    assert top.top(k).equals(top)
    assert vectors.top(8).equals(vectors)
