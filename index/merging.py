"""Merging: few segments instead of many, without the documents that were deleted.

Segments fall into levels by their size, each `factor` times as large as the one below. `factor` neighbours of a level
or below are merged into one, as in log-structured merge trees (O'Neil et al., 1996), if the largest of them gains
enough by it: so a large segment is not written again for each few small ones beside it, and sizes that are mixed do not
leave many segments, each of which costs a search its fixed part. Only neighbours are merged, which keeps rows in the
order of insertion. A merge does not hold the index's write lock while it writes: documents may come and go meanwhile,
and those of its segments that were deleted by then are deleted from what it made.
"""

from __future__ import annotations

import logging
import math
import secrets
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from gossamer.index.commits import (
    MERGE_DRAFT,
    SEGMENTS,
    Change,
    deletions_name,
    failing_cleanly,
    merge_lock,
    storage_errors,
    write_deletions,
    write_lock,
)
from gossamer.index.disk import disk, sync_tree
from gossamer.index.document_files import write_documents
from gossamer.index.folders import locked_draft
from gossamer.index.format import SegmentRecord
from gossamer.index.locks import release
from gossamer.index.segmented import SegmentedIndex
from gossamer.index.snapshots import DOCUMENTS, Snapshot, write_numbers
from gossamer.kernels.errors import BusyError

_LOG = logging.getLogger(__name__)
_POLL_S = 1.0


