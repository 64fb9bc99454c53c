"""`Segment`: documents that are gone for good, and scores by the weights as given."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gossamer.index import segment as module
from gossamer.index.format import Effort
from gossamer.index.inverted import BuildConfig, InvertedIndex
from gossamer.index.segment import Call, Segment
from gossamer.index.vectors import SparseVectors
from gossamer.kernels.errors import InputError
from gossamer.kernels.sparse_dot import Postings, Queries, TopK, answer
from tests.contracts.oracle import random_vectors

N, WIDTH = 300, 30
QUERIES = random_vectors(np.random.default_rng(7), 20, WIDTH, 0.2, names=None)


@pytest.fixture(params=["uint8", "int8", "float32"])
def segment(request: pytest.FixtureRequest, tmp_path: Path) -> Segment:
    vectors = random_vectors(np.random.default_rng(0), N, WIDTH, 0.3)
    config = BuildConfig(impacts=request.param, window=64)
    return InvertedIndex.build(tmp_path / "i", vectors, config=config).segments[0]


def test_what_is_gone_is_no_hit(segment: Segment) -> None:
    rng = np.random.default_rng(1)
    live, allowed = rng.random(N) < 0.9, rng.random(N) < 0.5
    thinned = replace(segment, live=live)
    exhaustive = Effort(candidates_a_hit=N)
    for true in (False, True):
        for effort in (None, exhaustive):
            for given, both in ((None, live), (allowed, live & allowed)):
                found = thinned.search(QUERIES, Call(7, given, "auto", 1), effort, true=true)
                expected = segment.search(QUERIES, Call(7, both, "auto", 1), effort, true=true)
                np.testing.assert_array_equal(found[0], expected[0])
                np.testing.assert_array_equal(found[1], expected[1])


def test_what_is_gone_is_looked_through_once(segment: Segment, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    thinned = replace(segment, live=np.arange(N) % 10 > 0)
    monkeypatch.setattr(module, "mask_of", lambda *args, **more: made.append(args))
    for _ in range(3):
        thinned.search(QUERIES, Call(3, None, "auto", 1), None, true=False)
    assert len(made) == 1


def test_only_a_filter_opens_all_windows(tmp_path: Path) -> None:
    vectors = random_vectors(np.random.default_rng(0), N, WIDTH, 0.3)
    segment = InvertedIndex.build(tmp_path / "i", vectors, config=BuildConfig(window=64)).segments[0]
    live = np.ones(N, np.bool_)
    effort = Effort(max_windows=1, candidates_a_hit=N)
    call = Call(7, None, "auto", 1)
    without = segment.search(QUERIES, call, effort, true=True)
    under_live = replace(segment, live=live).search(QUERIES, call, effort, true=True)
    np.testing.assert_array_equal(under_live[0], without[0])
    filtered = replace(segment, live=live).search(QUERIES, replace(call, allowed=live), effort, true=True)
    exact = segment.search(QUERIES, call, None, true=True)
    np.testing.assert_array_equal(filtered[0], exact[0])
    assert (without[0] != exact[0]).any()


def test_a_filter_of_another_size_is_refused(segment: Segment) -> None:
    thinned = replace(segment, live=np.ones(N, np.bool_))
    for size in (1, N - 1):
        with pytest.raises(InputError, match="allowed has shape"):
            thinned.search(QUERIES, Call(3, np.ones(size, np.bool_), "auto", 1), None, true=False)


# -- scores by the weights as given


def test_what_only_float64_tells_apart_is_a_tie(tmp_path: Path) -> None:
    """A weight just below the middle of two levels, and many just above it, whose scores are one float32."""
    query = np.float32(0.51)
    low = np.nextafter(np.float32(3.98), np.float32(0))
    while np.float32(np.float64(low) * query) != np.float32(
        np.float64(np.nextafter(low, np.float32(9))) * query
    ):
        low = np.nextafter(low, np.float32(0))
    high = np.nextafter(low, np.float32(9))
    largest = (np.float64(low) + np.float64(high)) / 2 / 100.5 * 255  # so that the middle is at 100.5 levels
    weights = [low, *[high] * 50, np.float32(largest)]
    vectors = SparseVectors.from_dicts([{row // 51: float(weight)} for row, weight in enumerate(weights)], 2)
    index = InvertedIndex.build(tmp_path / "i", vectors)
    queries = SparseVectors.from_dicts([{0: float(query)}], 2)
    assert index.search(queries, 1).rows.tolist() == [[1]]  # stored, the first is a level below
    for more in ({}, {"effort": Effort(candidates_a_hit=60)}):
        hits = index.search(queries, 51, rescore="float", **more)  # type: ignore[arg-type]
        assert len(np.unique(hits.scores)) == 1
        assert hits.rows[0].tolist() == list(range(51))
    assert index.search(queries, 1, rescore="float").rows.tolist() == [[0]]
    assert index.search(queries, 3, rescore="float").rows.tolist() == [[0, 1, 2]]


def test_ties_of_a_batch_are_looked_at_in_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = SparseVectors.from_dicts([{0: 1.0}] * 500 + [{1: 1.0, 2: row + 1.0} for row in range(50)], 3)
    index = InvertedIndex.build(tmp_path / "i", vectors)
    queries = SparseVectors.from_dicts([{0: 1.0}, {2: 1.0}] * 30, 3)
    expected = index.search(queries, 4, rescore="float")
    assert expected.rows[:2].tolist() == [[0, 1, 2, 3], [549, 548, 547, 546]]
    asked = []

    def counted(queries: Queries, postings: Postings, k: int, *others: Any) -> TopK:
        asked.append((len(queries.indptr) - 1) * k)
        return answer(queries, postings, k, *others)

    monkeypatch.setattr(module, "answer", counted)
    monkeypatch.setattr(module, "_CELLS", 1_200)
    found = index.search(queries, 4, rescore="float")
    np.testing.assert_array_equal(found.rows, expected.rows)
    np.testing.assert_array_equal(found.scores, expected.scores)
    assert 550 <= max(asked) <= 1_200
    assert sum(asked) < 60 * 8 + 30 * (32 + 128 + 512 + 550) + 1  # only those with ties go on


def test_looking_through_all_rows_takes_no_room(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    dense = np.where(rng.random((20_000, 50)) < 0.4, rng.uniform(0.5, 1, (20_000, 50)), 0)
    dense[7, :] = 0
    dense[7, 0] = 1e-4  # is rounded to zero
    dense[:7, 0] = dense[8:, 0] = 0
    index = InvertedIndex.build(tmp_path / "i", SparseVectors.from_dense(dense))
    query = SparseVectors.from_dicts([{0: 1.0}], 50)
    assert index.search(query, 3).rows.tolist() == [[-1, -1, -1]]
    assert index.search(query, 3, rescore="float").rows.tolist() == [[7, -1, -1]]
    tracemalloc.start()
    hits = index.search(query, 3, rescore="float")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert hits.rows.tolist() == [[7, -1, -1]]
    assert peak < 100_000  # there are 400,000 postings
    allowed = np.ones(20_000, np.bool_)
    allowed[7] = False
    assert index.search(query, 3, rescore="float", allowed=allowed).rows.tolist() == [[-1, -1, -1]]


def test_all_rows_are_looked_through_only_where_rounding_hid_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "scan", None)
    index = InvertedIndex.build(tmp_path / "i", SparseVectors.from_dicts([{0: 1.0}, {1: 0.5}], 2))
    hits = index.search(SparseVectors.from_dicts([{0: 1.0}, {}], 2), 10, rescore="float")
    assert hits.rows[:, :2].tolist() == [[0, -1], [-1, -1]]
