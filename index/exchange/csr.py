"""Rows from the three arrays of a CSR matrix that are read on, part by part."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gossamer.index.exchange.ids import IdLines
from gossamer.index.vectors import MAX_COLUMNS, SparseVectors
from gossamer.kernels.errors import FormatError, VectorError


class ArrayStream:
    """Numbers of one type, read on.

    Args:
        file: open where they start.
        dtype: their type.
        name: for messages: file and array.
    """

    def __init__(self, file: IO[bytes], dtype: DTypeLike, name: str) -> None:
        self._file, self._dtype, self._name = file, np.dtype(dtype), name

    @property
    def itemsize(self) -> int:
        """Bytes a number."""
        return self._dtype.itemsize

    def take(self, n: int) -> NDArray[Any]:
        """The next n numbers.

        Raises:
            FormatError: there are fewer.
        """
        data = self._file.read(n * self.itemsize)
        if len(data) < n * self.itemsize:
            raise FormatError(
                f"{self._name} ends too early; the file is truncated, so fetch or write it again."
            )
        return np.frombuffer(data, self._dtype)


@dataclass(frozen=True)
class CsrSource:
    """A CSR matrix in a file, at its start.

    Attributes:
        path: the file, for messages.
        n_rows, n_cols, nnz: what the file promises.
        indptr, indices, values: its arrays.
    """

    path: Path
    n_rows: int
    n_cols: int
    nnz: int
    indptr: ArrayStream
    indices: ArrayStream
    values: ArrayStream

    def __post_init__(self) -> None:
        if self.n_rows < 0 or self.nnz < 0 or not 0 < self.n_cols <= MAX_COLUMNS:
            raise FormatError(
                f"{self.path} promises {self.n_rows} rows, {self.n_cols} columns and {self.nnz} weights; expected "
                f"columns between 1 and {MAX_COLUMNS:,}, and no negative count. It is no CSR file, or damaged."
            )

    def stream(self, ids: Path | None, *, signed: bool, batch_rows: int) -> Iterator[SparseVectors]:
        """Parts of at most `batch_rows` rows, at least one part.

        Terms are sorted, repeats summed and zeros dropped, as scipy means them.

        Raises:
            FormatError: the arrays are no CSR matrix; the message names the row.
            VectorError: a row is no sparse vector; likewise.
            RecordError: the ids are not those of the rows.
        """
        with ExitStack() as stack:
            names = None if ids is None else stack.enter_context(IdLines(ids, self.n_rows))
            end = int(self.indptr.take(1)[0])
            if end != 0:
                raise FormatError(f"{self.path}: indptr starts at {end}, not at 0; write the matrix again.")
            for first in range(0, max(self.n_rows, 1), batch_rows):
                n_rows = min(batch_rows, self.n_rows - first)
                indptr = np.concatenate([[end], self.indptr.take(n_rows).astype(np.int64)])
                self._check(first, indptr)
                n_entries, end = int(indptr[-1]) - end, int(indptr[-1])
                part = indptr - indptr[0], self.indices.take(n_entries), self.values.take(n_entries)
                try:
                    rows = _rows(*part, self.n_cols, signed=signed)
                    rows = rows if names is None else rows.with_ids(names.take(n_rows))
                except VectorError as error:
                    raise VectorError(f"{self.path}, counting from row {first}: {error}") from error
                yield rows
            if end != self.nnz:
                raise FormatError(f"{self.path}: indptr ends at {end:,}, but there are {self.nnz:,} weights.")

    def _check(self, first: int, indptr: NDArray[np.int64]) -> None:
        wrong = (indptr[1:] < indptr[:-1]) | (indptr[1:] > self.nnz)
        if wrong.any():
            row = int(np.argmax(wrong))
            raise FormatError(
                f"{self.path}, row {first + row}: indptr goes from {indptr[row]:,} to {indptr[row + 1]:,}; expected "
                f"numbers that never fall, up to {self.nnz:,}. The file is damaged."
            )


def _rows(
    indptr: NDArray[np.int64], indices: NDArray[Any], values: NDArray[Any], n_cols: int, *, signed: bool
) -> SparseVectors:
    from scipy import sparse

    if indices.dtype.kind == "u":
        indices = indices.astype(np.int64)
    with np.errstate(over="ignore", invalid="ignore"):  # what float32 cannot hold is refused, by its row
        matrix = sparse.csr_array((values.astype(np.float32), indices, indptr), (indptr.size - 1, n_cols))
        return SparseVectors.from_scipy(matrix, signed=signed)
