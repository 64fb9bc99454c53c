"""`LiveWriter`: the one that writes the files of `LiveInteractions`: which bytes are on the disk, in which order."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from gossamer.index.disk import disk, replace_file
from gossamer.index.locks import hold
from gossamer.kernels.errors import ExistsError, StorageError
from gossamer.recsys.clicks import Click
from gossamer.recsys.live_files import (
    ABOUT,
    FORMAT,
    VERSION,
    Histories,
    Kept,
    Listing,
    clicks_line,
    clicks_name,
    histories_lines,
    histories_name,
)

_LOCK = "write.lock"


class LiveWriter:
    """Holds the lock of a folder of clicks, and leaves whole files only.

    Args:
        path: the folder.
        timeout_s: how long to wait for another writer.

    Attributes:
        found: what the files had when the lock was got.
        n_files: of clicks, then.
        histories_bytes: size of the file of histories.

    Raises:
        BusyError: another writes.
        CorruptError: files are damaged.
        StorageError: the disk fails.
    """

    def __init__(self, path: Path, timeout_s: float) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._unsealed: tuple[Path, int] | None = None
        refusal = f"another writes to {path}, and clicks have one writer at a time; send them to that one."
        with ExitStack() as stack:
            stack.enter_context(hold(path / _LOCK, timeout_s, refusal))
            self.found = Histories.load(path)
            with self._failing():
                disk().sync(path)  # before files are removed that what was found replaces
                listing = Listing.of(path)
                for stale in listing.stale:
                    disk().remove(stale)
                for first, last in listing.clicks[-1:]:
                    self._seal(last, self.found.offset if self.found.file == first else 0)
                self.histories_bytes = listing.histories.stat().st_size if listing.histories else 0
            self.n_files = len(listing.clicks)
            self._lock = stack.pop_all()

    def put(self, clicks: list[Click], after: Histories) -> tuple[int, int, int]:
        """Write clicks as one line, durably; `file`, `offset` and `n_bytes` of the histories with them.

        Args:
            clicks: what is written.
            after: what was written before.

        Raises:
            StorageError: the disk fails. What there is of the line is taken back with the next write.
        """
        first = after.position + 1
        line = clicks_line(first, clicks)
        with self._failing():
            if self._unsealed is not None:
                self._seal(*self._unsealed)
            is_new = self._file is None
            file, n_written = (first, 0) if is_new else (after.file, after.offset)
            path = self._path / clicks_name(file)
            try:
                if self._file is None:
                    self._file = disk().create(path)
                self._file.write(line)
                self._file.flush()
                disk().sync(path)
                if is_new:
                    disk().sync(self._path)
            except BaseException:
                self._unsealed = path, n_written
                self.end_file()
                raise
        return file, n_written + len(line), after.n_bytes + len(line)

    def rewrite(self, users: dict[str, dict[str, Kept]], upto: tuple[int, int]) -> None:
        """Write histories in the place of all files.

        Raises:
            StorageError: the disk fails; all that was there counts, or all that is written.
        """
        self.end_file()
        data = b"".join(histories_lines(users, upto))
        with self._failing():
            replace_file(self._path / histories_name(upto), data)
        self._unsealed = None
        self.histories_bytes = len(data)
        with suppress(OSError):  # they count no more, and the next writer removes them
            for stale in Listing.of(self._path).stale:
                disk().remove(stale)

    def end_file(self) -> None:
        """Write the next clicks into another file."""
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):  # what has not been flushed was not acknowledged
                file.close()

    def close(self) -> None:
        """Take back what was not acknowledged, and let the lock go."""
        self.end_file()
        if self._unsealed is not None:
            with suppress(OSError):
                self._seal(*self._unsealed)
        self._lock.close()

    def _seal(self, path: Path, n_bytes: int) -> None:
        """Leave only the acknowledged bytes of a file that is written no more."""
        if n_bytes:
            replace_file(path, path.read_bytes()[:n_bytes])
        else:
            disk().remove(path)
        self._unsealed = None

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """Raises: StorageError: instead of an OSError."""
        try:
            yield
        except OSError as error:
            raise StorageError(
                f"{self._path} could not be written: {error}. No click that was acknowledged is lost; make room, or "
                "mend the disk, and send these again."
            ) from error


def create_folder(path: Path) -> None:
    """Make an empty folder of clicks, durably.

    Raises:
        ExistsError: there is something else.
    """
    there = {entry.name for entry in path.iterdir()} if path.exists() else set()
    if there - {f".{ABOUT}.draft"}:
        raise ExistsError(f"{path} holds something else; choose another folder for clicks.")
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    disk().mkdir(path, parents=True)
    for folder in missing:
        disk().sync(folder.parent)
    replace_file(path / ABOUT, json.dumps({"format": FORMAT, "version": VERSION}).encode())
