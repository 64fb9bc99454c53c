"""Writes the documents of an index from a stream of record batches; `documents` reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from gossamer.index.arrays import ArrayWriter
from gossamer.index.disk import disk
from gossamer.index.documents import BATCH_ROWS, COLUMNS, IDS, ORDER, TEXTS
from gossamer.kernels.errors import NotFoundError, RecordError

_IDS_AT_ONCE = 65_536
_ID_SCHEMA = pa.schema([("id", pa.string())])

Source: TypeAlias = pa.Table | pa.RecordBatch | Iterable[pa.RecordBatch] | str | Path


def _row(row: int) -> str:
    return f"row {row}"


def write_documents(
    folder: Path,
    source: Source | None,
    ids: pa.StringArray | None,
    n_documents: int | None,
    *,
    kinds: Mapping[str, pa.DataType] | None = None,
    place: Callable[[int], str] = _row,
) -> int:
    """Write the documents of an index, streaming them from their source.

    Args:
        folder: where the files go.
        source: record batches with a string column `id`, optional `title` and `text`, and metadata columns of
            strings, integers, floats or booleans; or None if there is nothing but ids.
        ids: the ids of the vectors. If None, those of the source are taken; without both, rows are named "0", "1", …
        n_documents: number of vectors; None, with a source, if it is what decides how many there are.
        kinds: types of metadata columns that there are already; one without any values is taken for of this type.
        place: what a message calls the place that a row comes from.

    Returns:
        How many documents there are.

    Raises:
        RecordError: the ids of the source are not those of the vectors, in their order, or one repeats; or a column
            cannot be stored. The message names the row.
    """
    disk().mkdir(folder, parents=True)
    if source is not None:
        found = _write_columns(folder / COLUMNS, batches_of(source), ids, n_documents, kinds or {})
        ids = found if ids is None else ids
    if ids is None:
        assert n_documents is not None  # as there is no source
        ids = pa.array(np.arange(n_documents)).cast(pa.string())
    order = pc.sort_indices(ids).to_numpy().astype(np.int64)
    refuse_repeats(ids, order, place=place)
    with disk().create(folder / IDS) as file, pa.ipc.new_file(file, _ID_SCHEMA) as writer:
        writer.write_batch(pa.record_batch([ids], schema=_ID_SCHEMA))
    with ArrayWriter(folder / ORDER, np.int64) as array:
        array.append(order)
    return len(ids)


def refuse_repeats(
    ids: pa.StringArray, order: NDArray[np.int64] | None = None, *, place: Callable[[int], str] = _row
) -> None:
    """Raises: RecordError: an id repeats; `order` is that of the ids, if it is known, and `place` names a row."""
    if len(ids) < 2:
        return
    if order is None:
        order = pc.sort_indices(ids).to_numpy()
    for first in range(0, len(ids) - 1, _IDS_AT_ONCE):
        ascending = ids.take(pa.array(order[first : first + _IDS_AT_ONCE + 1]))
        same = pc.equal(ascending[1:], ascending[:-1]).to_numpy(zero_copy_only=False)
        if same.any():
            at = int(np.argmax(same))
            rows = sorted(order[first + at : first + at + 2].tolist())
            raise RecordError(
                f"the id {ascending[at].as_py()!r} is given to {place(rows[0])} and {place(rows[1])}; ids must be "
                "unique."
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
    path: Path,
    batches: Iterator[pa.RecordBatch],
    expected: pa.StringArray | None,
    n_documents: int | None,
    kinds: Mapping[str, pa.DataType],
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
                schema = _stored_schema(batch.schema, kinds)
                if len(schema) > 1:
                    beside_ids = pa.schema(list(schema)[1:])
                    file = stack.enter_context(disk().create(path))
                    writer = stack.enter_context(pa.ipc.new_file(file, beside_ids))
            stored = _conform(batch, schema, n_rows)
            _check_ids(stored.column("id"), expected, n_rows, n_documents)
            ids.append(stored.column("id"))
            n_rows += stored.num_rows
            if writer is not None:
                waiting = _flush(writer, [*waiting, stored.drop_columns(["id"])])
        if writer is not None:
            _flush(writer, waiting, everything=True)
    if n_documents is not None and n_rows != n_documents:
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
        part = table.slice(start, min(BATCH_ROWS, full - start)).combine_chunks().to_batches()
        if len(part) > 1:  # what Arrow does where offsets of four bytes do not suffice
            raise RecordError(f"{BATCH_ROWS:,} documents have over 2 GiB of text; shorten the longest.")
        writer.write_batch(part[0])
    rest: list[pa.RecordBatch] = table.slice(full).to_batches()
    return rest


def _stored_schema(given: pa.Schema, kinds: Mapping[str, pa.DataType]) -> pa.Schema:
    if "id" not in given.names:
        raise RecordError(f"the documents have no column 'id'; there are {given.names}.")
    if len(set(given.names)) < len(given.names):
        raise RecordError(f"the documents have two columns of the same name: {sorted(given.names)}.")
    fields = [
        (field.name, kinds[field.name] if _has_no_type(field, kinds) else _stored_type(field))
        for field in given
    ]
    return pa.schema(sorted(fields, key=lambda field: [*("id", *TEXTS), field[0]].index(field[0])))


def _has_no_type(field: pa.Field, kinds: Mapping[str, pa.DataType]) -> bool:
    return pa.types.is_null(field.type) and field.name in kinds


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
        given = batch.schema.field(field.name)
        is_of_strings = field.name not in ("id", *TEXTS) and pa.types.is_string(field.type)
        if is_of_strings and _stored_type(given) != field.type:
            raise RecordError(
                f"from row {first} on, the column {field.name!r} is {given.type}, and of strings before (or null in "
                "all of the first batch, which counts as strings); give all batches one type."
            )
        try:
            columns.append(batch.column(field.name).cast(field.type))
        except pa.ArrowException as error:
            raise RecordError(f"from row {first} on, the column {field.name!r}: {error}.") from error
    return pa.record_batch(columns, schema=schema)


def _check_ids(
    ids: pa.StringArray, expected: pa.StringArray | None, first: int, n_documents: int | None
) -> None:
    if ids.null_count:
        raise RecordError(f"row {first + ids.is_null().index(True).as_py()} has no id; name every document.")
    if n_documents is not None and first + len(ids) > n_documents:
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
