"""`ShardedIndex`: several indexes of one kind that are searched in parallel and used as one.

A document is in the shard that its id says, so that changes know where to go. All shards store weights on one scale,
and documents are numbered through all of them as they come; so hits, scores and ties are those of one index with all
documents, bit for bit. Only merges can tell them apart, as which segments are merged differs from shard to shard: once
there are several scales, because a weight came that is larger than those of the build, or far smaller ones did; and
where one index would take a finer scale, after its largest weights are gone: shards keep the one that they share.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from gossamer.index.commits import merge_lock, storage_errors, unchanging, write_lock
from gossamer.index.creation import is_index
from gossamer.index.disk import disk
from gossamer.index.document_files import Source
from gossamer.index.document_set import checked_ids, refuse_known
from gossamer.index.folders import draft_folder, identity, open_whole
from gossamer.index.format import EncoderInfo
from gossamer.index.manifests import SHARDS
from gossamer.index.open import splittable
from gossamer.index.segmented import ATTEMPTS, Receipt
from gossamer.index.shard_changes import (
    SPOOL,
    Shard,
    additions,
    begin_shard,
    change_all,
    spool_in,
    spooled_documents,
)
from gossamer.index.shard_search import Moment
from gossamer.index.shards import (
    MOST_SHARDS,
    ShardsManifest,
    open_shard,
    refuse_strangers,
    refuse_strays,
    shard_path,
)
from gossamer.index.shards_in_use import ShardsInUse, loose
from gossamer.kernels.errors import BusyError, ConfigError, InputError, NotFoundError, StorageError

if TYPE_CHECKING:
    from gossamer.index.merging import MergePolicy

_LOG = logging.getLogger(__name__)


class ShardedIndex(ShardsInUse):
    """Shards in a folder, as one index. Safe to share among threads; one process or thread changes it at a time.

    A change is all or nothing in each shard, but not over all of them: who opens the folder while it is being made may
    see it in some. This object shows it once all have it. If some shards fail, the error says which documents are in.

    Attributes:
        path: the folder.
        lock_timeout_s: how long a change waits for another writer.
        merges_itself: whether a change merges what is due afterwards.
    """

    lock_timeout_s: float = 30.0

    def __init__(self, path: Path) -> None:
        self.path = Path(os.path.abspath(path))  # a link is followed anew each time
        self.merges_itself = True
        self._mine = threading.RLock()  # held by the thread that changes what this object shows
        self._open_shards()

    # -- making and opening

    @classmethod
    def build(
        cls,
        path: str | Path,
        vectors: Any,
        *,
        n_shards: int,
        kind: str = "inverted",
        documents: Source | None = None,
        config: Any = None,
        encoder: EncoderInfo | None = None,
        replace: bool = False,
        on_rows: Callable[[int, int], None] | None = None,
    ) -> ShardedIndex:
        """Write shards and open them; they appear at `path` all or none.

        They are written one after the other, each as one index is. Before that, what comes in a stream is put into a
        file for each shard beside them: the documents, and the vectors if there are many. So these are read as often
        as for one index, memory is that of the largest shard and all ids, and the disk holds them once more meanwhile.

        Args:
            path: the folder to make.
            vectors: the documents' vectors, in the form that `build` of the kind takes.
            n_shards: how many shards, at most 1,000; it stays so.
            kind: of the shards, such as "inverted".
            documents: titles, texts and metadata in the order of the vectors; see `write_documents`.
            config: that of the kind, such as `BuildConfig`.
            encoder: what made the vectors.
            replace: whether an index that is there already may be replaced.
            on_rows: called after each shard with the rows done and the rows in all.

        Raises:
            ExistsError: there is something at `path`, and it may not be replaced.
            ConfigError: there is no such kind, or it cannot be split; or `n_shards` is out of range.
            VectorError, RecordError: the input cannot be indexed; the message names the row.
        """
        if not 1 <= n_shards <= MOST_SHARDS:
            raise ConfigError(f"n_shards is {n_shards}; it is 1 to {MOST_SHARDS:,}.")
        made_of = splittable(kind)
        with (
            draft_folder(Path(path), replace=replace, replaceable=is_index, unchanging=unchanging) as draft,
            spool_in(draft) as spool,
        ):
            rows = made_of._look_through(vectors)
            begun = made_of._begin(rows, config, encoder)
            settings = ShardsManifest(uid=begun.uid, kind=kind, n_shards=n_shards)
            shards = [begin_shard(made_of, shard_path(draft, shard), begun) for shard in range(n_shards)]
            added = spooled_documents(spool, documents, rows)
            tasks = additions(rows, added, shards=shards, manifest=settings, first_number=0, spool=spool)
            done = 0
            for add in tasks.values():
                done += add().n_added
                if on_rows is not None:
                    on_rows(done, rows.n_rows)
            with disk().create(draft / SHARDS) as file:
                file.write(settings.to_bytes())
        index = cls.open(path)
        for shard in index._shards:
            shard._after_build()
        index._look()
        return index

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Map all shards; milliseconds each.

        Raises:
            NotFoundError: there is no folder.
            FormatError: it is no sharded index, a shard is missing or truncated, or it is from a newer version.
            CorruptError: a manifest was altered.
            StorageError: it was replaced each time that it was being opened.
        """
        path = Path(path)
        return open_whole(path, SHARDS, lambda: cls(path))

    def _open_shards(self) -> None:
        self._identity = identity(self.path, SHARDS)
        self._manifest = ShardsManifest.read(self.path)
        kind = splittable(self._manifest.kind)
        self._shards = [open_shard(kind, self.path, shard) for shard in range(self._manifest.n_shards)]
        refuse_strangers(self._shards, self._manifest)
        self._moment = Moment.of(self._shards)

    def refresh(self) -> bool:
        """See what others have changed since; searches that are running stay on what they began with.

        Does nothing while another thread changes this object, which then shows that anyway.

        Returns:
            Whether there was anything to see.

        Raises:
            As `open` does.
        """
        if not self._mine.acquire(blocking=False):
            return False
        try:
            return self._look()
        finally:
            self._mine.release()

    def _look(self) -> bool:
        """See all shards as they were at one moment: two looks at all of them found the same."""
        before = self._moment.manifests
        for _ in range(ATTEMPTS):
            if identity(self.path, SHARDS) != self._identity:  # another was built in its place
                open_whole(self.path, SHARDS, self._open_shards)
            try:
                news = [shard.refresh() for shard in self._shards]
                refuse_strangers(self._shards, self._manifest)
                if not any(news):
                    break
            except (StorageError, NotFoundError, OSError):
                if identity(self.path, SHARDS) == self._identity:
                    raise
        self._moment = Moment.of(self._shards)
        return self._moment.manifests != before

    def view(self) -> Self:
        """This index as it is now, and stays: for several calls that must be of one moment, such as rows and texts."""
        return copy(self)

    def verify(self) -> None:
        """Read every byte of every shard.

        Raises:
            CorruptError, FormatError: a file is not as it was written, or a document not in its shard; the message
                names it.
            StorageError: it was changed each time that it was being read.
        """
        open_whole(self.path, SHARDS, self._verify)

    def _verify(self) -> None:
        manifest = ShardsManifest.read(self.path)
        for number in range(manifest.n_shards):
            shard = open_shard(splittable(manifest.kind), self.path, number)
            shard.verify()
            refuse_strangers([shard], manifest)
            refuse_strays(shard, number, manifest)

    # -- changing

    def calibrate(self, queries: Any = None) -> None:
        """Measure recall and time of efforts in every shard that has documents; see `InvertedIndex.calibrate`.

        Nobody merges meanwhile.

        Raises:
            InputError: there are no documents or no queries, or the shards have no bounds or no forward index.
            BusyError: another is merging, and does not end.
            StorageError: the index was replaced by another since it was opened.
        """
        seen = self._manifest.uid
        with merge_lock(self.path, self.lock_timeout_s):
            shards = self._shards_of(seen)
            if not any(shard.n_segments for shard in shards):
                raise InputError(f"{self.path} has no documents to calibrate on; add some.")
            try:
                for shard in loose(shards):
                    if shard.n_segments:
                        shard.calibrate(queries)
            finally:
                self._show(shards)

    def _shards_of(self, seen: str) -> Sequence[Shard]:
        """The shards as they are now, of the index that was seen."""
        with self._mine:
            self._look()
            self._refuse_replaced(seen)
            return self._shards

    def _show(self, shards: Sequence[Shard]) -> None:
        with self._mine:
            if self._shards is shards:
                self._moment = Moment.of(shards)

    def _refuse_replaced(self, seen: str) -> None:
        """Raise StorageError if what is here now is another index than that of a uid."""
        if self._manifest.uid != seen:
            raise StorageError(
                f"{self.path} was replaced by another index meanwhile; look at it, and repeat."
            )

    def add(
        self, vectors: Any, *, documents: Source | None = None, encoder: EncoderInfo | None = None
    ) -> Receipt:
        """Add documents after those that are there.

        Args:
            vectors: theirs, in the form that `build` takes; with ids, unless `documents` has them.
            documents: titles, texts and metadata in the order of the vectors. Columns may be missing, or be new.
            encoder: what made the vectors; refused if it is not what made the index.

        Raises:
            RecordError: an id is there already, or documents and vectors do not fit each other, or the index.
            MismatchError: the vectors are over another vocabulary, or of another encoder.
            BusyError: another writer does not end.
            StorageError: the index was replaced, or the disk fails; the message says what is in, if anything.
        """
        return self._put(vectors, documents, encoder, may_replace=False)

    def update(
        self, vectors: Any, *, documents: Source | None = None, encoder: EncoderInfo | None = None
    ) -> Receipt:
        """Add documents, each in the place of the one that has its id, if there is one; else as `add` does."""
        return self._put(vectors, documents, encoder, may_replace=True)

    def delete(self, ids: Iterable[str], *, missing: bool = False) -> Receipt:
        """Take documents out.

        Args:
            ids: which.
            missing: whether some may not be there.

        Raises:
            NotFoundError: an id is not there; then none is deleted.
            BusyError: another writer does not end.
            StorageError: the index was replaced, or the disk fails; the message says what is out, if anything.
        """
        names = checked_ids(ids)
        with self._changing():
            there = self.documents.rows_of(names) >= 0
            if not missing and not there.all():
                absent = names[int(np.argmin(there))]
                raise NotFoundError(
                    f"there is no document {absent!r}, so none was deleted; leave it out, or pass missing=True."
                )
            by_shard: dict[int, list[str]] = {}
            for name, shard, is_there in zip(
                names, self._manifest.shards_of(names).tolist(), there, strict=True
            ):
                if is_there:
                    by_shard.setdefault(shard, []).append(name)
            receipt = change_all(
                self.path,
                self._shards,
                {
                    shard: partial(self._shards[shard].delete, some, missing=True)
                    for shard, some in by_shard.items()
                },
                by_shard,
            )
        return self._merged_if_due(receipt, by_shard)

    def merge(self, max_segments: int | None = None, *, policy: MergePolicy | None = None) -> int:
        """Make fewer segments of those that are there, and leave deleted documents behind.

        Scores do not change, unless segments had scales of their own.

        Args:
            max_segments: how many may remain in each shard, none with deleted documents; None merges what the policy
                finds due.
            policy: what is due in a shard.

        Returns:
            How many merges there were.

        Raises:
            BusyError: another is merging.
            StorageError: the disk fails; shards are as they were, or merged.
        """
        try:
            return self._merge(max_segments, policy)
        except BusyError:
            if max_segments is None:
                return 0
            raise

    def _merge(
        self, max_segments: int | None, policy: MergePolicy | None, some: Iterable[int] | None = None
    ) -> int:
        seen = self._manifest.uid
        with merge_lock(self.path):
            shards = self._shards_of(seen)
            places = range(len(shards)) if some is None else some
            try:
                return sum([shards[place].merge(max_segments, policy=policy) for place in places])
            finally:
                self._show(shards)

    def _merged_if_due(self, receipt: Receipt, shards: Mapping[int, object]) -> Receipt:
        """What changed is on the disk, so an error here is none of the change; the next one tries again."""
        if self.merges_itself:
            try:
                self._merge(None, None, shards)
            except BusyError:
                pass
            except Exception as error:
                _LOG.warning("%s was changed, but merging it failed: %s", self.path, error)
        return receipt

    def _put(
        self, vectors: Any, documents: Source | None, encoder: EncoderInfo | None, *, may_replace: bool
    ) -> Receipt:
        seen = self._moment.shards[0]  # what the checks rest on, though another thread may move on meanwhile
        rows = seen._rows_to_put(vectors, documents, encoder)
        with self._changing(seen._snapshot.manifest.uid), spool_in(self.path) as spool:
            added = spooled_documents(spool, documents, rows, self.documents.kinds)
            if rows.n_rows == 0:
                return Receipt(self.generation)
            self.documents.refuse_other_types(added)
            if not may_replace:
                refuse_known(added.ids, self.documents.rows_of(added.ids.to_pylist()))
            first = max(shard.next_number for shard in self._shards)
            tasks = additions(
                rows,
                added,
                shards=self._shards,
                manifest=self._manifest,
                first_number=first,
                spool=spool,
                may_replace=may_replace,
            )
            shards = self._manifest.shards_of(added.ids)
            names = {shard: added.ids.filter(shards == shard) for shard in tasks}
            receipt = change_all(self.path, self._shards, tasks, names)
        return self._merged_if_due(receipt, tasks)

    @contextmanager
    def _changing(self, seen: str | None = None) -> Iterator[None]:
        """Be the one that changes the index, and see it as it is now; others see what is done when it is.

        Args:
            seen: uid of what the change rests on; what is seen now unless given.

        Raises:
            StorageError: the index was replaced by another since.
        """
        seen = seen or self._manifest.uid
        with write_lock(self.path, self.lock_timeout_s), storage_errors(self.path), self._mine:
            for left in self.path.glob(f"{SPOOL}*"):  # by a writer that died
                disk().remove(left)
            self._look()
            self._refuse_replaced(seen)
            for shard in self._shards:
                shard.lock_timeout_s = self.lock_timeout_s
            try:
                yield
            finally:
                self._moment = Moment.of(self._shards)
