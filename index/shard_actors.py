"""Shards on Ray actors, on one machine or several: `ActorShards` asks all of them at once.

An actor opens some of the shards of a folder on storage that all machines see. One that is lost is started anew by Ray,
and asked again. Whoever asks needs none of the files: answers have ids with them, and documents can be asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gossamer.index.answers import checked_mask, rounded
from gossamer.index.document_set import DocumentSet
from gossamer.index.filters import Filters
from gossamer.index.format import EncoderInfo
from gossamer.index.hits import Hits
from gossamer.index.info import ShardedInfo
from gossamer.index.jobs import Actors
from gossamer.index.shard_search import merged, threads_for
from gossamer.index.shard_server import Found, Seen, ShardServer
from gossamer.kernels.errors import InputError, StorageError


class ActorShards:
    """A sharded index that is searched by actors; it answers as `ShardedIndex` does. Close it, or use it in a `with`.

    Changes are made with a `ShardedIndex`, and seen here after `refresh`. Until then all answers are of one moment,
    except that an actor which was lost in between sees its shards as they are when it starts.
    """

    def __init__(self, path: str | Path, *, n_actors: int) -> None:
        """Start actors in the running Ray session.

        Args:
            path: the folder, on storage that all machines of the session see.
            n_actors: how many; each takes its share of the shards.

        Raises:
            BackendError: there is no Ray session.
            As `ShardedIndex.open` does.
        """
        if n_actors < 1:
            raise InputError(f"n_actors is {n_actors}; start at least 1.")
        self.path = Path(path).absolute()
        self._actors = Actors(ShardServer, [(str(self.path), rank, n_actors) for rank in range(n_actors)])
        self._seen: tuple[Seen, ...] = ()
        try:
            self.refresh()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the actors."""
        self._actors.end()

    def refresh(self) -> bool:
        """See what was changed since.

        Returns:
            Whether there was anything to see.
        """
        before, self._seen = self._seen, self._all_of(self._ask("look"))
        return self._seen != before

    def view(self) -> Self:
        """These shards as they are now, for several calls that must be of one moment; until they change twice."""
        return copy(self)

    def verify(self) -> None:
        """Read every byte of every shard, each where it is searched.

        Raises:
            As `ShardedIndex.verify` does.
        """
        self._ask("verify")

    # -- what there is

    @property
    def kind(self) -> str:
        """The kind of the shards."""
        return self._seen[0].kind

    @property
    def n_shards(self) -> int:
        """Number of shards."""
        return len(self._seen)

    @property
    def n_documents(self) -> int:
        """Number of documents, without deleted ones."""
        return sum(seen.n_documents for seen in self._seen)

    @property
    def n_rows(self) -> int:
        """Number of rows, those of deleted documents included."""
        return sum(seen.n_rows for seen in self._seen)

    @property
    def generation(self) -> int:
        """How often shards were changed, all together."""
        return sum(seen.generation for seen in self._seen)

    @property
    def encoder(self) -> EncoderInfo | None:
        """What made the vectors, if the builder said so."""
        return self._seen[0].encoder

    @property
    def documents(self) -> ActorDocuments:
        """The documents that can be asked for."""
        return ActorDocuments(self.view())

    @property
    def pids(self) -> list[int]:
        """The actors' processes."""
        return self._ask("pid", flat=False)

    def __len__(self) -> int:
        return self.n_documents

    def __repr__(self) -> str:
        return f"ActorShards({str(self.path)!r}, {self.n_shards} shards on {len(self._actors)} actors)"

    def info(self) -> ShardedInfo:
        """Counts and sizes, and what each shard says about itself."""
        infos = _joined(self._ask("info", self._states(), flat=False))
        return ShardedInfo.of(self.path, self.kind, [infos[place] for place in sorted(infos)])

    # -- searching

    def search(
        self,
        queries: Any,
        k: int = 10,
        *,
        filters: Filters | None = None,
        allowed: NDArray[np.bool_] | Sequence[bool] | None = None,
        n_threads: int = 1,
        **how: Any,
    ) -> Hits:
        """As `ShardedIndex.search`, whose answers these are.

        Args:
            queries: see there.
            k: see there.
            filters: see there.
            allowed: see there; of the moment that is seen now.
            n_threads: threads in each actor.
            how: see there.

        Raises:
            BackendError: an actor was lost again and again.
            StorageError: `allowed` is of another moment.
            What `search` of the kind does.
        """
        starts, masks = self._starts(), None
        if allowed is not None:
            mask = checked_mask(allowed, int(starts[-1]))
            masks = {place: mask[starts[place] : starts[place + 1]] for place in range(self.n_shards)}
        wanted = (filters, self._kinds()) if filters else None
        how = {**how, "n_threads": threads_for(0, n_threads)}
        found = self._ask("search", self._states(), self._actors.shared(queries), k, how, (wanted, masks))
        found.sort(key=lambda part: part.seen.place)
        self._seen = self._all_of([part.seen for part in found])
        starts = self._starts()
        best = merged([part.hits for part in found], starts, k)
        return Hits(best.rows, rounded(best.scores), _FoundIds(found, starts))

    def explain(self, query: Any, row: int) -> Any:
        """What each part of a query gave to a document's score; as `explain` of the kind."""
        return self.explain_rows(query, [row])[0]

    def explain_rows(self, query: Any, rows: Sequence[int]) -> list[Any]:
        """`explain` for several documents, in the order of `rows`."""
        places, local = self._located(rows)
        parts = _joined(self._ask("explain_rows", self._states(), query, local, flat=False))
        return [parts[place].pop(0) for place in places]

    # -- asking

    def _ask(self, name: str, *args: Any, flat: bool = True) -> list[Any]:
        """What all actors answer."""
        answers = self._actors.ask(name, *args)
        return [part for answer in answers for part in answer or ()] if flat else answers

    def _all_of(self, seen: Sequence[Seen]) -> tuple[Seen, ...]:
        ordered = tuple(sorted(seen, key=lambda shard: shard.place))
        places = [shard.place for shard in ordered]
        if places != list(range(ordered[0].n_shards)):
            raise StorageError(f"{self.path} was replaced by another; refresh.")
        return ordered

    def _states(self) -> dict[int, str]:
        return {seen.place: seen.state for seen in self._seen}

    def _starts(self) -> NDArray[np.int64]:
        return np.cumsum([0, *(seen.n_rows for seen in self._seen)])

    def _kinds(self) -> dict[str, pa.DataType]:
        kinds: dict[str, pa.DataType] = {}
        for seen in self._seen:
            kinds |= seen.kinds
        return kinds

    def _located(self, rows: Sequence[int] | NDArray[Any]) -> tuple[list[int], dict[int, list[int]]]:
        """The shard of each row, and the rows that each shard is asked for."""
        starts, numbers = self._starts(), np.asarray(rows, np.int64)
        outside = (numbers < 0) | (numbers >= starts[-1])
        if outside.any():
            raise InputError(f"row {numbers[np.argmax(outside)]} is outside 0..{starts[-1] - 1}.")
        places = np.searchsorted(starts, numbers, side="right") - 1
        local = {
            int(place): (numbers[places == place] - starts[place]).tolist() for place in np.unique(places)
        }
        return places.tolist(), local


