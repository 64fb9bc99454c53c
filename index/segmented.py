"""`SegmentedIndex`: what every index does that lives in a folder of segments, whatever its segments hold.

A segment is written once. Adding documents makes one more, deleting them marks rows of those that are there, updating
does both in one change, and merging (`merging.py`) makes one segment of several. Readers work on a `Snapshot`: the
segments that one manifest names, mapped. It stays whole while others change the folder, and `refresh` moves on.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, Self, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gossamer.index.commits import Change, failing_cleanly, remove_orphans, write_lock
from gossamer.index.disk import disk
from gossamer.index.document_files import Source, write_documents
from gossamer.index.document_set import DocumentSet, checked_ids, refuse_known
from gossamer.index.documents import Documents
from gossamer.index.folders import identity, open_whole
from gossamer.index.format import EncoderInfo, Manifest, OperatingPoint, SegmentRecord, verify_files
from gossamer.index.manifests import MANIFEST
from gossamer.index.memory import MappedMemory
from gossamer.index.snapshots import DOCUMENTS, S, Snapshot, load_snapshot, write_numbers
from gossamer.kernels.errors import (
    FormatError,
    InputError,
    MismatchError,
    NotFoundError,
    RecordError,
    StorageError,
)

if TYPE_CHECKING:
    from gossamer.index.merging import MergePolicy

_LOG = logging.getLogger(__name__)

ATTEMPTS = 5


class Rows(Protocol):
    """Vectors that are to be stored."""

    @property
    def n_rows(self) -> int:
        """How many."""

    @property
    def ids(self) -> pa.StringArray | None:
        """Their ids, if they have any."""


R = TypeVar("R", bound=Rows)


@dataclass(frozen=True)
class Receipt:
    """What a change did. It is on the disk: neither a kill nor a power cut undoes it.

    Attributes:
        generation: of the index, with this change in it.
        n_added: documents that were put in.
        n_deleted: documents that were taken out, those that others took the place of included.
    """

    generation: int
    n_added: int = 0
    n_deleted: int = 0


class SegmentedIndex(ABC, Generic[S, R]):
    """An index in a folder of segments. Safe to share among threads; one process or thread changes it at a time.

    Attributes:
        path: the folder.
        lock_timeout_s: how long a change waits for another writer.
    """

    kind: ClassVar[str]
    lock_timeout_s: float = 30.0

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = Path(os.path.abspath(path))  # a link is followed anew each time
        self.merges_itself = True
        # so that no thread puts an older snapshot in the place of a newer one
        self._moving = threading.RLock()
        self._snapshot = self._load(manifest, None)

    @abstractmethod
    def _map(
        self, folder: Path, record: SegmentRecord, manifest: Manifest, live: NDArray[np.bool_] | None
    ) -> S:
        """Map a segment; `live` says which rows are not deleted, None for all."""

    @abstractmethod
    def _rows(self, vectors: Any) -> R:
        """Look through vectors that are to be added.

        Raises:
            MismatchError, ConfigError: they do not fit this index.
        """

    @abstractmethod
    def _write(self, folder: Path, rows: R, manifest: Manifest) -> Any:
        """Write a segment's own arrays; its record's `data`."""

    @abstractmethod
    def _merged_rows(self, segments: Sequence[int], snapshot: Snapshot[S]) -> R:
        """The live rows of adjacent segments, to be written as one."""

    @abstractmethod
    def _curve_of_merged(self, folder: Path, record: SegmentRecord, snapshot: Snapshot[S]) -> dict[str, Any]:
        """What changes in the manifest with the curve of a segment in `folder`; nothing if it has none."""

    # -- reading

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Map an index; milliseconds, whatever its size. Checks its manifest and the sizes of its files.

        An index that changes meanwhile is opened anew, so that all of what is mapped is of one moment.

        Raises:
            NotFoundError: there is no folder.
            FormatError: it is no index, is truncated, or from a newer version.
            CorruptError: its manifest was altered.
            StorageError: it was changed each time that it was being opened.
        """
        path = Path(path)
        return open_whole(path, MANIFEST, lambda: cls(path, Manifest.read(path)), same=_are_of_one_index)

    def refresh(self) -> bool:
        """See what others have changed since; searches that are running stay on what they began with.

        Returns:
            Whether there was anything to see.

        Raises:
            As `open` does.
        """
        with self._moving:
            before = self._snapshot.manifest
            for _ in range(ATTEMPTS):
                seen = identity(self.path, MANIFEST)
                try:
                    manifest = Manifest.read(self.path)
                    if manifest == self._snapshot.manifest:
                        return manifest != before
                    self._snapshot = self._load(manifest, self._snapshot)
                except (StorageError, OSError):
                    if identity(self.path, MANIFEST) == seen:
                        raise
                else:
                    return True
        raise StorageError(f"{self.path} was changed again and again while it was opened; try later.")

    def _publish(self, change: Change, **updates: Any) -> None:
        """Make a change count, and see it."""
        with self._moving:
            self._snapshot = self._load(change.publish(**updates), self._snapshot)

    def view(self) -> Self:
        """This index as it is now, and stays: for several calls that must be of one moment, such as rows and texts."""
        return copy(self)

    def verify(self) -> None:
        """Read every byte of what is on the disk now.

        Raises:
            CorruptError, FormatError: a file is not as it was written; the message names it.
            StorageError: it was changed each time that it was being read.
        """
        open_whole(self.path, MANIFEST, lambda: verify_files(self.path), same=_are_of_one_index)

    def refuse_replaced(self, seen: Snapshot[S]) -> None:
        """Raise StorageError if what is here now is another index than the one of a snapshot."""
        if self._snapshot.manifest.uid != seen.manifest.uid:
            raise StorageError(
                f"{self.path} was replaced by another index meanwhile; look at it, and repeat."
            )

    def memory(self) -> MappedMemory | None:
        """How much of its files is mapped and in memory; None where the system does not tell."""
        return MappedMemory.of(self.path)

    @property
    def documents(self) -> DocumentSet:
        """Ids, titles, texts and metadata columns."""
        return self._snapshot.documents

    @property
    def encoder(self) -> EncoderInfo | None:
        """What made the vectors, if the builder said so."""
        return self._snapshot.manifest.encoder

    @property
    def uid(self) -> str:
        """What tells this index from another that takes its place."""
        return self._snapshot.manifest.uid

    @property
    def generation(self) -> int:
        """How often the index was changed; a receipt says which generation has its change."""
        return self._snapshot.manifest.generation

    @property
    def sources(self) -> dict[str, str]:
        """Files that `update` was told of, and their state then."""
        return dict(self._snapshot.manifest.sources)

    @property
    def n_documents(self) -> int:
        """Number of documents, without deleted ones."""
        return self._snapshot.manifest.n_documents

    @property
    def n_rows(self) -> int:
        """Number of rows, those of deleted documents included."""
        return int(self._snapshot.starts[-1])

    @property
    def n_segments(self) -> int:
        """Number of segments."""
        return len(self._snapshot.segments)

    def __len__(self) -> int:
        return self.n_documents

    def insertion_numbers(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """When a document came, counted over all that ever did; a document keeps its number for good.

        Args:
            rows: rows of this snapshot; -1 stays -1.
        """
        return self.documents.numbers_of(rows)

    # -- changing

    def add(
        self, vectors: Any, *, documents: Source | None = None, encoder: EncoderInfo | None = None
    ) -> Receipt:
        """Add documents after those that are there; all of them or, if there is an error, none.

        Args:
            vectors: theirs, in the form that `build` takes; with ids, unless `documents` has them.
            documents: titles, texts and metadata in the order of the vectors. Columns may be missing, or be new.
            encoder: what made the vectors; refused if it is not what made the index.

        Raises:
            RecordError: an id is there already, or documents and vectors do not fit each other, or the index.
            MismatchError: the vectors are over another vocabulary, or of another encoder.
            BusyError: another writer does not end.
            StorageError: the index was replaced, or the disk fails; what was acknowledged is there.
        """
        return self._put(vectors, documents, encoder, may_replace=False)

    def update(
        self,
        vectors: Any,
        *,
        documents: Source | None = None,
        encoder: EncoderInfo | None = None,
        source: tuple[str, str] | None = None,
        delete: Iterable[str] = (),
    ) -> Receipt:
        """Add documents, each in the place of the one that has its id, if there is one; else as `add` does.

        By the same change, even if there are no documents to add, `source`, a name and a state, is put into `sources`,
        and those of `delete` that were there before are taken out.
        """
        gone = checked_ids(delete)
        return self._put(vectors, documents, encoder, may_replace=True, source=source, gone=gone)

    def delete(self, ids: Iterable[str], *, missing: bool = False) -> Receipt:
        """Take documents out; all of them or, if there is an error, none.

        Args:
            ids: which.
            missing: whether some may not be there.

        Raises:
            NotFoundError: an id is not there.
            BusyError: another writer does not end.
            StorageError: the index was replaced, or the disk fails; what was acknowledged is there.
        """
        names = checked_ids(ids)
        with self._changing() as change:
            rows = self.documents.rows_of(names)
            if not missing and (rows < 0).any():
                absent = names[int(np.argmax(rows < 0))]
                raise NotFoundError(
                    f"there is no document {absent!r}, so none was deleted; leave it out, or pass missing=True."
                )
            receipt = self._take_out(change, rows)
        self._merge_if_due()
        return receipt

    def _keep_curve(
        self, seen: Snapshot[S], curve: tuple[OperatingPoint, ...], n_queries: int, n_rows: int
    ) -> None:
        """Publish the curve of a segment of `n_rows` of a snapshot, whatever else has changed since.

        Raises:
            StorageError: the index was replaced by another meanwhile.
        """
        with self._changing(seen) as change:
            self._publish(change, curve=curve, calibrated_on=n_queries, calibrated_rows=n_rows)

    def _put(
        self,
        vectors: Any,
        documents: Source | None,
        encoder: EncoderInfo | None,
        *,
        may_replace: bool,
        source: tuple[str, str] | None = None,
        gone: Sequence[str] = (),
    ) -> Receipt:
        seen = self._snapshot  # what the checks rest on, though another thread may move on meanwhile
        rows = self._rows_to_put(vectors, documents, encoder)
        return self._put_rows(rows, documents, seen, may_replace=may_replace, source=source, gone=gone)

    def _rows_to_put(self, vectors: Any, documents: Source | None, encoder: EncoderInfo | None) -> R:
        if encoder is not None and self.encoder is not None and encoder != self.encoder:
            raise MismatchError(
                f"the vectors are of {encoder.name} ({encoder.fingerprint}), and the index of {self.encoder.name} "
                f"({self.encoder.fingerprint}); encode with that one, or build an index anew."
            )
        rows = self._rows(vectors)
        if rows.ids is None and documents is None and rows.n_rows:
            raise RecordError(
                "the vectors have no ids; name them, as rows of an index that changes have no numbers."
            )
        return rows

    def _put_rows(
        self,
        rows: R,
        documents: Source | None,
        seen: Snapshot[S] | None = None,
        *,
        may_replace: bool,
        numbers: NDArray[np.int64] | None = None,
        source: tuple[str, str] | None = None,
        gone: Sequence[str] = (),
    ) -> Receipt:
        """Add rows that were checked against `seen`, and take documents out.

        A shard is told their insertion numbers, ascending and beyond all that it has.
        """
        with self._changing(seen) as change:
            folder = change.new_folder()
            disk().mkdir(folder)
            write_documents(folder / DOCUMENTS, documents, rows.ids, rows.n_rows, kinds=self.documents.kinds)
            sources: dict[str, Any] = (
                {} if source is None else {"sources": change.manifest.sources | dict([source])}
            )
            if rows.n_rows == 0:
                disk().remove(folder)
                return self._take_out(change, self.documents.rows_of(gone), **sources)
            added = Documents(folder / DOCUMENTS, rows.n_rows)
            self.documents.refuse_other_types(added)
            replaced = self.documents.rows_of(added.ids.to_pylist())
            if not may_replace:
                refuse_known(added.ids, replaced)
            first, last = change.first_number, change.first_number + rows.n_rows - 1
            if numbers is not None:
                if numbers[0] < first:
                    raise StorageError(f"{self.path} was changed by itself, and not as a shard; build anew.")
                first, last = int(numbers[0]), int(numbers[-1])
            gaps = numbers is not None and write_numbers(folder, numbers)
            data = self._write(folder, rows, change.manifest)
            record = SegmentRecord(
                folder=folder.name, n_rows=rows.n_rows, first_number=first, gaps=gaps, data=data
            )
            change.append(record, last + 1)
            rows_out = np.concatenate([replaced, self.documents.rows_of(gone)])
            receipt = self._take_out(change, rows_out, n_added=rows.n_rows, **sources)
        self._merge_if_due()
        return receipt

    def _take_out(self, change: Change, rows: NDArray[np.int64], n_added: int = 0, **updates: Any) -> Receipt:
        """Mark rows as deleted, and publish the change if there is any."""
        snapshot = self._snapshot
        rows = np.unique(rows[rows >= 0])
        for place, record in enumerate(snapshot.manifest.segments):
            mine = rows[(rows >= snapshot.starts[place]) & (rows < snapshot.starts[place + 1])]
            if len(mine):
                deleted = ~snapshot.parts[place].present
                deleted[mine - snapshot.starts[place]] = True
                change.delete(record.folder, deleted)
        if len(rows) or n_added or updates:
            self._publish(change, **updates)
        return Receipt(self.generation, n_added, len(rows))

    @contextmanager
    def _changing(self, seen: Snapshot[S] | None = None) -> Iterator[Change]:
        """Be the one that changes the index, and see it as it is now.

        Args:
            seen: what the change rests on; what is seen now unless given.

        Raises:
            StorageError: the index was replaced by another since.
        """
        seen = seen or self._snapshot
        with write_lock(self.path, self.lock_timeout_s) as lock, failing_cleanly(self.path):
            self.refresh()
            self.refuse_replaced(seen)
            remove_orphans(self.path, self._snapshot.manifest)  # of a writer that died
            yield Change(self.path, self._snapshot.manifest, lock)

    def merge(self, max_segments: int | None = None, *, policy: MergePolicy | None = None) -> int:
        """Make fewer segments of those that are there, and leave deleted documents behind.

        Scores do not change, unless segments had scales of their own.

        Args:
            max_segments: how many may remain, none with deleted documents; None merges what the policy finds due.
            policy: what is due.

        Returns:
            How many merges there were.

        Raises:
            BusyError: another is merging.
            StorageError: the disk fails; the index is as it was.
        """
        from gossamer.index.merging import merge_all, merge_due

        if max_segments is None:
            return merge_due(self, policy)
        if max_segments < 1:
            raise InputError(f"max_segments is {max_segments}; give at least 1.")
        return merge_all(self, max_segments)

    def _merge_if_due(self) -> None:
        """What changed is on the disk, so an error here is none of the change; the next one tries again."""
        from gossamer.index.merging import merge_due

        if not self.merges_itself:
            return
        try:
            merge_due(self)
        except Exception as error:
            _LOG.warning("%s was changed, but merging it failed: %s", self.path, error)

    def _load(self, manifest: Manifest, before: Snapshot[S] | None) -> Snapshot[S]:
        """Map what a manifest names."""
        if manifest.index.kind != self.kind:
            raise FormatError(f"{self.path} is of the kind {manifest.index.kind!r}, not {self.kind!r}.")
        return load_snapshot(self.path, manifest, self._map, before)


def _are_of_one_index(before: bytes, after: bytes) -> bool:
    """Whether two manifests are of one index: then the files that the first names were never written to."""
    try:
        uids = [json.loads(data)["uid"] for data in (before, after)]
    except (ValueError, KeyError, TypeError):
        return False
    return bool(uids[0] == uids[1])
