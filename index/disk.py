"""Every change that an index makes on the disk goes through here, so that tests can record, break and replay it.

A file is created and written, flushed with `sync`, and moved to its name; a folder's entries are on the disk once the
folder itself is flushed. `using` puts another `Disk` in the place of the operating system's.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

_FLUSHES_AT_ONCE = 8  # a journal commits them together


class Disk:
    """The operating system's."""

    def create(self, path: Path) -> BinaryIO:
        """A new file, open for writing; what is there is lost. What is mapped for writing is made so, too."""
        return path.open("wb")

    def mkdir(self, path: Path, *, parents: bool = False) -> None:
        """Make a folder; one that is there is an error, unless its parents may be made, too."""
        path.mkdir(parents=parents, exist_ok=parents)

    def rename(self, source: Path, target: Path) -> None:
        """Move a file or folder; a file at the target is replaced at once."""
        os.rename(source, target)

    def remove(self, path: Path) -> None:
        """Delete a file, or a folder with all that is in it; one that is not there is no error."""
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)

    def sync(self, path: Path) -> None:
        """Wait until a file's bytes, or a folder's entries, are on the disk."""
        handle = os.open(path, os.O_RDONLY)
        try:
            if hasattr(fcntl, "F_FULLFSYNC"):  # macOS: there fsync leaves bytes in the drive's own memory
                fcntl.fcntl(handle, fcntl.F_FULLFSYNC)
            else:
                os.fsync(handle)
        finally:
            os.close(handle)


_current: list[Disk] = [Disk()]


def disk() -> Disk:
    """What to write with now."""
    return _current[-1]


@contextmanager
def using(other: Disk) -> Iterator[None]:
    """Write with another disk until the block ends; for the whole process, so for tests."""
    _current.append(other)
    try:
        yield
    finally:
        _current.remove(other)


def sync_tree(folder: Path) -> None:
    """Flush every file and folder below, and the folder itself; not its own entry in its parent."""
    with ThreadPoolExecutor(_FLUSHES_AT_ONCE) as pool:
        list(pool.map(disk().sync, [*folder.rglob("*"), folder]))


def replace_file(path: Path, data: bytes) -> None:
    """Give a file these bytes, durably; a crash leaves the old ones or the new ones."""
    draft = path.with_name(f".{path.name}.draft")
    try:
        with disk().create(draft) as file:
            file.write(data)
        disk().sync(draft)
        disk().rename(draft, path)
    except BaseException:
        disk().remove(draft)
        raise
    disk().sync(path.parent)
