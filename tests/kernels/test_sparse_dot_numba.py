"""The compiled scan, against brute force and against the plain version."""

import threading
from typing import Any

import numpy as np
import pytest

from gossamer.kernels.sparse_dot import sparse_dot_topk
from tests.contracts.kernel_sparse_dot import (
    SparseDotContract,
    make_postings,
    make_queries,
    random_impacts,
    random_weights,
)


class TestNumba(SparseDotContract):
    backend = "numba"


@pytest.mark.parametrize("kind", ["uint8", "int8", "float32"])
@pytest.mark.parametrize("k", [1, 10, 400])
def test_equals_the_reference_at_size(kind: str, k: int) -> None:
    """Several windows and blocks, runs of many lengths, thousands of offers to the heap."""
    rng = np.random.default_rng(0)
    columns = [random_impacts(rng, (3_000, 1), density, kind) for density in np.geomspace(0.001, 0.9, 40)]
    postings = make_postings(np.hstack(columns), 700)
    queries = make_queries(random_weights(rng, (25, 40), 0.4, kind))
    expected = sparse_dot_topk(queries, postings, k, backend="reference")
    for n_threads in (1, 3):
        found = sparse_dot_topk(queries, postings, k, backend="numba", n_threads=n_threads)
        np.testing.assert_array_equal(found.rows, expected.rows)
        np.testing.assert_array_equal(found.scores.view(np.int32), expected.scores.view(np.int32))


def test_one_thread_starts_no_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> None:
        raise AssertionError("a thread was started")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    postings = make_postings(np.ones((3, 2), np.uint8), 2)
    assert (
        sparse_dot_topk(make_queries(np.ones((4, 2), np.int16)), postings, 1, backend="numba").rows.max() == 0
    )


def test_postings_in_any_memory_share_one_compiled_version() -> None:
    from gossamer.kernels import sparse_dot_numba

    postings = make_postings(np.ones((3, 2), np.uint8), 2)
    queries = make_queries(np.ones((1, 2), np.int16))
    sparse_dot_topk(queries, postings, 1, backend="numba")
    known = len(sparse_dot_numba._search.signatures)
    postings.local.flags.writeable = False
    strided = np.ones((3, 2), np.int16)[:, 0][:2]
    sparse_dot_topk(
        queries._replace(weights=strided), postings, 1, backend="numba", allowed=np.ones(3, np.bool_)
    )
    assert len(sparse_dot_numba._search.signatures) == known


def test_a_damaged_index_does_not_spoil_the_next_search() -> None:
    small = make_postings(np.ones((10, 2), np.int8), 4_096)
    damaged = small._replace(local=np.where(small.local == 9, 2_000, small.local).astype(np.uint16))
    queries = make_queries(np.full((1, 2), 5, np.int16))
    sparse_dot_topk(queries, damaged, 1, backend="numba")
    sound = make_postings(np.ones((3_000, 2), np.int8), 4_096)
    found = sparse_dot_topk(queries, sound, 2, backend="numba")
    assert found.rows.tolist() == [[0, 1]]
    assert found.scores.tolist() == [[10, 10]]


def test_bounds_that_could_wrap_are_not_used() -> None:
    postings = make_postings(np.eye(300, dtype=np.uint8) * 255, 4_096)
    queries = make_queries(np.full((1, 300), 32_767, np.int16))
    found = sparse_dot_topk(queries, postings, 3, backend="numba")
    expected = sparse_dot_topk(queries, postings, 3, backend="reference")
    np.testing.assert_array_equal(found.rows, expected.rows)
    np.testing.assert_array_equal(found.scores, expected.scores)
