"""What answers for some of the shards of an index, in a process of its own; `shard_actors` asks several of these."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gossamer.index.answers import rounded, with_filters
from gossamer.index.filters import Filters
from gossamer.index.folders import identity, open_whole
from gossamer.index.format import EncoderInfo
from gossamer.index.hits import Hits
from gossamer.index.manifests import SHARDS
from gossamer.index.open import splittable
from gossamer.index.shard_search import ShardHits, hits_of, in_parallel
from gossamer.index.shards import ShardsManifest, open_shard, refuse_strangers, refuse_strays
from gossamer.kernels.errors import StorageError

WithKinds: TypeAlias = tuple[Filters, Mapping[str, pa.DataType]]
_VIEWS_KEPT = 2


class Seen(NamedTuple):
    """A shard as an actor sees it.

    Attributes:
        place: its number.
        n_shards: how many there are.
        kind: of the shards.
        state: what tells it from what it is after a change.
        generation, n_rows, n_documents: see `SegmentedIndex`.
        encoder: what made the vectors.
        kinds: name and type of each metadata column.
    """

    place: int
    n_shards: int
    kind: str
    state: str
    generation: int
    n_rows: int
    n_documents: int
    encoder: EncoderInfo | None
    kinds: dict[str, pa.DataType]


class Found(NamedTuple):
    """What a shard finds, and the ids of that, flat."""

    seen: Seen
    hits: ShardHits
    ids: pa.Array


class ShardServer:
    """Some of the shards: those whose number leaves `rank` when divided by the number of actors."""

    def __init__(self, path: str, rank: int, n_actors: int) -> None:
        self._path, self._rank, self._n_actors = Path(path), rank, n_actors
        self._identity: object = None
        self._shards: dict[int, Any] = {}
        self._views: dict[int, dict[str, tuple[Seen, Any]]] = {}

    def look(self) -> list[Seen]:
        """See what has changed."""
        if identity(self._path, SHARDS) != self._identity or self._identity is None:
            open_whole(self._path, SHARDS, self._open)
        for place, shard in self._shards.items():
            shard.refresh()
            view = shard.view()
            manifest = view._snapshot.manifest
            state = hashlib.sha256(manifest.to_bytes()).hexdigest()
            seen = Seen(
                place,
                self._manifest.n_shards,
                self._manifest.kind,
                state,
                view.generation,
                view.n_rows,
                view.n_documents,
                view.encoder,
                view.documents.kinds,
            )
            views = self._views.setdefault(place, {})
            views.pop(state, None)
            views[state] = seen, view
            for old in list(views)[:-_VIEWS_KEPT]:
                del views[old]
        return [self._newest(place)[0] for place in self._shards]

    def _open(self) -> None:
        self._identity = identity(self._path, SHARDS)
        self._manifest = ShardsManifest.read(self._path)
        kind = splittable(self._manifest.kind)
        places = range(self._rank, self._manifest.n_shards, self._n_actors)
        self._shards = {place: open_shard(kind, self._path, place) for place in places}
        refuse_strangers(self._shards.values(), self._manifest)
        self._views = {place: views for place, views in self._views.items() if place in self._shards}

    def _newest(self, place: int) -> tuple[Seen, Any]:
        return list(self._views[place].values())[-1]

    def _asked(self, states: Mapping[int, str], *, only: bool) -> list[tuple[Seen, Any]]:
        """Each shard as it was in a state; as it is now where that is not known any more and `only` does not hold."""
        if self._identity is None:
            self.look()
        chosen = []
        for place, views in self._views.items():
            known = views.get(states.get(place, ""))
            if known is None and only:
                raise StorageError(
                    f"{self._path} was changed since; search again, and ask with the rows of that."
                )
            chosen.append(known or self._newest(place))
        return chosen

    def search(
        self,
        states: Mapping[int, str],
        queries: Any,
        k: int,
        how: Mapping[str, Any],
        which: tuple[WithKinds | None, Mapping[int, NDArray[np.bool_]] | None],
    ) -> list[Found]:
        """Search each shard for documents that filters, which come with the columns of all shards, and masks leave."""
        n_threads = how["n_threads"]
        filters, allowed = which
        tasks, asked = [], self._asked(states, only=allowed is not None)
        for seen, view in asked:
            mask = None if allowed is None else allowed[seen.place]
            if filters is not None:
                mask = with_filters(view.documents, filters[0], mask, filters[1])
            own = {**how, "allowed": mask, "n_threads": max(1, n_threads // len(asked))}
            tasks.append(partial(hits_of, view, queries, k, own))
        found = in_parallel(tasks, n_threads)
        return [
            Found(seen, hits, Hits(hits.rows, rounded(hits.scores), view.documents.row_ids).ids.flatten())
            for (seen, view), hits in zip(asked, found, strict=True)
        ]

    def take(self, states: Mapping[int, str], rows: Mapping[int, Sequence[int]]) -> dict[int, pa.Table]:
        """Documents by their rows in each shard."""
        return {
            seen.place: view.documents.take(rows[seen.place])
            for seen, view in self._asked(states, only=True)
            if seen.place in rows
        }

    def explain_rows(
        self, states: Mapping[int, str], query: Any, rows: Mapping[int, Sequence[int]]
    ) -> dict[int, list[Any]]:
        """Explanations by rows in each shard."""
        return {
            seen.place: view.explain_rows(query, rows[seen.place])
            for seen, view in self._asked(states, only=True)
            if seen.place in rows
        }

    def info(self, states: Mapping[int, str]) -> dict[int, Any]:
        """What each shard says about itself."""
        return {seen.place: view.info() for seen, view in self._asked(states, only=False)}

    def verify(self) -> None:
        """Read every byte of these shards."""
        self.look()
        for place, shard in self._shards.items():
            shard.verify()
            refuse_strays(shard, place, self._manifest)

    def pid(self) -> int:
        """The process."""
        return os.getpid()
