"""What shards have in common: their manifest, which of them a document is in, what their kind must do."""

from __future__ import annotations

import zlib
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from gossamer.index.format import SHARDS_FORMAT, EncoderInfo, Manifest
from gossamer.index.manifests import SHARDS, Sealed
from gossamer.index.segment import Found
from gossamer.index.segmented import R, SegmentedIndex
from gossamer.index.snapshots import S, Snapshot
from gossamer.kernels.errors import CorruptError, FormatError

MOST_SHARDS = 1_000
_IDS_AT_ONCE = 65_536


class ShardsManifest(Sealed):
    """What the folder of a sharded index says; it is written once.

    Attributes:
        uid: of every shard, too: a build that takes the place of an index has another.
        kind: of every shard.
        n_shards: how many there are.
        routing: how a document's shard follows from its id: the CRC-32 of its UTF-8 bytes, modulo `n_shards`.
    """

    format_: ClassVar[str] = SHARDS_FORMAT
    version: ClassVar[int] = 1
    name: ClassVar[str] = SHARDS

    uid: str
    kind: str
    n_shards: int = Field(ge=1, le=MOST_SHARDS)
    routing: Literal["crc32"] = "crc32"

    def check_presence(self, folder: Path) -> None:
        """Raise FormatError if a shard is missing."""
        for shard in range(self.n_shards):
            if not shard_path(folder, shard).is_dir():
                raise FormatError(
                    f"{shard_path(folder, shard)} is missing; restore it or build the index anew."
                )

    def shards_of(self, ids: pa.StringArray | pa.ChunkedArray | Sequence[str]) -> NDArray[np.uint16]:
        """Which shard each id belongs to."""
        shards = np.empty(len(ids), np.uint16)
        for first in range(0, len(ids), _IDS_AT_ONCE):
            some = ids[first : first + _IDS_AT_ONCE]
            names = some if isinstance(some, Sequence) else some.to_pylist()
            shards[first : first + _IDS_AT_ONCE] = [
                zlib.crc32(name.encode()) % self.n_shards for name in names
            ]
        return shards


def shard_path(folder: Path, shard: int) -> Path:
    """Where a shard is."""
    return folder / f"shard-{shard:03d}"


class Splittable(SegmentedIndex[S, R]):
    """An index of a kind that can be the shards of a `ShardedIndex`.

    Attributes:
        is_shard: whether it is one of several that store weights alike, which merging then leaves as it is.
    """

    is_shard = False

    @abstractmethod
    def _find(self, snapshot: Snapshot[S], queries: Any, k: int, *args: Any, **how: Any) -> Found:
        """What `search` finds; scores are float64 where others of float32 would be equal that are not."""

    @classmethod
    @abstractmethod
    def _look_through(cls, vectors: Any) -> R:
        """Look through vectors that an index is to be built of."""

    @classmethod
    @abstractmethod
    def _begin(cls, rows: R, config: Any, encoder: EncoderInfo | None) -> Manifest:
        """The manifest of an index for such rows that has none of them yet."""

    @classmethod
    @abstractmethod
    def _split(
        cls, rows: R, shards: Sequence[Self], shard_of_row: NDArray[np.integer[Any]], spool: Path
    ) -> list[R]:
        """The rows of each shard, in their order, stored so that scores of all can be compared; files go to `spool`."""

    @abstractmethod
    def _after_build(self) -> None:
        """What is left to do once an index is at its place."""

    @property
    def next_number(self) -> int:
        """The insertion number of the next document."""
        return self._snapshot.manifest.next_number


def open_shard(kind: type[Splittable[Any, Any]], folder: Path, number: int) -> Splittable[Any, Any]:
    """Open one of the shards in a folder."""
    shard = kind.open(shard_path(folder, number))
    shard.merges_itself, shard.is_shard = False, True
    return shard


def refuse_strangers(shards: Iterable[SegmentedIndex[Any, Any]], manifest: ShardsManifest) -> None:
    """Raises: CorruptError: a shard was built for another index than its folder's."""
    for shard in shards:
        if shard._snapshot.manifest.uid != manifest.uid:
            raise CorruptError(
                f"{shard.path} is of another index than the other shards; restore it or build the index anew."
            )


def refuse_strays(shard: SegmentedIndex[Any, Any], number: int, manifest: ShardsManifest) -> None:
    """Raises: CorruptError: a shard has a document that belongs to another."""
    ids = shard.documents.ids
    strays = np.flatnonzero((manifest.shards_of(ids) != number) & shard.documents.live)
    if len(strays):
        raise CorruptError(
            f"{shard.path} has the document {ids[int(strays[0])].as_py()!r}, which belongs to another shard; build the "
            "index anew, and change it only as a whole."
        )
