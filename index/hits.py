"""`Hits`: what every index answers, a rectangle of rows, scores and ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gossamer.kernels.errors import InputError


class RowIds(Protocol):
    """Ids by row: an Arrow array of strings, or what can be asked like one."""

    def take(self, rows: pa.Array) -> pa.StringArray | pa.ChunkedArray:
        """The id of each row; null where that is null."""


@dataclass(frozen=True, eq=False)
class Hits:
    """The k best documents of each query, best first; ties by insertion order.

    Attributes:
        rows: int64 `[n_queries, k]`; past the last hit −1.
        scores: float32 `[n_queries, k]`; past the last hit −inf.
        row_ids: the ids of all rows of the index (not only of the hits), or what gives those of the hits.
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]
    row_ids: RowIds

    def __len__(self) -> int:
        return int(self.rows.shape[0])

    @property
    def k(self) -> int:
        """Width of the rectangle."""
        return int(self.rows.shape[1])

    @property
    def ids(self) -> pa.FixedSizeListArray:
        """The ids `[n_queries, k]`, looked up now; null past the last hit."""
        flat = pa.array(self.rows.ravel(), mask=self.rows.ravel() < 0)
        return pa.FixedSizeListArray.from_arrays(_flat(self.row_ids.take(flat)), max(self.k, 1))

    def of(self, query: int) -> list[tuple[str, float]]:
        """The hits of one query as `(id, score)`, without the padding."""
        rows = self.rows[query]
        found = rows[rows >= 0]
        ids = self.row_ids.take(pa.array(found)).to_pylist()
        return list(zip(ids, self.scores[query, : found.size].tolist(), strict=True))

    def to_run(self, query_ids: Sequence[str]) -> dict[str, dict[str, float]]:
        """As a run `{query id: {document id: score}}`, the form that measures take.

        Equal scores are told apart by their order here, so that a measure breaks ties as the index did: each is
        lowered below its predecessor by the smallest step of a float64.

        Raises:
            InputError: there is not one id a query, or one repeats.
        """
        if len(query_ids) != len(self):
            raise InputError(f"there are {len(query_ids)} query ids for {len(self)} queries.")
        run: dict[str, dict[str, float]] = {}
        for row, name in enumerate(query_ids):
            if name in run:
                raise InputError(f"the query id {name!r} repeats; a run holds each query once.")
            run[name] = _strictly_falling(self.of(row))
        return run


def _flat(ids: pa.StringArray | pa.ChunkedArray) -> pa.StringArray:
    return ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids


def _strictly_falling(hits: list[tuple[str, float]]) -> dict[str, float]:
    run: dict[str, float] = {}
    last = np.inf
    for id_, score in hits:
        last = min(float(score), float(np.nextafter(last, -np.inf)))
        run[id_] = last
    return run
