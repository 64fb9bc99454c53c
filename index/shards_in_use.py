"""`ShardsInUse`: what open shards hold and find, as if they were one index; `sharded` opens and changes them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.index.answers import mask_of, rounded
from gossamer.index.document_set import DocumentSet
from gossamer.index.filters import Filters
from gossamer.index.format import EncoderInfo
from gossamer.index.hits import Hits
from gossamer.index.info import ShardedInfo
from gossamer.index.memory import MappedMemory
from gossamer.index.shard_changes import Shard
from gossamer.index.shard_search import Moment, hits_of, in_parallel, merged, threads_for
from gossamer.index.shards import ShardsManifest
from gossamer.kernels.errors import InputError


class ShardsInUse:
    """Shards as they are at one moment, in `_moment`; who opens them sets it anew."""

    path: Path
    _manifest: ShardsManifest
    _moment: Moment

    def memory(self) -> MappedMemory | None:
        """How much of its files is mapped and in memory; None where the system does not tell."""
        return MappedMemory.of(self.path)

    @property
    def kind(self) -> str:
        """The kind of the shards."""
        return self._manifest.kind

    @property
    def shards(self) -> tuple[Shard, ...]:
        """The shards as they are now. Change none of them by itself."""
        return self._moment.shards

    @property
    def n_shards(self) -> int:
        """Number of shards."""
        return len(self._moment.shards)

    @property
    def documents(self) -> DocumentSet:
        """Ids, titles, texts and metadata columns; rows count through the shards."""
        return self._moment.documents

    @property
    def encoder(self) -> EncoderInfo | None:
        """What made the vectors, if the builder said so."""
        return self._moment.shards[0].encoder

    @property
    def uid(self) -> str:
        """What tells this index from another that takes its place."""
        return self._manifest.uid

    @property
    def generation(self) -> int:
        """How often shards were changed, all together; a receipt says which generation has its change."""
        return sum(manifest.generation for manifest in self._moment.manifests)

    @property
    def n_documents(self) -> int:
        """Number of documents, without deleted ones."""
        return sum(manifest.n_documents for manifest in self._moment.manifests)

    @property
    def n_terms(self) -> int:
        """Size of the vocabulary, for kinds that have one."""
        return int(loose(self._moment.shards)[0].n_terms)

    @property
    def n_rows(self) -> int:
        """Number of rows, those of deleted documents included."""
        return int(self._moment.starts[-1])

    @property
    def n_segments(self) -> int:
        """Number of segments of all shards."""
        return sum(len(manifest.segments) for manifest in self._moment.manifests)

    def __len__(self) -> int:
        return self.n_documents

    def __repr__(self) -> str:
        return f"ShardedIndex({str(self.path)!r}, {self.n_documents:,} documents, {self.n_shards} {self.kind} shards)"

    def info(self) -> ShardedInfo:
        """Counts and sizes, and what each shard says about itself."""
        moment = self._moment
        return ShardedInfo.of(self.path, self.kind, [shard.info() for shard in loose(moment.shards)])

    def insertion_numbers(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """When a document came, counted over all that ever did; a document keeps its number for good.

        Args:
            rows: rows of this index as it is now; -1 stays -1.
        """
        return self.documents.numbers_of(rows)

    # -- searching

    def search(
        self,
        queries: Any,
        k: int = 10,
        *,
        filters: Filters | None = None,
        allowed: NDArray[np.bool_] | Sequence[bool] | None = None,
        n_threads: int | None = None,
        **how: Any,
    ) -> Hits:
        """The k best documents for each query over all shards, as one index of all documents finds them.

        Args:
            queries: Q queries, in the form that `search` of the kind takes.
            k: width of the answer; may be more than there are documents.
            filters: an expression over ids and metadata columns; see `gossamer.index.filters`. Others are no hits.
            allowed: bool `[n_rows]`, as `documents.mask` makes it from filters; others are no hits.
            n_threads: threads, for shards first and, where there are more, inside of them; None takes all cores where
                there is enough to do for more than one. The answer does not depend on them.
            how: what else `search` of the kind takes, such as `recall=`, `effort=`, `rescore=`; each shard is told so,
                and finds its own operating point for a recall.

        Returns:
            Hits `[Q, k]`: score descending, then insertion number ascending. Rows count through the shards.

        Raises:
            What `search` of the kind does.
        """
        moment = self._moment
        threads = threads_for(len(queries) * moment.starts[-1], n_threads)
        mask = mask_of(moment.documents, filters, allowed)
        inside = max(1, threads // len(moment.shards))
        tasks = []
        for place, shard in enumerate(moment.shards):
            rows = slice(moment.starts[place], moment.starts[place + 1])
            own = {**how, "allowed": None if mask is None else mask[rows], "n_threads": inside}
            tasks.append(partial(hits_of, shard, queries, k, own))
        best = merged(in_parallel(tasks, threads), moment.starts, k)
        return Hits(best.rows, rounded(best.scores), moment.documents.row_ids)

    def explain(self, query: Any, row: int) -> Any:
        """What each part of a query gave to a document's score; as `explain` of the kind."""
        return self.explain_rows(query, [row])[0]

    def explain_rows(self, query: Any, rows: Sequence[int]) -> list[Any]:
        """`explain` for several documents, in the order of `rows`; cheaper than one by one."""
        moment = self._moment
        for row in rows:
            if not 0 <= row < moment.starts[-1]:
                raise InputError(f"row {row} is outside 0..{moment.starts[-1] - 1}.")
        numbers = np.asarray(rows, np.int64)
        places = np.searchsorted(moment.starts, numbers, side="right") - 1
        explained: list[Any] = [None] * len(numbers)
        for place, shard in enumerate(loose(moment.shards)):
            mine = np.flatnonzero(places == place)
            if len(mine):
                local = (numbers[mine] - moment.starts[place]).tolist()
                for at, parts in zip(mine.tolist(), shard.explain_rows(query, local), strict=True):
                    explained[at] = parts
        return explained

    def posting_lengths(self) -> NDArray[np.int64]:
        """How many documents have each term, deleted ones included, `[n_terms]`, for kinds that have terms."""
        lengths: NDArray[np.int64] = sum(shard.posting_lengths() for shard in loose(self._moment.shards))
        return lengths


def loose(shards: Sequence[Shard]) -> Sequence[Any]:
    """Shards, of which is asked what only some kinds can do."""
    return shards
