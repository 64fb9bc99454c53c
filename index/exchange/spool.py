"""Rows kept on the disk until they are counted: what a format needs that says its sizes first."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import numpy as np

from gossamer.index.exchange.drafts import draft_file, refuse_taken
from gossamer.index.exchange.ids import as_lines, ids_beside
from gossamer.index.vectors import SparseVectors


class Spool:
    """Rows written to nameless files beside their place, until all are counted; a context manager.

    Args:
        target: the file that they are for.
    """

    def __init__(self, target: Path) -> None:
        self.n_cols, self.nnz, self.n_rows = 0, 0, 0
        self.indptr = [np.zeros(1, np.int64)]
        self.named = False
        target.parent.mkdir(parents=True, exist_ok=True)
        self._stack = ExitStack()
        self._indices, self._values, self._ids = (self._new_file(target.parent) for _ in range(3))

    def _new_file(self, folder: Path) -> IO[bytes]:
        return self._stack.enter_context(tempfile.TemporaryFile(dir=folder))

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def append(self, part: SparseVectors) -> None:
        """Add rows."""
        self.n_cols = part.n_cols
        self.indptr.append(part.indptr[1:] + self.nnz)
        self._indices.write(np.ascontiguousarray(part.indices, "<i4").data)
        self._values.write(np.ascontiguousarray(part.values, "<f4").data)
        if part.ids is not None:
            self._ids.write(as_lines(part.ids, self.n_rows))
            self.named |= part.n_rows > 0
        self.nnz, self.n_rows = self.nnz + part.nnz, self.n_rows + part.n_rows

    def copy_indices(self, file: IO[bytes]) -> None:
        """Copy int32 `[nnz]` into a file."""
        _copy(self._indices, file)

    def copy_values(self, file: IO[bytes]) -> None:
        """Copy float32 `[nnz]` into a file."""
        _copy(self._values, file)

    def copy_ids(self, file: IO[bytes]) -> None:
        """Copy the ids into a file, one a line."""
        _copy(self._ids, file)


def write_spooled(
    parts: Iterable[SparseVectors],
    target: Path,
    write: Callable[[Spool, IO[bytes]], None],
    *,
    replace: bool,
) -> None:
    """Write a file of the three arrays, and its ids beside it.

    With two files, a crash between their renames leaves the new ids alone, never rows beside the ids of others.

    Args:
        parts: the rows.
        target: the file.
        write: puts what was spooled into a format.
        replace: whether both may take the places of others.
    """
    beside, placed = ids_beside(target), Path(os.path.realpath(target))
    refuse_taken(beside, replace=replace)
    with draft_file(target, replace=replace) as draft, Spool(target) as spool:
        for part in parts:
            spool.append(part)
        with draft.open("wb") as file:
            write(spool, file)
        if spool.named:
            with draft_file(beside, replace=replace) as ids:
                with ids.open("wb") as file:
                    spool.copy_ids(file)
                placed.unlink(missing_ok=True)
        elif beside.exists():
            placed.unlink(missing_ok=True)
            beside.unlink()


def _copy(spooled: IO[bytes], file: IO[bytes]) -> None:
    spooled.seek(0)
    shutil.copyfileobj(spooled, file, 1 << 20)
