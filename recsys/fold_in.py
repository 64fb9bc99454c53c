"""A vector for a user whom training never saw, from the items of a history.

A ridge regression, as in factorisation from implicit feedback (Hu, Koren & Volinsky 2008), finds the short vector whose
score is about 1 for each item of the history: items that say the same share one vote. That alone favours what scores
high for everyone, so the direction of the average item is then taken out in part, and the vector cut to the budget of
non-zeros. The work depends on the history's length, not on the catalogue's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from gossamer.index.vectors import SparseVectors

if TYPE_CHECKING:
    from scipy import sparse

_FEW = 64  # items whose equations are solved at once: of more, a LAPACK waits for threads
_MOST_STEPS = 200


class FoldInConfig(BaseModel):
    """How a history becomes a vector.

    Attributes:
        ridge: weight of the vector's squared length against the squared errors; a large one gives the history's mean.
        catalogue: how much of the average item's direction is taken out, both at unit length; 0 leaves it in.
        nnz: non-zeros that are kept; None keeps all.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    ridge: float = Field(default=1.0, gt=0)
    catalogue: float = Field(default=0.3, ge=0)
    nnz: int | None = Field(default=51, ge=1)


def centre(items: SparseVectors) -> NDArray[np.float32]:
    """The direction `[H]` of the average item, of unit length."""
    total = np.bincount(items.indices, weights=items.values, minlength=items.n_cols)
    return (total / max(float(np.linalg.norm(total)), 1e-12)).astype(np.float32)


def fold_in(
    histories: list[NDArray[np.int64]],
    items: SparseVectors,
    centre_H: NDArray[np.float32],
    config: FoldInConfig,
) -> SparseVectors:
    """One vector of unit length for each history.

    Args:
        histories: item rows of each user, at least one each.
        items: the item vectors `[n_items, H]`.
        centre_H: see `centre`.
        config: weights and budget.

    Returns:
        Vectors `[len(histories), H]`.
    """
    found = np.zeros((len(histories), items.n_cols))
    for at, history in enumerate(histories):
        rows_NH = items[history].to_scipy().astype(np.float64)
        votes_N, rest_H, kept_H = _solved(rows_NH, centre_H, config)
        found[at, kept_H] = (rows_NH.T @ votes_N + rest_H)[kept_H]
    return SparseVectors.from_dense(found, signed=True)


def decompose(
    history: NDArray[np.int64], items: SparseVectors, centre_H: NDArray[np.float32], config: FoldInConfig
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The vector of a history as a sum: what each item gave, and what the catalogue took.

    The ridge solution is a weighted sum of the history's rows (its dual form), so a score is a sum over the history,
    too, less a term of the average item. Two things stand as they came out, and are shared by all parts: which
    non-zeros were kept, and the length that was divided by. And as items that say the same share one vote, what one of
    them gave is not what would be missing without it.

    Args:
        history: item rows, at least one.
        items: the item vectors `[n_items, H]`.
        centre_H: see `centre`.
        config: weights and budget.

    Returns:
        A row for each item of the history `[N, H]`, and the rest `[H]`; they add up to the row of `fold_in`.
    """
    rows_NH = items[history].to_scipy().astype(np.float64)
    votes_N, rest_H, kept_H = _solved(rows_NH, centre_H, config)
    return votes_N[:, None] * rows_NH.toarray() * kept_H, rest_H * kept_H


def _solved(
    rows_NH: sparse.csr_array, centre_H: NDArray[np.float32], config: FoldInConfig
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """The weight of each item `[N]`, the catalogue's part `[H]`, and which coordinates are kept `[H]`."""
    votes_N = _votes(rows_NH, config.ridge)
    votes_N = votes_N / _length(rows_NH.T @ votes_N)
    rest_H = -config.catalogue * centre_H.astype(np.float64)
    vector_H = rows_NH.T @ votes_N + rest_H
    kept_H = np.ones(vector_H.size, np.bool_)
    if config.nnz is not None:
        kept_H[np.argsort(-np.abs(vector_H), kind="stable")[config.nnz :]] = False
    length = _length(vector_H[kept_H])
    return votes_N / length, rest_H / length, kept_H


def _votes(rows_NH: sparse.csr_array, ridge: float) -> NDArray[np.float64]:
    """The weight of each item in the ridge solution `[N]`: of X of the history, (X Xᵀ + ridge) weights = 1."""
    wanted_N = np.ones(rows_NH.shape[0])
    if wanted_N.size > _FEW:
        weights_N = _conjugate_gradients(rows_NH, ridge, wanted_N)
        if weights_N is not None:
            return weights_N
    left_NN = (rows_NH @ rows_NH.T).toarray() + ridge * np.eye(wanted_N.size)
    return np.asarray(np.linalg.solve(left_NN, wanted_N))


def _conjugate_gradients(
    rows_NH: sparse.csr_array, ridge: float, wanted_N: NDArray[np.float64]
) -> NDArray[np.float64] | None:
    """The solution to ten digits (Hestenes & Stiefel 1952), without the matrix; None if that takes too long."""
    weights_N, left_N = np.zeros(wanted_N.size), wanted_N
    step_N, size = left_N, float(left_N @ left_N)
    enough = 1e-20 * size
    for _ in range(_MOST_STEPS):
        image_N = rows_NH @ (rows_NH.T @ step_N) + ridge * step_N
        length = size / float(step_N @ image_N)
        weights_N, left_N = weights_N + length * step_N, left_N - length * image_N
        size, before = float(left_N @ left_N), size
        if size <= enough:
            return weights_N
        step_N = left_N + size / before * step_N
    return None


def _length(vector: NDArray[np.float64]) -> float:
    return max(float(np.linalg.norm(vector)), 1e-12)
