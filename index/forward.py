"""The forward index: every row as it was given, beside the postings, for scores that are exact on the input.

A build writes it first and makes the postings from it, so that the vectors are streamed once however they are ordered
later. Weights are float32, or float16 where that holds every one of them as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gossamer.index.arrays import ArrayWriter, map_array
from gossamer.index.disk import disk
from gossamer.index.impacts import ImpactScale, Kind
from gossamer.index.vectors import SparseVectors
from gossamer.kernels.inversion import Impacts
from gossamer.kernels.refine import Forward

INDPTR, TERMS, VALUES = "indptr.npy", "terms.npy", "values.npy"
_UINT16_TERMS = 65_536


class Spooled(NamedTuple):
    """Rows on the disk, quantised."""

    rows: Impacts
    n_rows: int
    largest_error: float
    unneeded: tuple[Path, ...]
    """What only the build needs."""


def write_forward(
    folder: Path,
    spool: Path,
    parts: Iterable[SparseVectors],
    scale: ImpactScale,
    *,
    n_terms: int,
    halves: bool | None,
    on_rows: Callable[[int], None],
) -> Spooled:
    """Write rows and their impacts, part by part.

    Args:
        folder: where the forward index goes.
        spool: the file that the impacts go to, until the postings are made.
        parts: the rows.
        scale: how weights are stored.
        n_terms: size of the vocabulary.
        halves: whether weights are kept as float16 or float32; None if no forward index is wanted.
        on_rows: called with the number of rows done so far.
    """
    disk().mkdir(folder, parents=True)
    n_rows, nnz, error = 0, 0, 0.0
    wide = wide_for(n_terms)
    with ExitStack() as stack:
        indptr = stack.enter_context(ArrayWriter(folder / INDPTR, np.int64))
        terms = stack.enter_context(ArrayWriter(folder / TERMS, wide))
        values = None
        if halves is not None:
            values = stack.enter_context(ArrayWriter(folder / VALUES, np.uint16 if halves else np.float32))
        impacts = stack.enter_context(ArrayWriter(spool, scale.kind))
        indptr.append(np.zeros(1, np.int64))
        for part in parts:
            quantised, part_error = scale.quantise(part.values)
            indptr.append(part.indptr[1:] + nnz)
            terms.append(part.indices.astype(wide, copy=False))
            impacts.append(quantised)
            if values is not None:
                values.append(part.values.astype(np.float16).view(np.uint16) if halves else part.values)
            n_rows, nnz, error = n_rows + part.n_rows, nnz + part.nnz, max(error, part_error)
            on_rows(n_rows)
    rows = map_impacts(folder, spool, n_rows=n_rows, n_terms=n_terms, nnz=nnz, kind=scale.kind)
    return Spooled(rows, n_rows, error, (spool, folder) if halves is None else (spool,))


def map_impacts(folder: Path, spool: Path, *, n_rows: int, n_terms: int, nnz: int, kind: Kind) -> Impacts:
    """Map rows that `write_forward` wrote, with their impacts."""
    return Impacts(
        map_array(folder / INDPTR, np.int64, (n_rows + 1,)),
        map_array(folder / TERMS, wide_for(n_terms), (nnz,)),
        map_array(spool, kind, (nnz,)),
    )


def wide_for(n_terms: int) -> type[np.uint16 | np.int32]:
    """The type that terms are stored in."""
    return np.uint16 if n_terms <= _UINT16_TERMS else np.int32


def map_forward(folder: Path, n_rows: int, n_terms: int, nnz: int, *, halves: bool) -> Forward:
    """Map a forward index.

    Raises:
        FormatError: an array is not of this type and size.
    """
    return Forward(
        map_array(folder / INDPTR, np.int64, (n_rows + 1,)),
        map_array(folder / TERMS, wide_for(n_terms), (nnz,)),
        map_array(folder / VALUES, np.uint16 if halves else np.float32, (nnz,)),
    )
