"""An index that follows a folder: what is put there is taken in, a file a change, by the ids of its rows.

Which files were taken in, and what they were then (name, size, time), stands in the index's manifest, and is written by
the change that takes in the rows: so a process that is killed has done both or neither, and no file is forgotten or
taken in again. A file that is written anew replaces documents by their ids; one that is deleted takes none out.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gossamer.index.exchange.files import VectorFile
from gossamer.index.format import EncoderInfo
from gossamer.index.impacts import ImpactScale
from gossamer.index.input_shards import InputShard, list_files, locate, shards_of
from gossamer.index.inverted import BuildConfig, InvertedIndex
from gossamer.index.inverted_files import Rows
from gossamer.index.segmented import Receipt
from gossamer.index.vectors import SparseVectors
from gossamer.kernels.errors import FormatError, GossamerError, NotFoundError, StorageError


@dataclass(frozen=True)
class Seen:
    """What became of a file.

    Attributes:
        name: of the file.
        receipt: of the change, if it was taken in.
        error: why it was not; it is looked at again when it has changed. None for one that is not complete yet.
    """

    name: str
    receipt: Receipt | None = None
    error: GossamerError | None = None

    def __str__(self) -> str:
        if self.receipt is not None:
            return f"{self.receipt.n_added:,} documents, {self.receipt.n_deleted:,} of them in the place of others"
        return "not complete yet" if self.error is None else f"left out: {self.error}"


class Watch:
    """Takes in what a folder has that its index has not.

    Args:
        path: the index; made from the first file if there is none.
        folder: where Parquet files of vectors with ids are put: a path, a URI, or with `filesystem` a path in it.
        filesystem: a `pyarrow.fs.FileSystem` or an fsspec filesystem.
        config: how an index is made where there is none.
        encoder: what makes the vectors.
    """

    def __init__(
        self,
        path: str | Path,
        folder: str | Path,
        *,
        filesystem: Any = None,
        config: BuildConfig | None = None,
        encoder: EncoderInfo | None = None,
    ) -> None:
        self._path, self._source = Path(path), folder
        self._filesystem, self._folder = locate(folder, filesystem)
        self._config, self._encoder = config or BuildConfig(), encoder
        self._index = InvertedIndex.open(path) if self._path.exists() else None
        self._left: dict[str, str] = {}

    @property
    def n_documents(self) -> int:
        """Documents in the index."""
        return 0 if self._index is None else self._index.n_documents

    def look(self) -> Iterator[Seen]:
        """Take in new and changed files in the order of their names; yields one after its change is on the disk.

        A file without a footer is taken for one that is being written, and left for later. One that cannot be read or
        does not fit is left out until it changes. Both are yielded once.

        Raises:
            StorageError: the index cannot be changed.
        """
        try:
            infos = list_files(self._source, self._filesystem, self._folder)
        except NotFoundError:
            return  # nothing yet
        for info in infos:
            state = f"{info.size} {info.mtime_ns}"
            taken = {} if self._index is None else self._index.sources
            if state in (taken.get(info.base_name), self._left.get(info.base_name)):
                continue
            seen = self._take_in(info, state)
            if seen.receipt is None:
                self._left[info.base_name] = state
            yield seen

    def _take_in(self, info: Any, state: str) -> Seen:
        name = info.base_name
        try:
            shards = shards_of(self._filesystem, info)
        except NotFoundError as error:
            return Seen(name, error=error)
        except FormatError as error:
            return Seen(name, error=None if _is_growing(self._filesystem, info) else error)
        try:
            receipt = self._opened(shards).update(
                _file_of(shards), encoder=self._encoder, source=(name, state)
            )
        except StorageError as error:
            if not isinstance(error, FormatError):
                raise
            return Seen(name, error=error)
        except GossamerError as error:
            return Seen(name, error=error)
        return Seen(name, receipt)

    def _opened(self, shards: list[InputShard]) -> InvertedIndex:
        """The index; one without documents, for vectors like these, if there is none yet."""
        if self._index is None:
            survey = Rows.of(_file_of(shards)).survey
            kind = ImpactScale.choose(
                self._config.impacts, largest=survey.largest, negative=survey.negative
            ).kind
            config = self._config.model_copy(update={"impacts": kind})
            none = SparseVectors.from_dicts([], survey.n_cols)
            self._index = InvertedIndex.build(self._path, none, config=config, encoder=self._encoder)
        return self._index


def _file_of(shards: list[InputShard]) -> VectorFile:
    def stream(batch_rows: int = 8_192) -> Iterator[SparseVectors]:
        for shard in shards:
            yield from shard.stream(batch_rows)

    return VectorFile(Path(shards[0].path), "parquet", stream)


def _is_growing(filesystem: Any, info: Any) -> bool:
    """Whether a file does not end as Parquet does: someone is writing it, or did not get to its end."""
    with filesystem.open_input_file(info.path) as file:
        size = file.size()
        file.seek(max(size - 4, 0))
        return bool(size != info.size or file.read(4) != b"PAR1")


def until_stopped(watch: Watch, *, every_s: float, once: bool = False) -> Iterator[Seen]:
    """Look again and again until SIGINT or SIGTERM; a file that is being taken in then is finished.

    Args:
        watch: what looks.
        every_s: between two looks.
        once: whether one look is enough.
    """
    with _signalled() as stopped:
        while not stopped.is_set():
            for seen in watch.look():
                yield seen
                if stopped.is_set():
                    return
            if once:
                return
            stopped.wait(every_s)


@contextmanager
def _signalled() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set, instead of what they do; in the main thread, as signals go there."""
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return
    kinds = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(kind, lambda *_: stopped.set()) for kind in kinds]
    try:
        yield stopped
    finally:
        for kind, handler in zip(kinds, before, strict=True):
            signal.signal(kind, handler)
