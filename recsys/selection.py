"""The best items for a vector: those taken left out, filtered, and at most so many of each value of a column.

All of it is exact. What may not be an answer is left out of the search itself (`allowed`), not dropped afterwards; only
where many users are asked for together, who saw little each, so many more are searched and theirs dropped, as one
search serves them all.

A cap makes the answer greedy: items come in the order of their scores, and one whose value has had its share is passed
over. A value that is full can give no further item, so it is left out of the search for the next ones, and every round
of searching finds at least one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from gossamer.index.document_set import DocumentSet
from gossamer.index.documents import BATCH_ROWS
from gossamer.index.inverted import InvertedIndex
from gossamer.index.presets import nearest
from gossamer.index.vectors import SparseVectors
from gossamer.kernels.errors import ConfigError

Ranked = tuple[NDArray[np.int64], NDArray[np.float32]]
"""Item rows and scores, best first."""

_CHUNK = 256  # users that are searched together
_FEW = 200  # taken items, up to which that was measured to pay


@dataclass(frozen=True, eq=False)
class ItemValues:
    """The values of a metadata column, numbered.

    Attributes:
        numbers: of each item's value `[n_items]`, from 0; `n_values` stands for a missing one.
        n_values: how many there are.
    """

    numbers: NDArray[np.int64]
    n_values: int

    @classmethod
    def of(cls, documents: DocumentSet, column: str) -> ItemValues:
        """Reads a column.

        Raises:
            ConfigError: there is no such column; the message names the nearest.
        """
        if column not in documents.kinds:
            raise ConfigError(f"items have no metadata column {column!r}; {nearest(column, documents.kinds)}")
        starts = range(0, len(documents), BATCH_ROWS)
        parts = (documents.take(np.arange(at, min(at + BATCH_ROWS, len(documents))))[column] for at in starts)
        kind = documents.kinds[column]
        given = pa.chunked_array([chunk for part in parts for chunk in part.chunks], kind).combine_chunks()
        if pa.types.is_floating(kind):  # NaN is missing, too, and -0.0 is 0.0
            given = pc.add(pc.if_else(pc.is_nan(given), pa.scalar(None, kind), given), 0.0)
        coded = given.dictionary_encode()
        n_values = len(coded.dictionary)
        return cls(coded.indices.fill_null(n_values).to_numpy().astype(np.int64), n_values)


@dataclass(frozen=True, eq=False)
class Cap:
    """At most so many items of each value; those without one are bound by nothing, as no two missing values are equal.

    Attributes:
        values: of a column.
        most: items of one value.
    """

    values: ItemValues
    most: int

    def room(self) -> NDArray[np.int64]:
        """How many items of each value there may be `[n_values + 1]`, the missing one last."""
        return np.array([self.most] * self.values.n_values + [self.values.numbers.size], np.int64)

    def fitting(self, rows: NDArray[np.int64], room: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of these items, the best first, there is room for; it is taken."""
        numbers = self.values.numbers[rows]
        order = np.argsort(numbers, kind="stable")
        ordered = numbers[order]
        place = np.arange(ordered.size) - np.searchsorted(ordered, ordered)
        fits = np.zeros(rows.size, np.bool_)
        fits[order] = place < room[ordered]
        np.subtract.at(room, numbers[fits], 1)
        return fits


def best_items(
    index: InvertedIndex,
    queries: SparseVectors,
    taken: list[NDArray[np.int64]],
    k: int,
    *,
    allowed: NDArray[np.bool_] | None = None,
    cap: Cap | None = None,
) -> Ranked:
    """The k best items for each query.

    Args:
        index: of the items.
        queries: Q vectors.
        taken: the item rows that each query leaves out.
        k: how many.
        allowed: bool `[n_items]`, others are no answers; None for all.
        cap: what else holds for each answer.

    Returns:
        Rows and scores `[Q, k]`: score descending, then row ascending; past the end −1 and −inf.
    """
    rows = np.full((len(taken), k), -1, dtype=np.int64)
    scores = np.full((len(taken), k), -np.inf, dtype=np.float32)
    by_length = np.argsort(
        [part.size for part in taken], kind="stable"
    )  # so that a long one widens few searches
    together = by_length if cap is None else by_length[:0]
    together = together[[taken[at].size <= _FEW for at in together]] if len(taken) > 1 else together[:0]
    for start in range(0, together.size, _CHUNK):
        chunk = together[start : start + _CHUNK]
        found = _together(index, queries[chunk], [taken[at] for at in chunk], k, allowed)
        width = found[0].shape[1]
        rows[chunk, :width], scores[chunk, :width] = found
    for at in by_length[together.size :]:
        found = _alone(index, queries[[at]], taken[at], k, allowed=allowed, cap=cap)
        rows[at, : found[0].size], scores[at, : found[0].size] = found
    return rows, scores


def _together(
    index: InvertedIndex,
    queries: SparseVectors,
    taken: list[NDArray[np.int64]],
    k: int,
    allowed: NDArray[np.bool_] | None,
) -> Ranked:
    """The k best and as many as were taken are searched, and the taken dropped."""
    hits = index.search(queries, min(k + taken[-1].size, index.n_rows), allowed=allowed)
    owner = np.arange(len(taken))[:, None] * index.n_rows
    left_out = np.concatenate([part + start for part, start in zip(taken, owner[:, 0], strict=True)])
    keep = (hits.rows >= 0) & ~np.isin(hits.rows + owner, left_out)
    first = np.argsort(~keep, axis=1, kind="stable")[:, :k]
    kept = np.take_along_axis(keep, first, 1)
    rows = np.where(kept, np.take_along_axis(hits.rows, first, 1), -1)
    return rows, np.where(kept, np.take_along_axis(hits.scores, first, 1), np.float32(-np.inf))


def _alone(
    index: InvertedIndex,
    query: SparseVectors,
    taken: NDArray[np.int64],
    k: int,
    *,
    allowed: NDArray[np.bool_] | None,
    cap: Cap | None,
) -> Ranked:
    """Searched without the taken, and with a cap again without what has been looked at, until k fit."""
    free = np.ones(index.n_rows, np.bool_) if allowed is None else allowed.copy()
    free[taken] = False
    room = None if cap is None else cap.room()
    found: list[tuple[NDArray[Any], NDArray[Any]]] = []
    n_found, wanted = 0, min(k, index.n_rows)
    while True:
        hits = index.search(query, wanted, allowed=free)
        rows = hits.rows[0][hits.rows[0] >= 0]
        fits = np.ones(rows.size, np.bool_) if cap is None or room is None else cap.fitting(rows, room)
        found.append((rows[fits], hits.scores[0][: rows.size][fits]))
        n_found += int(fits.sum())
        if cap is None or room is None or n_found >= k or rows.size < wanted:
            return np.concatenate([part for part, _ in found])[:k], np.concatenate([s for _, s in found])[:k]
        free[rows] = False
        free &= room[cap.values.numbers] > 0
        wanted = min(2 * wanted, index.n_rows)
