"""Ids beside a format that has none: a text file `NAME.ids`, one id a line, in the order of the rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc

from gossamer.index.vectors import SparseVectors
from gossamer.kernels.errors import NotFoundError, RecordError, VectorError


def ids_beside(path: Path) -> Path:
    """Where the ids of a file stand."""
    return path.with_name(f"{path.name}.ids")


class IdLines:
    """The ids of a file, read on as rows are; a context manager.

    Args:
        path: the file of ids.
        n_rows: how many there have to be.
    """

    def __init__(self, path: Path, n_rows: int) -> None:
        if not path.is_file():
            raise NotFoundError(f"there is no file of ids at {path}; it has one id a line.")
        self._path, self._n_rows, self._read = path, n_rows, 0
        self._file = path.open("rb")

    def take(self, n_rows: int) -> pa.StringArray:
        """The next ids.

        Raises:
            RecordError: there are fewer, or more in all than rows, or a line is not UTF-8; the message names it.
        """
        lines = [line.rstrip(b"\r\n") for line in islice(self._file, n_rows)]
        try:
            ids = pa.array([line.decode() for line in lines], pa.string())
        except UnicodeDecodeError:
            odd = next(number for number, line in enumerate(lines, self._read + 1) if not _is_text(line))
            raise RecordError(f"{self._path}, line {odd}: this is not UTF-8; save it so.") from None
        self._read += len(ids)
        if len(ids) < n_rows:
            raise RecordError(
                f"{self._path}, line {self._read + 1}: missing, as there are {self._n_rows:,} rows; give one id a row."
            )
        if self._read == self._n_rows and self._file.readline():
            raise RecordError(
                f"{self._path}, line {self._read + 1}: one too many for {self._n_rows:,} rows; give one id a row."
            )
        return ids

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def as_lines(ids: pa.StringArray, first: int) -> bytes:
    """Ids as lines of a file.

    Args:
        ids: of the rows from `first` on.
        first: for the message.

    Raises:
        VectorError: an id holds a line end; the message names the row.
    """
    broken = pc.match_substring_regex(ids, "[\r\n]")
    if pc.any(broken).as_py():
        row = broken.index(True).as_py()
        raise VectorError(
            f"row {first + row}: the id {ids[row].as_py()!r} holds a line end, and this format has one id a line; "
            "rename it, or write Parquet or JSONL."
        )
    return "".join(f"{id_}\n" for id_ in ids.to_pylist()).encode()


def unique(parts: Iterable[SparseVectors], source: object) -> Iterator[SparseVectors]:
    """The same parts; after the last, ids that repeat are refused. Memory holds all ids.

    Raises:
        RecordError: an id repeats; the message names both rows.
    """
    seen: list[pa.StringArray] = []
    for part in parts:
        if part.ids is not None:
            seen.append(part.ids)
        yield part
    ids = pa.chunked_array(seen, pa.string())
    if len(pc.unique(ids)) == len(ids):
        return
    rows: dict[str, int] = {}
    for row, id_ in enumerate(ids):
        if rows.setdefault(id_.as_py(), row) != row:
            raise RecordError(
                f"{source}: the id {id_.as_py()!r} is given to rows {rows[id_.as_py()]} and {row}; make ids unique."
            )


def _is_text(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True
