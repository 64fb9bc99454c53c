"""A vector for a user whom training never saw, from the items of a history.

The ridge regression of implicit-feedback factorisation (Hu, Koren & Volinsky 2008; Rendle et al. 2022,
arXiv:2110.14037, for the weights): the vector whose score is 1 for the history's items, about 0 for the catalogue and
short. It is then cut to the budget of non-zeros, and solved once more on the places that are left.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from gossamer.index.vectors import SparseVectors


class FoldInConfig(BaseModel):
    """How a history becomes a vector.

    Attributes:
        catalogue: weight of "the score of any item is 0" against "the score of a history's item is 1".
        ridge: weight of the vector's own squared length.
        nnz: non-zeros that are kept; None keeps all.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    catalogue: float = Field(default=0.01, ge=0)
    ridge: float = Field(default=1.0, gt=0)
    nnz: int | None = Field(default=51, ge=1)


def gram(items: SparseVectors) -> NDArray[np.float32]:
    """The Gram matrix `[H, H]` of the item vectors."""
    matrix = items.to_scipy()
    product: NDArray[np.float32] = (matrix.T @ matrix).toarray().astype(np.float32)
    return product


def fold_in(
    histories: list[NDArray[np.int64]],
    items: SparseVectors,
    gram_HH: NDArray[np.float32],
    config: FoldInConfig,
) -> SparseVectors:
    """One vector of unit length for each history.

    Args:
        histories: item rows of each user, at least one each.
        items: the item vectors `[n_items, H]`.
        gram_HH: their Gram matrix; see `gram`.
        config: weights and budget.

    Returns:
        Vectors `[len(histories), H]`.
    """
    width = items.n_cols
    base_HH = config.catalogue * gram_HH.astype(np.float64) + config.ridge * np.eye(width)
    found = np.zeros((len(histories), width))
    for at, history in enumerate(histories):
        taken = items[history].to_scipy().toarray().astype(np.float64)
        left, right = base_HH + taken.T @ taken, taken.sum(0)
        vector = np.linalg.solve(left, right)
        if config.nnz is not None and config.nnz < width:
            kept = np.argsort(-np.abs(vector), kind="stable")[: config.nnz]
            vector = np.zeros(width)
            vector[kept] = np.linalg.solve(left[np.ix_(kept, kept)], right[kept])
        found[at] = vector / max(float(np.linalg.norm(vector)), 1e-12)
    return SparseVectors.from_dense(found, signed=True)
