"""Changes of shards: what is added is taken apart by shard and numbered through all of them, and all are changed."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from gossamer.index.commits import SEGMENTS
from gossamer.index.disk import disk
from gossamer.index.document_files import Source, write_documents
from gossamer.index.document_set import DocumentSet, Part
from gossamer.index.documents import Documents
from gossamer.index.format import Manifest
from gossamer.index.manifests import MANIFEST
from gossamer.index.segmented import Receipt
from gossamer.index.shards import ShardsManifest, Splittable, shard_path
from gossamer.index.snapshots import DOCUMENTS
from gossamer.kernels.errors import StorageError

_WRITERS = 4  # shards that are changed at once; most of a small change is waiting for the disk
_IDS_SHOWN = 5

SPOOL = "spool-"
Shard: TypeAlias = Splittable[Any, Any]


def begin_shard(kind: type[Shard], folder: Path, manifest: Manifest) -> Shard:
    """Write an index without documents, and open it."""
    disk().mkdir(folder)
    disk().mkdir(folder / SEGMENTS)
    with disk().create(folder / MANIFEST) as file:
        file.write(manifest.to_bytes())
    shard = kind(folder, manifest)
    shard.merges_itself, shard.is_shard = False, True
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


def spooled_documents(
    spool: Path, documents: Source | None, rows: Any, kinds: Mapping[str, pa.DataType] | None = None
) -> Documents:
    """All documents that are to be added, checked as a whole, so that messages count rows as the caller does."""
    write_documents(spool / DOCUMENTS, documents, rows.ids, rows.n_rows, kinds=kinds)
    return Documents(spool / DOCUMENTS, rows.n_rows)


def additions(
    rows: Any,
    added: Documents,
    *,
    shards: Sequence[Shard],
    manifest: ShardsManifest,
    first_number: int,
    spool: Path,
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


def change_all(
    path: Path,
    shards: Sequence[Shard],
    tasks: Mapping[int, Callable[[], Receipt]],
    names: Mapping[int, Sequence[Any]],
) -> Receipt:
    """Change several shards at once.

    Args:
        path: of all, for messages.
        shards: all of them.
        tasks: what changes each.
        names: the ids of the documents that each task puts in or takes out.

    Raises:
        StorageError: some failed; the message says for which documents the change counts and for which not.
    """
    with ThreadPoolExecutor(_WRITERS) as pool:
        running = {shard: pool.submit(task) for shard, task in tasks.items()}
    failures = {shard: error for shard, task in running.items() if (error := task.exception()) is not None}
    if failures and len(failures) < len(tasks):
        shard, error = next(iter(failures.items()))
        done = [name for shard, some in names.items() if shard not in failures for name in some]
        failed = [name for shard in failures for name in names[shard]]
        raise StorageError(
            f"{path} could be changed only in part: it counts for {_shown(done)}, but not for {_shown(failed)} "
            f"({shard_path(path, shard).name}: {error}). Repeat with update(), or delete(missing=True)."
        ) from error
    for error in failures.values():
        raise error
    receipts = [task.result() for task in running.values()]
    return Receipt(
        sum(shard.generation for shard in shards),
        sum(receipt.n_added for receipt in receipts),
        sum(receipt.n_deleted for receipt in receipts),
    )


def _shown(names: Sequence[Any]) -> str:
    first = ", ".join(repr(str(name)) for name in names[:_IDS_SHOWN])
    return first if len(names) <= _IDS_SHOWN else f"{first} and {len(names) - _IDS_SHOWN:,} more"
