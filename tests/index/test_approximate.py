"""Approximate search, calibration, and scores by the weights as given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from gossamer.index import calibration
from gossamer.index.calibration import choose
from gossamer.index.format import Effort, OperatingPoint
from gossamer.index.inverted import BuildConfig, InvertedIndex
from gossamer.index.vectors import SparseVectors
from gossamer.kernels.errors import CorruptError, InputError, StorageError
from tests.contracts.oracle import random_vectors
from tests.laws.strategies import sparse_vectors


def topical(n_rows: int, seed: int = 0) -> SparseVectors:
    """Documents of 40 topics of 30 terms, in no order."""
    rng = np.random.default_rng(seed)
    rows = []
    for topic in rng.integers(0, 40, n_rows):
        terms = np.append(rng.choice(30, 8, replace=False) + 30 * topic, 1200 + rng.integers(0, 30))
        rows.append(dict(zip(terms.tolist(), rng.lognormal(0, 0.5, 9).tolist(), strict=True)))
    return SparseVectors.from_dicts(rows, 1230)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> InvertedIndex:
    path = tmp_path_factory.mktemp("topical") / "index"
    return InvertedIndex.build(path, topical(4_000), config=BuildConfig(window=256))


def true_hits(vectors: SparseVectors, queries: SparseVectors, k: int) -> tuple[np.ndarray, np.ndarray]:
    """By the weights as given: a document that shares a term is a hit."""
    documents = vectors.to_scipy().astype(np.float64)
    asked = queries.to_scipy().astype(np.float64)
    scores = (asked @ documents.T).toarray()
    shares = ((asked != 0).astype(int) @ (documents != 0).astype(int).T).toarray() > 0
    rows = np.full((queries.n_rows, k), -1)
    best = np.full((queries.n_rows, k), -np.inf)
    for q, row in enumerate(scores):
        hits = np.flatnonzero(shares[q])
        order = hits[np.lexsort((hits, -row[hits]))][:k]
        rows[q, : len(order)], best[q, : len(order)] = order, row[order]
    return rows, best


# -- rescore="float"


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("k", [1, 5, 200])
def test_rescored_hits_are_exact_on_the_input(tmp_path: Path, signed: bool, k: int) -> None:
    rng = np.random.default_rng(1)
    vectors = random_vectors(rng, 150, 30, 0.3, signed=signed)
    queries = random_vectors(rng, 12, 30, 0.3, signed=signed, names=None)
    index = InvertedIndex.build(tmp_path / "i", vectors, config=BuildConfig(window=40))
    hits = index.search(queries, k, rescore="float")
    rows, scores = true_hits(vectors, queries, k)
    np.testing.assert_allclose(hits.scores, scores, rtol=1e-6)
    np.testing.assert_array_equal(hits.rows, rows)


def test_rescoring_finds_what_rounding_hides(tmp_path: Path) -> None:
    """Ten thousand documents within one level of each other, and one whose only weight rounds to zero."""
    weights = 1 - np.arange(1_000) * 1e-6
    rows = [{0: float(weight)} for weight in weights[np.random.default_rng(0).permutation(1_000)]]
    vectors = SparseVectors.from_dicts([*rows, {1: 1e-5}, {2: 3.0}], 3)
    index = InvertedIndex.build(tmp_path / "i", vectors)
    queries = SparseVectors.from_dicts([{0: 1.0}, {1: 1.0}], 3)
    hits = index.search(queries, 3, rescore="float")
    np.testing.assert_array_equal(hits.rows[0], true_hits(vectors, queries, 3)[0][0])
    assert index.search(queries, 3).rows[0].tolist() == [0, 1, 2]  # all the same, as stored
    assert hits.rows[1].tolist() == [1_000, -1, -1]
    assert index.search(queries, 3).rows[1].tolist() == [-1] * 3


@given(
    documents=sparse_vectors(n_cols=6, max_rows=12, named=False),
    queries=sparse_vectors(n_cols=6, max_rows=3, named=False),
    k=st.sampled_from([1, 3, 20]),
)
@settings(deadline=None, max_examples=25)
def test_rescored_search_is_brute_force(
    tmp_path_factory: pytest.TempPathFactory, documents: SparseVectors, queries: SparseVectors, k: int
) -> None:
    path = tmp_path_factory.mktemp("law") / "i"
    index = InvertedIndex.build(path, documents, config=BuildConfig(window=3))
    hits = index.search(queries, k, rescore="float")
    _, scores = true_hits(documents, queries, k)
    np.testing.assert_allclose(hits.scores, scores, rtol=1e-5, atol=1e-6)


def test_rescoring_wants_the_weights_as_given(tmp_path: Path) -> None:
    vectors = SparseVectors.from_dicts([{0: 1.0}], 2)
    index = InvertedIndex.build(tmp_path / "i", vectors, config=BuildConfig(forward=False))
    assert not (tmp_path / "i" / "segments" / "0" / "forward").exists()
    with pytest.raises(InputError, match=r"build it with BuildConfig\(forward=True\)"):
        index.search(vectors, 1, rescore="float")
    with pytest.raises(InputError, match="there is no rescore='int'"):
        index.search(vectors, 1, rescore="int")  # type: ignore[arg-type]


def test_halves_are_used_only_where_they_lose_nothing(tmp_path: Path) -> None:
    for weight, kind in ((0.5, "float16"), (0.1, "float32"), (1e6, "float32")):
        index = InvertedIndex.build(tmp_path / str(weight), SparseVectors.from_dicts([{0: weight}], 1))
        record = index._snapshot.manifest.segments[0].postings.forward
        assert record is not None
        assert record.weights == kind
        hits = index.search(SparseVectors.from_dicts([{0: 1.0}], 1), 1, rescore="float")
        assert hits.scores[0, 0] == np.float32(weight)


# -- approximate search


def test_an_effort_that_leaves_nothing_out_is_exact(index: InvertedIndex) -> None:
    queries = topical(30, seed=1)
    exact = index.search(queries, 10)
    found = index.search(queries, 10, effort=Effort(candidates_a_hit=20))
    np.testing.assert_array_equal(found.rows, exact.rows)
    np.testing.assert_array_equal(found.scores, exact.scores)
    by_float = index.search(queries, 10, effort=Effort(candidates_a_hit=20), rescore="float")
    exact = index.search(queries, 10, rescore="float")
    np.testing.assert_array_equal(by_float.rows, exact.rows)
    np.testing.assert_array_equal(by_float.scores, exact.scores)
    assert by_float.scores.dtype == exact.scores.dtype == np.float32


@pytest.mark.parametrize("effort", [Effort(max_windows=1), Effort(query_share=0.5, candidates_a_hit=1)])
def test_what_is_found_has_its_exact_score(index: InvertedIndex, effort: Effort) -> None:
    queries = topical(30, seed=2)
    found = index.search(queries, 10, effort=effort)
    everything = index.search(queries, len(index))
    for q in range(30):
        scores = dict(zip(everything.rows[q].tolist(), everything.scores[q].tolist(), strict=True))
        hits = found.rows[q][found.rows[q] >= 0].tolist()
        assert len(hits) == len(set(hits)) > 0
        assert found.scores[q, : len(hits)].tolist() == [scores[row] for row in hits]
    batch = index.search(queries[3:5], 10, effort=effort, n_threads=2)
    np.testing.assert_array_equal(batch.rows, found.rows[3:5])


def test_a_mask_is_kept_and_all_windows_are_looked_into(index: InvertedIndex) -> None:
    queries = topical(10, seed=3)
    allowed = np.zeros(len(index), bool)
    allowed[::97] = True
    found = index.search(queries, 5, effort=Effort(max_windows=1, candidates_a_hit=20), allowed=allowed)
    np.testing.assert_array_equal(found.rows, index.search(queries, 5, allowed=allowed).rows)


def test_negative_queries_and_other_kinds_are_searched_exactly(tmp_path: Path, index: InvertedIndex) -> None:
    negative = SparseVectors.from_dicts([{0: -1.0, 31: 2.0}, {65: 1.0}], 1230, signed=True)
    effort = Effort(max_windows=1, query_share=0.3)
    found, exact = index.search(negative, 10, effort=effort), index.search(negative, 10)
    np.testing.assert_array_equal(found.rows, exact.rows)
    vectors = random_vectors(np.random.default_rng(0), 50, 12, 0.4, signed=True)
    signed = InvertedIndex.build(tmp_path / "i", vectors)
    found, exact = signed.search(vectors, 5, effort=effort), signed.search(vectors, 5)
    np.testing.assert_array_equal(found.rows, exact.rows)


def test_efforts_out_of_range_are_refused(index: InvertedIndex) -> None:
    for wrong in ({"query_share": 0}, {"query_share": 1.1}, {"candidates_a_hit": 0.5}, {"max_windows": 0}):
        with pytest.raises(ValidationError):
            Effort(**wrong)
    queries = topical(1)
    for recall in (0, -1, 1.01, float("nan")):
        with pytest.raises(InputError, match="recall is"):
            index.search(queries, recall=recall)
    with pytest.raises(InputError, match="both given"):
        index.search(queries, recall=0.9, effort=Effort())


# -- calibration


def test_recall_without_a_curve_is_exact(index: InvertedIndex) -> None:
    assert index.effort_for(0.9) is None
    queries = topical(5, seed=4)
    exact = index.search(queries, rescore="float")
    np.testing.assert_array_equal(index.search(queries, recall=0.9).rows, exact.rows)
    np.testing.assert_array_equal(index.search(queries, recall=0.9).scores, exact.scores)


def test_calibration_stores_a_curve_that_holds(tmp_path: Path) -> None:
    index = InvertedIndex.build(tmp_path / "i", topical(4_000), config=BuildConfig(window=128))
    curve = index.calibrate()
    assert curve[-1].effort is None
    assert curve[-1].recall == 1
    recalls, times = zip(*((point.recall, point.query_us) for point in curve), strict=True)
    assert list(recalls) == sorted(recalls)
    assert list(times) == sorted(times)
    opened = InvertedIndex.open(tmp_path / "i")
    opened.verify()
    assert opened.info().curve == curve == index.info().curve
    queries = topical(200, seed=5)
    exact = opened.search(queries, 10, rescore="float")
    for recall in (0.8, 0.95):
        hits = opened.search(queries, 10, recall=recall)
        reached = (hits.scores >= exact.scores[:, -1:]).mean()
        assert reached >= recall - 0.003
    given = opened.calibrate(queries)
    assert opened._snapshot.manifest.calibrated_on == 200
    assert InvertedIndex.open(tmp_path / "i").info().curve == given


def test_a_build_calibrates_where_it_matters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gossamer.index.inverted.WORTH_CALIBRATING", 100)
    assert InvertedIndex.build(tmp_path / "a", topical(120)).info().curve
    assert InvertedIndex.build(tmp_path / "b", topical(90)).info().curve is None
    config = BuildConfig(calibrate=False)
    assert InvertedIndex.build(tmp_path / "c", topical(120), config=config).info().curve is None
    config = BuildConfig(forward=False)
    assert InvertedIndex.build(tmp_path / "d", topical(120), config=config).info().curve is None


def test_what_cannot_be_calibrated_says_so(tmp_path: Path) -> None:
    signed = random_vectors(np.random.default_rng(0), 20, 9, signed=True)
    with pytest.raises(InputError, match="not negative"):
        InvertedIndex.build(tmp_path / "a", signed).calibrate()
    empty = InvertedIndex.build(tmp_path / "b", SparseVectors.from_dicts([{}], 3))
    with pytest.raises(InputError, match="no queries"):
        empty.calibrate()


def test_an_altered_curve_is_noticed(tmp_path: Path) -> None:
    index = InvertedIndex.build(tmp_path / "i", topical(300))
    index.calibrate()
    manifest = tmp_path / "i" / "manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"recall": 1.0', b'"recall": 0.5'))
    with pytest.raises(CorruptError):
        InvertedIndex.open(tmp_path / "i")


def test_choosing_takes_the_fastest_that_was_shown_to_have_the_recall() -> None:
    fast = OperatingPoint(effort=Effort(max_windows=1), recall=0.95, query_us=1.0)
    curve = (fast, OperatingPoint(effort=None, recall=1.0, query_us=2.0))
    assert choose(curve, 0.95) == fast.effort
    assert choose(curve, 0.951) is None
    assert choose((), 0.5) is None


def test_points_that_others_beat_are_left_out() -> None:
    points = [
        OperatingPoint(effort=None, recall=1.0, query_us=10.0),
        OperatingPoint(effort=Effort(query_share=0.9), recall=0.9, query_us=5.0),
        OperatingPoint(effort=Effort(query_share=0.8), recall=0.8, query_us=6.0),
        OperatingPoint(effort=Effort(query_share=0.7), recall=0.99, query_us=11.0),
    ]
    assert [point.recall for point in calibration.pareto(points)] == [0.9, 1.0]


def test_long_flat_queries_and_documents_are_no_obstacle(tmp_path: Path) -> None:
    rows = [dict.fromkeys(range(first, first + 300), 1.0) for first in range(30)]
    index = InvertedIndex.build(tmp_path / "i", SparseVectors.from_dicts(rows, 400))
    queries = SparseVectors.from_dicts([dict.fromkeys(range(129), 1.0)], 400)
    found = index.search(queries, 3, effort=Effort())
    np.testing.assert_array_equal(found.rows, index.search(queries, 3).rows)
    assert index.calibrate()[-1].recall == 1


def test_an_index_that_was_replaced_meanwhile_is_left_alone(tmp_path: Path) -> None:
    old = InvertedIndex.build(tmp_path / "i", topical(300))
    InvertedIndex.build(tmp_path / "i", topical(400), replace=True)
    with pytest.raises(StorageError, match="was replaced by another index meanwhile"):
        old.calibrate()
    InvertedIndex.open(tmp_path / "i").verify()


@pytest.mark.parametrize(("size", "best"), [(1.0, 99), (1e18, 99), (1e-15, 99), (1e30, 0), (1e-25, 0)])
def test_rescoring_is_exact_at_any_magnitude(tmp_path: Path, size: float, best: int) -> None:
    """As far as float32 goes: beyond it all scores are the same, infinite or zero, and the first row wins."""
    rows = [{0: size * (1 - 1e-5 * (99 - number))} for number in range(100)]
    index = InvertedIndex.build(tmp_path / "i", SparseVectors.from_dicts(rows, 1))
    hits = index.search(SparseVectors.from_dicts([{0: size}], 1), 1, rescore="float")
    assert hits.rows.tolist() == [[best]]


def test_a_mask_of_another_shape_is_refused_with_filters_too(index: InvertedIndex) -> None:
    for allowed in ([True], [True, False]):
        with pytest.raises(InputError, match="allowed is bool of"):
            index.search(topical(1), filters={"id": "3"}, allowed=allowed)


def test_a_long_query_in_a_batch_changes_no_other(index: InvertedIndex) -> None:
    long = SparseVectors.from_dicts([dict.fromkeys(range(0, 1230, 10), 1.0)], 1230)
    short = topical(20, seed=6)
    effort = Effort(query_share=0.7, candidates_a_hit=1)
    batch = index.search(SparseVectors.concat([short, long]), 10, effort=effort)
    np.testing.assert_array_equal(batch.rows[:20], index.search(short, 10, effort=effort).rows)
    np.testing.assert_array_equal(batch.rows[20:], index.search(long, 10, effort=effort).rows)
