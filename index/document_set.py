"""`DocumentSet`: the documents of an index's segments as one table; what `Documents` is for one of them.

Rows count through the segments in their order, deleted documents included, so that a segment's rows do not move while
others change. A deleted document is not found by its id, passes no filter, and is not counted. Segments may have other
metadata columns than one another: where one lacks a column, its values are null.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gossamer.index.documents import BATCH_ROWS, Documents, check_columns, checked_rows, table_schema
from gossamer.index.filters import Filters, is_text, parse
from gossamer.kernels.errors import ConfigError, InputError, RecordError


@dataclass(frozen=True)
class Part:
    """The documents of one segment.

    Attributes:
        documents: all of them, deleted ones included.
        live: which of them are there, bool `[n]`; None for all.
        first_number: insertion number of the first.
        later_numbers: insertion numbers of all, int64 `[n]`, ascending; None where they are consecutive.
    """

    documents: Documents
    live: NDArray[np.bool_] | None
    first_number: int = 0
    later_numbers: NDArray[np.int64] | None = None

    @property
    def present(self) -> NDArray[np.bool_]:
        """`live` as an array, whatever it is."""
        return np.ones(len(self.documents), np.bool_) if self.live is None else self.live

    def numbers_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The insertion numbers of some of these rows."""
        return rows + self.first_number if self.later_numbers is None else self.later_numbers[rows]


class DocumentSet:
    """What an index knows of its documents beside their vectors; read-only, and of one moment.

    Args:
        parts: of the segments, in their order.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = tuple(parts)
        self._starts = np.cumsum([0, *(len(part.documents) for part in parts)])

    def __len__(self) -> int:
        """Number of rows, deleted ones included."""
        return int(self._starts[-1])

    @cached_property
    def ids(self) -> pa.StringArray | pa.ChunkedArray:
        """The id of every row, of deleted ones too; mapped."""
        ids = [part.documents.ids for part in self._parts]
        return ids[0] if len(ids) == 1 else pa.chunked_array(ids, type=pa.string())

    @cached_property
    def row_ids(self) -> pa.StringArray | PartedIds:
        """The same for looking some up, which takes Arrow all of them where they are in several arrays."""
        ids = [part.documents.ids for part in self._parts]
        return ids[0] if len(ids) == 1 else PartedIds(ids, self._starts)

    @cached_property
    def live(self) -> NDArray[np.bool_]:
        """Which rows are not deleted, bool `[n_rows]`."""
        return np.concatenate([np.zeros(0, np.bool_), *(part.present for part in self._parts)])

    @cached_property
    def kinds(self) -> dict[str, pa.DataType]:
        """Name and type of each metadata column of any segment."""
        kinds: dict[str, pa.DataType] = {}
        for part in self._parts:
            kinds |= part.documents.kinds
        return kinds

    @property
    def metadata(self) -> list[str]:
        """Names of the metadata columns: those that can be filtered by, beside `id`."""
        return list(self.kinds)

    @cached_property
    def schema(self) -> pa.Schema:
        """`id`, `title`, `text`, then the metadata columns; what `take` returns."""
        return table_schema(self.kinds)

    def refuse_other_types(self, added: Documents) -> None:
        """Raises: RecordError: a metadata column of what is added has another type than here."""
        for name, kind in added.kinds.items():
            if self.kinds.get(name, kind) != kind:
                raise RecordError(
                    f"the column {name!r} is {kind}, and {self.kinds[name]} in this index; convert it, or rename it."
                )

    def take(self, rows: Sequence[int] | NDArray[Any]) -> pa.Table:
        """The documents of these rows, in this order, deleted ones too; a title or text that was not given is "".

        Raises:
            InputError: a row is out of range.
        """
        numbers = checked_rows(rows, len(self))
        if len(self._parts) == 1:
            return self._parts[0].documents.take(numbers)
        which = np.searchsorted(self._starts, numbers, side="right") - 1
        tables, places = [self.schema.empty_table()], [np.zeros(0, np.int64)]
        for number in np.unique(which):
            mine = np.flatnonzero(which == number)
            tables.append(self._completed(int(number), numbers[mine] - self._starts[number]))
            places.append(mine)
        order = np.argsort(np.concatenate(places))
        return pa.concat_tables(tables).take(pa.array(order))

    def _completed(self, number: int, rows: NDArray[np.int64]) -> pa.Table:
        table = self._parts[number].documents.take(rows)
        absent = [field for field in self.schema if field.name not in table.column_names]
        for field in absent:
            table = table.append_column(field, pa.nulls(len(rows), field.type))
        return table.select(self.schema.names)

    def batches(self, segments: Sequence[int]) -> Iterator[pa.RecordBatch]:
        """All that is stored of the live documents of some segments, in their order, for storing it again."""
        stored = {name for number in segments for name in self._parts[number].documents.stored}
        names = [name for name in self.schema.names if name == "id" or name in stored]
        for number in segments:
            rows = np.flatnonzero(self._parts[number].present)
            for first in range(0, len(rows), BATCH_ROWS):
                table = self._completed(number, rows[first : first + BATCH_ROWS])
                yield from table.select(names).combine_chunks().to_batches()

    def rows_of(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """The row of each id, -1 where there is no such document."""
        rows = np.full(len(ids), -1, np.int64)
        for part, start in zip(self._parts, self._starts, strict=False):
            found = part.documents.rows_of(ids)
            there = found >= 0
            if part.live is not None:
                there[there] = part.live[found[there]]
            rows[there] = found[there] + start
        return rows

    def after(self, id_: str | None, n: int, among: NDArray[np.bool_]) -> NDArray[np.int64]:
        """The rows of the next documents by id, in code points' order; a page of a list that writes do not shift.

        Args:
            id_: those greater than it; None begins with the least.
            n: of how many.
            among: bool `[n_rows]`, which count, such as `live` or a `mask`.

        Returns:
            At most n rows, in that order.
        """
        rows = [np.zeros(0, np.int64)]
        for part, start in zip(self._parts, self._starts, strict=False):
            mine = among[start : start + len(part.documents)]
            rows.append(part.documents.after(id_, n, mine) + start)
        found = np.concatenate(rows)
        ids = self.row_ids.take(pa.array(found)).to_pylist()
        return found[np.array(sorted(range(len(ids)), key=ids.__getitem__)[:n], np.int64)]

    def numbers_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The insertion numbers of rows; -1 stays -1."""
        numbers = np.full(rows.shape, -1, np.int64)
        which = np.searchsorted(self._starts, rows, side="right") - 1
        for place in np.unique(which[rows >= 0]):
            mine = (which == place) & (rows >= 0)
            numbers[mine] = self._parts[place].numbers_of(rows[mine] - self._starts[place])
        return numbers

    def mask(self, filters: Filters, kinds: Mapping[str, pa.DataType] | None = None) -> NDArray[np.bool_]:
        """Which documents a filter leaves; see `Documents.mask`.

        Args:
            filters: the filter.
            kinds: name and type of the metadata columns, where these documents are only some of all.

        Returns:
            bool `[n_rows]`, to be passed to `search` as `allowed`.
        """
        clause, kinds = parse(filters), self.kinds if kinds is None else kinds
        chosen = [part.documents.where(clause, kinds) & part.present for part in self._parts]
        if not chosen:
            check_columns(clause, kinds)
        return np.concatenate([np.zeros(0, np.bool_), *chosen])

    def counts(self, name: str, at_most: int, *, among: NDArray[np.bool_] | None = None) -> dict[Any, int]:
        """How many documents have each value of a metadata column, most frequent first; missing values left out.

        Args:
            name: the column.
            at_most: if there are more values than this, the answer is empty, and counting stops early.
            among: bool `[n_rows]`, of which rows; all, if not given.
        """
        if name not in self.kinds:
            raise ConfigError(f"there is no metadata column {name!r}; there are {self.metadata}.")
        totals: Counter[Any] = Counter()
        for part, start in zip(self._parts, self._starts, strict=False):
            if name in part.documents.kinds:
                mine = None if among is None else among[start : start + len(part.documents)] & part.present
                counted = part.documents.tally(name, at_most, part.live if mine is None else mine)
                if counted is None:
                    return {}
                totals.update(counted)
            if len(totals) > at_most:
                return {}
        return dict(totals.most_common())


