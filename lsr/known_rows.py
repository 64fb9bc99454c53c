"""Rows that were encoded before, to be used again where neither document nor encoder has changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from gossamer.index.vectors import SparseVectors
from gossamer.kernels.errors import FormatError

CHANGES: Final = "changes.json"
_DIGEST_BYTES: Final = 16


@dataclass(frozen=True)
class Changes:
    """What became of documents since they were encoded before.

    Attributes:
        n_encoded: New ones and changed ones, that were encoded.
        n_reused: Those whose rows were used again.
        n_dropped: Those that the corpus no longer has.
    """

    n_encoded: int
    n_reused: int
    n_dropped: int

    def write(self, folder: Path) -> None:
        """Put it beside the vectors."""
        (folder / CHANGES).write_text(json.dumps(asdict(self)) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path | str) -> Changes:
        """How the vectors of a folder were made from those that were there before.

        Raises:
            FormatError: They were not, or what it says cannot be read.
        """
        try:
            return cls(**json.loads((Path(folder) / CHANGES).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise FormatError(f"{folder} does not say what had changed ({error}); encode it again") from error


class KnownRows:
    """The rows of a folder of vectors, by their documents' ids and fingerprints.

    Args:
        folder: The folder. Parts without fingerprints, of earlier versions, are known by their ids only.
        is_same: Whether it is of the same encoder; if not, no row can be used again.
    """

    def __init__(self, folder: Path, *, is_same: bool = True) -> None:
        self._parts = sorted(folder.glob("part-*.parquet"))
        self._known: dict[str, tuple[bytes, int]] = {}
        starts = [0]
        for part in self._parts:
            ids, prints = _read_ids(part), read_fingerprints(part)
            for place, id_ in enumerate(ids):
                found = prints[place].tobytes() if is_same and len(prints) == len(ids) else b""
                self._known[id_] = found, starts[-1] + place
            starts.append(starts[-1] + len(ids))
        self._starts = np.array(starts, np.int64)
        self._read = lru_cache(maxsize=2)(SparseVectors.read_parquet)  # documents mostly stay in their order

    def rows_of(self, ids: Sequence[str], fingerprints: NDArray[np.uint8]) -> NDArray[np.int64]:
        """The row of each document, -1 where it is new or not what it was."""
        rows = np.full(len(ids), -1, np.int64)
        for place, id_ in enumerate(ids):
            fingerprint, row = self._known.get(id_, (b"", -1))
            if fingerprint and fingerprint == fingerprints[place].tobytes():
                rows[place] = row
        return rows

    def take(self, rows: NDArray[np.int64]) -> SparseVectors:
        """Some rows, at least one, in this order, without ids."""
        which = np.searchsorted(self._starts, rows, side="right") - 1
        parts = []
        for number in np.unique(which).tolist():
            mine = rows[which == number] - self._starts[number]
            parts.append(self._read(self._parts[number])[mine].with_ids(None))
        return SparseVectors.concat(parts)[np.argsort(np.argsort(which, kind="stable"))]

    def changes(self, parts: Sequence[Path]) -> Changes:
        """What became of them in the parts that were made since."""
        n_rows = n_reused = n_kept = 0
        for part in parts:
            ids = _read_ids(part)
            n_rows += len(ids)
            n_reused += int((self.rows_of(ids, read_fingerprints(part)) >= 0).sum())
            n_kept += sum(id_ in self._known for id_ in ids)
        return Changes(n_rows - n_reused, n_reused, len(self._known) - n_kept)


def fingerprints_of(texts: Sequence[str], precision: str) -> NDArray[np.uint8]:
    """A fingerprint of each text as it is encoded, uint8 `[n, 16]`."""
    digests = [
        hashlib.blake2b(f"{precision} {text}".encode(), digest_size=_DIGEST_BYTES).digest() for text in texts
    ]
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, _DIGEST_BYTES)


def fingerprints_file(part: Path) -> Path:
    """The file of the fingerprints of a part."""
    return part.with_suffix(".npy")


def read_fingerprints(part: Path) -> NDArray[np.uint8]:
    """The fingerprints of a part's documents; none where they were not kept.

    Raises:
        FormatError: The file is damaged.
    """
    file = fingerprints_file(part)
    if not file.is_file():
        return np.empty((0, _DIGEST_BYTES), np.uint8)
    try:
        found: NDArray[np.uint8] = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise FormatError(f"{file} cannot be read ({error}); remove it, and all is encoded again") from error
    return found


def _read_ids(part: Path) -> list[str]:
    ids: list[str] = pq.read_table(part, columns=["id"])["id"].to_pylist()
    return ids