class ActorDocuments:
    """The documents of shards on actors."""

    def __init__(self, shards: ActorShards) -> None:
        self._shards = shards

    def __len__(self) -> int:
        return self._shards.n_rows

    @property
    def schema(self) -> pa.Schema:
        """`id`, `title`, `text`, then the metadata columns; what `take` returns."""
        return pa.schema([*DocumentSet([]).schema, *self._shards._kinds().items()])

    @property
    def metadata(self) -> list[str]:
        """Names of the metadata columns."""
        return list(self._shards._kinds())

    def take(self, rows: Sequence[int] | NDArray[Any]) -> pa.Table:
        """The documents of these rows, in this order; see `DocumentSet.take`."""
        places, local = self._shards._located(rows)
        found = _joined(self._shards._ask("take", self._shards._states(), local, flat=False))
        order = np.argsort(np.argsort(places, kind="stable"))
        tables = [self.schema.empty_table(), *(found[place] for place in sorted(found))]
        return pa.concat_tables(tables, promote_options="default").take(pa.array(order))


class _FoundIds:
    """The ids of hits, by their rows over all shards."""

    def __init__(self, found: Sequence[Found], starts: NDArray[np.int64]) -> None:
        rows = [
            np.where(part.hits.rows >= 0, part.hits.rows + start, -1).ravel()
            for part, start in zip(found, starts, strict=False)
        ]
        self._rows, first = np.unique(np.concatenate(rows), return_index=True)
        self._ids = pa.concat_arrays([part.ids for part in found]).take(pa.array(first))

    def take(self, rows: pa.Array) -> pa.StringArray:
        """The id of each row; null where that is null."""
        wanted = rows.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        return self._ids.take(pa.array(np.searchsorted(self._rows, wanted), mask=wanted < 0))


def _joined(answers: Sequence[Mapping[int, Any]]) -> dict[int, Any]:
    return {place: answer[place] for answer in answers for place in answer}
