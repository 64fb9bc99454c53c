"""Arrow tables and pandas data frames, in and out: documents that are written, and hits that were found.

This is only imported where there is such a table, or one is wanted, so that a client needs neither package.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Final

import pyarrow as pa

from gossamer.kernels.errors import InputError
from gossamer.serving.messages import checked
from gossamer.serving.records import Document
from gossamer.serving.schemas import SearchResult

_ROWS_AT_ONCE: Final = 1_000
_TEXTS: Final = ("id", "title", "text")
_OURS: Final = ("query", *_TEXTS, "score", "snippet")


def documents_of(table: Any) -> Iterator[Document]:
    """The rows of a table as documents: the columns `id`, `title` and `text`, and all others as metadata.

    What is missing (null, or NaN) is left out. A table is converted in parts, and a stream is read as it comes.

    Args:
        table: a pandas data frame, or anything that gives an Arrow stream, such as a `pyarrow.Table`,
            `RecordBatchReader` or polars' data frame.

    Raises:
        InputError: a column is missing or of a wrong type, which is said before any row of its stream, or of a data
            frame's part, is given; or a row is no document.
    """
    number = 0
    for batch in _batches(table):
        for row in batch.to_pylist():
            number += 1
            there = {name: value for name, value in row.items() if not _is_missing(value)}
            texts = {name: there.pop(name) for name in _TEXTS if name in there}
            try:
                yield checked(Document, **texts, metadata=there)
            except InputError as error:
                raise InputError(f"row {number}: {error}") from None


def _is_missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _batches(table: Any) -> Iterator[pa.RecordBatch]:
    if hasattr(
        table, "iloc"
    ):  # of pandas, whose own stream is made whole, and has the frame's index as a column
        for start in range(0, max(1, len(table)), _ROWS_AT_ONCE):
            yield from _part(table.iloc[start : start + _ROWS_AT_ONCE]).to_batches()
        return
    reader = pa.RecordBatchReader.from_stream(table)
    _check(reader.schema)
    for batch in reader:
        for start in range(0, batch.num_rows, _ROWS_AT_ONCE):
            yield batch.slice(start, _ROWS_AT_ONCE)


def _part(frame: Any) -> pa.Table:
    try:
        part = pa.Table.from_pandas(frame, preserve_index=False)
    except (ValueError, TypeError) as error:  # both are bases of Arrow's
        raise InputError(f"the data frame is no table of documents: {error}") from error
    _check(part.schema)
    return part


def _check(schema: pa.Schema) -> None:
    """Raises: InputError: a column is missing, there twice, or of a type that no document can have."""
    names = schema.names
    if "id" not in names:
        raise InputError(
            f"there is no column 'id', only {', '.join(map(repr, names))}: name the one that it is"
        )
    for field in schema:
        if names.count(field.name) > 1:
            raise InputError(f"the column {field.name!r} is there twice: rename one of them")
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        if field.name in _TEXTS:
            if not _is_text(kind):
                raise InputError(
                    f"the column {field.name!r} is {kind}: documents have strings there, so cast it"
                )
        elif not (_is_text(kind) or _is_plain(kind)):
            raise InputError(
                f"the column {field.name!r} is {kind}: metadata are strings, booleans, integers or floats, so cast it, "
                "or leave it out"
            )


def _is_text(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(
        types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_string_view(kind)
        or types.is_null(kind)
    )


def _is_plain(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind))


def hits_table(results: Sequence[SearchResult], *, numbered: bool) -> pa.Table:
    """The hits of results, a row each, best first.

    Args:
        results: of one query each.
        numbered: whether to begin with a column `query`: which of the results, from 0 on.

    Returns:
        The columns `id`, `score`, `title` and `text`, `snippet` if one was asked for, and the metadata; of these, one
        that is called like a column of ours has `metadata.` before its name.
    """
    hits = [hit for result in results for hit in result.hits]
    columns: dict[str, pa.Array] = {}
    if numbered:
        numbers = [number for number, result in enumerate(results) for _ in result.hits]
        columns["query"] = pa.array(numbers, pa.int64())
    columns["id"] = pa.array([hit.id for hit in hits], pa.string())
    columns["score"] = pa.array([hit.score for hit in hits], pa.float64())
    columns["title"] = pa.array([hit.title for hit in hits], pa.string())
    columns["text"] = pa.array([hit.text for hit in hits], pa.string())
    if any(hit.snippet is not None for hit in hits):
        cut = [None if hit.snippet is None else hit.snippet.text for hit in hits]
        columns["snippet"] = pa.array(cut, pa.string())
    for name in dict.fromkeys(name for hit in hits for name in hit.metadata):
        column = f"metadata.{name}" if name in _OURS else name
        columns[column] = pa.array([hit.metadata.get(name) for hit in hits])
    return pa.table(columns)
