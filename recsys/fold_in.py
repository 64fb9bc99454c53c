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
        taken_NH = items[history].to_scipy().toarray().astype(np.float64)
        left_NN = taken_NH @ taken_NH.T + config.ridge * np.eye(history.size)
        vector = _unit(taken_NH.T @ np.linalg.solve(left_NN, np.ones(history.size)))
        vector -= config.catalogue * centre_H
        if config.nnz is not None:
            vector[np.argsort(-np.abs(vector), kind="stable")[config.nnz :]] = 0
        found[at] = _unit(vector)
    return SparseVectors.from_dense(found, signed=True)


def _unit(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    return vector / max(float(np.linalg.norm(vector)), 1e-12)
