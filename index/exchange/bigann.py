"""The `.csr` files of the NeurIPS'23 Big-ANN sparse track.

Little-endian, without gaps: int64 rows, columns and weights; int64 `indptr [rows + 1]`; int32 `indices [weights]`;
float32 `values [weights]`. Ids stand in `NAME.csr.ids`, if anywhere. Layout: `dataset_io.py` of
https://github.com/harsha-simhadri/big-ann-benchmarks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import numpy as np

from gossamer.index.exchange.csr import ArrayStream, CsrSource
from gossamer.index.exchange.spool import Spool, write_spooled
from gossamer.index.vectors import SparseVectors
from gossamer.kernels.errors import FormatError

_HEADER = 24


def stream_csr(
    path: Path, *, ids: Path | None = None, signed: bool = False, batch_rows: int = 65_536
) -> Iterator[SparseVectors]:
    """Yield the rows of a `.csr` file in parts of at most `batch_rows`, at least one part.

    Raises:
        FormatError: its size is not what its header promises, or its arrays are no CSR matrix.
        VectorError, RecordError: a row or an id is wrong; the message names it.
    """
    with ExitStack() as stack:
        header, indptr, indices, values = (stack.enter_context(path.open("rb")) for _ in range(4))
        n_rows, n_cols, nnz = _sizes(path, header)
        indices.seek(_HEADER + 8 * (n_rows + 1))
        values.seek(_HEADER + 8 * (n_rows + 1) + 4 * nnz)
        indptr.seek(_HEADER)
        source = CsrSource(
            path,
            n_rows,
            n_cols,
            nnz,
            ArrayStream(indptr, "<i8", f"{path}, indptr"),
            ArrayStream(indices, "<i4", f"{path}, indices"),
            ArrayStream(values, "<f4", f"{path}, values"),
        )
        yield from source.stream(ids, signed=signed, batch_rows=batch_rows)


def _sizes(path: Path, file: IO[bytes]) -> tuple[int, int, int]:
    header = np.frombuffer(file.read(_HEADER), np.uint8)
    if header.size < _HEADER:
        raise FormatError(f"{path} is shorter than a header of {_HEADER} bytes; it is no CSR file.")
    n_rows, n_cols, nnz = header.view("<i8").tolist()
    expected, size = _HEADER + 8 * (n_rows + 1) + 8 * nnz, path.stat().st_size
    if min(n_rows, n_cols, nnz) < 0 or size != expected:
        raise FormatError(
            f"{path} has {size:,} bytes, but its header promises {n_rows:,} rows and {nnz:,} weights, {expected:,} "
            "bytes; it is truncated (fetch it again) or no CSR file."
        )
    return n_rows, n_cols, nnz


def write_csr(parts: Iterable[SparseVectors], path: Path, *, replace: bool = False) -> None:
    """Write a `.csr` file, and `NAME.csr.ids` beside it if the rows have ids.

    Raises:
        ExistsError: one of them is there, and may not be replaced.
        VectorError: an id holds a line end.
    """
    write_spooled(parts, path, _write, replace=replace)


def _write(spool: Spool, file: IO[bytes]) -> None:
    file.write(np.array([spool.n_rows, spool.n_cols, spool.nnz], "<i8").tobytes())
    for ends in spool.indptr:
        file.write(ends.astype("<i8", copy=False).data)
    spool.copy_indices(file)
    spool.copy_values(file)
