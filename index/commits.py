"""From one manifest of an index to the next: who may write, what a change consists of, and when it counts.

A change writes new files beside those that are there, flushes them, and then replaces the manifest: that is the moment
from which it counts, and it returns only when that is on the disk, too. Files that no manifest names any more are
removed afterwards, and so are those of a writer that died. Nothing that a reader has mapped is ever written to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.index.arrays import ArrayWriter
from gossamer.index.disk import disk, replace_file, sync_tree
from gossamer.index.folders import exclusively, remove_if_ownerless
from gossamer.index.format import Manifest, SegmentRecord
from gossamer.index.locks import hold, is_at
from gossamer.index.manifests import MANIFEST, SHARDS, record_file, record_files
from gossamer.kernels.errors import GossamerError, StorageError

SEGMENTS = "segments"
MERGE_DRAFT = "merge-"
_WRITE_LOCK = "write.lock"
_MERGE_LOCK = "merge.lock"
_REPLACE_TIMEOUT_S = 30.0


class Change:
    """A change of an index, made by the one process that holds its lock.

    Args:
        path: the index.
        manifest: what it is before.
        lock: the handle of the lock.
    """

    def __init__(self, path: Path, manifest: Manifest, lock: int) -> None:
        self._path, self._lock = path, lock
        self.manifest = manifest
        self._segments = list(manifest.segments)
        self._next_number = manifest.next_number
        self._folders_used = 0

    def new_folder(self) -> Path:
        """Where the next segment goes; not made yet."""
        number = self.manifest.next_segment + self._folders_used
        self._folders_used += 1
        return self._path / SEGMENTS / segment_name(number)

    @property
    def first_number(self) -> int:
        """The insertion number of the next document."""
        return self._next_number

    def append(self, record: SegmentRecord, next_number: int) -> None:
        """Add a segment of new documents after the others; the next of them has an insertion number of its own."""
        self._segments.append(record)
        self._next_number = next_number

    def replace(self, folders: Sequence[str], records: Sequence[SegmentRecord]) -> None:
        """Let segments take the place of adjacent ones, some of which may be gone already."""
        places = [place for place, segment in enumerate(self._segments) if segment.folder in folders]
        if places:
            self._segments[places[0] : places[-1] + 1] = records

    def delete(self, folder: str, deleted: NDArray[np.bool_]) -> None:
        """Say which documents of a segment are deleted, bool `[n_rows]`; a segment without any others goes."""
        place = next(place for place, segment in enumerate(self._segments) if segment.folder == folder)
        if deleted.all():
            del self._segments[place]
            return
        name = deletions_name(self.manifest.generation + 1)
        write_deletions(self._path / SEGMENTS / folder / name, deleted)
        disk().sync(self._path / SEGMENTS / folder / name)
        disk().sync(self._path / SEGMENTS / folder)
        self._segments[place] = self._segments[place].model_copy(
            update={"deletions": name, "n_deleted": int(deleted.sum())}
        )

    def publish(self, **updates: Any) -> Manifest:
        """Make the change count; it is on the disk when this returns.

        Args:
            updates: attributes of the manifest that change, too.

        Raises:
            StorageError: the index was replaced by another one meanwhile.
        """
        before = {record.folder: record for record in self.manifest.segments}
        files = _kept(self.manifest.files, self._segments)
        for record in self._segments:
            folder = self._path / SEGMENTS / record.folder
            if record.folder not in before:
                sync_tree(folder)
                files |= record_files(folder, self._path)
            elif record.deletions is not None and record != before[record.folder]:
                name = f"{SEGMENTS}/{record.folder}/{record.deletions}"
                files[name] = record_file(folder / record.deletions)
        if self._folders_used:
            disk().sync(self._path / SEGMENTS)
        manifest = self.manifest.model_copy(
            update={
                "generation": self.manifest.generation + 1,
                "next_number": self.first_number,
                "next_segment": self.manifest.next_segment + self._folders_used,
                "segments": tuple(self._segments),
                "files": files,
                **updates,
            }
        )
        with exclusively(self._path):
            if not is_at(self._lock, self._path / _WRITE_LOCK):
                raise StorageError(
                    f"{self._path} was replaced while it was changed; open it again, and repeat."
                )
            replace_file(self._path / MANIFEST, manifest.to_bytes())
        with suppress(OSError):  # the change counts; the next one removes what is left
            remove_orphans(self._path, manifest)
        return manifest


def segment_name(number: int) -> str:
    """The folder of a segment under `segments/`."""
    return f"{number:06d}"


def deletions_name(generation: int) -> str:
    """The file of a segment that says what was deleted from it up to a change."""
    return f"deleted-{generation}.npy"


def write_deletions(path: Path, deleted: NDArray[np.bool_]) -> None:
    """Write a bit for each row."""
    with ArrayWriter(path, np.uint8) as array:
        array.append(np.packbits(deleted))


def write_lock(path: Path, timeout_s: float) -> AbstractContextManager[int]:
    """Hold the lock of who changes an index.

    Raises:
        BusyError: another held it for all of `timeout_s`.
        StorageError: the folder cannot be written.
    """
    refusal = f"another writer has held {path} for {timeout_s:g} s; an index has one at a time. Try later."
    return hold(path / _WRITE_LOCK, timeout_s, refusal)


def merge_lock(path: Path, timeout_s: float = 0.0) -> AbstractContextManager[int]:
    """Hold the lock of who merges an index.

    Raises:
        BusyError: another held it for all of `timeout_s`.
        StorageError: the folder cannot be written.
    """
    return hold(path / _MERGE_LOCK, timeout_s, f"{path} is being merged already; wait for that to end.")


@contextmanager
def unchanging(path: Path) -> Iterator[None]:
    """Let nobody change or merge what is at a path, if it is an index, as it is about to be replaced.

    Raises:
        BusyError: others do not end.
    """
    with ExitStack() as stack:
        if (path / MANIFEST).exists() or (path / SHARDS).exists():
            stack.enter_context(merge_lock(path, _REPLACE_TIMEOUT_S))
            stack.enter_context(write_lock(path, _REPLACE_TIMEOUT_S))
        yield


def remove_orphans(path: Path, manifest: Manifest) -> None:
    """Remove what no manifest names: of changes that failed or died, and what this one replaced."""
    records = {record.folder: record for record in manifest.segments}
    disk().remove(path / f".{MANIFEST}.draft")
    with suppress(FileNotFoundError):
        for entry in list((path / SEGMENTS).iterdir()):
            if entry.name.startswith(MERGE_DRAFT):
                remove_if_ownerless(entry)
            elif entry.name not in records:
                disk().remove(entry)
            else:
                for file in entry.glob("deleted-*.npy"):
                    if file.name != records[entry.name].deletions:
                        disk().remove(file)


@contextmanager
def failing_cleanly(path: Path) -> Iterator[None]:
    """For who holds the write lock: if the block fails, what it has left is removed.

    Raises:
        StorageError: instead of an OSError.
    """
    with storage_errors(path):
        try:
            yield
        except BaseException:
            with suppress(GossamerError, OSError):
                remove_orphans(path, Manifest.read(path))  # whichever counts now
            raise


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Make a full or broken disk an error of ours.

    Raises:
        StorageError: instead of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{path} could not be changed: {error}. No change that was acknowledged is lost; this one may or may not "
            "count, so open the index again and look."
        ) from error


def _kept(files: Mapping[str, Any], records: Sequence[SegmentRecord]) -> dict[str, Any]:
    """The entries of what is still named."""
    by_folder = {record.folder: record for record in records}
    kept = {}
    for name, entry in files.items():
        _, folder, rest = name.split("/", 2)
        if folder in by_folder and (not rest.startswith("deleted-") or rest == by_folder[folder].deletions):
            kept[name] = entry
    return kept
