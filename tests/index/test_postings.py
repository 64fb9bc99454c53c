"""What a segment takes on the disk, and that small ones take little."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gossamer.index.inverted import BuildConfig, InvertedIndex
from gossamer.index.postings import window_for
from gossamer.index.vectors import SparseVectors
from tests.contracts.oracle import brute_force, random_vectors


def test_a_window_is_no_longer_than_it_takes_to_hold_all_rows() -> None:
    assert window_for(30_522, 500_000, 18_500_000) == 32_768
    assert [window_for(30_522, rows, 37 * rows) for rows in (0, 1, 32, 33, 1_000, 9_000)] == [
        32,
        32,
        32,
        64,
        1_024,
        16_384,
    ]
    assert window_for(100, 9_000, 900_000) == 4_096
    assert window_for(2**31 - 1, 1_000_000, 10) == 65_536


@pytest.mark.parametrize(("n_rows", "most_bytes"), [(1, 4_000), (5, 6_000), (40, 30_000)])
def test_few_documents_take_little_room(tmp_path: Path, n_rows: int, most_bytes: int) -> None:
    """However large the vocabulary; all else is data: nine bytes a weight here."""
    rng = np.random.default_rng(0)
    rows = [
        dict.fromkeys(rng.choice(250_000, 20, replace=False).tolist(), 1 / (row + 3)) for row in range(n_rows)
    ]
    index = InvertedIndex.build(tmp_path / "i", SparseVectors.from_dicts(rows, 250_000))
    assert sum(file.stat().st_size for file in (tmp_path / "i" / "segments").rglob("*.npy")) < most_bytes
    hits = index.search(SparseVectors.from_dicts(rows, 250_000), 1)
    assert hits.rows[:, 0].tolist() == list(range(n_rows))
    index.verify()


@pytest.mark.parametrize("kind", ["uint8", "int8", "float32"])
@pytest.mark.parametrize("window", [None, 3, 40])
def test_terms_that_do_not_occur_change_nothing(tmp_path: Path, kind: str, window: int | None) -> None:
    rng = np.random.default_rng(2)
    narrow = random_vectors(rng, 90, 20, 0.3, few_values=True)
    terms = np.sort(rng.choice(1_000, 20, replace=False))
    vectors = SparseVectors(narrow.indptr, terms[narrow.indices], narrow.values, 1_000, narrow.ids)
    queries = random_vectors(rng, 10, 1_000, 0.1, names=None)
    index = InvertedIndex.build(
        tmp_path / "i", vectors, config=BuildConfig.model_validate({"impacts": kind, "window": window})
    )
    assert (tmp_path / "i" / "segments" / "000000" / "terms.npy").exists()
    hits = index.search(queries, 10)
    expected = brute_force(vectors, queries, 10, kind)  # type: ignore[arg-type]
    np.testing.assert_array_equal(hits.rows, expected.rows)
    np.testing.assert_array_equal(hits.scores, expected.scores)
    stored = index.vectors()
    np.testing.assert_array_equal(stored.indptr, vectors.indptr)
    np.testing.assert_array_equal(stored.indices, vectors.indices)
    parts = index.explain(queries[0:1], int(hits.rows[0, 0]))
    assert {part.term for part in parts} <= set(terms.tolist()) & set(queries.row(0)[0].tolist())
    assert sum(part.product for part in parts) == pytest.approx(hits.scores[0, 0])
