"""`.npy` arrays that grow while they are written and are memory-mapped when they are read."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import DTypeLike, NDArray

from gossamer.index.disk import disk
from gossamer.kernels.errors import FormatError

_HEADER_BYTES = 128


class ArrayWriter:
    """Writes a `.npy` file piece by piece; its length is known only at the end, so the header is written last.

    Args:
        path: the file.
        dtype: type of the numbers.
        row_shape: shape of one entry; `()` for a vector.
    """

    def __init__(self, path: Path, dtype: DTypeLike, row_shape: tuple[int, ...] = ()) -> None:
        self._dtype = np.dtype(dtype)
        self._row_shape = row_shape
        self._rows = 0
        self._file = disk().create(path)
        self._file.write(bytes(_HEADER_BYTES))

    def append(self, rows: NDArray[Any]) -> None:
        """Add entries `[n, *row_shape]`."""
        if rows.dtype != self._dtype or rows.shape[1:] != self._row_shape:
            raise TypeError(
                f"expected {self._dtype} of [n, {self._row_shape}], got {rows.dtype} of {rows.shape}"
            )
        self._file.write(np.ascontiguousarray(rows).data)
        self._rows += len(rows)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file:
            if error is None:
                self._file.seek(0)
                self._file.write(_header(self._dtype, (self._rows, *self._row_shape)))


def new_array(path: Path, dtype: DTypeLike, shape: tuple[int, ...]) -> NDArray[Any]:
    """A file of zeros of known size, mapped for writing in any order; none for an array without entries."""
    dtype = np.dtype(dtype)
    if 0 in shape:
        return np.zeros(shape, dtype)
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    with disk().create(path) as file:
        file.write(_header(dtype, shape))
        file.truncate(_HEADER_BYTES + size)
        if hasattr(os, "posix_fallocate"):  # a full disk is an error here; through a map it would be a signal
            file.flush()
            os.posix_fallocate(file.fileno(), 0, _HEADER_BYTES + size)
    return np.memmap(str(path), dtype, mode="r+", offset=_HEADER_BYTES, shape=shape)


def _header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    text = repr({"descr": dtype.str, "fortran_order": False, "shape": shape})
    start = b"\x93NUMPY\x01\x00" + (_HEADER_BYTES - 10).to_bytes(2, "little")
    return start + text.encode().ljust(_HEADER_BYTES - 11) + b"\n"


def map_array(path: Path, dtype: DTypeLike, shape: tuple[int, ...]) -> NDArray[Any]:
    """Map an array that `ArrayWriter` or `new_array` wrote, read-only; one without entries needs no file.

    Raises:
        FormatError: it is no array of this type and shape.
    """
    dtype = np.dtype(dtype)
    if 0 in shape:
        return np.broadcast_to(np.zeros((), dtype), shape)  # read-only, too
    with path.open("rb") as file:
        if file.read(_HEADER_BYTES) != _header(dtype, shape):
            raise FormatError(f"{path} does not hold {dtype} of {shape}, as it should; build the index anew.")
    size = int(np.prod(shape, dtype=np.int64))
    return np.frombuffer(map_bytes(path), dtype, size, _HEADER_BYTES).reshape(shape)


def map_bytes(path: Path) -> pa.Buffer:
    """Map a file, read-only, and without a descriptor that stays open: an index has hundreds of files."""
    with pa.memory_map(str(path)) as file:
        return file.read_buffer()


def map_vector(path: Path, dtype: DTypeLike) -> NDArray[Any]:
    """`map_array` of as many numbers as the file has room for."""
    size = path.stat().st_size - _HEADER_BYTES
    return map_array(path, dtype, (max(size, 0) // np.dtype(dtype).itemsize,))
