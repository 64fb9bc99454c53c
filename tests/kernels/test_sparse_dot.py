"""The reference, the choice of a backend, and what is refused before any kernel runs."""

from typing import Any

import numpy as np
import pytest

from gossamer.kernels.errors import BackendError, InputError
from gossamer.kernels.sparse_dot import Postings, Queries, mask_of, sparse_dot_topk
from tests.contracts.kernel_sparse_dot import SparseDotContract, make_postings, make_queries


class TestReference(SparseDotContract):
    backend = "reference"


class TestAuto(SparseDotContract):
    backend = "auto"


@pytest.fixture
def postings() -> Postings:
    return make_postings(np.array([[1, 0, 2], [0, 3, 1], [5, 0, 0]], np.uint8), window=2)


@pytest.fixture
def queries() -> Queries:
    return make_queries(np.array([[1, 0, 2], [0, 3, 0]], np.int16))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"terms": np.array([0, 2, 3], np.int32)}, "query 1 has term 3, but the postings have terms 0 to 2"),
        ({"terms": np.array([-1, 2, 1], np.int32)}, "query 0 has term -1"),
        ({"terms": np.array([2, 0, 1], np.int32)}, "terms of query 0 are not strictly ascending"),
        ({"terms": np.array([2, 2, 1], np.int32)}, "terms of query 0 are not strictly ascending"),
        ({"terms": np.array([0, 2, 1], np.int64)}, "queries.terms is int64; expected int32"),
        ({"weights": np.array([1, 2, 3], np.float32)}, "queries.weights is float32; expected int16"),
        ({"weights": np.array([1, 2], np.int16)}, r"queries.weights has shape \(2,\)"),
        ({"indptr": np.array([0, 2], np.int64)}, "queries.indptr"),
        ({"indptr": np.array([0, 4, 3], np.int64)}, "queries.indptr"),
        ({"indptr": np.array([], np.int64)}, "queries.indptr"),
    ],
)
def test_bad_queries_are_refused(
    queries: Queries, postings: Postings, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        sparse_dot_topk(queries._replace(**change), postings, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"window": 0}, "postings.window is 0"),
        ({"window": 65_537}, "postings.window is 65537"),
        ({"window": 1}, "postings.offsets has shape"),
        ({"n_documents": 2**32}, "postings hold 4294967296 documents"),
        ({"n_terms": 4}, "postings.bases has shape"),
        ({"impacts": np.zeros(5, np.int32)}, "postings.impacts is int32"),
        ({"impacts": np.zeros(4, np.uint8)}, "postings.impacts has shape"),
        ({"local": np.zeros(5, np.uint32)}, "postings.local is uint32"),
        ({"bases": np.array([0, 2, 3, 6], np.int64)}, "postings.bases must rise"),
        ({"rows": np.zeros(2, np.uint32)}, "postings.rows has shape"),
        ({"terms": np.arange(3)}, "postings.terms is int64"),
        ({"terms": np.arange(2, dtype=np.int32)}, r"postings.bases has shape \(4,\); expected \(3,\)"),
    ],
)
def test_bad_postings_are_refused(
    queries: Queries, postings: Postings, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        sparse_dot_topk(queries, postings._replace(**change), 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"window_max": np.zeros((3, 1), np.uint8)}, "bounds.window_max has shape"),
        ({"dense_terms": np.zeros(1, np.int64)}, "bounds.dense_terms is int64"),
        ({"dense": np.zeros((1, 32), np.uint8)}, "bounds.dense has shape"),
        ({"block_max": np.zeros((2, 2), np.uint8)}, "bounds.block_max has shape"),
    ],
)
def test_bad_bounds_are_refused(
    queries: Queries, postings: Postings, change: dict[str, Any], message: str
) -> None:
    assert postings.bounds is not None
    with pytest.raises(InputError, match=message):
        sparse_dot_topk(queries, postings._replace(bounds=postings.bounds._replace(**change)), 2)


def test_max_windows_wants_bounds_and_weights_above_zero(queries: Queries, postings: Postings) -> None:
    with pytest.raises(InputError, match="max_windows is 0"):
        sparse_dot_topk(queries, postings, 1, max_windows=0)
    with pytest.raises(InputError, match="these have none"):
        sparse_dot_topk(queries, postings._replace(bounds=None), 1, max_windows=1)
    with pytest.raises(InputError, match="weights above zero"):
        sparse_dot_topk(queries._replace(weights=-queries.weights), postings, 1, max_windows=1)


def test_other_bad_arguments_are_refused(queries: Queries, postings: Postings) -> None:
    with pytest.raises(InputError, match="k is 0"):
        sparse_dot_topk(queries, postings, 0)
    with pytest.raises(InputError, match="n_threads is 0"):
        sparse_dot_topk(queries, postings, 1, n_threads=0)
    with pytest.raises(InputError, match=r"allowed has shape \(2,\); expected \(3,\)"):
        sparse_dot_topk(queries, postings, 1, allowed=np.ones(2, np.bool_))
    mask = mask_of(np.ones(3, np.bool_), postings, blocks=True)
    with pytest.raises(InputError, match=r"allowed.open_blocks has shape \(1,\); expected \(2,\)"):
        sparse_dot_topk(queries, postings, 1, allowed=mask._replace(open_blocks=mask.open_blocks[:1]))
    with pytest.raises(InputError, match="no backend 'cuda'"):
        sparse_dot_topk(queries, postings, 1, backend="cuda")  # type: ignore[arg-type]


def test_blocks_are_looked_for_only_where_few_documents_are_left(postings: Postings) -> None:
    few, many = np.array([False, False, True]), np.array([False, True, True])
    assert mask_of(few, postings).open_blocks.tolist() == [True, False]
    assert len(mask_of(many, postings).open_blocks) == 0
    assert mask_of(many, postings, blocks=True).open_blocks.tolist() == [True, False]


def test_weights_that_are_not_finite_are_refused(queries: Queries, postings: Postings) -> None:
    weights = np.array([1, 2, np.nan], np.float32)
    with pytest.raises(InputError, match="query 1 has a weight that is not finite"):
        sparse_dot_topk(
            queries._replace(weights=weights),
            postings._replace(impacts=postings.impacts.astype(np.float32), bounds=None),
            1,
        )


def test_no_gpu_path_for_float32(queries: Queries, postings: Postings) -> None:
    queries = queries._replace(weights=queries.weights.astype(np.float32))
    postings = postings._replace(impacts=postings.impacts.astype(np.float32), bounds=None)
    with pytest.raises(BackendError, match="no float32 kind"):
        sparse_dot_topk(queries, postings, 1, backend="triton")


def test_an_empty_query_between_others_may_start_anywhere(postings: Postings) -> None:
    queries = Queries(
        np.array([0, 0, 1, 1, 2, 2], np.int64), np.array([2, 0], np.int32), np.array([1, 1], np.int16)
    )
    assert sparse_dot_topk(queries, postings, 1).rows[:, 0].tolist() == [-1, 0, -1, 2, -1]
