"""The `.npz` files of `scipy.sparse.save_npz`, CSR only; their arrays are read on without being held whole.

Ids stand in `NAME.npz.ids`, if anywhere. No array of Python objects is read: that would be a pickle.
"""

from __future__ import annotations

import lzma
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from gossamer.index.exchange.csr import ArrayStream, CsrSource
from gossamer.index.exchange.spool import Spool, write_spooled
from gossamer.index.vectors import SparseVectors
from gossamer.kernels.errors import FormatError, GossamerError

_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    ValueError,
    RuntimeError,
    OSError,
)
_LARGEST_ITEM = 64


def stream_npz(
    path: Path, *, ids: Path | None = None, signed: bool = False, batch_rows: int = 65_536
) -> Iterator[SparseVectors]:
    """Yield the rows of an `.npz` file in parts of at most `batch_rows`, at least one part.

    Raises:
        FormatError: it was not written by `scipy.sparse.save_npz`, is no CSR matrix of numbers, or is damaged.
        VectorError, RecordError: a row or an id is wrong; the message names it.
    """
    try:
        with ExitStack() as stack:
            archive = _Archive(path, stack.enter_context(zipfile.ZipFile(path)), stack)
            kind = archive.few("format", "SU", 1)[0]
            if kind not in (b"csr", "csr"):
                raise FormatError(f"{path} holds a matrix in the format {kind}; save its tocsr() instead.")
            n_rows, n_cols = archive.few("shape", "iu", 2)
            (n_ends, indptr), (nnz, indices) = archive.array("indptr", "iu"), archive.array("indices", "iu")
            n_values, values = archive.array("data", "iufb")
            if n_ends != n_rows + 1 or n_values != nnz:
                raise FormatError(
                    f"{path} has {n_ends:,} numbers in indptr, {nnz:,} indices and {n_values:,} weights for "
                    f"{n_rows:,} rows; write it again."
                )
            source = CsrSource(path, n_rows, n_cols, nnz, indptr, indices, values)
            yield from source.stream(ids, signed=signed, batch_rows=batch_rows)
            archive.finish()
    except GossamerError:
        raise
    except _DAMAGED as error:
        raise FormatError(f"{path} cannot be read as .npz: {error}; write it again.") from error


class _Archive:
    """The arrays of an `.npz` file."""

    def __init__(self, path: Path, archive: zipfile.ZipFile, stack: ExitStack) -> None:
        self._path, self._archive, self._stack = path, archive, stack
        self._open: list[IO[bytes]] = []

    def few(self, name: str, kinds: str, n: int) -> list[Any]:
        """The n entries of a small array."""
        size, stream = self.array(name, kinds)
        if size != n or stream.itemsize > _LARGEST_ITEM:
            raise FormatError(f"{self._path}: {name!r} has not {n} short entries; use scipy.sparse.save_npz.")
        return list(stream.take(n).tolist())

    def array(self, name: str, kinds: str) -> tuple[int, ArrayStream]:
        """Length of a vector, and its numbers to be read on."""
        place = f"{self._path}, {name}"
        if f"{name}.npy" not in self._archive.namelist():
            raise FormatError(f"{self._path} has no array {name!r}; write it by scipy.sparse.save_npz.")
        file = self._stack.enter_context(self._archive.open(f"{name}.npy"))
        shape, dtype = _header(file, place)
        if dtype.hasobject:
            raise FormatError(
                f"{place} holds Python objects, which only unpickling could read, and that is never done; save it as "
                "numbers."
            )
        if dtype.kind not in kinds or len(shape) > 1:
            raise FormatError(
                f"{place} is {dtype} of {shape}; expected a vector of another type; write it again."
            )
        n = int(np.prod(shape, dtype=object))
        size = self._archive.getinfo(f"{name}.npy").file_size
        if size != file.tell() + n * dtype.itemsize:
            raise FormatError(f"{place} promises {n:,} numbers, but has {size:,} bytes; it is truncated.")
        self._open.append(file)
        return n, ArrayStream(file, dtype, place)

    def finish(self) -> None:
        """Read to the ends, so that checksums are compared."""
        for file in self._open:
            file.read(1)


def _header(file: IO[bytes], place: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    try:
        version = npy.read_magic(file)
        read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
        shape, _, dtype = read(file)
    except (ValueError, KeyError) as error:
        raise FormatError(f"{place} is no .npy array ({error}); write it again.") from error
    return shape, dtype


def write_npz(parts: Iterable[SparseVectors], path: Path, *, replace: bool = False) -> None:
    """Write what `scipy.sparse.load_npz` reads, uncompressed, and `NAME.npz.ids` beside it if the rows have ids.

    Raises:
        ExistsError: one of them is there, and may not be replaced.
        VectorError: an id holds a line end.
    """
    write_spooled(parts, path, _write, replace=replace)


def _write(spool: Spool, file: IO[bytes]) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in (
            ("format", np.array(b"csr")),
            ("shape", np.array([spool.n_rows, spool.n_cols], "<i8")),
            ("_is_array", np.array(True)),
        ):
            with archive.open(f"{name}.npy", "w") as member:
                npy.write_array(member, array, allow_pickle=False)
        with _vector(archive, "indptr", "<i8", spool.n_rows + 1) as member:
            for ends in spool.indptr:
                member.write(ends.astype("<i8", copy=False).data)
        with _vector(archive, "indices", "<i4", spool.nnz) as member:
            spool.copy_indices(member)
        with _vector(archive, "data", "<f4", spool.nnz) as member:
            spool.copy_values(member)


def _vector(archive: zipfile.ZipFile, name: str, dtype: str, n: int) -> IO[bytes]:
    # A ZipInfo of this name is dated 1980, so that the same rows are the same bytes.
    member = archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True)
    npy.write_array_header_1_0(member, {"descr": dtype, "fortran_order": False, "shape": (n,)})
    return member
