"""The order that puts alike rows beside each other."""

import numpy as np

from gossamer.kernels import clustering
from gossamer.kernels.clustering import alike_order
from gossamer.kernels.inversion import Impacts


def topical_rows(n_rows: int, n_topics: int, seed: int = 0) -> tuple[Impacts, np.ndarray]:
    """Rows with 8 of the 20 terms of their own topic; topics come in no order."""
    rng = np.random.default_rng(seed)
    topics = rng.integers(0, n_topics, n_rows)
    terms = np.concatenate([np.sort(rng.choice(20, 8, replace=False)) + 20 * topic for topic in topics])
    impacts = rng.integers(1, 256, len(terms)).astype(np.uint8)
    return Impacts(np.arange(n_rows + 1) * 8, terms.astype(np.uint16), impacts), topics


def test_it_is_a_permutation_and_a_function_of_the_rows() -> None:
    rows, _ = topical_rows(3_000, 10)
    order = alike_order(rows, 200)
    assert np.array_equal(np.sort(order), np.arange(3_000))
    assert np.array_equal(order, alike_order(rows, 200))
    assert not np.array_equal(order, alike_order(rows, 200, seed=1))


def test_rows_of_a_topic_stand_together() -> None:
    rows, topics = topical_rows(8_000, 8)
    before = (np.diff(topics) != 0).sum()
    after = (np.diff(topics[alike_order(rows, 160)]) != 0).sum()
    assert after < before / 20


def test_few_rows_and_empty_rows_are_left_in_order() -> None:
    rows, _ = topical_rows(300, 3)
    assert np.array_equal(alike_order(rows, 60), np.arange(300))
    empty = Impacts(np.zeros(2_001, np.int64), np.zeros(0, np.uint16), np.zeros(0, np.uint8))
    assert np.array_equal(alike_order(empty, 5), np.arange(2_000))


def test_the_number_of_centres_is_limited(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(clustering, "MAX_CENTRES", 4)
    rows, _ = topical_rows(4_000, 4)
    order = alike_order(rows, 80)
    assert np.array_equal(np.sort(order), np.arange(4_000))
