"""A vector for a user whom training never saw, from the items of a history.

A ridge regression, as in factorisation from implicit feedback (Hu, Koren & Volinsky 2008), finds the short vector whose
score is about 1 for each item of the history: items that say the same share one vote. That alone favours what scores
high for everyone, so the direction of the average item is then taken out in part, and the vector cut to the budget of
non-zeros. The work depends on the history's length, not on the catalogue's.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from gossamer.index.vectors import SparseVectors


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
        parts_NH, rest_H = decompose(history, items, centre_H, config)
        found[at] = parts_NH.sum(axis=0) + rest_H
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
    taken_NH = items[history].to_scipy().toarray().astype(np.float64)
    parts_NH = _votes(taken_NH, config.ridge)[:, None] * taken_NH
    parts_NH /= _length(parts_NH.sum(axis=0))
    rest_H = -config.catalogue * centre_H.astype(np.float64)
    vector_H = parts_NH.sum(axis=0) + rest_H
    if config.nnz is not None:
        dropped = np.argsort(-np.abs(vector_H), kind="stable")[config.nnz :]
        parts_NH[:, dropped] = rest_H[dropped] = vector_H[dropped] = 0
    length = _length(vector_H)
    return parts_NH / length, rest_H / length


def _votes(taken_NH: NDArray[np.float64], ridge: float) -> NDArray[np.float64]:
    """The weight of each item in the ridge solution `[N]`; solved over items or coordinates, whichever are fewer."""
    n_items, width = taken_NH.shape
    if n_items <= width:
        left_NN = taken_NH @ taken_NH.T + ridge * np.eye(n_items)
        return np.asarray(np.linalg.solve(left_NN, np.ones(n_items)))
    left_HH = taken_NH.T @ taken_NH + ridge * np.eye(width)
    errors_N = 1 - taken_NH @ np.linalg.solve(left_HH, taken_NH.sum(axis=0))
    return np.asarray(errors_N / ridge)


def _length(vector: NDArray[np.float64]) -> float:
    return max(float(np.linalg.norm(vector)), 1e-12)
