"""What every index of sparse vectors must do: subclass `IndexContract`, say how to build one, and what is new."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from gossamer.index.hits import Hits
from gossamer.index.inverted import BuildConfig, InvertedIndex
from gossamer.index.vectors import SparseVectors
from gossamer.kernels.errors import InputError, MismatchError, RecordError
from gossamer.kernels.sparse_dot import Backend
from tests.contracts.oracle import Answer, Kind, brute_force, random_vectors


class IndexContract:
    """Search equals brute force over what is stored, whatever the shape of the input."""

    kind: ClassVar[Kind]
    backend: ClassVar[Backend] = "numba"

    # -- what a subclass may replace

    def build(
        self,
        path: Path,
        vectors: SparseVectors | Path,
        *,
        window: int = 65_536,
        documents: pa.Table | None = None,
    ) -> Any:
        config = BuildConfig(impacts=self.kind, window=window)
        return InvertedIndex.build(path, vectors, documents=documents, config=config)

    def open(self, path: Path) -> Any:
        return InvertedIndex.open(path)

    def search(
        self, index: Any, queries: SparseVectors, k: int, allowed: Any = None, n_threads: int = 1
    ) -> Hits:
        hits: Hits = index.search(queries, k, allowed=allowed, backend=self.backend, n_threads=n_threads)
        return hits

    def expected(
        self, vectors: SparseVectors, queries: SparseVectors, k: int, allowed: NDArray[np.bool_] | None
    ) -> Answer:
        return brute_force(vectors, queries, k, self.kind, allowed)

    def stored(self, index: Any) -> SparseVectors:
        vectors: SparseVectors = index.vectors()
        return vectors

    def assert_read_only(self, index: Any) -> None:
        with pytest.raises(ValueError, match="read-only"):
            index.segments[0].postings.impacts[0] = 1

    def assert_same_files(self, one: Any, other: Any) -> None:
        assert one._snapshot.manifest.files == other._snapshot.manifest.files

    # -- the suite

    @property
    def signed(self) -> bool:
        return self.kind != "uint8"

    @pytest.fixture
    def rng(self) -> np.random.Generator:
        return np.random.default_rng(7)

    @pytest.fixture
    def vectors(self, rng: np.random.Generator) -> SparseVectors:
        return random_vectors(rng, 97, 31, signed=self.signed)

    @pytest.fixture
    def queries(self, rng: np.random.Generator) -> SparseVectors:
        return random_vectors(rng, 9, 31, 0.2, signed=True, names=None)

    def check(
        self,
        index: Any,
        vectors: SparseVectors,
        queries: SparseVectors,
        k: int,
        allowed: NDArray[np.bool_] | None = None,
    ) -> None:
        hits = self.search(index, queries, k, allowed)
        expected = self.expected(vectors, queries, k, allowed)
        np.testing.assert_array_equal(hits.rows, expected.rows)
        np.testing.assert_array_equal(hits.scores, expected.scores)
        assert hits.rows.shape == hits.scores.shape == (queries.n_rows, k)
        assert hits.rows.dtype == np.int64
        assert hits.scores.dtype == np.float32

    @pytest.mark.parametrize("window", [1, 7, 97, 65_536])
    @pytest.mark.parametrize("k", [1, 10, 200])
    def test_search_is_brute_force(
        self, tmp_path: Path, vectors: SparseVectors, queries: SparseVectors, window: int, k: int
    ) -> None:
        self.check(self.build(tmp_path / "i", vectors, window=window), vectors, queries, k)

    @pytest.mark.parametrize("window", [16, 65_536])
    def test_ties_go_to_the_earlier_row(self, tmp_path: Path, rng: np.random.Generator, window: int) -> None:
        vectors = random_vectors(rng, 150, 12, 0.3, signed=self.signed, few_values=True)
        queries = random_vectors(rng, 12, 12, 0.3, signed=self.signed, few_values=True, names=None)
        index = self.build(tmp_path / "i", vectors, window=window)
        self.check(index, vectors, queries, 20)
        scores = self.search(index, queries, 20).scores
        assert (np.diff(scores[np.isfinite(scores).all(axis=1)], axis=1) == 0).any(), "no ties were tested"

    def test_an_empty_query_has_no_hits_and_an_empty_document_is_none(self, tmp_path: Path) -> None:
        vectors = SparseVectors.from_dicts([{0: 1.0}, {}, {1: 2.0}], 3, ids=["a", "b", "c"])
        hits = self.search(
            self.build(tmp_path / "i", vectors), SparseVectors.from_dicts([{}, {0: 1.0, 1: 1.0}], 3), 3
        )
        assert hits.rows.tolist() == [[-1, -1, -1], [2, 0, -1]]
        assert hits.ids.to_pylist() == [[None, None, None], ["c", "a", None]]
        assert np.isneginf(hits.scores[0]).all()
        assert hits.of(0) == []

    @pytest.mark.parametrize("n_rows", [0, 1])
    def test_almost_nothing_to_search(self, tmp_path: Path, n_rows: int) -> None:
        vectors = SparseVectors.from_dicts([{}] * n_rows, 5)
        hits = self.search(self.build(tmp_path / "i", vectors), SparseVectors.from_dicts([{0: 1.0}], 5), 4)
        assert hits.rows.tolist() == [[-1] * 4]

    def test_no_queries(self, tmp_path: Path, vectors: SparseVectors) -> None:
        assert self.search(self.build(tmp_path / "i", vectors), vectors[:0], 4).rows.shape == (0, 4)

    def test_another_vocabulary_is_refused(self, tmp_path: Path, vectors: SparseVectors) -> None:
        index = self.build(tmp_path / "i", vectors)
        for n_cols in (30, 32):
            with pytest.raises(MismatchError, match=f"{n_cols} terms, and this index over 31"):
                self.search(index, SparseVectors.from_dicts([{0: 1.0}], n_cols), 1)

    def test_a_vocabulary_beyond_two_bytes(self, tmp_path: Path) -> None:
        rows = [{70_000: 1.0, 3: 0.5}, {70_000 - 65_536: 9.0}, {99_999: 2.0}]
        vectors = SparseVectors.from_dicts(rows, 100_000)
        hits = self.search(
            self.build(tmp_path / "i", vectors),
            SparseVectors.from_dicts([{70_000: 1.0}, {99_999: 3.0}], 100_000),
            3,
        )
        assert hits.rows.tolist() == [[0, -1, -1], [2, -1, -1]]

    def test_an_id_that_repeats_is_refused_and_leaves_nothing(self, tmp_path: Path) -> None:
        vectors = SparseVectors.from_dicts([{0: 1.0}] * 4, 2, ids=["a", "b", "c", "b"])
        with pytest.raises(RecordError, match=r"'b' is given to row 1 and row 3"):
            self.build(tmp_path / "i", vectors)
        assert list(tmp_path.iterdir()) == []

    def test_rows_without_ids_are_numbered(self, tmp_path: Path) -> None:
        index = self.build(tmp_path / "i", SparseVectors.from_dicts([{0: 1.0}] * 12, 2))
        assert index.documents.ids.to_pylist() == [str(row) for row in range(12)]

    @pytest.mark.parametrize("share", [0.0, 0.1, 0.7, 1.0])
    def test_a_mask_is_brute_force_on_the_subset(
        self,
        tmp_path: Path,
        rng: np.random.Generator,
        vectors: SparseVectors,
        queries: SparseVectors,
        share: float,
    ) -> None:
        index = self.build(tmp_path / "i", vectors, window=20)
        allowed = rng.random(97) < share
        self.check(index, vectors, queries, 10, allowed)

    def test_a_mask_may_be_a_list(
        self, tmp_path: Path, vectors: SparseVectors, queries: SparseVectors
    ) -> None:
        index = self.build(tmp_path / "i", vectors)
        mask = np.arange(97) % 2 == 0
        hits = self.search(index, queries, 10, mask.tolist())
        np.testing.assert_array_equal(hits.rows, self.search(index, queries, 10, mask).rows)

    @pytest.mark.parametrize("allowed", [[True], np.ones(3, dtype=bool), np.ones(97, dtype=int)])
    def test_a_mask_of_another_shape_or_type_is_refused(
        self, tmp_path: Path, vectors: SparseVectors, queries: SparseVectors, allowed: NDArray[Any]
    ) -> None:
        with pytest.raises(InputError, match="allowed"):
            self.search(self.build(tmp_path / "i", vectors), queries, 10, allowed)

    def test_k_must_be_positive(self, tmp_path: Path, vectors: SparseVectors, queries: SparseVectors) -> None:
        with pytest.raises(InputError, match="k is 0"):
            self.search(self.build(tmp_path / "i", vectors), queries, 0)

    def test_opened_equals_built_and_is_read_only(
        self, tmp_path: Path, vectors: SparseVectors, queries: SparseVectors
    ) -> None:
        built = self.build(tmp_path / "i", vectors, window=20)
        opened = self.open(tmp_path / "i")
        opened.verify()
        np.testing.assert_array_equal(
            self.search(built, queries, 5).scores, self.search(opened, queries, 5).scores
        )
        assert built.info() == opened.info()
        self.assert_read_only(opened)

    def test_threads_and_batches_change_nothing(
        self, tmp_path: Path, vectors: SparseVectors, queries: SparseVectors
    ) -> None:
        index = self.build(tmp_path / "i", vectors, window=20)
        one = self.search(index, queries, 10)
        two = self.search(index, queries, 10, n_threads=2)
        np.testing.assert_array_equal(one.rows, two.rows)
        np.testing.assert_array_equal(one.scores, two.scores)
        for row in range(queries.n_rows):
            alone = self.search(index, queries[row : row + 1], 10)
            np.testing.assert_array_equal(alone.rows[0], one.rows[row])
            np.testing.assert_array_equal(alone.scores[0], one.scores[row])

    def test_a_stream_of_parquet_is_the_same_index(
        self, tmp_path: Path, vectors: SparseVectors, queries: SparseVectors
    ) -> None:
        (tmp_path / "parts").mkdir()
        for number, cut in enumerate([slice(0, 3), slice(3, 60), slice(60, 60), slice(60, None)]):
            vectors[cut].write_parquet(tmp_path / "parts" / f"{number}.parquet")
        streamed = self.build(tmp_path / "streamed", tmp_path / "parts", window=10)
        whole = self.build(tmp_path / "whole", vectors, window=10)
        self.assert_same_files(streamed, whole)
        self.check(streamed, vectors, queries, 10)

    def test_stored_vectors_are_within_the_stated_error(self, tmp_path: Path, vectors: SparseVectors) -> None:
        index = self.build(tmp_path / "i", vectors, window=20)
        stored = self.stored(index)
        error = np.abs(stored.to_scipy() - vectors.to_scipy()).max()
        assert error == pytest.approx(index.info().largest_error, abs=1e-6)
        assert index.info().largest_error <= (0 if self.kind == "float32" else index.info().step / 2 * 1.0001)
        assert stored.ids is not None
        assert stored.ids.equals(vectors.ids)
        assert index.nnz == stored.nnz

    def test_an_explanation_adds_up_to_the_score(
        self, tmp_path: Path, vectors: SparseVectors, queries: SparseVectors
    ) -> None:
        index = self.build(tmp_path / "i", vectors, window=20)
        hits = self.search(index, queries, 100)
        explained = 0
        for number in range(queries.n_rows):
            query = queries[number : number + 1]
            for row, score in zip(hits.rows[number], hits.scores[number], strict=True):
                if row < 0:
                    continue
                parts = index.explain(query, int(row))
                assert self.total([part.product for part in parts]) == score
                shared = set(query.row(0)[0].tolist()) & set(vectors.row(int(row))[0].tolist())
                assert {part.term for part in parts} <= shared
                for part in parts:
                    assert part.product == pytest.approx(part.query_weight * part.document_weight, rel=1e-5)
                explained += 1
        assert explained > 100

    def test_explaining_several_rows_is_explaining_each(
        self, tmp_path: Path, vectors: SparseVectors, queries: SparseVectors
    ) -> None:
        index = self.build(tmp_path / "i", vectors, window=20)
        rows = [96, 3, 50, 3, 0, 21]
        for number in range(queries.n_rows):
            query = queries[number : number + 1]
            assert index.explain_rows(query, rows) == [index.explain(query, row) for row in rows]
            assert index.explain_rows(query, []) == []
        with pytest.raises(InputError, match="row 97 is outside"):
            index.explain_rows(queries[:1], [0, 97])

    def total(self, products: list[float]) -> np.float32:
        """As `Contribution` states it."""
        if self.kind != "float32":
            return np.float32(math.fsum(products))
        sum_ = np.float32(0)
        for product in products:
            sum_ += np.float32(product)
        return sum_

    def test_explaining_refuses_what_it_cannot(
        self, tmp_path: Path, vectors: SparseVectors, queries: SparseVectors
    ) -> None:
        index = self.build(tmp_path / "i", vectors)
        with pytest.raises(InputError, match="one query, not 9"):
            index.explain(queries, 0)
        for row in (-1, 97):
            with pytest.raises(InputError, match=f"row {row} is outside"):
                index.explain(queries[:1], row)

    def test_documents_stand_beside_the_vectors(self, tmp_path: Path, vectors: SparseVectors) -> None:
        table = pa.table({"id": vectors.ids, "text": [f"text {row}" for row in range(97)]})
        index = self.build(tmp_path / "i", vectors, documents=table)
        assert index.documents.take([96, 0])["text"].to_pylist() == ["text 96", "text 0"]
