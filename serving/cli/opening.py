"""Opening an index for a command, which takes some kinds of index and not others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gossamer.index.inverted import InvertedIndex
    from gossamer.index.segmented import SegmentedIndex
    from gossamer.index.sharded import ShardedIndex


def open_sparse(path: Path) -> InvertedIndex | ShardedIndex:
    """Open an index of sparse vectors, in shards or not.

    Raises:
        MismatchError: it is of another kind.
        What `open_index` does.
    """
    from gossamer.index.inverted import InvertedIndex
    from gossamer.index.open import open_index
    from gossamer.index.sharded import ShardedIndex

    index = open_index(path)
    if not isinstance(index, InvertedIndex | ShardedIndex):
        raise _other(path, index)
    return index


def open_changing(path: Path) -> SegmentedIndex[Any, Any] | ShardedIndex:
    """Open an index that can be changed.

    Raises:
        MismatchError: it is of another kind.
        What `open_index` does.
    """
    from gossamer.index.open import open_index
    from gossamer.index.segmented import SegmentedIndex
    from gossamer.index.sharded import ShardedIndex

    index = open_index(path)
    if not isinstance(index, SegmentedIndex | ShardedIndex):
        raise _other(path, index)
    return index


def _other(path: Path, index: object) -> Exception:
    from gossamer.kernels.errors import MismatchError

    return MismatchError(
        f"{path} is a {type(index).__name__}, which this command does not take; use Python for it."
    )
