"""`ShardedIndex`: several indexes of one kind that are searched in parallel and used as one.

A document is in the shard that its id says, so that changes know where to go. All shards store weights on one scale,
and documents are numbered through all of them as they come; so hits, scores and ties are those of one index with all
documents. That holds bit for bit while no weight comes that is larger than those of the build; one that is larger gets
its segment a coarser scale, as in any index, and which segments are merged with it differs from shard to shard.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from gossamer.index.commits import is_lock_of, storage_errors, write_lock
from gossamer.index.disk import disk
from gossamer.index.document_files import Source
from gossamer.index.document_set import DocumentSet
from gossamer.index.filters import Filters
from gossamer.index.folders import draft_folder
from gossamer.index.format import SHARDS, EncoderInfo, is_index
from gossamer.index.hits import Hits
from gossamer.index.info import ShardedInfo
from gossamer.index.open import index_class
from gossamer.index.segmented import ATTEMPTS, Receipt, identity_of, of_one_moment, refuse_known
from gossamer.index.shard_changes import (
    SPOOL,
    Shard,
    additions,
    begin_shard,
    change_all,
    spool_in,
    spooled_documents,
)
from gossamer.index.shard_search import Moment, hits_of, in_parallel, merged, threads_for
from gossamer.index.shards import MOST_SHARDS, ShardsManifest, Splittable, refuse_strays, shard_path
from gossamer.kernels.errors import ConfigError, InputError, NotFoundError, StorageError

if TYPE_CHECKING:
    from gossamer.index.merging import MergePolicy


class ShardedIndex:
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
        self.path = path
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
        made_of = _splittable(kind)
        settings = ShardsManifest(kind=kind, n_shards=n_shards)
        with (
            draft_folder(Path(path), replace=replace, replaceable=is_index) as draft,
            spool_in(draft) as spool,
        ):
            rows = made_of._look_through(vectors)
            begun = made_of._begin(rows, config, encoder)
            shards = [begin_shard(made_of, shard_path(draft, shard), begun) for shard in range(n_shards)]
            added = spooled_documents(spool, documents, rows)
            tasks = additions(rows, added, shards, settings, 0, spool)
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
        return of_one_moment(path, lambda: cls(path), SHARDS)

    def _open_shards(self) -> None:
        self._identity = identity_of(self.path, SHARDS)
        self._manifest = ShardsManifest.read(self.path)
        kind = _splittable(self._manifest.kind)
        self._shards = [kind.open(shard_path(self.path, shard)) for shard in range(self._manifest.n_shards)]
        for shard in self._shards:
            shard.merges_itself = False
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
            if identity_of(self.path, SHARDS) != self._identity:  # another was built in its place
                of_one_moment(self.path, self._open_shards, SHARDS)
            try:
                news = [shard.refresh() for shard in self._shards]
                if not any(news):
                    break
            except (StorageError, NotFoundError, OSError):
                if identity_of(self.path, SHARDS) == self._identity:
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
        """
        manifest = ShardsManifest.read(self.path)
        for number in range(manifest.n_shards):
            shard = _splittable(manifest.kind).open(shard_path(self.path, number))
            shard.verify()
            refuse_strays(shard, number, manifest)

    # -- what there is

    @property
    def kind(self) -> str:
        """The kind of the shards."""
        return self._manifest.kind

    @property
    def shards(self) -> tuple[Shard, ...]:
        """The shards as they are now. Change none of them by itself."""
        return self._moment.shards

    @property
    def n_shards(self) -> int:
        """Number of shards."""
        return len(self._moment.shards)

    @property
    def documents(self) -> DocumentSet:
        """Ids, titles, texts and metadata columns; rows count through the shards."""
        return self._moment.documents

    @property
    def encoder(self) -> EncoderInfo | None:
        """What made the vectors, if the builder said so."""
        return self._moment.shards[0].encoder

    @property
    def generation(self) -> int:
        """How often shards were changed, all together; a receipt says which generation has its change."""
        return sum(manifest.generation for manifest in self._moment.manifests)

    @property
    def n_documents(self) -> int:
        """Number of documents, without deleted ones."""
        return sum(manifest.n_documents for manifest in self._moment.manifests)

    @property
    def n_terms(self) -> int:
        """Size of the vocabulary, for kinds that have one."""
        return int(_loose(self._moment.shards)[0].n_terms)

    @property
    def n_rows(self) -> int:
        """Number of rows, those of deleted documents included."""
        return int(self._moment.starts[-1])

    @property
    def n_segments(self) -> int:
        """Number of segments of all shards."""
        return sum(len(manifest.segments) for manifest in self._moment.manifests)

    def __len__(self) -> int:
        return self.n_documents

    def __repr__(self) -> str:
        return f"ShardedIndex({str(self.path)!r}, {self.n_documents:,} documents, {self.n_shards} {self.kind} shards)"

    def info(self) -> ShardedInfo:
        """Counts and sizes, and what each shard says about itself."""
        moment = self._moment
        return ShardedInfo.of(self.path, self.kind, [shard.info() for shard in _loose(moment.shards)])

    def insertion_numbers(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """When a document came, counted over all that ever did; a document keeps its number for good.

        Args:
            rows: rows of this index as it is now; -1 stays -1.
        """
        return self._moment.numbers(rows)

    # -- searching

    def search(
        self,
        queries: Any,
        k: int = 10,
        *,
        filters: Filters | None = None,
        allowed: NDArray[np.bool_] | Sequence[bool] | None = None,
        n_threads: int | None = None,
        **how: Any,
    ) -> Hits:
        """The k best documents for each query over all shards, as one index of all documents finds them.

        Args:
            queries: Q queries, in the form that `search` of the kind takes.
            k: width of the answer; may be more than there are documents.
            filters: an expression over ids and metadata columns; see `gossamer.index.filters`. Others are no hits.
            allowed: bool `[n_rows]`, as `documents.mask` makes it from filters; others are no hits.
            n_threads: threads, for shards first and, where there are more, inside of them; None takes all cores where
                there is enough to do for more than one. The answer does not depend on them.
            how: what else `search` of the kind takes, such as `recall=`, `effort=`, `rescore=`; each shard is told so,
                and finds its own operating point for a recall.

        Returns:
            Hits `[Q, k]`: score descending, then insertion number ascending. Rows count through the shards.

        Raises:
            What `search` of the kind does.
        """
        moment = self._moment
        threads = threads_for(len(queries) * moment.starts[-1], n_threads)
        mask = None if allowed is None else np.asarray(allowed)
        if mask is not None and (mask.dtype != np.bool_ or mask.shape != (moment.starts[-1],)):
            raise InputError(
                f"allowed is {mask.dtype} of {mask.shape}; expected bool of ({moment.starts[-1]},), one a row."
            )
        if filters:
            passing = moment.documents.mask(filters)
            mask = passing if mask is None else passing & mask
        inside = max(1, threads // len(moment.shards))
        tasks = []
        for place, shard in enumerate(moment.shards):
            rows = slice(moment.starts[place], moment.starts[place + 1])
            own = {**how, "allowed": None if mask is None else mask[rows], "n_threads": inside}
            tasks.append(partial(hits_of, shard, queries, k, own))
        best = merged(in_parallel(tasks, threads), moment.starts, k)
        return Hits(best.rows, best.scores, moment.documents.row_ids)

    def explain(self, query: Any, row: int) -> Any:
        """What each part of a query gave to a document's score; as `explain` of the kind."""
        return self.explain_rows(query, [row])[0]

    def explain_rows(self, query: Any, rows: Sequence[int]) -> list[Any]:
        """`explain` for several documents, in the order of `rows`; cheaper than one by one."""
        moment = self._moment
        for row in rows:
            if not 0 <= row < moment.starts[-1]:
                raise InputError(f"row {row} is outside 0..{moment.starts[-1] - 1}.")
        numbers = np.asarray(rows, np.int64)
        places = np.searchsorted(moment.starts, numbers, side="right") - 1
        explained: list[Any] = [None] * len(numbers)
        for place, shard in enumerate(_loose(moment.shards)):
            mine = np.flatnonzero(places == place)
            if len(mine):
                local = (numbers[mine] - moment.starts[place]).tolist()
                for at, parts in zip(mine.tolist(), shard.explain_rows(query, local), strict=True):
                    explained[at] = parts
        return explained

    def calibrate(self, queries: Any = None) -> None:
        """Measure recall and time of efforts in every shard that has documents; see `InvertedIndex.calibrate`."""
        with self._mine:
            for shard in _loose(self._shards):
                if shard.n_segments:
                    shard.calibrate(queries)
            self._moment = Moment.of(self._shards)

    # -- changing

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
            StorageError: another writer does not end, or the disk fails; the message says what is in, if anything.
        """
        return self._put(vectors, documents, encoder, may_replace=False)

    def update(
        self, vectors: Any, *, documents: Source | None = None, encoder: EncoderInfo | None = None
    ) -> Receipt:
        """Add documents, each in the place of the one that has its id, if there is one; else as `add` does."""
        return self._put(vectors, documents, encoder, may_replace=True)

    def delete(self, ids: Sequence[str], *, missing: bool = False) -> Receipt:
        """Take documents out.

        Args:
            ids: which.
            missing: whether some may not be there.

        Raises:
            NotFoundError: an id is not there; then none is deleted.
            StorageError: another writer does not end, or the disk fails; the message says what is out, if anything.
        """
        if isinstance(ids, str):
            raise InputError(f"ids is the string {ids!r}; give a list of ids.")
        names = list(ids)
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
        """Make fewer segments of those that are there, and leave deleted documents behind. Scores do not change.

        Args:
            max_segments: how many may remain in each shard, none with deleted documents; None merges what the policy
                finds due.
            policy: what is due in a shard.

        Returns:
            How many merges there were.

        Raises:
            StorageError: another is merging, or the disk fails; shards are as they were, or merged.
        """
        return self._merge(self._shards, max_segments, policy)

    def _merge(self, shards: Sequence[Shard], max_segments: int | None, policy: MergePolicy | None) -> int:
        try:
            return sum([shard.merge(max_segments, policy=policy) for shard in shards])
        finally:
            with self._mine:
                self._moment = Moment.of(self._shards)

    def _merged_if_due(self, receipt: Receipt, shards: Mapping[int, object]) -> Receipt:
        if self.merges_itself:
            self._merge([self._shards[shard] for shard in shards], None, None)
        return receipt

    def _put(
        self, vectors: Any, documents: Source | None, encoder: EncoderInfo | None, *, may_replace: bool
    ) -> Receipt:
        before = self._shards
        rows = before[0]._rows_to_put(vectors, documents, encoder)
        if rows.n_rows == 0:
            return Receipt(self.generation)
        with self._changing(), spool_in(self.path) as spool:
            if self._shards is not before:  # replaced, perhaps by shards that these vectors do not fit
                rows = self._shards[0]._rows_to_put(vectors, documents, encoder)
            added = spooled_documents(spool, documents, rows)
            self.documents.refuse_other_types(added)
            if not may_replace:
                refuse_known(added.ids, self.documents.rows_of(added.ids.to_pylist()))
            first = max(shard.next_number for shard in self._shards)
            tasks = additions(
                rows, added, self._shards, self._manifest, first, spool, may_replace=may_replace
            )
            shards = self._manifest.shards_of(added.ids)
            names = {shard: added.ids.filter(shards == shard) for shard in tasks}
            receipt = change_all(self.path, self._shards, tasks, names)
        return self._merged_if_due(receipt, tasks)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Be the one that changes the index, and see it as it is now; others see what is done when it is."""
        with write_lock(self.path, self.lock_timeout_s) as lock, storage_errors(self.path), self._mine:
            if not is_lock_of(lock, self.path):
                raise StorageError(f"{self.path} was replaced while it was to be changed; repeat.")
            for left in self.path.glob(f"{SPOOL}*"):  # by a writer that died
                disk().remove(left)
            self._look()
            for shard in self._shards:
                shard.lock_timeout_s = self.lock_timeout_s
            try:
                yield
            finally:
                self._moment = Moment.of(self._shards)


def _splittable(kind: str) -> type[Shard]:
    found = index_class(kind)
    if not issubclass(found, Splittable):
        raise ConfigError(f"an index of the kind {kind!r} cannot be split into shards; build it whole.")
    return found


def _loose(shards: Sequence[Shard]) -> Sequence[Any]:
    """Shards, of which is asked what only some kinds can do."""
    return shards
