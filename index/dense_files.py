"""A segment of a dense index on the disk: its vectors, and beside them a structure where one pays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gossamer.index.arrays import ArrayWriter, map_array
from gossamer.index.commits import SEGMENTS
from gossamer.index.dense_segment import DenseSegment
from gossamer.index.dense_structure import STRUCTURE, has_structure, map_structure, write_structure
from gossamer.index.dense_vectors import DenseRows, norms, rows_at_once
from gossamer.index.document_set import Part
from gossamer.index.format import DenseRecord, DenseSettings
from gossamer.index.manifests import FileRecord
from gossamer.kernels.errors import InputError

VECTORS = "vectors.npy"


def write_dense_segment(folder: Path, rows: DenseRows, settings: DenseSettings) -> DenseRecord:
    """Write vectors, and a structure if there are enough of them.

    Raises:
        InputError: the vectors are not the same when they are read again.
    """
    n_rows, largest_norm = 0, 0.0
    with ArrayWriter(folder / VECTORS, np.float32, (settings.n_dims,)) as array:
        for part in rows.parts():
            if part.shape[1] == settings.n_dims:
                array.append(part)
                n_rows += len(part)
                largest_norm = max(largest_norm, float(norms(part).max(initial=0)))
    if n_rows != rows.n_rows:
        raise InputError("the vectors changed while they were read; begin again when they are complete.")
    structure = has_structure(n_rows, settings)
    if structure:
        values = map_array(folder / VECTORS, np.float32, (n_rows, settings.n_dims))
        write_structure(folder / STRUCTURE, values, settings, largest_norm)
    return DenseRecord(largest_norm=largest_norm, structure=structure)


def map_dense_segment(
    folder: Path,
    record: DenseRecord,
    n_rows: int,
    settings: DenseSettings,
    files: Mapping[str, FileRecord],
    *,
    live: NDArray[np.bool_] | None = None,
) -> DenseSegment:
    """Map what `write_dense_segment` wrote.

    Args:
        folder: of the segment.
        record: what the manifest says about it.
        n_rows: number of rows.
        settings: of the index.
        files: sizes and checksums of the index's files.
        live: which rows are not deleted, None for all.

    Raises:
        FormatError: a file is not what the manifest says.
    """
    values = map_array(folder / VECTORS, np.float32, (n_rows, settings.n_dims))
    structure = None
    if record.structure:
        structure = map_structure(folder, files, f"{SEGMENTS}/{folder.name}", n_rows, settings)
    return DenseSegment(values, record.largest_norm, structure, settings.flat_below, live)


def live_dense_rows(segments: Sequence[tuple[DenseSegment, Part]], n_dims: int) -> DenseRows:
    """The rows of some segments as they are stored, without deleted ones."""
    step = rows_at_once(n_dims)

    def chosen(part: Part) -> NDArray[np.int64]:
        return np.arange(len(part.documents)) if part.live is None else np.flatnonzero(part.live)

    def parts() -> Iterator[NDArray[np.float32]]:
        for segment, part in segments:
            rows = chosen(part)
            for first in range(0, len(rows), step):
                yield segment.values[rows[first : first + step]]

    ids = [part.documents.ids.take(pa.array(chosen(part))) for _, part in segments]
    return DenseRows(parts, sum(map(len, ids)), n_dims, pa.concat_arrays(ids) if ids else None)
