"""Postings made window by window equal those of a dense matrix."""

from typing import Any

import numpy as np
import pytest

from gossamer.kernels.inversion import Impacts, count_window, dense_terms_of, fill_dense, fill_window
from gossamer.kernels.sparse_dot import Bounds, Postings
from tests.contracts.kernel_sparse_dot import make_postings, random_impacts


@pytest.mark.parametrize("kind", ["uint8", "int8", "float32"])
@pytest.mark.parametrize("window", [1, 7, 40, 200])
@pytest.mark.parametrize("wide", [np.uint16, np.int32])
def test_equals_postings_of_a_dense_matrix(kind: str, window: int, wide: type) -> None:
    rng = np.random.default_rng(1)
    impacts_DV = random_impacts(rng, (93, 13), 0.3, kind)
    order = rng.permutation(93)
    expected = make_postings(impacts_DV, window, order)
    places = np.nonzero(impacts_DV)
    stored = impacts_DV[places]
    zeros = np.insert(stored, 5, 0)  # an impact that was rounded to zero: it gets no posting
    documents, terms = (np.insert(place, 5, place[5]) for place in places)
    indptr = np.searchsorted(documents, np.arange(94)).astype(np.int64)
    rows = Impacts(indptr, terms.astype(wide), zeros)

    offsets = np.zeros((13, -(-93 // window) + 1), np.uint32)
    for number in range(offsets.shape[1] - 1):
        count_window(rows, order, window, offsets, number)
    np.cumsum(offsets, axis=1, dtype=np.uint32, out=offsets)
    np.testing.assert_array_equal(offsets, expected.offsets)
    bases = np.concatenate([[0], np.cumsum(offsets[:, -1].astype(np.int64))])
    bounds = None
    if kind == "uint8":
        assert expected.bounds is not None
        blank: Any = [np.zeros_like(array) for array in expected.bounds]
        bounds = Bounds(*blank)
        bounds.dense_terms[:] = expected.bounds.dense_terms
    postings = Postings(
        93,
        13,
        window,
        bases,
        offsets,
        np.zeros(bases[-1], np.uint16),
        np.zeros(bases[-1], kind),
        order.astype(np.uint32),
        bounds,
    )
    for number in reversed(range(postings.n_windows)):
        fill_window(rows, postings, number)
    np.testing.assert_array_equal(postings.local, expected.local)
    np.testing.assert_array_equal(postings.impacts, expected.impacts)
    if bounds is not None:
        assert expected.bounds is not None
        for number in range(len(bounds.dense_terms)):
            fill_dense(postings, bounds, number)
        for name, array in bounds._asdict().items():
            np.testing.assert_array_equal(array, getattr(expected.bounds, name), err_msg=name)


def test_dense_terms_are_the_most_frequent_within_the_share() -> None:
    postings_a_term = np.array([100, 3, 50, 70, 0, 6])  # 229 postings of 100 documents: 2.29 a document
    assert dense_terms_of(postings_a_term, 100, 100, 1.0).tolist() == [0, 3]
    assert dense_terms_of(postings_a_term, 100, 100, 0.5).tolist() == [0]
    assert dense_terms_of(postings_a_term, 100, 100, 9.0).tolist() == [
        0,
        2,
        3,
    ]  # 6 of 100 is less than a 16th
    assert dense_terms_of(postings_a_term, 100, 200, 1.0).tolist() == [0]  # as a row is filled up
    assert dense_terms_of(np.zeros(3, np.int64), 0, 0, 1.0).tolist() == []
