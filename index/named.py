"""Ids by which a caller names documents: of a form that they can have, and not taken yet."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gossamer.kernels.errors import InputError, RecordError


def checked_ids(ids: Iterable[str]) -> list[str]:
    """Raises: InputError: these are no ids."""
    if isinstance(ids, str):
        raise InputError(f"ids is the string {ids!r}; give a list of ids.")
    names = ids.to_pylist() if isinstance(ids, (pa.Array, pa.ChunkedArray)) else list(ids)
    for name in names:
        if not isinstance(name, str) or (not name.isascii() and not _is_text(name)):
            raise InputError(f"{name!r} is no id; an id is a string of valid Unicode.")
    return names


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True


def refuse_known(ids: pa.StringArray, rows: NDArray[np.int64]) -> None:
    """Raises: RecordError: one of these ids is in the index, at one of these rows (-1 where not)."""
    if (rows >= 0).any():
        row = int(np.argmax(rows >= 0))
        raise RecordError(
            f"row {row} has the id {ids[row].as_py()!r}, which is in the index already; update() replaces documents."
        )
