"""What shards have in common: their manifest, which of them a document is in, what their kind must do."""

from __future__ import annotations

import zlib
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from gossamer.index.format import SHARDS, SHARDS_FORMAT, EncoderInfo, Manifest, from_checked, to_checked
from gossamer.index.segmented import R, S, SegmentedIndex
from gossamer.kernels.errors import CorruptError, FormatError, NotFoundError

MOST_SHARDS = 1_000
_VERSION = 1
_IDS_AT_ONCE = 65_536


class ShardsManifest(BaseModel):
    """What the folder of a sharded index says; it is written once.

    Attributes:
        kind: of every shard.
        n_shards: how many there are.
        routing: how a document's shard follows from its id: the CRC-32 of its UTF-8 bytes, modulo `n_shards`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: str
    n_shards: int = Field(ge=1, le=MOST_SHARDS)
    routing: Literal["crc32"] = "crc32"

    def to_bytes(self) -> bytes:
        """The file: canonical JSON with a checksum of the rest in it."""
        return to_checked(self, SHARDS_FORMAT, _VERSION)

    @classmethod
    def read(cls, folder: Path) -> ShardsManifest:
        """Read and check the manifest of a folder, and the presence of its shards.

        Raises:
            NotFoundError: there is no folder.
            FormatError: it is no sharded index, lacks a shard, or is from a newer version.
            CorruptError: the manifest was altered.
        """
        path = folder / SHARDS
        if not folder.is_dir():
            raise NotFoundError(f"there is no index at {folder}; make one with ShardedIndex.build().")
        try:
            data = path.read_bytes()
        except FileNotFoundError as error:
            raise FormatError(f"{folder} has no {SHARDS}, so it is no sharded index.") from error
        manifest = from_checked(cls, path, data, SHARDS_FORMAT, _VERSION)
        for shard in range(manifest.n_shards):
            if not shard_path(folder, shard).is_dir():
                raise FormatError(
                    f"{shard_path(folder, shard)} is missing; restore it or build the index anew."
                )
        return manifest

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
    """An index of a kind that can be the shards of a `ShardedIndex`."""

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


def refuse_strays(shard: SegmentedIndex[Any, Any], number: int, manifest: ShardsManifest) -> None:
    """Raises: CorruptError: a shard has a document that belongs to another."""
    ids = shard.documents.ids
    strays = np.flatnonzero((manifest.shards_of(ids) != number) & shard.documents.live)
    if len(strays):
        raise CorruptError(
            f"{shard.path} has the document {ids[int(strays[0])].as_py()!r}, which belongs to another shard; build the "
            "index anew, and change it only as a whole."
        )
