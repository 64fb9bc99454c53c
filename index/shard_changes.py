"""What is added to shards: taken apart by shard, and numbered through all of them."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from gossamer.index.commits import SEGMENTS
from gossamer.index.disk import disk
from gossamer.index.document_files import Source, write_documents
from gossamer.index.document_set import DocumentSet, Part
from gossamer.index.documents import Documents
from gossamer.index.format import MANIFEST, Manifest
from gossamer.index.segmented import DOCUMENTS, Receipt
from gossamer.index.shards import ShardsManifest, Splittable

SPOOL = "spool-"
Shard: TypeAlias = Splittable[Any, Any]


def begin_shard(kind: type[Shard], folder: Path, manifest: Manifest) -> Shard:
    """Write an index without documents, and open it."""
    disk().mkdir(folder)
    disk().mkdir(folder / SEGMENTS)
    with disk().create(folder / MANIFEST) as file:
        file.write(manifest.to_bytes())
    shard = kind(folder, manifest)
    shard.merges_itself = False
    return shard


@contextmanager
def spool_in(folder: Path) -> Iterator[Path]:
    """A folder for what comes in a stream, gone afterwards."""
    spool = folder / f"{SPOOL}{secrets.token_hex(6)}"
    disk().mkdir(spool)
    try:
        yield spool
    finally:
        disk().remove(spool)


def spooled_documents(spool: Path, documents: Source | None, rows: Any) -> Documents:
    """All documents that are to be added, checked as a whole, so that messages count rows as the caller does."""
    write_documents(spool / DOCUMENTS, documents, rows.ids, rows.n_rows)
    return Documents(spool / DOCUMENTS, rows.n_rows)


def additions(  # noqa: PLR0917
    rows: Any,
    added: Documents,
    shards: Sequence[Shard],
    manifest: ShardsManifest,
    first_number: int,
    spool: Path,
    *,
    may_replace: bool = False,
) -> dict[int, Callable[[], Receipt]]:
    """What adds to each shard its part of the rows; shards that get none are left out."""
    shard_of_row = manifest.shards_of(added.ids)
    parts = type(shards[0])._split(rows, shards, shard_of_row, spool)

    def add(number: int) -> Receipt:
        mine = shard_of_row == number
        documents = DocumentSet([Part(added, mine)]).batches([0])
        numbers = first_number + np.flatnonzero(mine)
        return shards[number]._put_rows(parts[number], documents, may_replace=may_replace, numbers=numbers)

    return {number: partial(add, number) for number, part in enumerate(parts) if part.n_rows}
