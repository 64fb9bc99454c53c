"""A file that appears whole or not at all: written under a hidden name beside its place, flushed, renamed."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gossamer.kernels.errors import ExistsError


@contextmanager
def draft_file(target: Path, *, replace: bool) -> Iterator[Path]:
    """Where to write what takes its place at `target` when the block ends without an error.

    Args:
        target: where the file shall be; its folder is made.
        replace: whether it may take the place of another file.

    Raises:
        ExistsError: there is something at `target`, and it may not be replaced.
    """
    target = Path(os.path.realpath(target))
    refuse_taken(target, replace=replace)
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.{secrets.token_hex(6)}")
    try:
        yield draft
        _sync(draft)
        refuse_taken(target, replace=replace)  # another may have appeared meanwhile
        draft.replace(target)
        _sync(target.parent)
    finally:
        draft.unlink(missing_ok=True)


def refuse_taken(target: Path, *, replace: bool) -> None:
    """Raise unless a file may be put at `target`.

    Raises:
        ExistsError: see there.
    """
    if target.is_dir():
        raise ExistsError(f"{target} is a folder, so no file is put in its place; choose another path.")
    if target.exists() and not replace:
        raise ExistsError(f"{target} exists; allow its replacement (replace=True, or --replace).")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
