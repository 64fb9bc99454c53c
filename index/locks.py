"""Locks of the system (`flock`): who may change a place. They end with the process that holds them.

A lock is a file, and counts only while it is the one at its path: who waited for that of a folder which was replaced
meanwhile waits again, for the new one. A child that is forked while a lock is held does not keep it: it is let go
before it is closed. This wants `flock`: Linux or macOS.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gossamer.kernels.errors import BusyError, StorageError

_POLL_S = 0.002


@contextmanager
def hold(path: Path, timeout_s: float, refusal: str) -> Iterator[int]:
    """Hold the lock of a file, which is made if it is not there; the handle.

    Args:
        path: the file.
        timeout_s: how long to wait; may be infinite.
        refusal: what the error says if another holds it for longer.

    Raises:
        BusyError: another holds it.
        StorageError: the file cannot be made.
    """
    handle = _acquire(path, time.monotonic() + timeout_s, refusal)
    try:
        yield handle
    finally:
        release(handle)


def is_at(handle: int, path: Path) -> bool:
    """Whether an open file is still the one at a path."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def release(handle: int) -> None:
    """Let a lock go, also for children that share the handle, and close it."""
    fcntl.flock(handle, fcntl.LOCK_UN)
    os.close(handle)


def _acquire(path: Path, until: float, refusal: str) -> int:
    while True:
        try:
            handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
        except OSError as error:
            raise StorageError(f"{path.parent} cannot be changed: {error}.") from error
        try:
            while not (got := _got(handle)) and time.monotonic() < until:
                time.sleep(_POLL_S)
        except BaseException:
            os.close(handle)
            raise
        if got and is_at(handle, path):
            return handle
        os.close(handle)
        if not got:
            raise BusyError(refusal)


def _got(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
