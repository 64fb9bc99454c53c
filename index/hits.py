"""`Hits`: what every index answers, a rectangle of rows, scores and ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
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
        rows: int64 `[n_queries, k]`, numbers of `row_ids`; past the last hit −1.
        scores: float32 `[n_queries, k]`; past the last hit −inf.
        row_ids: the ids of all rows of the index (not only of the hits), or what gives those of the hits. Hits of no
            one index, read from a run or fused from indexes of different documents, number ids of their own.
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]
    row_ids: RowIds

    @classmethod
    def from_run(cls, run: Mapping[str, Mapping[str, float]], query_ids: Sequence[str]) -> Hits:
        """The hits of a run, best first, equal scores as they stand; as wide as the longest answer.

        Args:
            run: `{query id: {document id: score}}`, as `read_run` reads it.
            query_ids: the queries, in the order of the hits; one that the run does not answer has none.

        Raises:
            InputError: a score is not a number.
        """
        answers = [sorted(run.get(query, {}).items(), key=itemgetter(1), reverse=True) for query in query_ids]
        ids = sorted({id_ for answer in answers for id_, _ in answer})
        numbers = {id_: number for number, id_ in enumerate(ids)}
        width = max((len(answer) for answer in answers), default=0)
        rows = np.full((len(answers), max(width, 1)), -1, dtype=np.int64)
        scores = np.full(rows.shape, -np.inf, dtype=np.float32)
        for query, answer in enumerate(answers):
            rows[query, : len(answer)] = [numbers[id_] for id_, _ in answer]
            with np.errstate(over="ignore"):  # what is beyond float32 is infinite, and keeps its place
                scores[query, : len(answer)] = [score for _, score in answer]
        if np.isnan(scores).any():
            query, column = np.argwhere(np.isnan(scores))[0]
            raise InputError(
                f"query {query_ids[query]!r}, document {ids[rows[query, column]]!r}: the score is not a number."
            )
        return cls(rows, scores, pa.array(ids, pa.string()))

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
