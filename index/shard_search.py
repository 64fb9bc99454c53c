"""Searching shards: all at once, and the best of what they find.

Each shard answers with its own k best, scored as all shards score, and with their insertion numbers; the k best of all
are among these. Equal scores are told apart by insertion number, as one index of all documents would.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from gossamer.index.document_set import DocumentSet
from gossamer.index.format import Manifest
from gossamer.index.shards import Splittable
from gossamer.kernels.errors import InputError

_WORTH_THREADS = 8_000_000  # pairs; measured with two cores
_LAST = np.iinfo(np.int64).max

T = TypeVar("T")


@dataclass(frozen=True)
class Moment:
    """Shards as they are now, and stay.

    Attributes:
        shards: views of them.
        manifests: of each.
        starts: int64 `[n_shards + 1]`, the first row of each.
        documents: those of all.
    """

    shards: tuple[Splittable[Any, Any], ...]
    manifests: tuple[Manifest, ...]
    starts: NDArray[np.int64]
    documents: DocumentSet

    @classmethod
    def of(cls, shards: Sequence[Splittable[Any, Any]]) -> Moment:
        """What is to be seen of some shards."""
        views = tuple(shard.view() for shard in shards)
        snapshots = [view._snapshot for view in views]
        starts = np.cumsum([0, *(view.n_rows for view in views)])
        parts = [part for snapshot in snapshots for part in snapshot.parts]
        return cls(views, tuple(snapshot.manifest for snapshot in snapshots), starts, DocumentSet(parts))


class ShardHits(NamedTuple):
    """What one shard finds: rows of its own, scores and insertion numbers, each `[Q, k]`; -1 and -inf past the end.

    Scores are float64 where others of float32 would be equal that are not.
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float32 | np.float64]
    numbers: NDArray[np.int64]


def hits_of(shard: Splittable[Any, Any], queries: Any, k: int, how: Mapping[str, Any]) -> ShardHits:
    """Search one shard; `how` is what its `search` takes by name."""
    snapshot = shard._snapshot
    rows, scores = shard._find(snapshot, queries, k, **how)
    return ShardHits(rows, scores, snapshot.documents.numbers_of(rows))


def merged(found: Sequence[ShardHits], starts: NDArray[np.int64], k: int) -> ShardHits:
    """The k best of all shards: score descending, then insertion number ascending; rows count through the shards."""
    rows = np.hstack(
        [np.where(part.rows >= 0, part.rows + start, -1) for part, start in zip(found, starts, strict=False)]
    )
    scores = np.hstack([part.scores for part in found])
    numbers = np.hstack([np.where(part.rows >= 0, part.numbers, _LAST) for part in found])
    order = np.lexsort((numbers, -scores))[:, :k]
    best = (np.take_along_axis(array, order, 1) for array in (rows, scores, numbers))
    return ShardHits(*best)


def threads_for(n_pairs: int, n_threads: int | None) -> int:
    """How many threads to take; by default all cores of this process, or one where waking others takes longer.

    Args:
        n_pairs: of a query and a document.
        n_threads: what the caller says, if anything.

    Raises:
        InputError: it is less than one.
    """
    if n_threads is None:
        if n_pairs < _WORTH_THREADS:
            return 1
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if n_threads < 1:
        raise InputError(f"n_threads is {n_threads}; give at least 1")
    return n_threads


def in_parallel(tasks: Sequence[Callable[[], T]], n_threads: int) -> list[T]:
    """The results of all tasks, on threads that are kept, as kernels keep tables for theirs."""
    n_threads = min(n_threads, len(tasks))
    if n_threads <= 1:
        return [task() for task in tasks]
    return list(_pool(n_threads).map(lambda task: task(), tasks))


@cache
def _pool(n_threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(n_threads, thread_name_prefix="shards")


os.register_at_fork(after_in_child=_pool.cache_clear)  # threads stay behind in the parent
