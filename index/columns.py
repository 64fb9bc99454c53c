"""`SparseVectors` as Arrow columns and Parquet files: `id: string, indices: list<int32>, values: list<float32>`.

The vocabulary's size and the sign stand in the schema's metadata (`gossamer.n_cols`, `gossamer.signed`), so a file
says everything by itself; files of others that lack them are read by naming `n_cols`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gossamer.index.vectors import SparseVectors
from gossamer.kernels.errors import FormatError, NotFoundError, VectorError

_MAX_LIST_VALUES = 2**30  # Arrow's list<> counts its values in 32 bits
_ROW_GROUP = 65_536
READ_BYTES = 1 << 20  # of a column at a time, instead of a row group's whole column


def vectors_schema(n_cols: int, *, signed: bool) -> pa.Schema:
    """The Arrow schema of sparse vectors over `n_cols` terms."""
    fields = [("id", pa.string()), ("indices", pa.list_(pa.int32())), ("values", pa.list_(pa.float32()))]
    metadata = {"gossamer.n_cols": str(n_cols), "gossamer.signed": str(int(signed))}
    return pa.schema(fields, metadata=metadata)


def to_arrow(vectors: SparseVectors) -> pa.Table:
    """The rows as a table; split into chunks that Arrow's 32-bit list offsets can hold."""
    schema = vectors_schema(vectors.n_cols, signed=vectors.signed)
    batches, start = [], 0
    while start < vectors.n_rows:
        limit = vectors.indptr[start] + _MAX_LIST_VALUES
        stop = max(int(np.searchsorted(vectors.indptr, limit, side="right")) - 1, start + 1)
        batches.append(_to_batch(vectors[start:stop], schema))
        start = stop
    return pa.Table.from_batches(batches, schema=schema)


def _to_batch(part: SparseVectors, schema: pa.Schema) -> pa.RecordBatch:
    offsets = pa.array(part.indptr, type=pa.int32())
    indices = pa.ListArray.from_arrays(offsets, pa.array(part.indices.astype(np.int32)))
    values = pa.ListArray.from_arrays(offsets, pa.array(part.values))
    ids = pa.nulls(part.n_rows, pa.string()) if part.ids is None else part.ids
    return pa.RecordBatch.from_arrays([ids, indices, values], schema=schema)


def from_arrow(
    table: pa.Table | pa.RecordBatch, *, n_cols: int | None = None, signed: bool | None = None
) -> SparseVectors:
    """Rows from a table; `n_cols` and `signed` are taken from its metadata where not given.

    Raises:
        FormatError: if a column is missing or of another type, or `n_cols` is nowhere stated.
        VectorError: if a row is no valid sparse vector.
    """
    if isinstance(table, pa.RecordBatch):
        table = pa.Table.from_batches([table])
    metadata = table.schema.metadata or {}
    if n_cols is None:
        if b"gossamer.n_cols" not in metadata:
            raise FormatError("the table does not say how many terms there are; pass n_cols.")
        n_cols = int(metadata[b"gossamer.n_cols"])
    if signed is None:
        signed = metadata.get(b"gossamer.signed") == b"1"
    lengths, indices = _flatten(table, "indices", np.int32)
    value_lengths, values = _flatten(table, "values", np.float32)
    if not np.array_equal(lengths, value_lengths):
        row = int(np.argmax(lengths != value_lengths))
        raise VectorError(f"row {row} has {lengths[row]} indices but {value_lengths[row]} values.")
    indptr = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    ids: Any = table["id"].cast(pa.string()).combine_chunks() if "id" in table.column_names else None
    if ids is not None and ids.null_count == len(ids):
        ids = None
    if ids is not None:
        ids.validate(full=True)  # that they are UTF-8, which a damaged file's may not be
    return SparseVectors(indptr, indices, values, n_cols, ids, signed)


