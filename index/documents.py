"""`Documents`: ids, titles, texts and metadata columns of an index, as memory-mapped Arrow IPC.

Ids are one file with one Arrow array, so that mapping it gives all of them at once, and beside it stands their sorted
order, in which a row is found by its id without a table in memory. All other columns are a second file, in record
batches of `BATCH_ROWS` rows (the last may be shorter), uncompressed, so that a row is found by division and only the
pages that are looked at are read.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from gossamer.index.arrays import map_array, map_bytes
from gossamer.index.comparisons import fitting, holds
from gossamer.index.filters import And, Clause, Compare, Filters, Not, Or, parse, shown
from gossamer.kernels.errors import ConfigError, FormatError, InputError

BATCH_ROWS = 8_192
TEXTS = ("title", "text")
IDS, ORDER, COLUMNS = "ids.arrow", "order.npy", "columns.arrow"
_IDS_SCANNED_PER_ID_FOUND = (
    1_024  # what a scan of all ids passes in the time that binary search takes for one
)

_IN_ORDER = 65_536  # rows that are looked at together
_FEW = 64  # rows that are copied sooner one by one than each batch's together


class Documents:
    """What an index knows of its documents beside their vectors; read-only.

    Attributes:
        ids: the id of every row, one mapped Arrow array.
    """

    def __init__(self, folder: Path, n_documents: int) -> None:
        self.ids: pa.StringArray = _map_ids(folder / IDS, n_documents)
        self._order = map_array(folder / ORDER, np.int64, (n_documents,))
        self._columns = _Columns(folder / COLUMNS, n_documents) if (folder / COLUMNS).exists() else None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def schema(self) -> pa.Schema:
        """`id`, `title`, `text`, then the metadata columns; what `take` returns."""
        return table_schema(self.kinds)

    @property
    def metadata(self) -> list[str]:
        """Names of the metadata columns: those that can be filtered by, beside `id`."""
        return list(self.kinds)

    @property
    def stored(self) -> list[str]:
        """Names of the columns that there are, beside `id`."""
        return [] if self._columns is None else list(self._columns.schema.names)

    @cached_property
    def kinds(self) -> dict[str, pa.DataType]:
        """Name and type of each metadata column."""
        schema = [] if self._columns is None else list(self._columns.schema)
        return {field.name: field.type for field in schema if field.name not in TEXTS}

    def take(self, rows: Sequence[int] | NDArray[Any]) -> pa.Table:
        """The documents of these rows, in this order; a title or text that was not given is "".

        Raises:
            InputError: a row is out of range.
        """
        numbers = checked_rows(rows, len(self))
        found = {"id": self.ids.take(pa.array(numbers))}
        if self._columns is not None:
            table = self._columns.take(numbers)
            found |= {name: table[name] for name in table.column_names}
        blank = pa.array([""] * numbers.size, type=pa.string())
        return pa.table([found.get(field.name, blank) for field in self.schema], schema=self.schema)

    def rows_of(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """The row of each id, -1 where there is no such document; by binary search, or for many in one scan."""
        if len(ids) * _IDS_SCANNED_PER_ID_FOUND < len(self):
            return np.fromiter((self._row_of(id_) for id_ in ids), dtype=np.int64, count=len(ids))
        wanted = pa.array(ids, pa.string()).dictionary_encode()
        places = pc.index_in(self.ids, value_set=wanted.dictionary)
        rows = np.full(len(wanted.dictionary), -1, np.int64)
        there = places.is_valid().to_numpy(zero_copy_only=False)
        rows[places.drop_null().to_numpy()] = np.flatnonzero(there)
        return np.asarray(rows[wanted.indices.to_numpy()], np.int64)

    def _row_of(self, id_: str) -> int:
        place = self._place_of(id_)
        row = int(self._order[place]) if place < len(self) else -1
        return row if row >= 0 and self.ids[row].as_py() == id_ else -1

    def _place_of(self, id_: str, *, after: bool = False) -> int:
        """Where in the order the first id stands that is no less than this one, or greater."""
        low, high = 0, len(self)
        while low < high:  # strings compare by code point, which is the order of their UTF-8 bytes
            middle = (low + high) // 2
            found = self.ids[int(self._order[middle])].as_py()
            low, high = (middle + 1, high) if found < id_ or (after and found == id_) else (low, middle)
        return low

    def after(self, id_: str | None, n: int, among: NDArray[np.bool_]) -> NDArray[np.int64]:
        """The rows of the next documents by id, in code points' order.

        Args:
            id_: those greater than it; None begins with the least.
            n: of how many.
            among: bool `[n_documents]`, which count.
        """
        found = [np.zeros(0, np.int64)]
        first, n_found = 0 if id_ is None else self._place_of(id_, after=True), 0
        while first < len(self) and n_found < n:
            rows = self._order[first : first + _IN_ORDER]
            found.append(rows[among[rows]])
            first, n_found = first + _IN_ORDER, n_found + found[-1].size
        return np.concatenate(found)[:n]

    def mask(self, filters: Filters, kinds: Mapping[str, pa.DataType] | None = None) -> NDArray[np.bool_]:
        """Which documents a filter leaves.

        Args:
            filters: such as `{"kind": ["function", "class"], "year": {">=": 2000}}`; `index.filters` has it all. A
                missing value (null, or NaN) satisfies no comparison, so that `not` of one holds for it.
            kinds: name and type of the metadata columns, where these documents are only some of all.

        Returns:
            bool `[n_documents]`, to be passed to `search` as `allowed`.

        Raises:
            ConfigError: there is no such column, or no such comparison; the message names the nearest.
            InputError: a value is not of the column's type, or the filter is none.
        """
        return self.where(parse(filters), self.kinds if kinds is None else kinds)

    def where(self, clause: Clause, kinds: Mapping[str, pa.DataType]) -> NDArray[np.bool_]:
        """Which documents satisfy a clause over columns of these types; one that is not here has no values here."""
        match clause:
            case Compare():
                return self._compare(clause, kinds)
            case Not(part):
                return ~self.where(part, kinds)
            case And(parts):
                chosen = np.ones(len(self), dtype=np.bool_)
                for part in parts:
                    chosen &= self.where(part, kinds)
            case Or(parts):
                chosen = np.zeros(len(self), dtype=np.bool_)
                for part in parts:
                    chosen |= self.where(part, kinds)
        return chosen

    def _compare(self, clause: Compare, kinds: Mapping[str, pa.DataType]) -> NDArray[np.bool_]:
        wanted = fitting(clause, kind_of(clause.column, kinds))
        if clause.column != "id":
            if self._columns is None or clause.column not in self.kinds:
                return np.zeros(len(self), dtype=np.bool_)
            return holds(self._columns.column(clause.column), clause.operator, wanted)
        if clause.operator not in ("==", "in") or len(wanted) * _IDS_SCANNED_PER_ID_FOUND > len(self):
            return holds(self.ids, clause.operator, wanted)
        rows = self.rows_of(wanted.to_pylist())
        chosen = np.zeros(len(self), dtype=np.bool_)
        chosen[rows[rows >= 0]] = True
        return chosen

    def tally(self, name: str, at_most: int, live: NDArray[np.bool_] | None) -> Counter[Any] | None:
        """How many documents have each value of a metadata column; missing values left out.

        Args:
            name: the column.
            at_most: if there are more values than this, the answer is None, and counting stops early.
            live: bool `[n_documents]`, others do not count; None for all.
        """
        if self._columns is None or name not in self.kinds:
            raise ConfigError(f"there is no metadata column {name!r}; there are {self.metadata}.")
        return self._columns.tally(name, at_most, live)


def table_schema(kinds: Mapping[str, pa.DataType]) -> pa.Schema:
    """That of a table of documents with metadata columns of these types."""
    return pa.schema([("id", pa.string()), *((name, pa.string()) for name in TEXTS), *kinds.items()])


def checked_rows(rows: Sequence[int] | NDArray[Any], n_rows: int) -> NDArray[np.int64]:
    """Rows as int64; raises InputError where one is not among `n_rows`."""
    numbers = np.asarray(rows, dtype=np.int64)
    outside = (numbers < 0) | (numbers >= n_rows)
    if outside.any():
        raise InputError(f"row {numbers[np.argmax(outside)]} is outside 0..{n_rows - 1}.")
    return numbers


def check_columns(clause: Clause, kinds: Mapping[str, pa.DataType]) -> None:
    """Raise what `Documents.where` would, of a filter over no documents."""
    match clause:
        case Compare():
            fitting(clause, kind_of(clause.column, kinds))
        case Not(part):
            check_columns(part, kinds)
        case And(parts) | Or(parts):
            for part in parts:
                check_columns(part, kinds)


def kind_of(column: str, kinds: Mapping[str, pa.DataType]) -> pa.DataType:
    """The type of a column that is filtered by.

    Raises:
        ConfigError: there is no such column; the message names the nearest.
    """
    known = {"id": pa.string(), **kinds}
    if column in known:
        return known[column]
    hint = "this index has no metadata columns, only 'id'."
    if len(known) > 1:
        hint = f"did you mean {difflib.get_close_matches(column[:64], known, 1, 0)[0]!r}?"
    raise ConfigError(f"there is no metadata column {shown(column)} to filter by; {hint}")


class _Columns:
    """Titles, texts and metadata in batches of `BATCH_ROWS` rows."""

    def __init__(self, path: Path, n_documents: int) -> None:
        try:
            reader = pa.ipc.open_file(map_bytes(path))
            # All at once, as a reader is not made for threads; this reads where columns lie, and no column.
            self._batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
        except (pa.ArrowException, OSError) as error:
            raise FormatError(f"{path} is no Arrow file ({error}); build the index anew.") from error
        self.schema: pa.Schema = reader.schema
        starts = range(0, n_documents, BATCH_ROWS)
        if [batch.num_rows for batch in self._batches] != [min(BATCH_ROWS, n_documents - s) for s in starts]:
            raise FormatError(f"{path} does not hold {n_documents} documents; build the index anew.")

    def take(self, rows: NDArray[np.int64]) -> pa.Table:
        """These rows, in this order."""
        if 0 < len(rows) <= _FEW:
            places = (divmod(row, BATCH_ROWS) for row in rows.tolist())
            one_by_one = [self._batches[number].slice(at, 1) for number, at in places]
            return pa.Table.from_batches([pa.concat_batches(one_by_one)])
        order = np.argsort(rows, kind="stable")
        numbers, starts = np.unique(rows[order] // BATCH_ROWS, return_index=True)
        groups = np.split(rows[order] % BATCH_ROWS, starts[1:])
        parts = [
            self._batches[number].take(pa.array(group))
            for number, group in zip(numbers, groups, strict=False)
        ]
        return pa.Table.from_batches(parts, schema=self.schema).take(pa.array(np.argsort(order)))

    def column(self, name: str) -> pa.ChunkedArray:
        number = self.schema.get_field_index(name)
        parts = [batch.column(number) for batch in self._batches]
        return pa.chunked_array(parts, type=self.schema.field(number).type)

    def tally(self, name: str, at_most: int, live: NDArray[np.bool_] | None) -> Counter[Any] | None:
        column = self.schema.get_field_index(name)
        totals: Counter[Any] = Counter()
        for number, batch in enumerate(self._batches):
            values = batch.column(column)
            if live is not None:
                first = number * BATCH_ROWS
                values = values.filter(pa.array(live[first : first + batch.num_rows]))
            for found in pc.value_counts(values.drop_null()).to_pylist():
                totals[found["values"]] += found["counts"]
            if len(totals) > at_most:
                return None
        return totals


def _map_ids(path: Path, n_documents: int) -> pa.StringArray:
    try:
        ids = pa.ipc.open_file(map_bytes(path)).get_batch(0).column("id")
    except (pa.ArrowException, OSError, KeyError) as error:
        raise FormatError(f"{path} is no Arrow file of ids ({error}); build the index anew.") from error
    if len(ids) != n_documents:
        raise FormatError(f"{path} holds {len(ids)} ids; expected {n_documents}. Build the index anew.")
    return ids
