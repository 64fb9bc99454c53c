"""`Documents`: ids, titles, texts and metadata columns of an index, as memory-mapped Arrow IPC.

Ids are one file with one Arrow array, so that mapping it gives all of them at once, and beside it stands their sorted
order, in which a row is found by its id without a table in memory. All other columns are a second file, in record
batches of `BATCH_ROWS` rows (the last may be shorter), uncompressed, so that a row is found by division and only the
pages that are looked at are read.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from gossamer.index.arrays import ArrayWriter, map_array
from gossamer.kernels.errors import ConfigError, FormatError, InputError, NotFoundError, RecordError

BATCH_ROWS = 8_192
TEXTS = ("title", "text")
_IDS, _ORDER, _COLUMNS = "ids.arrow", "order.npy", "columns.arrow"
_ID_SCHEMA = pa.schema([("id", pa.string())])

Source: TypeAlias = pa.Table | pa.RecordBatch | Iterable[pa.RecordBatch] | str | Path
Filters: TypeAlias = Mapping[str, Any]


class Documents:
    """What an index knows of its documents beside their vectors; read-only.

    Attributes:
        ids: the id of every row, one mapped Arrow array.
    """

    def __init__(self, folder: Path, n_documents: int) -> None:
        self.ids: pa.StringArray = _map_ids(folder / _IDS, n_documents)
        self._order = map_array(folder / _ORDER, np.int64, (n_documents,))
        self._columns = _Columns(folder / _COLUMNS, n_documents) if (folder / _COLUMNS).exists() else None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def schema(self) -> pa.Schema:
        """`id`, `title`, `text`, then the metadata columns; what `take` returns."""
        return pa.schema(
            [("id", pa.string()), *((name, pa.string()) for name in TEXTS), *self._metadata.items()]
        )

    @property
    def metadata(self) -> list[str]:
        """Names of the metadata columns, those that can be filtered by."""
        return list(self._metadata)

    @property
    def _metadata(self) -> dict[str, pa.DataType]:
        schema = [] if self._columns is None else list(self._columns.schema)
        return {field.name: field.type for field in schema if field.name not in TEXTS}

    def take(self, rows: Sequence[int] | NDArray[Any]) -> pa.Table:
        """The documents of these rows, in this order; a title or text that was not given is "".

        Raises:
            InputError: a row is out of range.
        """
        numbers = np.asarray(rows, dtype=np.int64)
        outside = (numbers < 0) | (numbers >= len(self))
        if outside.any():
            raise InputError(f"row {numbers[np.argmax(outside)]} is outside 0..{len(self) - 1}.")
        found = {"id": self.ids.take(pa.array(numbers))}
        if self._columns is not None:
            table = self._columns.take(numbers)
            found |= {name: table[name] for name in table.column_names}
        blank = pa.array([""] * numbers.size, type=pa.string())
        return pa.table(
            [found.get(field.name, blank).cast(field.type) for field in self.schema], schema=self.schema
        )

    def rows_of(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """The row of each id, -1 where there is no such document; by binary search, without reading texts."""
        return np.fromiter((self._row_of(id_) for id_ in ids), dtype=np.int64, count=len(ids))

    def _row_of(self, id_: str) -> int:
        low, high = 0, len(self)
        while low < high:  # strings compare by code point, which is the order of their UTF-8 bytes
            middle = (low + high) // 2
            row = int(self._order[middle])
            found = self.ids[row].as_py()
            if found == id_:
                return row
            low, high = (middle + 1, high) if found < id_ else (low, middle)
        return -1

    def mask(self, filters: Filters) -> NDArray[np.bool_]:
        """Which documents have, in every named metadata column, the value or one of the values given.

        Args:
            filters: column to value, or to a list of values. A missing value (null) equals none.

        Returns:
            bool `[n_documents]`, to be passed to `search` as `allowed`.

        Raises:
            ConfigError: there is no such column; the message names the nearest.
            InputError: a value is not of the column's type.
        """
        kinds = self._metadata
        chosen = np.ones(len(self), dtype=np.bool_)
        for name, value in filters.items():
            if name not in kinds:
                near = difflib.get_close_matches(name, kinds, 1, 0)
                hint = f"did you mean {near[0]!r}?" if near else "this index has no metadata columns."
                raise ConfigError(f"there is no metadata column {name!r} to filter by; {hint}")
            wanted = _values(name, value, kinds[name])
            assert self._columns is not None  # it has this column
            chosen &= self._columns.is_in(name, wanted)
        return chosen


_FITTING: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "int64": (int,),
    "double": (int, float),
    "bool": (bool,),
}


def _values(name: str, value: Any, kind: pa.DataType) -> pa.Array:
    values = list(value) if isinstance(value, (list, tuple, set, frozenset)) else [value]
    for item in values:
        if type(item) not in _FITTING[str(kind)]:
            raise InputError(f"the filter {name}={item!r} does not fit the column, which is {kind}.")
    try:
        return pa.array(values, type=kind)
    except (pa.ArrowException, OverflowError) as error:
        raise InputError(f"the filter {name}={value!r} does not fit the column, which is {kind}.") from error


class _Columns:
    """Titles, texts and metadata in batches of `BATCH_ROWS` rows."""

    def __init__(self, path: Path, n_documents: int) -> None:
        try:
            self._reader = pa.ipc.open_file(pa.memory_map(str(path)))
        except (pa.ArrowException, OSError) as error:
            raise FormatError(f"{path} is no Arrow file ({error}); build the index anew.") from error
        self.schema: pa.Schema = self._reader.schema
        self._n_batches = -(-n_documents // BATCH_ROWS)
        if self._reader.num_record_batches != self._n_batches:
            raise FormatError(
                f"{path} has {self._reader.num_record_batches} batches; expected {self._n_batches}. Build it anew."
            )

    def take(self, rows: NDArray[np.int64]) -> pa.Table:
        order = np.argsort(rows, kind="stable")
        numbers, starts = np.unique(rows[order] // BATCH_ROWS, return_index=True)
        groups = np.split(rows[order] % BATCH_ROWS, starts[1:])
        parts = [
            self._reader.get_batch(int(number)).take(pa.array(group))
            for number, group in zip(numbers, groups, strict=False)
        ]
        return pa.Table.from_batches(parts, schema=self.schema).take(pa.array(np.argsort(order)))

    def is_in(self, name: str, wanted: pa.Array) -> NDArray[np.bool_]:
        column = self.schema.get_field_index(name)
        batches = (self._reader.get_batch(number).column(column) for number in range(self._n_batches))
        found = [pc.is_in(batch, value_set=wanted).to_numpy(zero_copy_only=False) for batch in batches]
        return np.concatenate([*found, np.zeros(0, dtype=np.bool_)])


def _map_ids(path: Path, n_documents: int) -> pa.StringArray:
    try:
        ids = pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0).column("id")
    except (pa.ArrowException, OSError, KeyError) as error:
        raise FormatError(f"{path} is no Arrow file of ids ({error}); build the index anew.") from error
    if len(ids) != n_documents:
        raise FormatError(f"{path} holds {len(ids)} ids; expected {n_documents}. Build the index anew.")
    return ids


# -- writing -----------------------------------------------------------------------------------------------


def write_documents(
    folder: Path, source: Source | None, ids: pa.StringArray | None, n_documents: int
) -> None:
    """Write the documents of an index, streaming them from their source.

    Args:
        folder: where the files go.
        source: record batches with a string column `id`, optional `title` and `text`, and metadata columns of
            strings, integers, floats or booleans; or None if there is nothing but ids.
        ids: the ids of the vectors. If None, those of the source are taken; without both, rows are named "0", "1", …
        n_documents: number of vectors.

    Raises:
        RecordError: the ids of the source are not those of the vectors, in their order, or one repeats; or a column
            cannot be stored. The message names the row.
    """
    folder.mkdir(parents=True)
    if source is not None:
        found = _write_columns(folder / _COLUMNS, batches_of(source), ids, n_documents)
        ids = found if ids is None else ids
    if ids is None:
        ids = pa.array(np.arange(n_documents)).cast(pa.string())
    order = pc.sort_indices(ids).to_numpy().astype(np.int64)
    _refuse_repeats(ids, order)
    with pa.ipc.new_file(str(folder / _IDS), _ID_SCHEMA) as writer:
        writer.write_batch(pa.record_batch([ids], schema=_ID_SCHEMA))
    with ArrayWriter(folder / _ORDER, np.int64) as array:
        array.append(order)


def _refuse_repeats(ids: pa.StringArray, order: NDArray[np.int64]) -> None:
    if len(ids) < 2:
        return
    ascending = ids.take(pa.array(order))
    same = pc.equal(ascending[1:], ascending[:-1]).to_numpy(zero_copy_only=False)
    if same.any():
        at = int(np.argmax(same))
        rows = sorted(order[at : at + 2].tolist())
        raise RecordError(
            f"the id {ascending[at].as_py()!r} is given to rows {rows[0]} and {rows[1]}; ids must be unique."
        )


def batches_of(source: Source) -> Iterator[pa.RecordBatch]:
    """Record batches from a table, a batch, an iterable, or a path of Parquet or Arrow files."""
    if isinstance(source, pa.Table):
        return iter(source.to_batches())
    if isinstance(source, pa.RecordBatch):
        return iter([source])
    if not isinstance(source, (str, Path)):
        return iter(source)
    from pyarrow import dataset

    path = Path(source)
    files = sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
    if not files or not files[0].exists():
        raise NotFoundError(f"there are no documents at {path}; give a Parquet or Arrow file, or a folder.")
    kind = "ipc" if files[0].suffix in (".arrow", ".feather", ".ipc") else "parquet"
    batches: Iterator[pa.RecordBatch] = dataset.dataset([str(f) for f in files], format=kind).to_batches(
        batch_size=BATCH_ROWS, batch_readahead=1, fragment_readahead=1
    )
    return batches


def _write_columns(
    path: Path, batches: Iterator[pa.RecordBatch], expected: pa.StringArray | None, n_documents: int
) -> pa.StringArray:
    """Write all columns but the ids, which are checked and returned."""
    ids: list[Any] = []
    n_rows = 0
    schema: pa.Schema | None = None
    with ExitStack() as stack:
        writer = None
        waiting: list[pa.RecordBatch] = []
        for batch in batches:
            if schema is None:
                schema = _stored_schema(batch.schema)
                if len(schema) > 1:
                    beside_ids = pa.schema(list(schema)[1:])
                    writer = stack.enter_context(pa.ipc.new_file(str(path), beside_ids))
            stored = _conform(batch, schema, n_rows)
            _check_ids(stored.column("id"), expected, n_rows, n_documents)
            ids.append(stored.column("id"))
            n_rows += stored.num_rows
            if writer is not None:
                waiting = _flush(writer, [*waiting, stored.drop_columns(["id"])])
        if writer is not None:
            _flush(writer, waiting, everything=True)
    if n_rows != n_documents:
        raise RecordError(f"there are {n_rows} documents for {n_documents} vectors; row {n_rows} has none.")
    return pa.concat_arrays(ids) if ids else pa.array([], type=pa.string())


def _flush(
    writer: pa.RecordBatchFileWriter, waiting: list[pa.RecordBatch], *, everything: bool = False
) -> list[pa.RecordBatch]:
    """Write full batches; the rest waits for more rows."""
    n_rows = sum(batch.num_rows for batch in waiting)
    full = n_rows if everything else n_rows // BATCH_ROWS * BATCH_ROWS
    if full == 0:
        return waiting
    table = pa.Table.from_batches(waiting)
    for start in range(0, full, BATCH_ROWS):
        part = table.slice(start, min(BATCH_ROWS, full - start))
        writer.write_batch(part.combine_chunks().to_batches()[0])
    rest: list[pa.RecordBatch] = table.slice(full).to_batches()
    return rest


def _stored_schema(given: pa.Schema) -> pa.Schema:
    if "id" not in given.names:
        raise RecordError(f"the documents have no column 'id'; there are {given.names}.")
    if len(set(given.names)) < len(given.names):
        raise RecordError(f"the documents have two columns of the same name: {sorted(given.names)}.")
    fields = [(field.name, _stored_type(field)) for field in given]
    return pa.schema(sorted(fields, key=lambda field: [*("id", *TEXTS), field[0]].index(field[0])))


def _stored_type(field: pa.Field) -> pa.DataType:
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    if field.name in ("id", *TEXTS) or pa.types.is_null(kind):
        return pa.string()
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_boolean(kind):
        return pa.bool_()
    if pa.types.is_integer(kind):
        return pa.int64()
    if pa.types.is_floating(kind):
        return pa.float64()
    raise RecordError(
        f"the column {field.name!r} is {field.type}; documents hold strings, integers, floats and booleans, so "
        "convert or drop it."
    )


def _conform(batch: pa.RecordBatch, schema: pa.Schema, first: int) -> pa.RecordBatch:
    if set(batch.schema.names) != set(schema.names):
        odd = sorted(set(batch.schema.names) ^ set(schema.names))
        raise RecordError(f"from row {first} on, the documents have other columns than before: {odd}.")
    columns = []
    for field in schema:
        try:
            columns.append(batch.column(field.name).cast(field.type))
        except pa.ArrowException as error:
            raise RecordError(f"from row {first} on, the column {field.name!r}: {error}.") from error
    return pa.record_batch(columns, schema=schema)


def _check_ids(ids: pa.StringArray, expected: pa.StringArray | None, first: int, n_documents: int) -> None:
    if ids.null_count:
        raise RecordError(f"row {first + ids.is_null().index(True).as_py()} has no id; name every document.")
    if first + len(ids) > n_documents:
        raise RecordError(
            f"row {n_documents} is a document without a vector: there are {n_documents} vectors."
        )
    if expected is None:
        return
    differs = pc.not_equal(ids, expected[first : first + len(ids)]).to_numpy(zero_copy_only=False)
    if differs.any():
        row = int(np.argmax(differs))
        raise RecordError(
            f"row {first + row} is {ids[row].as_py()!r} among the documents, but {expected[first + row].as_py()!r} "
            "among the vectors; both must come in the same order."
        )
