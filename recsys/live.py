"""`LiveInteractions`: what users took since the training, on the disk before it is acknowledged.

    with LiveInteractions.open("live", create=True) as live:
        live.append([("user 1", "item 7")])
        recommender.recommend(user="user 1", live=live)

One writer, which is the first to append and stays so until it is closed; others read, and `refresh`. Threads that wait
for the disk go into one write. All is in memory, too: one entry for each user and item. What came is rewritten as a
history a user when it has grown as large as these, so the files are at most about twice their size; after a training on
the exported clicks, `forget` drops these.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pyarrow as pa

from gossamer.kernels.errors import (
    CorruptError,
    FormatError,
    GossamerError,
    InputError,
    NotFoundError,
    StorageError,
)
from gossamer.recsys.clicks import Click, checked_clicks
from gossamer.recsys.interactions import Interactions
from gossamer.recsys.live_files import ABOUT, FORMAT, VERSION, Histories, Listing
from gossamer.recsys.live_writer import LiveWriter, create_folder

_COMPACT_BYTES = 4 << 20
_MOST_FILES = 64  # every writer begins one


class LiveInteractions:
    """New clicks of users, in a folder; safe to share among threads. Make one with `open`.

    Attributes:
        path: the folder.
        lock_timeout_s: how long the first `append` waits for another writer to end.
    """

    lock_timeout_s: float = 5.0

    def __init__(self, path: Path, compact_bytes: int) -> None:
        self.path = path
        self._compact_bytes = self._due_bytes = compact_bytes
        self._files = threading.Lock()  # of reading and writing files
        self._memory = threading.Lock()  # of the histories, held for moments only
        self._histories = Histories.load(self.path)
        self._waiting: list[_Write] = []
        self._writer: LiveWriter | None = None

    @classmethod
    def open(
        cls, path: str | Path, *, create: bool = False, compact_bytes: int = _COMPACT_BYTES
    ) -> LiveInteractions:
        """Opens a folder of clicks.

        Args:
            path: the folder.
            create: make one if it is not there.
            compact_bytes: fewest bytes of new clicks for which histories are written.

        Raises:
            NotFoundError: if there is none.
            FormatError: if it is something else, or from a newer version.
            CorruptError: if clicks are damaged or missing; an end that was never acknowledged is neither.
        """
        path = Path(path)
        if not (path / ABOUT).is_file():
            if not create:
                raise NotFoundError(f"there are no clicks at {path}; check the path, or pass create=True.")
            create_folder(path)
        try:
            about = json.loads((path / ABOUT).read_bytes())
            known = about["format"] == FORMAT and about["version"] <= VERSION
        except (ValueError, KeyError, TypeError):
            known = False
        if not known:
            raise FormatError(
                f"{path / ABOUT} is not of a folder of clicks that this gossamer reads (up to version {VERSION}); "
                "update it, or choose another folder."
            )
        return cls(path, compact_bytes)

    # -- reading

    @property
    def position(self) -> int:
        """How many clicks there were so far, as far as is known here; that of a click is what `append` returned."""
        return self._histories.position

    def items_of(self, user: str) -> list[str]:
        """The items that a user clicked, the last one at the end; empty for an unknown user."""
        with self._memory:
            return list(self._histories.users.get(user, ()))

    def reached(self, position: int) -> bool:
        """Whether the click at a position is known here; looks into the files if it is not yet."""
        return self.position >= position or (self.refresh() and self.position >= position)

    def refresh(self) -> bool:
        """Reads what another process has written since; whether there was something.

        Raises:
            CorruptError: files are damaged.
        """
        with self._files:
            if self._writer is not None:
                return False
            before = self._histories
            upto, position = before.upto, before.position
            listing = Listing.of(self.path)
            try:
                if listing.upto != upto:
                    raise FileNotFoundError  # noqa: TRY301  # what was read has been rewritten
                found = before.read_on(listing)
                with self._memory:
                    before.apply(*found)
            except (FileNotFoundError, CorruptError):  # or what was not acknowledged has been taken back
                loaded = Histories.load(self.path)
                with self._memory:
                    self._histories = loaded
            return (self._histories.upto, self._histories.position) != (upto, position)

    def interactions(self) -> Interactions:
        """All clicks as a log with times, the last of each user on each item, in the order they came."""
        with self._memory:
            rows = [
                (kept.position, user, item, kept.time)
                for user, items in self._histories.users.items()
                for item, kept in items.items()
            ]
        rows.sort()
        columns = {
            "user": pa.array([row[1] for row in rows], pa.string()),
            "item": pa.array([row[2] for row in rows], pa.string()),
            "time": pa.array([row[3] for row in rows], pa.float64()),
        }
        return Interactions.from_table(pa.table(columns))

    def __repr__(self) -> str:
        return f"LiveInteractions({str(self.path)!r}, {self.position:,} clicks)"

    # -- writing

    def append(self, clicks: Iterable[Sequence[str | float | None]]) -> int:
        """Adds clicks, all or none; they are on the disk when this returns.

        Args:
            clicks: `(user, item)` or `(user, item, time)`; ids need not be known to any recommender. The time is now,
                in seconds since 1970, where none is given; give it in the unit of the log that you train on.

        Returns:
            The position of the last of them.

        Raises:
            RecordError: if a click cannot be read; the message says which.
            BusyError: if another writes to this folder.
            StorageError: if the disk fails; after a crash these clicks may then be there or not.
        """
        write = _Write(checked_clicks(clicks))
        if not write.clicks:
            return self.position
        with self._memory:
            self._waiting.append(write)
        with self._files:
            if not write.is_done:  # else another thread took it along
                with self._memory:
                    together, self._waiting = self._waiting, []
                self._write_together(together)
        if write.error is not None:
            raise write.error
        return write.position

    def compact(self) -> None:
        """Rewrites all clicks as a history for each user; appending does it when it is due.

        Raises:
            BusyError: if another writes to this folder.
            StorageError: if the disk fails; nothing is lost.
        """
        with self._files:
            self._rewrite(self._begun(), self._histories.upto[1])

    def forget(self, position: int) -> None:
        """Drops all clicks up to a position, as a training has read them; those that were repeated later stay.

        Raises:
            InputError: if there is no such position yet.
            BusyError: if another writes to this folder.
            StorageError: if the disk fails; the clicks are then there or not.
        """
        with self._files:
            writer = self._begun()
            if position > self.position:
                raise InputError(
                    f"position is {position}, and there are {self.position} clicks; give one of theirs."
                )
            self._rewrite(writer, max(position, self._histories.upto[1]))

    def close(self) -> None:
        """Lets others write."""
        with self._files:
            if self._writer is not None:
                self._writer.close()
                self._writer = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write_together(self, writes: list[_Write]) -> None:
        try:
            self._put([click for write in writes for click in write.clicks])
        except BaseException as failure:
            for write in writes:
                write.error = _as_ours(failure, self.path)
            raise
        else:
            position = self.position
            for write in reversed(writes):
                write.position = position
                position -= len(write.clicks)
        finally:
            for write in writes:
                write.is_done = True

    def _put(self, clicks: list[Click]) -> None:
        writer, histories = self._begun(), self._histories
        written = writer.put(clicks, histories)
        with self._memory:
            histories.apply(clicks, *written)
        if histories.n_bytes > self._due_bytes:
            self._due_bytes += self._compact_bytes
            with suppress(StorageError):  # the clicks are there all the same; later it is tried again
                self._rewrite(writer, histories.upto[1])

    def _begun(self) -> LiveWriter:
        """The writer, which becomes one if it is not yet."""
        if self._writer is None:
            writer = LiveWriter(self.path, self.lock_timeout_s)
            with self._memory:
                self._histories = writer.found
            self._writer = writer
            self._due_bytes = max(self._compact_bytes, writer.histories_bytes)
            if writer.n_files > _MOST_FILES:
                self._rewrite(writer, writer.found.upto[1])
        return self._writer

    def _rewrite(self, writer: LiveWriter, forgotten: int) -> None:
        before = self._histories
        after = Histories(before.without(forgotten), before.position, (before.position, forgotten))
        writer.rewrite(after.users, after.upto)
        with self._memory:
            self._histories = after
        self._due_bytes = max(self._compact_bytes, writer.histories_bytes)


@dataclass(eq=False)
class _Write:
    """Clicks of one `append`, and what became of them."""

    clicks: list[Click]
    position: int = 0
    error: GossamerError | None = None
    is_done: bool = False


def _as_ours(failure: BaseException, path: Path) -> GossamerError:
    """What the threads are told whose clicks another one wrote."""
    if isinstance(failure, GossamerError):
        return failure
    return StorageError(f"a write to {path} was broken off ({failure!r}); send the clicks again.")
