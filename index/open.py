"""`open_index`: the index in a folder, of whatever kind it is."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gossamer.index.folders import recover
from gossamer.index.format import Manifest
from gossamer.index.lucene_format import FORMAT as LUCENE_FORMAT
from gossamer.index.manifests import SHARDS, format_of
from gossamer.kernels.errors import ConfigError

if TYPE_CHECKING:
    from gossamer.index.lucene import LuceneIndex
    from gossamer.index.segmented import SegmentedIndex
    from gossamer.index.sharded import ShardedIndex
    from gossamer.index.shards import Splittable

KINDS = {"inverted": ("inverted", "InvertedIndex"), "dense": ("dense", "DenseIndex")}
"""Module and class of each kind of index that lives in segments."""


def open_index(path: str | Path) -> SegmentedIndex[Any, Any] | ShardedIndex | LuceneIndex:
    """Open an index by what its manifest says that it is.

    Raises:
        NotFoundError: there is no folder.
        FormatError: it is no index, is truncated, or from a newer version.
        CorruptError: its manifest was altered.
        BackendError: what it needs is not installed.
    """
    path = Path(path)
    recover(path)
    if (path / SHARDS).is_file():
        from gossamer.index.sharded import ShardedIndex

        return ShardedIndex.open(path)
    if format_of(path) == LUCENE_FORMAT:
        from gossamer.index.lucene import LuceneIndex

        return LuceneIndex.open(path)
    return index_class(Manifest.read(path).index.kind).open(path)


def splittable(kind: str) -> type[Splittable[Any, Any]]:
    """The class of a kind of index that can be the shards of one.

    Raises:
        ConfigError: there is none of this name, or it cannot.
    """
    from gossamer.index.shards import Splittable

    found = index_class(kind)
    if not issubclass(found, Splittable):
        raise ConfigError(f"an index of the kind {kind!r} cannot be split into shards; build it whole.")
    return found


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
