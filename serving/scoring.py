"""`Scorer`: searches indexes, and shards of them, for others who have their documents; `remote` asks several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gossamer.index.open import open_index
from gossamer.index.shard_search import ShardHits, hits_of, in_parallel
from gossamer.kernels.errors import NotFoundError, StorageError
from gossamer.serving.stage import AnyIndex, SearchStage, version_of

_MOMENTS_KEPT: Final = 8  # who asks may be some writes behind


class Part(NamedTuple):
    """A shard, or an index that is whole, as it was at one moment.

    Attributes:
        folder: where it is.
        version: of that moment.
        is_shard: whether others hold the rest of its index.
        n_rows: rows.
        allowed: which of them may be hits, a bit each, as `np.packbits` has it; None for all.
    """

    folder: Path
    version: str
    is_shard: bool
    n_rows: int
    allowed: NDArray[np.uint8] | None = None


class Scorer:
    """Searches parts; safe to call from several threads, which take turns.

    Args:
        folders: parts to open and to search once now, so that nobody waits for that later.
    """

    def __init__(self, folders: Sequence[Path] = ()) -> None:
        self._indexes: dict[Path, AnyIndex] = {}
        self._moments: dict[Path, dict[str, AnyIndex]] = {}
        self._turn = Lock()
        for folder in folders:
            SearchStage(self._opened(folder)).warm_up()

    def search(
        self, parts: Sequence[Part], queries: Any, k: int, how: Mapping[str, Any]
    ) -> list[ShardHits | None]:
        """The k best of each part; None where that moment cannot be seen here: not any more, or not yet.

        Args:
            parts: what to search.
            queries: Q queries, in the form that `search` of the kind takes.
            k: how many.
            how: what else `search` of the kind takes; `n_threads` are shared by the parts.
        """
        n_threads = how["n_threads"]
        inside = {**how, "n_threads": max(1, n_threads // len(parts))}
        with self._turn:
            return in_parallel([partial(self._search, part, queries, k, inside) for part in parts], n_threads)

    def _search(self, part: Part, queries: Any, k: int, how: Mapping[str, Any]) -> ShardHits | None:
        view = self._view(part)
        if view is None:
            return None
        allowed = None if part.allowed is None else np.unpackbits(part.allowed, count=part.n_rows) > 0
        if part.is_shard:
            return hits_of(view, queries, k, {**how, "allowed": allowed})
        hits = view.search(queries, k, allowed=allowed, **how)
        return ShardHits(hits.rows, hits.scores, hits.rows)

    def _view(self, part: Part) -> AnyIndex | None:
        try:
            index = self._opened(part.folder)
            moments = self._moments.setdefault(part.folder, {})
            for look in (False, True):
                if look and hasattr(index, "refresh"):
                    index.refresh()
                view = index.view() if hasattr(index, "view") else index
                moments.setdefault(version_of(view), view)
                if part.version in moments:
                    break
        except (StorageError, NotFoundError, OSError):  # it was replaced, and who asks has not noticed yet
            return None
        for old in list(moments)[:-_MOMENTS_KEPT]:
            del moments[old]
        return moments.get(part.version)

    def _opened(self, folder: Path) -> AnyIndex:
        if folder not in self._indexes:
            self._indexes[folder] = open_index(folder)
        return self._indexes[folder]
