"""A new index of any kind: its first segment and its manifest, in a folder that appears whole or not at all."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gossamer.index.commits import SEGMENTS, segment_name, unchanging
from gossamer.index.disk import disk
from gossamer.index.document_files import Source, write_documents
from gossamer.index.folders import draft_folder
from gossamer.index.format import (
    FORMAT,
    SHARDS_FORMAT,
    DenseSettings,
    EncoderInfo,
    InvertedRecord,
    Manifest,
    SegmentRecord,
)
from gossamer.index.manifests import MANIFEST, SHARDS, maker, record_files
from gossamer.index.segmented import R
from gossamer.index.snapshots import DOCUMENTS


def create(
    path: Path,
    documents: Source | None,
    *,
    prepare: Callable[[], tuple[R, Manifest]],
    write: Callable[[Path, R, Manifest], Any],
    replace: bool,
) -> None:
    """Write an index.

    Args:
        path: the folder to make.
        documents: titles, texts and metadata in the order of the vectors.
        prepare: looks through the vectors; what is to be stored, and the manifest of an index without any.
        write: writes a segment's own arrays into its folder; its record's `data`.
        replace: whether an index that is there already may be replaced.

    Raises:
        ExistsError: there is something at `path`, and it may not be replaced.
        RecordError: documents and vectors do not fit each other.
    """
    with draft_folder(path, replace=replace, replaceable=is_index, unchanging=unchanging) as draft:
        rows, manifest = prepare()
        disk().mkdir(draft / SEGMENTS)
        if rows.n_rows:
            folder = draft / SEGMENTS / segment_name(0)
            disk().mkdir(folder)
            write_documents(folder / DOCUMENTS, documents, rows.ids, rows.n_rows)
            data = write(folder, rows, manifest)
            record = SegmentRecord(
                folder=folder.name, n_rows=rows.n_rows, first_number=0, gaps=False, data=data
            )
            manifest = with_segments(manifest, draft, [record])
        else:
            write_documents(draft / "none", documents, None, 0)  # refuses documents without vectors
            disk().remove(draft / "none")
        with disk().create(draft / MANIFEST) as file:
            file.write(manifest.to_bytes())


def new_manifest(settings: InvertedRecord | DenseSettings, encoder: EncoderInfo | None) -> Manifest:
    """That of an index without documents, made now."""
    return Manifest(
        uid=secrets.token_hex(8),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        created_by=maker(),
        index=settings,
        encoder=encoder,
    )


def with_segments(manifest: Manifest, draft: Path, records: Sequence[SegmentRecord]) -> Manifest:
    """The manifest of a new index whose segments are written."""
    files = [record_files(draft / SEGMENTS / record.folder, draft) for record in records]
    return manifest.model_copy(
        update={
            "next_number": sum(record.n_rows for record in records),
            "next_segment": len(records),
            "segments": tuple(records),
            "files": {name: record for some in files for name, record in some.items()},
        }
    )


def is_index(folder: Path) -> bool:
    """Whether a folder holds an index of ours, in shards or not, of any version and in any state."""
    kinds = ((MANIFEST, FORMAT), (SHARDS, SHARDS_FORMAT))
    return any(
        (folder / name).is_file() and kind.encode() in (folder / name).read_bytes() for name, kind in kinds
    )
