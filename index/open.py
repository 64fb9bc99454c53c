"""`open_index`: the index in a folder, of whatever kind it is."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gossamer.index.folders import recover
from gossamer.index.format import SHARDS, Manifest
from gossamer.kernels.errors import ConfigError

if TYPE_CHECKING:
    from gossamer.index.segmented import SegmentedIndex
    from gossamer.index.sharded import ShardedIndex

KINDS = {"inverted": ("inverted", "InvertedIndex")}
"""Module and class of each kind of index."""


def open_index(path: str | Path) -> SegmentedIndex[Any, Any] | ShardedIndex:
    """Open an index by what its manifest says that it is.

    Raises:
        NotFoundError: there is no folder.
        FormatError: it is no index, is truncated, or from a newer version.
        CorruptError: its manifest was altered.
    """
    path = Path(path)
    recover(path)
    if (path / SHARDS).is_file():
        from gossamer.index.sharded import ShardedIndex

        return ShardedIndex.open(path)
    return index_class(Manifest.read(path).index.kind).open(path)


def index_class(kind: str) -> type[SegmentedIndex[Any, Any]]:
    """The class of a kind of index.

    Raises:
        ConfigError: there is none of this name.
    """
    if kind not in KINDS:
        raise ConfigError(f"there is no kind of index {kind!r}; there are {sorted(KINDS)}.")
    module, name = KINDS[kind]
    found: type[SegmentedIndex[Any, Any]] = getattr(import_module(f"gossamer.index.{module}"), name)
    return found