class PartedIds:
    """The ids of the rows of several arrays, one after the other.

    Args:
        ids: the arrays.
        starts: int64 `[n + 1]`, the first row of each.
    """

    def __init__(self, ids: Sequence[pa.StringArray], starts: NDArray[np.int64]) -> None:
        self._ids, self._starts = ids, starts

    def equals(self, other: PartedIds) -> bool:
        """Whether these are the same ids, in arrays of the same lengths."""
        return len(self._ids) == len(other._ids) and all(
            mine is its or mine.equals(its) for mine, its in zip(self._ids, other._ids, strict=True)
        )

    def take(self, rows: pa.Array) -> pa.StringArray:
        """The id of each row; null where that is null."""
        numbers = rows.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        which = np.searchsorted(self._starts, numbers, side="right") - 1
        found, places = [pa.array([], pa.string())], [np.zeros(0, np.int64)]
        for number in np.unique(which[numbers >= 0]):
            mine = np.flatnonzero((which == number) & (numbers >= 0))
            found.append(self._ids[number].take(pa.array(numbers[mine] - self._starts[number])))
            places.append(mine)
        order = np.zeros(len(numbers), np.int64)
        order[np.concatenate(places)] = np.arange(sum(len(part) for part in places))
        return pa.concat_arrays(found).take(pa.array(order, mask=numbers < 0))


def checked_ids(ids: Iterable[str]) -> list[str]:
    """Ids as a list; raises InputError where they are none."""
    if isinstance(ids, str):
        raise InputError(f"ids is the string {ids!r}; give a list of ids.")
    names = ids.to_pylist() if isinstance(ids, (pa.Array, pa.ChunkedArray)) else list(ids)
    for name in names:
        if not isinstance(name, str) or (not name.isascii() and not is_text(name)):
            raise InputError(f"{name!r} is no id; an id is a string of valid Unicode.")
    return names


def refuse_known(ids: pa.StringArray, rows: NDArray[np.int64]) -> None:
    """Raises: RecordError: one of these ids is in the index, at one of these rows (-1 where not)."""
    if (rows >= 0).any():
        row = int(np.argmax(rows >= 0))
        raise RecordError(
            f"row {row} has the id {ids[row].as_py()!r}, which is in the index already; update() replaces documents."
        )
