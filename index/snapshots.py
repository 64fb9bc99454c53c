"""`Snapshot`: the segments that one manifest of an index names, mapped. It stays whole while the folder changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from gossamer.index.arrays import ArrayWriter, map_array
from gossamer.index.commits import SEGMENTS
from gossamer.index.document_set import DocumentSet, Part
from gossamer.index.documents import Documents
from gossamer.index.format import Manifest, SegmentRecord

DOCUMENTS = "documents"
NUMBERS = "numbers.npy"

S = TypeVar("S")
MapSegment: TypeAlias = Callable[[Path, SegmentRecord, Manifest, NDArray[np.bool_] | None], S]
"""Maps what is special to a kind of index: of the segment's folder, and which rows are not deleted (None for all)."""


@dataclass(frozen=True)
class Snapshot(Generic[S]):
    """An index as one manifest describes it.

    Attributes:
        manifest: the manifest.
        segments: what is searched, in the order of insertion.
        parts: the documents of each.
        starts: int64 `[n_segments + 1]`, the first row of each.
        documents: all documents.
    """

    manifest: Manifest
    segments: tuple[S, ...]
    parts: tuple[Part, ...]
    starts: NDArray[np.int64]
    documents: DocumentSet


def load_snapshot(
    path: Path, manifest: Manifest, map_segment: MapSegment[S], before: Snapshot[S] | None
) -> Snapshot[S]:
    """Map what a manifest names.

    Args:
        path: the index.
        manifest: its manifest.
        map_segment: maps a segment.
        before: what was mapped before; what is the same is taken over.

    Raises:
        FormatError: a file is not what the manifest says.
    """
    known = {} if before is None else _by_contents(before)
    mapped = [
        known.get(_contents(manifest, record)) or _map_whole(path, manifest, record, map_segment)
        for record in manifest.segments
    ]
    parts = tuple(part for _, part in mapped)
    starts = np.cumsum([0, *(record.n_rows for record in manifest.segments)])
    return Snapshot(manifest, tuple(segment for segment, _ in mapped), parts, starts, DocumentSet(parts))


def _map_whole(
    path: Path, manifest: Manifest, record: SegmentRecord, map_segment: MapSegment[S]
) -> tuple[S, Part]:
    folder = path / SEGMENTS / record.folder
    live = None
    if record.deletions is not None:
        bits = map_array(folder / record.deletions, np.uint8, (-(-record.n_rows // 8),))
        live = np.unpackbits(bits, count=record.n_rows) == 0
    numbers = map_array(folder / NUMBERS, np.int64, (record.n_rows,)) if record.gaps else None
    part = Part(Documents(folder / DOCUMENTS, record.n_rows), live, record.first_number, numbers)
    return map_segment(folder, record, manifest, live), part


def _by_contents(snapshot: Snapshot[S]) -> dict[Any, tuple[S, Part]]:
    keys = (_contents(snapshot.manifest, record) for record in snapshot.manifest.segments)
    return dict(zip(keys, zip(snapshot.segments, snapshot.parts, strict=True), strict=True))


def _contents(manifest: Manifest, record: SegmentRecord) -> Any:
    """What is the same for segments of the same bytes."""
    prefix = f"{SEGMENTS}/{record.folder}/"
    files = [(name, file.sha256) for name, file in manifest.files.items() if name.startswith(prefix)]
    return record, manifest.index, tuple(sorted(files))


def write_numbers(folder: Path, numbers: NDArray[np.int64]) -> bool:
    """Write the insertion numbers of a segment's rows, ascending, unless they are consecutive; whether they are not."""
    gaps = bool(numbers[-1] - numbers[0] >= len(numbers))
    if gaps:
        with ArrayWriter(folder / NUMBERS, np.int64) as array:
            array.append(numbers)
    return gaps