class MergePolicy(BaseModel):
    """When segments are merged.

    Attributes:
        factor: neighbouring segments of about one size that make one.
        smallest: documents; all segments of fewer count as of one size.
        growth: share of the largest segment of a merge that the others must have together, but in the lowest level.
        largest: documents; a segment of more is merged no further.
        most_deleted: share of deleted documents beyond which a segment is written anew without them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    factor: int = Field(default=8, ge=2)
    smallest: int = Field(default=128, ge=1)
    growth: float = Field(default=0.25, ge=0)
    largest: int = Field(default=8_000_000, ge=1)
    most_deleted: float = Field(default=0.25, gt=0, le=1)

    def due(self, records: Sequence[SegmentRecord]) -> tuple[int, int] | None:
        """Which segments should be merged now, as the places of the first and behind the last; None if none should."""
        levels = [self._level(record) for record in records]
        for level in sorted(set(levels) - {math.inf}):
            for first, last in _runs([own <= level for own in levels]):
                sizes = [record.n_documents for record in records[first:last]]
                grows = level == 0 or sum(sizes) >= (1 + self.growth) * max(sizes)
                if len(sizes) >= self.factor and grows:
                    return first, last
        for place, record in enumerate(records):
            if record.n_deleted > self.most_deleted * record.n_rows:
                return place, place + 1
        return None

    def _level(self, record: SegmentRecord) -> float:
        if record.n_documents > self.largest:
            return math.inf
        level, bound = 0, self.smallest
        while record.n_documents >= bound:
            level, bound = level + 1, bound * self.factor
        return level


def _runs(chosen: Sequence[bool]) -> Iterator[tuple[int, int]]:
    first = None
    for place, is_chosen in enumerate([*chosen, False]):
        if is_chosen and first is None:
            first = place
        elif not is_chosen and first is not None:
            yield first, place
            first = None


def merge_due(index: SegmentedIndex[Any, Any], policy: MergePolicy | None = None) -> int:
    """Merge until nothing is due; does nothing where another process or thread is merging.

    Returns:
        How many merges there were.
    """
    policy, count = policy or MergePolicy(), 0
    while (span := policy.due(index._snapshot.manifest.segments)) is not None:
        try:
            with merge_lock(index.path):
                index.refresh()
                span = policy.due(index._snapshot.manifest.segments)
                if span is not None:
                    _merge(index, *span)
                    count += 1
        except BusyError:
            return count
    return count


def merge_all(index: SegmentedIndex[Any, Any], max_segments: int = 1) -> int:
    """Merge neighbours, smallest together first, until there are at most so many, and no deleted documents in them.

    Raises:
        BusyError: another process is merging.
    """
    count = 0
    while True:
        with merge_lock(index.path):
            index.refresh()
            records = index._snapshot.manifest.segments
            span = _smallest_span(records, max_segments)
            if span is None:
                return count
            _merge(index, *span)
            count += 1


def _smallest_span(records: Sequence[SegmentRecord], max_segments: int) -> tuple[int, int] | None:
    """The neighbours whose merging leaves `max_segments`, and has the least to write; or one with deleted documents."""
    excess = len(records) - max_segments
    if excess > 0:
        sizes = np.concatenate([[0], np.cumsum([record.n_documents for record in records])])
        first = int(np.argmin(sizes[excess + 1 :] - sizes[: -excess - 1]))
        return first, first + excess + 1
    return next(((place, place + 1) for place, record in enumerate(records) if record.n_deleted), None)


def _merge(index: SegmentedIndex[Any, Any], first: int, last: int) -> None:
    """Write the live documents of some segments as one, and put it in their place."""
    snapshot, places = index._snapshot, range(first, last)
    with storage_errors(index.path):
        draft, handle = locked_draft(lambda: index.path / SEGMENTS / f"{MERGE_DRAFT}{secrets.token_hex(6)}")
        try:
            record, updates = _write(index, snapshot, places, draft)
            with write_lock(index.path, math.inf) as lock, failing_cleanly(index.path):
                index.refresh()
                index.refuse_replaced(snapshot)
                change = Change(index.path, index._snapshot.manifest, lock)
                sources = [segment.folder for segment in snapshot.manifest.segments[first:last]]
                deleted = _deleted_since(index, snapshot, places)
                change.replace(sources, _placed(change, draft, record, deleted))
                index._publish(change, **updates)
        finally:
            disk().remove(draft)
            release(handle)


def _placed(
    change: Change, draft: Path, record: SegmentRecord | None, deleted: NDArray[np.bool_]
) -> list[SegmentRecord]:
    """Move what was merged to its place, with what was deleted from it meanwhile; nothing if that is all."""
    if record is None or deleted.all():
        return []
    folder = change.new_folder()
    record = record.model_copy(update={"folder": folder.name})
    if deleted.any():
        name = deletions_name(change.manifest.generation + 1)
        write_deletions(draft / name, deleted)
        record = record.model_copy(update={"deletions": name, "n_deleted": int(deleted.sum())})
    disk().rename(draft, folder)
    return [record]


def _write(
    index: SegmentedIndex[Any, Any], snapshot: Snapshot[Any], places: range, draft: Path
) -> tuple[SegmentRecord | None, dict[str, Any]]:
    """Write a segment of the live rows; None if there are none. And what changes in the manifest with it."""
    rows = index._merged_rows(places, snapshot)
    if rows.n_rows == 0:
        return None, {}
    write_documents(draft / DOCUMENTS, snapshot.documents.batches(places), rows.ids, rows.n_rows)
    numbers = np.concatenate(
        [snapshot.parts[place].numbers_of(np.flatnonzero(snapshot.parts[place].present)) for place in places]
    )
    gaps = write_numbers(draft, numbers)
    data = index._write(draft, rows, snapshot.manifest)
    record = SegmentRecord(
        folder=draft.name, n_rows=rows.n_rows, first_number=int(numbers[0]), gaps=gaps, data=data
    )
    updates = index._curve_of_merged(draft, record, snapshot) if _outgrows(record, places, snapshot) else {}
    sync_tree(draft)
    return record, updates


def _outgrows(record: SegmentRecord, places: range, snapshot: Snapshot[Any]) -> bool:
    """Whether a merged segment is the largest, and much larger than the one that the curve was measured on."""
    manifest = snapshot.manifest
    others = (own.n_rows for place, own in enumerate(manifest.segments) if place not in places)
    is_new = manifest.curve is None or record.n_rows > 1.5 * manifest.calibrated_rows
    return is_new and record.n_rows >= max(others, default=0)


def _deleted_since(
    index: SegmentedIndex[Any, Any], snapshot: Snapshot[Any], places: range
) -> NDArray[np.bool_]:
    """Of the rows that were live in a snapshot, which are not any more, bool `[n_merged]`."""
    now = {record.folder: place for place, record in enumerate(index._snapshot.manifest.segments)}
    deleted = []
    for place in places:
        then = snapshot.parts[place].present
        folder = snapshot.manifest.segments[place].folder
        still = index._snapshot.parts[now[folder]].present if folder in now else np.zeros(len(then), np.bool_)
        deleted.append(~still[then])
    return np.concatenate(deleted)


class Mergeable(Protocol):
    """What can be merged in the background."""

    path: Path
    merges_itself: bool

    def merge(self, max_segments: int | None = None, *, policy: MergePolicy | None = None) -> int:
        """Merge what is due; how many merges there were."""


class BackgroundMerger:
    """Merges an index in a thread of its own while the block runs, instead of at the end of changes.

    Args:
        index: the index; its changes wait for no merge meanwhile.
        policy: when segments are merged.

    Attributes:
        n_merges: how many merges there were.
        failure: the last error, which is logged, too; merging goes on.
    """

    def __init__(self, index: Mergeable, policy: MergePolicy | None = None) -> None:
        self._index, self._policy = index, policy or MergePolicy()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"merge {index.path.name}", daemon=True)
        self.n_merges = 0
        self.failure: Exception | None = None

    def __enter__(self) -> BackgroundMerger:
        self._index.merges_itself = False
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()  # a merge that is under way is finished
        self._index.merges_itself = True

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self.n_merges += self._index.merge(policy=self._policy)
            except Exception as error:
                if str(error) != str(self.failure):
                    _LOG.warning("merging %s failed: %s", self._index.path, error)
                self.failure = error
            self._stopped.wait(_POLL_S)
