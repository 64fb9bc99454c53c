"""Whether `recall=` keeps what it promises: own documents left out, lower bounds, judges that did not choose."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gossamer.index import calibration
from gossamer.index.calibration import _lower_bound, _Trial, judged
from gossamer.index.format import Effort, OperatingPoint
from gossamer.index.inverted import BuildConfig, InvertedIndex
from gossamer.index.pseudo_queries import Asked, pseudo_queries
from gossamer.index.vectors import SparseVectors


def topical(n_rows: int, n_terms: int, seed: int) -> SparseVectors:
    """Rows of 40 topics of 60 terms; three terms in ten are of another topic."""
    rng = np.random.default_rng(seed)
    rows = []
    for topic in rng.integers(0, 40, n_rows):
        topics = np.where(rng.random(n_terms) < 0.3, rng.integers(0, 40, n_terms), topic)
        terms = 60 * topics + np.minimum(rng.geometric(0.05, n_terms), 60) - 1
        rows.append(dict(zip(terms.tolist(), rng.lognormal(-1, 0.8, n_terms).tolist(), strict=True)))
    return SparseVectors.from_dicts(rows, 2_400)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> InvertedIndex:
    path = tmp_path_factory.mktemp("topical") / "index"
    return InvertedIndex.build(path, topical(6_000, 24, seed=0), config=BuildConfig(window=128))


def test_a_promise_is_kept_on_queries_of_any_length(index: InvertedIndex) -> None:
    curve = index.calibrate()
    recalls, times = zip(*((point.recall, point.query_us) for point in curve), strict=True)
    assert list(recalls) == sorted(recalls)
    assert list(times) == sorted(times)
    assert len(curve) > 2
    for n_terms in (4, 9, 20):
        queries = topical(400, n_terms, seed=n_terms)
        worst = index.search(queries, 10, rescore="float").scores[:, -1:]
        for recall in (0.8, 0.9, 0.95, 0.99):
            assert (index.search(queries, 10, recall=recall).scores >= worst).mean() >= recall - 0.003


def test_a_promise_is_kept_where_queries_were_given(index: InvertedIndex) -> None:
    queries = topical(1_000, 6, seed=3)
    index.calibrate(queries[:500])
    worst = index.search(queries[500:], 10, rescore="float").scores[:, -1:]
    for recall in (0.8, 0.9, 0.95, 0.99):
        assert (index.search(queries[500:], 10, recall=recall).scores >= worst).mean() >= recall - 0.01


def test_the_document_that_a_query_was_made_of_is_no_hit(tmp_path: Path) -> None:
    """Each has a twin with half of its weights; an effort that finds only one document has found itself."""
    rows = [{term: weight} for term in range(300) for weight in (1.0, 0.5)]
    index = InvertedIndex.build(tmp_path / "i", SparseVectors.from_dicts(rows, 300))
    own = np.arange(0, 600, 2)
    asked = Asked(SparseVectors.from_dicts([{int(row) // 2: 1.0} for row in own], 300), own)
    trial = _Trial(index.segments[0], [asked, Asked(asked.queries)])
    (others, everything), _ = trial.recalls(Effort())
    np.testing.assert_array_equal(trial._exact[0][:, 0], 0.5)
    np.testing.assert_array_equal(trial._exact[1][:, :2], [[1.0, 0.5]] * 300)
    np.testing.assert_array_equal(others, 1)
    np.testing.assert_array_equal(everything, 1)


def test_a_document_that_nothing_is_like_says_nothing(tmp_path: Path) -> None:
    index = InvertedIndex.build(
        tmp_path / "i", SparseVectors.from_dicts([{row: 1.0} for row in range(20)], 20)
    )
    curve = index.calibrate()
    assert curve[-1].effort is None
    assert index.effort_for(0.5) is None


def test_a_bound_is_below_the_mean_and_nears_it() -> None:
    rng = np.random.default_rng(0)
    for recalls in (
        np.ones(200),
        np.full(200, 0.7),
        np.repeat([0.0, 1.0], 100),
        rng.integers(0, 11, 200) / 10,
    ):
        few, many = _lower_bound(recalls), _lower_bound(np.tile(recalls, 20))
        assert 0 < few < many < recalls.mean()
    alike, together = np.full(100, 0.9), np.repeat([0.0, 1.0], [10, 90])
    assert _lower_bound(together) < _lower_bound(alike)  # hits that are missed together tell less
    assert _lower_bound(np.ones(1)) < 0.9
    assert _lower_bound(np.ones(0)) == 0


@pytest.mark.parametrize("shape", [(50.0, 0.5), (5.0, 0.5), (1.0, 1.0)])
def test_a_bound_holds_nineteen_times_in_twenty(shape: tuple[float, float]) -> None:
    rng = np.random.default_rng(1)
    chances = rng.beta(*shape, (2_000, 256))
    bounds = [_lower_bound(row) for row in rng.binomial(10, chances) / 10]
    assert np.mean(np.array(bounds) <= shape[0] / sum(shape)) >= 0.93


def test_an_effort_is_worth_no_more_than_those_before_it() -> None:
    class Judge(_Trial):
        exact_us = 9.0

        def __init__(self) -> None:
            self.answers = iter([0.9, 1.0, 0.95])

        def recalls(self, effort: Effort) -> tuple[list[np.ndarray], float]:
            return [np.ones(900), np.full(900, next(self.answers))], 1.0

    points = [*judged(Judge(), iter([Effort()] * 3))]
    assert points[0] == OperatingPoint(effort=None, recall=1.0, query_us=9.0)
    assert {point.recall for point in points[1:]} == {_lower_bound(np.full(900, 0.9))}


def test_a_chain_prefers_the_higher_recall_where_times_are_alike() -> None:
    measured = [(None, 1.0, 100.0), (0.9, 0.99, 80.0), (0.8, 0.95, 79.0), (0.7, 0.9, 50.0), (0.6, 0.89, 51.0)]
    points = [
        OperatingPoint(
            effort=None if share is None else Effort(query_share=share), recall=recall, query_us=query_us
        )
        for share, recall, query_us in measured
    ]
    efforts = [effort for effort in calibration.chain(points) if isinstance(effort, Effort)]
    assert [effort.query_share for effort in efforts] == [0.9, 0.7]


def test_pseudo_queries_are_parts_of_their_documents(index: InvertedIndex) -> None:
    forward = index.segments[0].forward
    assert forward is not None
    kinds = pseudo_queries(forward, index.n_terms, 50)
    again = pseudo_queries(forward, index.n_terms, 50)
    documents = topical(6_000, 24, seed=0).to_scipy()
    shares = []
    for kind, same in zip(kinds, again, strict=True):
        assert kind.own is not None
        assert len(set(kind.own.tolist())) == kind.queries.n_rows == 50
        queries, whole = kind.queries.to_scipy(), documents[kind.own]
        np.testing.assert_array_equal(queries.toarray(), same.queries.to_scipy().toarray())
        np.testing.assert_array_equal(queries.toarray(), whole.multiply(queries > 0).toarray())
        shares.append(queries.sum() / queries.nnz / (whole.sum() / whole.nnz))
    assert shares[0] > 1.2 > 1.1 > shares[1] > 0.9  # by weight, evenly
    assert set(np.diff(kinds[0].queries.indptr)) == {5, 6, 7, 8}
    halves = -(-np.diff(documents.indptr)[kinds[2].own] // 2)
    np.testing.assert_array_equal(np.diff(kinds[2].queries.indptr), halves)
