"""`Pipeline`: how a query is answered. Retrievers find documents, their lists are fused, the best are reranked.

    query ─► retriever, retriever, … (side by side) ─► fuse ─► rerank ─► texts, snippets, reasons

A retriever or reranker that fails or is late leaves the answer to the others, and is named in `degraded`. What is wrong
with the request itself fails it. Of the first retriever's index are the texts.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gossamer.kernels.errors import InputError, MismatchError, NotReadyError
from gossamer.serving.batching import Batcher
from gossamer.serving.passages import DOCUMENT, best_of_each, of_documents
from gossamer.serving.retrieval import Query, Retrieval, Retriever
from gossamer.serving.schemas import SearchOptions, SearchResult
from gossamer.serving.showing import Showing
from gossamer.serving.stage import Found, SearchStage, version_of

if TYPE_CHECKING:
    from gossamer.index.fusion import Method
    from gossamer.lsr.passages import Passages
    from gossamer.serving.reranking import Reranker

logger = logging.getLogger(__name__)


class Pipeline:
    """Answers queries from one or several retrievers; safe to call from several threads.

    Args:
        retrievers: by name; the first one's index has the texts of all documents.
        fusion: how lists become one, where there are several; `ReciprocalRank()` if not given.
        n_candidates: documents that each retriever gives to fusion or reranking, where there is one; the answer, with
            all its pages, ends with them.
        reranker: orders the best anew.
        batch_wait_s: how long a batch of queries waits for more; None answers each in the thread that asks.
        max_batch, max_waiting: queries in a batch, and queries that may wait for one.
        passages: how documents are split, where their passages are what is indexed; see `serving.passages`.
    """

    def __init__(
        self,
        retrievers: Mapping[str, Retriever],
        *,
        fusion: Method | None = None,
        n_candidates: int = 100,
        reranker: Reranker | None = None,
        batch_wait_s: float | None = None,
        max_batch: int = 64,
        max_waiting: int = 1024,
        passages: Passages | None = None,
    ) -> None:
        if not retrievers:
            raise InputError("there are no retrievers: give at least one")
        self.retrievers = dict(retrievers)
        self.main, *_ = self.retrievers
        self.passages = passages
        self._retrieval = Retrieval(
            retrievers, batch_wait_s=batch_wait_s, max_batch=max_batch, max_waiting=max_waiting
        )
        self._fusion, self._n_candidates, self._reranker = fusion, n_candidates, reranker
        self._reranking: Batcher[tuple[str, list[str]], NDArray[np.float32]] | None = None
        if reranker is not None:
            self._reranking = Batcher(_each(reranker), name="reranker", max_size=1, max_waiting=max_waiting)
        stages = {name: retriever.stage for name, retriever in retrievers.items()}
        self._showing = Showing(stages, is_split=passages is not None)
        self._refreshing = Lock()

    @property
    def store(self) -> SearchStage:
        """The stage whose index has the texts."""
        return self.retrievers[self.main].stage

    def close(self) -> None:
        """Answer what was taken, and end the threads."""
        self._retrieval.close()
        if self._reranking is not None:
            self._reranking.close()

    @property
    def n_waiting(self) -> dict[str, int]:
        """Queries that wait, by retriever."""
        return self._retrieval.n_waiting

    @property
    def version(self) -> str:
        """What names this moment of the texts' index; every later one knows all writes up to it."""
        return self.store.version

    def refresh(self) -> None:
        """Take over what other processes have changed; the texts' index first, as it is changed last."""
        with self._refreshing:
            for retriever in self.retrievers.values():
                retriever.stage.refresh()

    def wait_for(self, version: str) -> None:
        """See to it that searches know a write.

        Raises:
            InputError: it is no version.
            MismatchError: it is one of an index that was replaced by another.
            NotReadyError: the write is not to be seen here yet.
        """
        uid, _, generation = version.partition(".")
        if not generation.isdecimal() or len(generation) > 18:
            raise InputError("min_version: expected the version of an answer or write of this collection")
        for attempt in ("as it is", "refreshed"):
            if attempt == "refreshed":
                self.refresh()
            with self._refreshing:  # or only the texts' index might know it yet
                known_uid, _, known = self.version.partition(".")
            if known_uid == uid and int(known) >= int(generation):
                return
        if known_uid != uid:
            raise MismatchError(
                "min_version: that write was made to an index that was replaced by another since"
            )
        raise NotReadyError("min_version: that write has not arrived here: ask again in a moment")

    def search(self, queries: Sequence[Query], options: SearchOptions) -> list[SearchResult]:
        """Answer queries of the same options.

        Raises:
            InputError: A vector or filter does not suit the documents.
            DeadlineError: No retriever answered in time.
            OverloadedError: Too many queries wait.
        """
        deadline = None if options.timeout_ms is None else time.monotonic() + options.timeout_ms / 1e3
        if options.min_version is not None:
            self.wait_for(options.min_version)
        # of fixed length where lists are fused or ordered anew, so that pages are of one list
        is_one = len(self.retrievers) == 1 and self._reranker is None
        n_wanted = options.offset + options.k if is_one else self._n_candidates
        if self.passages is None:
            found, late = self._retrieval.find(queries, n_wanted, options, deadline)
            each = [({name: of[at] for name, of in found.items()}, late) for at in range(len(queries))]
        else:
            if DOCUMENT in self.store.index.documents.kinds:
                options = options.model_copy(update={"filters": of_documents(options.filters)})
            each = self._retrieval.find_documents(queries, n_wanted, options, deadline)
        return [
            self._answer(query, mine, failed, options, deadline)
            for query, (mine, failed) in zip(queries, each, strict=True)
        ]

    def _answer(
        self,
        query: Query,
        found: Mapping[str, Found],
        late: Sequence[str],
        options: SearchOptions,
        deadline: float | None,
    ) -> SearchResult:
        """One query's answer."""
        degraded = list(late)
        view = found[self.main].view if self.main in found else self.store.view()
        marks = [time.perf_counter()]
        rows, scores = self._fused(view, found)
        if self.passages is not None:
            import pyarrow as pa

            best = best_of_each(view.documents.row_ids.take(pa.array(rows)).to_pylist())
            rows, scores = rows[best], scores[best]
        marks.append(time.perf_counter())
        if self._reranker is not None and query.text:
            reranked = self._reranked(query.text, view, rows, deadline)
            if reranked is None:
                degraded.append("rerank")
            else:
                rows, scores = reranked
        marks.append(time.perf_counter())
        page = slice(options.offset, options.offset + options.k)
        hits = self._showing.hits(view, rows[page], scores[page], found, options)
        marks.append(time.perf_counter())
        leading = next(iter(found))
        stage = self.retrievers[leading].stage
        return SearchResult(
            hits=hits,
            expansion=stage.expansion(found[leading].vector) if options.explain else [],
            degraded=degraded,
            version=version_of(view),
            times_ms=self._times_ms(found, marks),
        )

    def _times_ms(self, found: Mapping[str, Found], marks: Sequence[float]) -> dict[str, float]:
        """Of each stage that there was."""
        times = {
            stage: max(of.times_s[stage] for of in found.values()) * 1e3 for stage in ("encode", "search")
        }
        steps = dict(
            zip(("fuse", "rerank", "show"), (1e3 * (b - a) for a, b in pairwise(marks)), strict=True)
        )
        if len(self.retrievers) == 1:
            del steps["fuse"]
        if self._reranker is None:
            del steps["rerank"]
        return times | steps

    def _fused(self, view: Any, found: Mapping[str, Found]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Rows of the texts' index, and scores."""
        if len(self.retrievers) == 1:
            (only,) = found.values()
            return only.rows, only.scores
        from gossamer.index.fusion import fuse
        from gossamer.index.hits import Hits

        lists = [Hits(of.rows[None], of.scores[None], of.row_ids) for of in found.values()]
        weights = [self.retrievers[name].weight for name in found]
        fused = fuse(
            lists, max(1, sum(of.rows.size for of in found.values())), method=self._fusion, weights=weights
        )
        kept = fused.rows[0] >= 0
        ids = fused.ids.flatten().to_pylist()[: int(kept.sum())]
        rows = view.documents.rows_of(ids)
        there = rows >= 0  # what has just been deleted here may still be there
        return rows[there], fused.scores[0][kept][there]

    def _reranked(
        self, text: str, view: Any, rows: NDArray[np.int64], deadline: float | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]] | None:
        """The best ones in the reranker's order, which is the end of the list; None if it fails, or is late."""
        assert self._reranker is not None  # who calls this has one
        assert self._reranking is not None
        best = rows[: self._reranker.n_candidates]
        if not best.size:
            return best, np.zeros(0, np.float32)
        from gossamer.lsr.data import document_texts

        texts = document_texts(view.documents.take(best))
        until = time.monotonic() + self._reranker.timeout_s
        try:
            scores = self._reranking.call(
                (text, texts), deadline=until if deadline is None else min(until, deadline)
            )
        except Exception as error:
            logger.warning("the reranker did not answer: %s", error)
            return None
        order = np.argsort(-scores, kind="stable")
        return best[order], scores[order]


def _each(reranker: Reranker) -> Callable[[Sequence[tuple[str, list[str]]]], list[Any]]:
    return lambda calls: [reranker.scores(text, texts) for text, texts in calls]
