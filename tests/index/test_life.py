"""An inverted index that changes; what it shares with other kinds is in `tests.contracts.index_life`."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gossamer.index.format import Effort
from gossamer.index.inverted import BuildConfig, InvertedIndex
from gossamer.index.vectors import SparseVectors
from gossamer.kernels.errors import ConfigError, MismatchError
from tests.contracts.index_life import LifeContract
from tests.contracts.oracle import Kind, brute_force, random_vectors

_N_TERMS = 30


class Weights:
    """Documents of few weights, so that there are many ties, and what queries find among them."""

    kind: Kind = "uint8"
    forward = True

    def vectors(self, names: list[str]) -> SparseVectors:
        rows = [self.row(name) for name in names]
        return SparseVectors.from_dicts(rows, _N_TERMS, ids=names, signed=self.kind != "uint8")

    def row(self, name: str) -> dict[int, float]:
        if name == "anchor":
            return {0: 4.0, 1: 0.5}
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        terms = rng.choice(_N_TERMS, rng.integers(1, 9), replace=False)
        weights = rng.choice([0.5, 1.0, 1.5, 3.9], len(terms))
        if self.kind != "uint8":
            weights *= rng.choice([-1, 1], len(terms))
        return dict(zip(terms.tolist(), weights.tolist(), strict=True))

    def queries(self) -> SparseVectors:
        return random_vectors(np.random.default_rng(5), 4, _N_TERMS, 0.4, few_values=True, names=None)

    def best(self, names: list[str], k: int) -> list[list[tuple[str, float]]]:
        vectors = self.vectors(names)
        found = brute_force(vectors, self.queries(), k, self.kind)
        return [
            [(names[row], score) for row, score in zip(rows, scores, strict=True) if row >= 0]
            for rows, scores in zip(found.rows.tolist(), found.scores.tolist(), strict=True)
        ]


class Inverted(Weights, LifeContract):
    def create(self, path: Path, vectors: Any, **options: Any) -> InvertedIndex:
        config = BuildConfig(impacts=self.kind, forward=self.forward)
        return InvertedIndex.build(path, vectors, config=config, **options)

    def open(self, path: Path) -> InvertedIndex:
        return InvertedIndex.open(path)

    def test_another_vocabulary_is_refused(self, index: InvertedIndex) -> None:
        with pytest.raises(MismatchError, match="over 31 terms, and this index over 30"):
            index.add(SparseVectors.from_dicts([{0: 1.0}], 31, ids=["e"]))


class TestUint8(Inverted):
    def test_negative_weights_are_refused(self, index: InvertedIndex) -> None:
        vectors = SparseVectors.from_dicts([{0: -1.0}], _N_TERMS, ids=["e"], signed=True)
        with pytest.raises(ConfigError, match="negative weights, which this index of uint8 impacts"):
            index.add(vectors)

    def test_larger_weights_get_a_coarser_scale_of_their_own(self, index: InvertedIndex) -> None:
        """And a merge stores all of them by the coarser one, from the weights as given."""
        large = SparseVectors.from_dicts([{0: 8.0, 2: 0.1}], _N_TERMS, ids=["large"])
        before = index.info()
        index.add(large)
        query = SparseVectors.from_dicts([{0: 1.0, 2: 1.0}], _N_TERMS)
        name, score = index.search(query, 1).of(0)[0]
        assert name == "large"
        assert score == pytest.approx(8.1, abs=8 / 255)
        assert index.info().step == pytest.approx(2 * before.step)
        true = index.search(query, 21, rescore="float")
        index.merge(1)
        assert index.info().largest_error <= index.info().step / 2 * (1 + 1e-9)
        again = index.search(query, 21, rescore="float")
        assert again.of(0) == true.of(0)

    def test_every_way_of_searching_leaves_out_what_is_deleted(self, index: InvertedIndex) -> None:
        everything = index.search(self.queries(), 30, rescore="float")
        index.add(self.vectors(["e0", "e1", "e2"]))
        index.delete(["e0", "e1", "e2", "d1", "d2"])
        for options in ({"rescore": "float"}, {"recall": 0.9}, {"effort": Effort(), "rescore": "float"}):
            hits = index.search(self.queries(), 30, **options)
            for number in range(4):
                expected = [hit for hit in everything.of(number) if hit[0] not in {"d1", "d2"}]
                assert hits.of(number) == expected
        filtered = index.search(self.queries(), 30, filters={"id": ["d1", "d3"]})
        assert {name for number in range(4) for name, _ in filtered.of(number)} <= {"d3"}

    def test_rows_of_later_segments_are_explained(self, index: InvertedIndex) -> None:
        index.add(self.vectors(["e0", "e1"]))
        queries = self.queries()
        for number in range(4):
            hits = index.search(queries, 23)
            rows = hits.rows[number][hits.rows[number] >= 0]
            explained = index.explain_rows(queries[number : number + 1], rows.tolist())
            sums = [sum(part.product for part in parts) for parts in explained]
            np.testing.assert_allclose(sums, hits.scores[number, : len(rows)], rtol=1e-6)

    def test_a_merge_forgets_the_scale_of_what_is_gone(self, index: InvertedIndex) -> None:
        expected = index.search(self.queries(), 21).of(0)
        index.add(SparseVectors.from_dicts([{0: 5000.0}], _N_TERMS, ids=["outlier"]))
        index.add(self.vectors(["e0"]))
        assert index.segments[-1].scale.step < 1, "it is not stored by the outlier's"
        index.merge(1)
        index.delete(["outlier", "e0"])
        index.merge(1)
        assert index.search(self.queries(), 21).of(0) == expected

    def test_stored_scores_that_are_equal_as_float32_keep_their_order(self, tmp_path: Path) -> None:
        """Sums above 2^24 that differ by one: as in one segment, the larger comes first."""
        rng = np.random.default_rng(0)
        terms, n_rows = 1_000, 60
        array = rng.integers(200, 256, (n_rows, terms)).astype(np.float32)
        array[:, 0] = 255
        array[:] = np.sort(array, axis=1)[:, ::-1].mean(axis=0).round()  # all alike
        array[np.arange(n_rows), -1] = rng.permutation(n_rows) % 7 + 1  # but for a little
        vectors = SparseVectors.from_dense(array, ids=[f"d{row}" for row in range(n_rows)])
        weights = np.ones((1, terms), np.float32)
        weights[0, -1] = 2e-4  # a level or two, so that sums near 2^31 differ by less than float32 tells
        query = SparseVectors.from_dense(weights)
        whole = InvertedIndex.build(tmp_path / "whole", vectors)
        parts = InvertedIndex.build(tmp_path / "parts", vectors[:20])
        parts.add(vectors[20:40])
        parts.add(vectors[40:])
        assert [segment.scale.step for segment in parts.segments] == [whole.segments[0].scale.step] * 3
        hits = whole.search(query, 60)
        assert len(np.unique(hits.scores)) == 1, "no ties were tested"
        assert (np.diff(hits.rows[0]) < 0).any(), "sums were not told apart"
        np.testing.assert_array_equal(parts.search(query, 60).rows, hits.rows)
        np.testing.assert_array_equal(parts.search(query, 10).scores, whole.search(query, 10).scores)

    def test_a_curve_that_is_outgrown_is_not_used(self, index: InvertedIndex) -> None:
        index.calibrate()
        assert index._snapshot.manifest.curve_in_use
        index.add(self.vectors([f"e{number}" for number in range(50)]))
        assert not index._snapshot.manifest.curve_in_use
        assert index.effort_for(0.5) is None


class TestInt8(Inverted):
    kind = "int8"


class TestFloat32(Inverted):
    kind = "float32"


class TestWithoutForward(Inverted):
    forward = False