def _flatten(table: pa.Table, name: str, kind: Any) -> tuple[Any, Any]:
    """The length of each row's list, int64, and all their numbers; integers stay of their own type."""
    if name not in table.column_names:
        raise FormatError(f"the column {name!r} is missing; there are {table.column_names}.")
    column = table[name]
    if not pa.types.is_list(column.type) and not pa.types.is_large_list(column.type):
        raise FormatError(f"the column {name!r} is {column.type}; expected a list of numbers a row.")
    if column.null_count:
        raise VectorError(f"row {column.is_null().index(True).as_py()} has no {name}; expected a list.")
    of = column.type.value_type
    if not (kind is np.int32 and pa.types.is_integer(of)):
        of = pa.int64() if kind is np.int32 else pa.from_numpy_dtype(kind)
    lengths = [chunk.value_lengths().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    flat = [chunk.flatten().cast(of).to_numpy(zero_copy_only=False) for chunk in column.chunks]
    return _joined(lengths, np.int64).astype(np.int64, copy=False), _joined(flat, kind)


def _joined(parts: list[Any], kind: Any) -> Any:
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else np.zeros(0, kind)


def parquet_files(path: str | Path) -> list[Path]:
    """The Parquet files at a path: itself, or a folder's in name order.

    Raises:
        NotFoundError: if there is none.
    """
    path = Path(path)
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files or not files[0].exists():
        raise NotFoundError(f"{path} is no Parquet file and holds none; write one with write_parquet().")
    return files


def stream_parquet(
    path: str | Path, *, batch_rows: int = _ROW_GROUP, n_cols: int | None = None
) -> Iterator[SparseVectors]:
    """Yield the rows of a Parquet file or folder in parts of at most `batch_rows`, at least one part.

    `n_cols` is for files of others that do not say how many terms there are.

    Raises:
        FormatError: if a file cannot be read as sparse vectors; the message names it.
        VectorError: if a row is invalid; the message names file and row.
    """
    for file in parquet_files(path):
        try:
            with pq.ParquetFile(file, buffer_size=READ_BYTES, pre_buffer=False) as parquet:
                yield from stream_file(parquet, str(file), batch_rows=batch_rows, n_cols=n_cols)
        except (pa.ArrowException, OSError) as error:
            raise unreadable(file, error) from error


def stream_file(
    parquet: pq.ParquetFile,
    name: str,
    *,
    batch_rows: int,
    row_groups: Sequence[int] | None = None,
    n_cols: int | None = None,
) -> Iterator[SparseVectors]:
    """Yield the rows of an open file in parts, at least one part.

    Args:
        parquet: the file.
        name: what messages call it.
        batch_rows: the most rows of a part.
        row_groups: which to read; None for all.
        n_cols: how many terms there are, where the file does not say it.

    Raises:
        FormatError: the file cannot be read as sparse vectors; the message names it.
        VectorError: a row is invalid; the message names file and row.
    """
    first, batch = _first_row(parquet, row_groups), None
    groups = range(parquet.num_row_groups) if row_groups is None else row_groups
    try:
        schema = parquet.schema_arrow
        for batch in parquet.iter_batches(batch_rows, groups, columns=["id", "indices", "values"]):
            yield from_arrow(batch.replace_schema_metadata(schema.metadata), n_cols=n_cols)
            first += batch.num_rows
        if batch is None:
            yield from_arrow(schema.empty_table(), n_cols=n_cols)
    except VectorError as error:
        raise VectorError(f"{name}, counting from row {first}: {error}") from error
    except (pa.ArrowException, FormatError, OSError, ValueError) as error:
        raise unreadable(name, error) from error


def unreadable(name: str | Path, error: Exception) -> FormatError:
    """What a file that is no Parquet file of sparse vectors is answered with."""
    return FormatError(f"{name} cannot be read as sparse vectors: {error}")


def _first_row(parquet: pq.ParquetFile, row_groups: Sequence[int] | None) -> int:
    before = range(row_groups[0]) if row_groups else range(0)
    return sum(parquet.metadata.row_group(group).num_rows for group in before)


def write_parquet(vectors: SparseVectors, path: str | Path) -> None:
    """Write one Parquet file under a temporary name, then rename it."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        pq.write_table(to_arrow(vectors), partial, row_group_size=_ROW_GROUP, compression="zstd")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
