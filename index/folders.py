"""A folder that appears whole or not at all.

It is written as a hidden draft beside its place, flushed to the disk, and renamed. A draft is locked (`flock`) by the
process that writes it, so a lock which can be had means a dead owner, and the next build removes such drafts. Folders
are exchanged, and half-done exchanges repaired, under a lock file that lives as long as that takes: the old folder is
put aside for the moment of two renames, and a process that dies between them leaves it to the next open or build to be
put back.
"""

from __future__ import annotations

import fcntl
import math
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from gossamer.index.disk import disk, sync_tree
from gossamer.index.locks import hold, release
from gossamer.kernels.errors import ExistsError, NotFoundError, StorageError

T = TypeVar("T")
_ATTEMPTS = 5


@contextmanager
def draft_folder(
    target: Path,
    *,
    replace: bool,
    replaceable: Callable[[Path], bool],
    unchanging: Callable[[Path], AbstractContextManager[None]] | None = None,
) -> Iterator[Path]:
    """A draft to write into, that takes its place at `target` when the block ends without an error.

    Whatever happens, `target` is afterwards as before or complete. A crash between the two renames of a replacement
    leaves the old folder aside; `recover` puts it back.

    Args:
        target: where the folder shall be; an empty folder there counts as nothing.
        replace: whether it may take the place of another.
        replaceable: whether a folder is of the kind that may be replaced, so that a wrong path deletes nothing.
        unchanging: what lets nobody change the folder that is replaced while that is done.

    Raises:
        ExistsError: there is something at `target`, and it may not be replaced.
    """
    target = Path(os.path.realpath(target))
    _make_parents(target)
    recover(target)
    check = partial(_refuse_taken, target, replace=replace, replaceable=replaceable)
    with exclusively(target):
        check()
        if target.exists():  # what a dead process had put aside has been replaced for good
            for aside in _siblings(target, "old"):
                disk().remove(aside)
    for stale in _siblings(target, "draft"):
        remove_if_ownerless(stale)
    draft, handle = locked_draft(partial(_sibling, target, "draft"))
    try:
        yield draft
        sync_tree(draft)
        with unchanging(target) if unchanging else nullcontext(), exclusively(target):
            check()  # another may have appeared meanwhile
            outgoing = _exchange(draft, target)
        disk().remove(outgoing)
    finally:
        disk().remove(draft)  # gone already where all went well
        release(handle)


def _make_parents(target: Path) -> None:
    """Make the folders above, durably."""
    missing = [folder for folder in target.parents if not folder.exists()]
    if missing:
        disk().mkdir(target.parent, parents=True)
        for folder in missing:
            disk().sync(folder.parent)


def locked_draft(new: Callable[[], Path]) -> tuple[Path, int]:
    """A new folder and the handle that holds its lock, so that nobody takes it for one of a dead process.

    Args:
        new: names one.
    """
    while True:
        draft = new()
        disk().mkdir(draft)
        try:
            handle = locked(draft)
        except FileNotFoundError:
            continue
        if draft.exists():  # else another took it for a dead one's before it was locked
            return draft, handle
        release(handle)


def recover(target: Path) -> None:
    """If `target` is missing because a replacement died half-way, put the old folder back.

    While the replacing process lives, this waits for it: the gap is that of two renames.
    """
    target = Path(os.path.realpath(target))
    if target.exists() or not _siblings(target, "old"):
        return
    with exclusively(target):
        asides = _siblings(target, "old")
        if asides and not target.exists():
            disk().rename(asides[0], target)


def open_whole(
    target: Path,
    manifest: str,
    open_: Callable[[], T],
    same: Callable[[bytes, bytes], bool] | None = None,
) -> T:
    """Open an index so that all of it is of one: anew, if it changed while it was opened.

    Args:
        target: its folder.
        manifest: the name of the file in it that no other index shares.
        open_: opens it; what it raises counts if the folder was not changed meanwhile.
        same: of two manifests, whether what was opened between them is of one all the same; never by default.

    Raises:
        StorageError: it was replaced each time.
    """
    before = identity(target, manifest)
    for _ in range(_ATTEMPTS):
        try:
            opened = open_()
            failure = None
        except (StorageError, NotFoundError, OSError) as error:
            failure = error
        after = identity(target, manifest)
        if after == before and failure is not None:
            raise failure
        if failure is None and (after == before or (same and before and after and same(before[1], after[1]))):
            return opened
        before = after  # changed while it was opened, so what is mapped may be of both
    raise StorageError(f"{target} was changed again and again while it was opened; try later.")


def identity(target: Path, manifest: str) -> tuple[int, bytes] | None:
    """What tells the index at a path from one that takes its place; None where there is none."""
    recover(target)
    path = target / manifest
    try:
        return path.stat().st_ino, path.read_bytes()
    except OSError:
        return None


def _exchange(draft: Path, target: Path) -> Path:
    """Move the draft to its place; where the folder that stood there is now, as a draft that anybody may remove."""
    aside, outgoing = _sibling(target, "old"), _sibling(target, "draft")
    with suppress(FileNotFoundError):
        disk().rename(target, aside)
    try:
        disk().rename(draft, target)
    except BaseException:
        with suppress(FileNotFoundError):
            disk().rename(aside, target)
        raise
    disk().sync(
        target.parent
    )  # or a power cut could keep the next renaming and not the last: then neither is there
    with suppress(FileNotFoundError):
        disk().rename(aside, outgoing)  # no one puts that back, not even half-deleted
    disk().sync(target.parent)
    return outgoing


def _refuse_taken(target: Path, *, replace: bool, replaceable: Callable[[Path], bool]) -> None:
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not replace:
        raise ExistsError(f"{target} exists; allow its replacement (replace=True, or --replace).")
    if not target.is_dir() or not replaceable(target):
        raise ExistsError(
            f"{target} holds something of another kind, so it is not replaced; remove it or choose another path."
        )


def _sibling(target: Path, role: str) -> Path:
    return target.with_name(f".{target.name}.{role}-{secrets.token_hex(6)}")


def _siblings(target: Path, role: str) -> list[Path]:
    prefix = f".{target.name}.{role}-"
    if not target.parent.is_dir():
        return []
    return sorted(path for path in target.parent.iterdir() if path.name.startswith(prefix))


@contextmanager
def exclusively(target: Path) -> Iterator[None]:
    """Hold the lock of a place; its file is beside it, and there only meanwhile."""
    target = Path(os.path.realpath(target))
    path = target.with_name(f".{target.name}.lock")
    with hold(path, math.inf, ""):
        try:
            yield
        finally:  # before it is let go, so that nobody gets the lock of a file that is gone
            path.unlink(missing_ok=True)


@contextmanager
def _lock(folder: Path, *, wait: bool = True) -> Iterator[int]:
    """Hold a folder's lock; it follows the folder through renames and ends with its process."""
    handle = locked(folder, wait=wait)
    try:
        yield handle
    finally:
        release(handle)


def locked(folder: Path, *, wait: bool = True) -> int:
    """The handle that holds a folder's lock; closing it lets go."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BaseException:
        os.close(handle)
        raise
    return handle


def remove_if_ownerless(folder: Path) -> None:
    """Remove a locked draft if the process that held its lock is dead."""
    try:
        with _lock(folder, wait=False):
            disk().remove(folder)
    except (BlockingIOError, FileNotFoundError):
        pass  # its owner lives, or was faster
