"""Readers of interaction logs: CSV, TSV, Parquet with named columns, and lines of `user item item …`.

Readers stream Arrow record batches with the columns `user`, `item` and, where named, `time`, `label` and features;
a log is never a list of Python rows. Headers with types, as RecBole writes them (`user_id:token`), are matched with
or without the type.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from gossamer.index.presets import nearest
from gossamer.kernels.errors import NotFoundError, RecordError
from gossamer.recsys.interactions import Interactions

Format = Literal["auto", "csv", "tsv", "parquet", "lists"]

_BATCH_ROWS = 65_536
_LINES = 4_096
_SUFFIXES: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".inter": "tsv",
    ".parquet": "parquet",
    ".txt": "lists",
}


def read_interactions(
    path: str | Path,
    *,
    user: str = "user",
    item: str = "item",
    time: str | None = None,
    label: str | None = None,
    features: Sequence[str] = (),
    format: Format = "auto",
) -> Interactions:
    """Reads a log.

    Args:
        path: a file, or a folder of Parquet files.
        user: column of the user's id.
        item: column of the item's id.
        time: column of the time, if there is one; a number (such as seconds) or in Parquet a date or a timestamp.
            Only its order matters.
        label: column of a label such as a rating, if there is one.
        features: further columns to keep; `Interactions.user_feature` reads them.
        format: `lists` is a line `user item item …` a user, without a header; `auto` goes by the suffix
            (.csv, .tsv and .inter, .parquet, .txt for lists).

    Raises:
        NotFoundError: if there is no such file or column.
        RecordError: if a row cannot be read; the message names file and row, what was expected and what to do.
    """
    columns = {"user": user, "item": item}
    columns |= {role: name for role, name in (("time", time), ("label", label)) if name is not None}
    columns |= {name: name for name in features}
    return Interactions.from_batches(
        read_batches(Path(path), columns, format=format), schema=_schema(columns)
    )


def read_batches(
    path: Path, columns: Mapping[str, str], *, format: Format = "auto"
) -> Iterator[pa.RecordBatch]:
    """Streams a log as record batches.

    Args:
        path: the file or folder.
        columns: name in the batches → name in the file; `user` and `item` must be among them.
        format: see `read_interactions`.

    Yields:
        Batches with the columns in that order: `time` float64, `label` float32, all others strings.
    """
    if not path.exists():
        raise NotFoundError(f"there is no log at {path}; check the path.")
    kind = format if format != "auto" else _SUFFIXES.get(path.suffix, "parquet" if path.is_dir() else None)
    if kind is None:
        raise RecordError(
            f"{path}: the suffix {path.suffix!r} does not tell its format; pass format='csv', say."
        )
    if kind == "lists":
        yield from _read_lists(path)
        return
    raw = (
        _read_parquet(path, columns)
        if kind == "parquet"
        else _read_text(path, columns, "," if kind == "csv" else "\t")
    )
    first = 1
    for batch in raw:
        yield _checked(batch, path, first)
        first += batch.num_rows


def _schema(columns: Mapping[str, str]) -> pa.Schema:
    return pa.schema([(role, _type(role)) for role in columns])


def _type(role: str) -> pa.DataType:
    return {"time": pa.float64(), "label": pa.float32()}.get(role, pa.string())


def _find(wanted: str, names: Sequence[str], path: Path) -> str:
    if wanted in names:
        return wanted
    typed = [name for name in names if name.partition(":")[0] == wanted]
    if len(typed) == 1:
        return typed[0]
    raise NotFoundError(f"{path} has no column {wanted!r}; {nearest(wanted, names)}")


def _read_parquet(path: Path, columns: Mapping[str, str]) -> Iterator[pa.RecordBatch]:
    import pyarrow.parquet as pq

    for file in sorted(path.glob("*.parquet")) if path.is_dir() else [path]:
        try:
            with pq.ParquetFile(file) as parquet:
                names = [_find(name, parquet.schema_arrow.names, file) for name in columns.values()]
                for batch in parquet.iter_batches(_BATCH_ROWS, columns=names):
                    yield batch.select(names).rename_columns(list(columns))
        except pa.ArrowException as error:
            raise RecordError(f"{file} is no readable Parquet file: {error}. Write it anew.") from error


def _read_text(path: Path, columns: Mapping[str, str], delimiter: str) -> Iterator[pa.RecordBatch]:
    from pyarrow import csv

    with path.open(encoding="utf-8-sig", errors="replace") as file:
        header = file.readline().rstrip("\r\n").split(delimiter)
    names = [_find(name, [part.strip('"') for part in header], path) for name in columns.values()]

    def refuse(row: Any) -> str:
        # An error raised in here would be lost, so it is kept and raised by the reader below.
        wrong.append(
            f"{path}, line {row.number}: {row.actual_columns} columns, expected {row.expected_columns}: {row.text!r}"
        )
        return "error"

    wrong: list[str] = []
    try:
        with csv.open_csv(
            path,
            read_options=csv.ReadOptions(use_threads=False),
            parse_options=csv.ParseOptions(delimiter=delimiter, invalid_row_handler=refuse),
            convert_options=csv.ConvertOptions(
                include_columns=names,
                column_types=dict.fromkeys(names, pa.string()),
                strings_can_be_null=False,
            ),
        ) as reader:
            for batch in reader:
                yield batch.rename_columns(list(columns))
    except pa.ArrowInvalid as error:
        told = wrong[0] if wrong else f"{path}: {error}"
        raise RecordError(f"{told}. Correct or delete that line.") from error


def _read_lists(path: Path) -> Iterator[pa.RecordBatch]:
    with path.open("rb") as file:
        numbered = enumerate(file, 1)
        while lines := list(islice(numbered, _LINES)):
            rows = [_decode(line, path, number).split() for number, line in lines]
            users = [row[0] for row in rows for _ in row[1:]]
            items = [item for row in rows for item in row[1:]]
            yield pa.record_batch(
                [pa.array(users, pa.string()), pa.array(items, pa.string())], names=["user", "item"]
            )


def _decode(line: bytes, path: Path, number: int) -> str:
    try:
        return line.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecordError(f"{path}, line {number}: not UTF-8 ({error}). Write the file in UTF-8.") from error


def _checked(batch: pa.RecordBatch, path: Path, first: int) -> pa.RecordBatch:
    """The batch with our types; a missing id or an unreadable number is refused by row (from 1, header not counted)."""
    columns = []
    for role, column in zip(batch.schema.names, batch.columns, strict=True):
        if role in ("user", "item"):
            strings = column.cast(pa.string())
            empty = pc.fill_null(pc.equal(strings, ""), True)
            if pc.any(empty).as_py():
                row = first + empty.index(True).as_py()
                raise RecordError(
                    f"{path}, row {row}: no {role}; expected an id in every row. Fill it in or delete the row."
                )
            columns.append(strings)
        elif role in ("time", "label"):
            columns.append(_numbers(column, role, path, first))
        else:
            columns.append(column.cast(pa.string()))
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _numbers(column: Any, role: str, path: Path, first: int) -> Any:
    """The column as `_type(role)`; a date or a time of any unit counts in that unit."""
    try:
        numbers = _as_number(column, _type(role))
        if not pc.any(wrong := pc.fill_null(pc.is_nan(numbers), True)).as_py():
            return numbers
        at = wrong.index(True).as_py()
    except pa.ArrowException:
        at = next(at for at in range(len(column)) if not _is_number(column.slice(at, 1), _type(role)))
    raise RecordError(
        f"{path}, row {first + at}: the {role} {column[at].as_py()!r} is no number. Correct it, or leave {role}= out."
    )


def _as_number(column: Any, kind: pa.DataType) -> Any:
    if pa.types.is_temporal(column.type):
        column = column.cast(pa.int32() if column.type.bit_width == 32 else pa.int64())
    return column.cast(kind, safe=False)


def _is_number(column: Any, kind: pa.DataType) -> bool:
    try:
        _as_number(column, kind)
    except pa.ArrowException:
        return False
    return True
