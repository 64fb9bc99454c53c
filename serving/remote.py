"""An encoder, an index and a writer whose work is done by other processes: what a `SearchStage` has in a deployment.

Nothing here knows how others are reached: a call is a function that starts one, and `ask` is what waits for several.
"""

from __future__ import annotations

import logging
import os
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gossamer.index.answers import checked_mask, rounded
from gossamer.index.format import EncoderInfo
from gossamer.index.hits import Hits
from gossamer.index.shard_search import ShardHits, merged
from gossamer.kernels.errors import InputError
from gossamer.serving.records import Written
from gossamer.serving.scoring import Part
from gossamer.serving.stage import AnyIndex, version_of
from gossamer.serving.writing import Change, is_writable

if TYPE_CHECKING:
    from gossamer.index.vectors import SparseVectors
    from gossamer.lsr.spans import TermSpans
    from gossamer.serving.pipeline import Pipeline

logger = logging.getLogger(__name__)

Handle: TypeAlias = Any
"""Reaches the replicas of a deployment: `handle.method.remote(…)` starts a call."""
Call: TypeAlias = Callable[[], Any]
"""Starts a call, or starts it again."""
Ask: TypeAlias = Callable[[Sequence[Call]], list[Any]]
"""Starts calls, and waits for all of their answers."""


class EncoderFacts(NamedTuple):
    """What is known of an encoder without running it.

    Attributes:
        info: name and fingerprints.
        terms: the vocabulary.
    """

    info: EncoderInfo
    terms: list[str]


class RemoteEncoder:
    """The encoder of a folder, as replicas have it; see `Encoder`, of which it does what a service needs."""

    def __init__(self, folder: Path, replicas: Handle, ask: Ask) -> None:
        self._folder, self._replicas, self._ask = folder, replicas, ask
        facts: EncoderFacts = self._one("facts")
        self.info, self._terms = facts

    @property
    def n_terms(self) -> int:
        """Size of the vocabulary."""
        return len(self._terms)

    def term(self, number: int) -> str:
        """The text of a term."""
        return self._terms[number]

    def encode_queries(self, texts: Sequence[str], *, batch_size: int = 32) -> SparseVectors:
        """One row a query, in the given order."""
        rows: SparseVectors = self._one("encode_queries", list(texts), batch_size)
        return rows

    def encode_documents(self, texts: Sequence[str], *, batch_size: int = 32) -> SparseVectors:
        """One row a document, in the given order."""
        rows: SparseVectors = self._one("encode_documents", list(texts), batch_size)
        return rows

    def term_spans(self, text: str) -> TermSpans:
        """Where a text says which terms."""
        spans: TermSpans = self._one("term_spans", text)
        return spans

    def save(self, path: str | os.PathLike[str], *, replace: bool = False) -> None:  # noqa: ARG002 # it is refused
        """Raises: InputError: it is not here."""
        raise InputError(f"{self.info.name} runs elsewhere: copy the folder {self._folder}")

    def _one(self, name: str, *args: Any) -> Any:
        (answer,) = self._ask([partial(getattr(self._replicas, name).remote, self._folder, *args)])
        return answer


class RemoteIndex:
    """An index whose files are mapped here, for documents and reasons, and which others search.

    They search it as it is seen here; where a write has come in between, so that they cannot, it is searched here.

    Args:
        index: the index, of any kind.
        groups: replicas that search; a shard is always searched by those of one group.
        ask: reaches them.

    Attributes:
        local: the index itself.
    """

    def __init__(self, index: AnyIndex, groups: Sequence[Handle], ask: Ask) -> None:
        self.local, self._groups, self._ask = index, groups, ask

    def __getattr__(self, name: str) -> Any:
        if name == "local":  # not there yet, while this is being unpickled
            raise AttributeError(name)
        return getattr(self.local, name)

    def view(self) -> RemoteIndex:
        """This index as it is now, and stays."""
        index = self.local.view() if hasattr(self.local, "view") else self.local
        return RemoteIndex(index, self._groups, self._ask)

    def search(
        self, queries: Any, k: int = 10, *, allowed: NDArray[np.bool_] | None = None, **how: Any
    ) -> Hits:
        """The hits of the index's own `search`."""
        index = self.local
        parts, starts = _parts(index, allowed)
        groups = places_by_group(index.path, len(parts), len(self._groups))
        calls = [
            partial(self._groups[group].search.remote, [parts[place] for place in places], queries, k, how)
            for group, places in groups.items()
        ]
        found: dict[int, ShardHits | None] = {}
        for places, answer in zip(groups.values(), self._ask(calls), strict=True):
            found |= zip(places, answer, strict=True)
        seen = [hits for _, hits in sorted(found.items()) if hits is not None]
        if len(seen) < len(parts):
            logger.info(
                "%s was changed between its replicas' look and the one here: searched here", index.path
            )
            here: Hits = index.search(queries, k, allowed=allowed, **how)
            return here
        best = merged(seen, starts, k) if parts[0].is_shard else seen[0]
        return Hits(best.rows, rounded(best.scores), index.documents.row_ids)


class RemoteWriter:
    """Passes documents to the one process that writes, and sees to it that this one knows them then.

    Args:
        collection: their collection.
        pipeline: what searches it here.
        writer: the process.
        ask: reaches it.
    """

    def __init__(self, collection: str, pipeline: Pipeline, writer: Handle, ask: Ask) -> None:
        self._collection, self._pipeline, self._writer, self._ask = collection, pipeline, writer, ask

    @property
    def can_write(self) -> bool:
        """Whether all indexes are of kinds that change."""
        return is_writable(self._pipeline)

    @property
    def n_waiting(self) -> int:
        """None: they wait where they are written."""
        return 0

    def write(self, change: Change, deadline: float | None = None) -> Written:  # noqa: ARG002 # none has one
        """Put documents in, or take ids out; see `Writer.write`."""
        written: Written
        (written,) = self._ask([partial(self._writer.write.remote, self._collection, change)])
        self._pipeline.refresh()
        return written

    def close(self) -> None:
        """There is nothing to end: what was taken is with the writer."""


def parts_of(index: AnyIndex) -> Sequence[AnyIndex]:
    """The shards of an index, or the index as its one part."""
    return getattr(index, "shards", None) or (index,)


def places_by_group(index: Path, n_parts: int, n_groups: int) -> dict[int, list[int]]:
    """Which parts of an index each group searches: evenly, and another group first for another index."""
    first = zlib.crc32(str(index).encode())
    groups: dict[int, list[int]] = {}
    for place in range(n_parts):
        groups.setdefault((first + place) % n_groups, []).append(place)
    return groups


def _parts(index: AnyIndex, allowed: NDArray[np.bool_] | None) -> tuple[list[Part], NDArray[np.int64]]:
    """What others are asked for, and the first row of each part."""
    held = parts_of(index)
    n_rows = [len(part.documents) for part in held]
    starts = np.cumsum([0, *n_rows])
    mask = None if allowed is None else checked_mask(allowed, int(starts[-1]))
    parts = [
        Part(
            part.path,
            version_of(part),
            hasattr(index, "shards"),
            n_rows[place],
            None if mask is None else np.packbits(mask[starts[place] : starts[place + 1]]),
        )
        for place, part in enumerate(held)
    ]
    return parts, starts
