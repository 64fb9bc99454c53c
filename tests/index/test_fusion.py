"""Fusion: figures by hand, ties, rows of other indexes, odd input. Its laws are in tests/laws."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pyarrow as pa
import pytest
from pydantic import TypeAdapter, ValidationError

from gossamer.index import fusion
from gossamer.index.fusion import AsGiven, Method, MinMax, ReciprocalRank, ZScore, fuse
from gossamer.index.hits import Hits
from gossamer.kernels.errors import InputError

NAN, INF = float("nan"), float("inf")


def hits(rows: list[list[int]], scores: list[list[float]], ids: str = "abcdef") -> Hits:
    return Hits(np.array(rows, dtype=np.int64), np.array(scores, dtype=np.float32), pa.array(list(ids)))


SPARSE = hits([[0, 1, 2], [3, -1, -1]], [[9.0, 5.0, 1.0], [2.0, -INF, -INF]])
DENSE = hits([[1, 3], [-1, -1]], [[0.9, 0.5], [-INF, -INF]])


def test_reciprocal_ranks_by_hand() -> None:
    found = fuse([SPARSE, DENSE], 3)
    assert found.ids.to_pylist() == [["b", "a", "d"], ["d", None, None]]
    np.testing.assert_allclose(found.scores[0], [1 / 62 + 1 / 61, 1 / 61, 1 / 62])
    np.testing.assert_allclose(found.scores[1], [1 / 61, -INF, -INF])
    assert found.row_ids is SPARSE.row_ids
    assert [str(of.dtype) for of in (found.rows, found.scores)] == ["int64", "float32"]
    steep = fuse([SPARSE, DENSE], 1, method=ReciprocalRank(constant=0), weights=[1, 3])
    assert steep.of(0) == [("b", 3.5)]


def test_scores_by_hand() -> None:
    found = fuse([SPARSE, DENSE], 4, method=MinMax(), weights=[0.25, 0.75])
    assert found.of(0) == [("b", 0.875), ("a", 0.25), ("d", 0.0), ("c", 0.0)]
    assert found.of(1) == [("d", 0.25)]  # alone: the best, not the worst
    floored = fuse([SPARSE, DENSE], 4, method=MinMax(floors=(0, -1)))
    expected = {"b": 5 / 9 + 1, "a": 1.0, "d": 1.5 / 1.9, "c": 1 / 9}
    assert dict(floored.of(0)) == pytest.approx(expected)
    z = np.sqrt(1.5)  # of 9, 5 and 1: the mean is 5, the deviation √(32/3)
    scored = dict(fuse([SPARSE, DENSE], 4, method=ZScore(limit=2)).of(0))
    assert scored == pytest.approx({"b": 0.5 + 0.75, "a": 0.5 + z / 4, "c": 0.5 - z / 4, "d": 0.25})
    low = hits([[0, 1, 2, 3, 4, 5]], [[1, 1, 1, 1, 1, -99]])
    assert fuse([low], 6, method=ZScore(limit=2)).of(0)[-1] == ("f", 0.0)
    assert fuse([SPARSE, DENSE], 1, method=AsGiven(), weights=[1, 10]).of(0) == [("b", 14.0)]


def test_equal_scores_go_by_best_rank_then_by_row() -> None:
    first = hits([[4, 2, 0]], [[3.0, 3.0, 3.0]])
    second = hits([[5, 3, 1]], [[3.0, 3.0, 3.0]])
    found = fuse([first, second], 6, method=AsGiven())
    assert found.rows.tolist() == [[4, 5, 2, 3, 0, 1]]


def test_rows_of_different_documents_number_the_ids_that_were_found() -> None:
    other = hits([[0, 1]], [[2.0, 1.0]], "zbé")
    found = fuse([hits([[1, 5]], [[2.0, 1.0]]), other], 9)
    assert found.row_ids.take(pa.array([0, 1, 2])).to_pylist() == ["b", "f", "z"]
    assert found.ids.to_pylist() == [["b", "z", "f", *[None] * 6]]
    same = fuse([DENSE, hits(DENSE.rows.tolist(), DENSE.scores.tolist())], 2)
    np.testing.assert_array_equal(same.rows, DENSE.rows)


def test_nothing_to_fuse() -> None:
    empty = Hits(np.empty((2, 0), np.int64), np.empty((2, 0), np.float32), SPARSE.row_ids)
    for method in (ReciprocalRank(), MinMax(), ZScore(), AsGiven()):
        assert (fuse([empty, empty], 3, method=method).rows == -1).all()
        np.testing.assert_array_equal(fuse([empty, SPARSE], 3, method=method).rows, SPARSE.rows)
    nobody = Hits(np.empty((0, 3), np.int64), np.empty((0, 3), np.float32), pa.array([], pa.string()))
    assert fuse([nobody, nobody], 5).rows.shape == (0, 5)
    with pytest.raises(InputError, match="no lists to fuse"):
        fuse([], 5)


def test_holes_are_no_hits() -> None:
    holed = hits([[-1, 2, -1, 0]], [[NAN, 2.0, INF, 1.0]])
    for method in (ReciprocalRank(), MinMax(), ZScore(), AsGiven()):
        packed = fuse([hits([[2, 0]], [[2.0, 1.0]])], 3, method=method)
        found = fuse([holed], 3, method=method)
        np.testing.assert_array_equal(found.rows, packed.rows)
        np.testing.assert_array_equal(found.scores, packed.scores)


def test_many_queries_are_fused_in_parts() -> None:
    rng = np.random.default_rng(0)
    lists = [
        hits([rng.permutation(6).tolist() for _ in range(50)], np.sort(rng.random((50, 6)))[:, ::-1].tolist())
        for _ in range(3)
    ]
    whole = fuse(lists, 4, method=ZScore())
    with mock.patch.object(fusion, "_ENTRIES_AT_A_TIME", 40):
        parts = fuse(lists, 4, method=ZScore())
    np.testing.assert_array_equal(whole.rows, parts.rows)
    np.testing.assert_array_equal(whole.scores, parts.scores)


@pytest.mark.parametrize("score", [NAN, INF, -INF])
def test_a_score_that_is_no_number_is_refused_where_it_is_read(score: float) -> None:
    bad = hits([[0, 1], [2, 3]], [[2.0, 1.0], [3.0, score]])
    assert fuse([bad], 2).rows.tolist() == bad.rows.tolist()
    for method in (MinMax(), ZScore(), AsGiven()):
        with pytest.raises(
            InputError, match=r"list 1, query 1: 'd' has the score .*; expected a finite one\."
        ):
            fuse([SPARSE, bad], 2, method=method)
        fuse([SPARSE, bad], 2, method=method, weights=[1, 0])


def test_arguments_are_checked() -> None:
    with pytest.raises(InputError, match="k is 0"):
        fuse([SPARSE], 0)
    with pytest.raises(InputError, match="list 1 answers 1 queries and list 0 2"):
        fuse([SPARSE, hits([[0]], [[1.0]])], 1)
    with pytest.raises(InputError, match="1 weights for 2 lists"):
        fuse([SPARSE, DENSE], 1, weights=[1])
    for weights in ([1, -1], [0, 0], [1, NAN], [1, INF]):
        with pytest.raises(InputError, match="expected finite ones, none below 0, one above"):
            fuse([SPARSE, DENSE], 1, weights=weights)
    with pytest.raises(InputError, match="1 floors for 2 lists"):
        fuse([SPARSE, DENSE], 1, method=MinMax(floors=(0,)))
    with pytest.raises(InputError, match=r"list 0, query 0: 'c' has the score 1; .* at least the floor 2\."):
        fuse([SPARSE, DENSE], 1, method=MinMax(floors=(2, 0)))
    with pytest.raises(InputError, match=r"list 1, query 0: 'b' is there twice"):
        fuse([SPARSE, hits([[1, 3, 1], [0, -1, -1]], [[3, 2, 1], [1, -INF, -INF]])], 2)
    for weight in (1e38, 1e308):
        with pytest.raises(InputError, match="beyond float32"):
            fuse([SPARSE], 1, method=AsGiven(), weights=[weight])


def test_methods_are_a_tagged_union() -> None:
    read = TypeAdapter[Method](Method).validate_python
    assert read({"kind": "z_score", "limit": 2}) == ZScore(limit=2)
    assert read({"kind": "min_max", "floors": [0, -1]}) == MinMax(floors=(0, -1))
    for wrong in (
        {"kind": "borda"},
        {"kind": "min_max", "floor": 0},
        {"kind": "reciprocal_rank", "constant": -1},
        {"kind": "reciprocal_rank", "constant": NAN},
        {"kind": "z_score", "limit": 0},
    ):
        with pytest.raises(ValidationError):
            read(wrong)
