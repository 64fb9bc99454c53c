import numpy as np
import pytest

from gossamer.index.vectors import SparseVectors
from gossamer.recsys.fold_in import FoldInConfig, centre, decompose, fold_in

ITEMS = SparseVectors.from_dense(
    np.random.default_rng(0).standard_normal((9, 6)).astype(np.float32), signed=True
)
HISTORIES = [np.array([2]), np.array([0, 3, 8]), np.arange(9)]


def test_it_solves_the_ridge_regression() -> None:
    dense = ITEMS.to_scipy().toarray().astype(np.float64)
    found = fold_in(HISTORIES, ITEMS, centre(ITEMS), FoldInConfig(ridge=0.7, catalogue=0, nnz=None))
    for row, history in enumerate(HISTORIES):
        taken = dense[history]
        plain = np.linalg.solve(
            taken.T @ taken + 0.7 * np.eye(6), taken.sum(0)
        )  # the regression as it is written
        assert found.to_scipy().toarray()[row] == pytest.approx(plain / np.linalg.norm(plain), abs=1e-5)


def test_the_average_item_is_taken_out() -> None:
    middle = centre(ITEMS)
    assert np.linalg.norm(middle) == pytest.approx(1, abs=1e-6)
    average = ITEMS.to_scipy().toarray().mean(0)
    assert middle == pytest.approx(average / np.linalg.norm(average), abs=1e-5)
    scores = [
        fold_in(HISTORIES, ITEMS, middle, FoldInConfig(catalogue=c, nnz=None)).to_scipy() @ middle
        for c in (0, 0.5, 1)
    ]
    assert (scores[0] > scores[1]).all()
    assert (scores[1] > scores[2]).all()


def test_the_budget_holds_and_the_length_is_one() -> None:
    found = fold_in(HISTORIES, ITEMS, centre(ITEMS), FoldInConfig(nnz=2))
    assert np.diff(found.indptr).tolist() == [2, 2, 2]
    assert np.linalg.norm(found.to_scipy().toarray(), axis=1) == pytest.approx(1, abs=1e-5)
    everything = fold_in(HISTORIES, ITEMS, centre(ITEMS), FoldInConfig(nnz=None)).to_scipy().toarray()
    for row, kept in zip(everything, found.to_scipy().toarray(), strict=True):
        assert set(np.flatnonzero(kept)) == set(np.argsort(-np.abs(row))[:2])


@pytest.mark.parametrize("ridge", [1.0, 1e-9])
def test_long_histories_are_solved_as_short_ones(ridge: float) -> None:
    """More items than coordinates, or fewer; with almost no ridge steps do not get there, and all is solved at once."""
    rng = np.random.default_rng(1)
    rows = np.where(rng.random((120, 90)) < 0.2, rng.standard_normal((120, 90)), 0)
    items = SparseVectors.from_dense(rows, signed=True)
    dense = items.to_scipy().toarray().astype(np.float64)
    config = FoldInConfig(ridge=ridge, catalogue=0.2, nnz=20)
    for n_taken in (70, 120):
        history = np.arange(n_taken)
        taken = dense[history]
        plain = np.linalg.solve(taken.T @ taken + ridge * np.eye(90), taken.sum(0))
        vector = plain / np.linalg.norm(plain) - 0.2 * centre(items)
        vector[np.argsort(-np.abs(vector))[20:]] = 0
        found = fold_in([history], items, centre(items), config)
        assert found.to_scipy().toarray()[0] == pytest.approx(vector / np.linalg.norm(vector), abs=1e-5)
        parts, rest = decompose(history, items, centre(items), config)
        assert parts.shape == (n_taken, 90)
        assert parts.sum(0) + rest == pytest.approx(found.to_scipy().toarray()[0], abs=1e-5)
