"""Why an item was recommended: which of the user's items speak most for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gossamer.index.vectors import SparseVectors
from gossamer.recsys.fold_in import decompose
from gossamer.recsys.folder import RecommenderFolder

if TYPE_CHECKING:
    from scipy import sparse

_MOST = 3  # items that are named


@dataclass(frozen=True)
class Because:
    """Why one item was recommended.

    Attributes:
        kind: "history", where the score is a sum over the history, and these are its largest parts; "similar", where
            a trained vector asked, and these are the user's most similar items; "popularity", where there is no more
            to say than that many took it.
        items: up to three ids of the user's items, each with its weight: its part of the score, or its cosine with the
            item. All are above 0; the most important comes first.
        group: for "popularity", the group that took it, if it was counted within one.
    """

    kind: Literal["history", "similar", "popularity"]
    items: tuple[tuple[str, float], ...] = ()
    group: str | None = None


def because_of_history(
    folder: RecommenderFolder, history: NDArray[np.int64], rows: NDArray[np.int64]
) -> list[Because]:
    """Which items of a folded-in history gave most to the score of each item row.

    The score is the sum of a part of each item of the history, and of one of the catalogue, which is not an item's and
    so is not named; see `fold_in.decompose` for what the parts share. They add up to the score, but for the rounding of
    the query in the index, 16 bits a weight.
    """
    weights = contributions(folder, history, rows)[0]
    return _strongest(folder, "history", history, rows, weights)


def contributions(
    folder: RecommenderFolder, history: NDArray[np.int64], rows: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What each item of a history gave to the score of each item row `[T, N]`, and what the catalogue did `[T]`."""
    parts_NH, rest_H = decompose(history, folder.item_vectors, folder.centre, folder.fold_in_config)
    asked_TH = folder.item_vectors[rows].to_scipy()
    return asked_TH @ parts_NH.T, asked_TH @ rest_H


def because_similar(
    folder: RecommenderFolder, seen: NDArray[np.int64], rows: NDArray[np.int64]
) -> list[Because]:
    """Which of a user's items are most similar to each item row.

    A trained vector does not say which interactions made it what it is. So this is not what the score is made of, but
    what the user has that is like the item: the cosine of the two item vectors.
    """
    seen_NH, asked_TH = (_directions(folder.item_vectors, some) for some in (seen, rows))
    return _strongest(folder, "similar", seen, rows, (asked_TH @ seen_NH.T).toarray())


def _directions(vectors: SparseVectors, rows: NDArray[np.int64]) -> sparse.csr_array:
    """Rows at unit length."""
    some = vectors[rows].to_scipy().astype(np.float64)
    lengths = np.sqrt(some.power(2).sum(axis=1))
    some.data /= np.repeat(lengths, np.diff(some.indptr))
    return some


def _strongest(
    folder: RecommenderFolder,
    kind: Literal["history", "similar"],
    taken: NDArray[np.int64],
    rows: NDArray[np.int64],
    weights_TN: NDArray[np.float64],
) -> list[Because]:
    """The largest weights of each item row; an item is no reason for itself."""
    weights_TN = np.where(rows[:, None] == taken, 0, weights_TN)
    best = np.argsort(-weights_TN, axis=1, kind="stable")[:, :_MOST]
    ids = folder.items.documents.row_ids.take(pa.array(taken[best].ravel())).to_pylist()
    found = []
    for place, row in enumerate(best):
        named = ids[place * best.shape[1] :][: best.shape[1]]
        weights = weights_TN[place, row].tolist()
        found.append(Because(kind, tuple(pair for pair in zip(named, weights, strict=True) if pair[1] > 0)))
    return found
