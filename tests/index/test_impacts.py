"""The one arithmetic: rounding, bounds, and sums that cannot wrap."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.index.impacts import ImpactScale, Kind, quantise_queries
from gossamer.index.vectors import SparseVectors
from gossamer.kernels.errors import InputError
from gossamer.kernels.rounding import LARGEST_SUM, LARGEST_WEIGHT
from gossamer.kernels.sparse_dot import TopK

UINT8 = ImpactScale("uint8", 0.01)


@pytest.mark.parametrize(("kind", "levels"), [("uint8", 255), ("int8", 127)])
def test_the_largest_weight_takes_the_last_level(kind: Kind, levels: int) -> None:
    weights = np.array([0.001, 1.0, 3.7], dtype=np.float32)
    scale = ImpactScale.choose(kind, largest=float(weights.max()), negative=False)
    impacts, error = scale.quantise(weights)
    assert impacts[-1] == levels == scale.levels
    assert impacts.dtype == kind
    assert error == np.abs(weights - impacts * scale.step).max() <= scale.step / 2 * 1.001


@pytest.mark.parametrize("largest", [1e-45, 1e-38, 1e-30, 1.0, 3e38])
def test_any_magnitude_can_be_stored(largest: float) -> None:
    weights = np.array([largest, largest / 2], dtype=np.float32)
    kinds: tuple[Kind, ...] = ("uint8", "int8")
    for kind in kinds:
        scale = ImpactScale.choose(kind, largest=float(weights[0]), negative=False)
        impacts, error = scale.quantise(weights)
        assert np.isfinite(scale.step)
        assert scale.step > 0
        assert error <= max(scale.step, 1e-45)
        assert np.abs(impacts.astype(int)).max() <= scale.levels


def test_a_query_is_rounded_with_its_own_step() -> None:
    queries = SparseVectors.from_dicts([{0: 4.0, 2: 1.0}, {}, {1: -0.5}], 3, signed=True)
    scaled = quantise_queries(queries, UINT8)
    assert scaled.queries.weights.tolist() == [32_767, 8_192, -32_767]
    assert scaled.queries.weights.dtype == np.int16
    assert scaled.queries.terms.dtype == np.int32
    assert scaled.queries.indptr.tolist() == [0, 2, 2, 3]
    np.testing.assert_allclose(scaled.steps[[0, 2]], [4 / 32_767, 0.5 / 32_767])


def test_query_weights_that_round_to_zero_are_dropped() -> None:
    queries = SparseVectors.from_dicts([{0: 1e-6, 1: 1.0}, {0: 1e-6}], 2)
    scaled = quantise_queries(queries, UINT8).queries
    assert scaled.terms.tolist() == [1, 0]
    assert scaled.indptr.tolist() == [0, 1, 2]


def test_queries_of_float_impacts_pass_through() -> None:
    queries = SparseVectors.from_dicts([{0: 1e-6, 1: 1.0}], 2)
    scaled = quantise_queries(queries, ImpactScale("float32", 1.0))
    assert scaled.queries.weights.tolist() == queries.values.tolist()
    top = TopK(np.array([[3, -1]]), np.array([[1.5, -np.inf]], dtype=np.float32))
    assert scaled.scores(top).tolist() == [[1.5, -np.inf]]


@given(n=st.integers(1, 3000), spread=st.floats(0, 3), levels=st.sampled_from([127, 255]))
@settings(deadline=None, max_examples=50)
def test_no_sum_can_wrap(n: int, spread: float, levels: int) -> None:
    """Whatever the impacts, and wherever a partial sum stands."""
    weights = np.random.default_rng(n).lognormal(0, spread, n).astype(np.float32)
    queries = SparseVectors(np.array([0, n]), np.arange(n), weights, n)
    scaled = quantise_queries(queries, ImpactScale("uint8" if levels == 255 else "int8", 0.01))
    rounded = scaled.queries.weights.astype(np.int64)
    assert np.abs(rounded).sum() * levels <= LARGEST_SUM
    if np.rint(weights / weights.max() * LARGEST_WEIGHT).sum() * levels <= LARGEST_SUM:
        assert rounded.max() == LARGEST_WEIGHT  # and no precision is given away
    else:
        assert np.abs(rounded).sum() * levels > LARGEST_SUM * 0.9


def test_a_query_with_millions_of_terms_is_refused_not_wrapped() -> None:
    n = LARGEST_SUM // 255 + 1
    queries = SparseVectors(np.array([0, n]), np.arange(n), np.ones(n, dtype=np.float32), n)
    with pytest.raises(InputError, match=r"query 0 has 8,421,505 terms"):
        quantise_queries(queries, UINT8)


def test_scores_beyond_float32_are_infinite_and_never_nan() -> None:
    queries = SparseVectors.from_dicts([{0: 3e38}], 1)
    scaled = quantise_queries(queries, ImpactScale("uint8", 1e36))
    top = TopK(np.array([[4, 2, -1]]), np.array([[2**20, 0, -(2**31)]], dtype=np.int32))
    assert scaled.scores(top).tolist() == [[np.inf, 0.0, -np.inf]]
