"""Laws of search: it is brute force, it does not know in which order documents came, and parts merge into the whole."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.index.hits import Hits
from gossamer.index.inverted import BuildConfig, InvertedIndex
from gossamer.index.sharded import ShardedIndex
from gossamer.index.vectors import SparseVectors
from tests.contracts.oracle import Kind, brute_force
from tests.laws.strategies import permutation, sparse_vectors

N_TERMS = 6
KINDS: list[Kind] = ["uint8", "int8", "float32"]
laws = settings(deadline=None, max_examples=30)
windows = st.sampled_from([1, 3, 65_536])
queries_of = sparse_vectors(n_cols=N_TERMS, max_rows=4, named=False)


def documents_of(kind: Kind) -> st.SearchStrategy[SparseVectors]:
    """Documents whose weights fit the kind, in a vocabulary of `N_TERMS`."""
    signed = {"uint8": False, "int8": True, "float32": None}[kind]
    return sparse_vectors(n_cols=N_TERMS, max_rows=12, signed=signed, named=False)


@contextmanager
def indexed(vectors: SparseVectors, kind: Kind, window: int) -> Iterator[InvertedIndex]:
    with tempfile.TemporaryDirectory() as folder, mock.patch("os.fsync"):  # flushing takes most of the time
        config = BuildConfig(impacts=kind, window=window)
        yield InvertedIndex.build(Path(folder) / "index", vectors, config=config)


def with_ruler(vectors: SparseVectors) -> SparseVectors:
    """One more document, of the largest weight that the strategies draw, so that all parts get the same scale.

    Its term is one that no query has: queries are over `N_TERMS` terms, and widened here.
    """
    ruler = SparseVectors.from_dicts([{N_TERMS: 4.0}], N_TERMS + 1)
    return SparseVectors.concat([widened(vectors), ruler])


def widened(vectors: SparseVectors) -> SparseVectors:
    return SparseVectors(
        vectors.indptr, vectors.indices, vectors.values, N_TERMS + 1, vectors.ids, vectors.signed
    )


def found(hits: Hits, query: int) -> list[tuple[int, float]]:
    rows = hits.rows[query]
    return list(zip(rows[rows >= 0].tolist(), hits.scores[query, rows >= 0].tolist(), strict=True))


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data(), queries=queries_of, window=windows, k=st.sampled_from([1, 2, 5, 20]))
@laws
def test_search_is_brute_force(
    kind: Kind, data: st.DataObject, queries: SparseVectors, window: int, k: int
) -> None:
    vectors = data.draw(documents_of(kind))
    n = vectors.n_rows
    allowed = data.draw(st.none() | st.lists(st.booleans(), min_size=n, max_size=n).map(np.array))
    allowed = None if allowed is None else allowed.astype(bool)
    with indexed(vectors, kind, window) as index:
        hits = index.search(queries, k, allowed=allowed)
        expected = brute_force(vectors, queries, k, kind, allowed)
        np.testing.assert_array_equal(hits.rows, expected.rows)
        np.testing.assert_array_equal(hits.scores, expected.scores)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data(), queries=queries_of, window=windows, seed=st.integers(0, 999))
@laws
def test_permuting_documents_permutes_the_hits(
    kind: Kind, data: st.DataObject, queries: SparseVectors, window: int, seed: int
) -> None:
    vectors = data.draw(documents_of(kind))
    order = permutation(vectors.n_rows, seed)
    with indexed(vectors, kind, window) as plain, indexed(vectors[order], kind, 2) as permuted:
        before, after = plain.search(queries, 20), permuted.search(queries, 20)
    np.testing.assert_array_equal(before.scores, after.scores)
    for query in range(queries.n_rows):
        renamed = {(int(order[row]), score) for row, score in found(after, query)}
        assert renamed == set(found(before, query))


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data(), queries=queries_of, window=windows, k=st.sampled_from([1, 3, 30]))
@laws
def test_the_index_of_a_concatenation_is_the_merged_indexes(
    kind: Kind, data: st.DataObject, queries: SparseVectors, window: int, k: int
) -> None:
    first, second = (with_ruler(data.draw(documents_of(kind))) for _ in range(2))
    wide = widened(queries)
    with (
        indexed(first, kind, window) as one,
        indexed(second, kind, 2) as two,
        indexed(SparseVectors.concat([first, second]), kind, window) as whole,
    ):
        parts = one.search(wide, k), two.search(wide, k)
        hits = whole.search(wide, k)
    for query in range(queries.n_rows):
        shifted = [(row + first.n_rows, score) for row, score in found(parts[1], query)]
        merged = sorted([*found(parts[0], query), *shifted], key=lambda hit: -hit[1])[:k]
        assert [score for _, score in found(hits, query)] == [score for _, score in merged]
        assert set(found(hits, query)) <= {*found(parts[0], query), *shifted}


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@laws
def test_what_is_stored_finds_itself(kind: Kind, data: st.DataObject) -> None:
    """Building again from what an index has stored changes nothing."""
    vectors = data.draw(documents_of(kind))
    with indexed(vectors, kind, 5) as index:
        stored = index.vectors()
    with indexed(stored, kind, 3) as again:
        np.testing.assert_array_equal(again.vectors().indptr, stored.indptr)
        np.testing.assert_array_equal(again.vectors().indices, stored.indices)
        np.testing.assert_allclose(again.vectors().values, stored.values, rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@settings(laws, max_examples=8)
def test_shards_are_the_whole(kind: Kind, data: st.DataObject) -> None:
    """Hits, scores and ties, whatever the number of shards, and after documents were replaced and taken out."""
    documents, queries = data.draw(documents_of(kind)), data.draw(queries_of)
    n_shards, k = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 14))
    names = [str(row) for row in range(documents.n_rows)]
    again = data.draw(st.lists(st.integers(0, documents.n_rows - 1), unique=True)) if names else []
    gone = data.draw(st.lists(st.sampled_from(names), unique=True)) if names else []
    with indexed(documents, kind, 3) as whole, mock.patch("os.fsync"):
        config = BuildConfig(impacts=kind, window=3)
        shards = ShardedIndex.build(
            whole.path.with_name("shards"), documents, n_shards=n_shards, config=config
        )
        for index in (whole, shards):
            # a merge may give what is left a finer scale, in one segment and not in another; floats have none
            index.merges_itself = kind == "float32"
            index.update(documents[again].with_ids([names[row] for row in again]))
            index.delete(gone)
        expected, hits = whole.search(queries, k), shards.search(queries, k, n_threads=2)
        assert hits.ids.equals(expected.ids)
        assert hits.scores.tobytes() == expected.scores.tobytes()
        numbers = whole.insertion_numbers(expected.rows)
        np.testing.assert_array_equal(shards.insertion_numbers(hits.rows), numbers)
