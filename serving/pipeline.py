"""`Pipeline`: how a query is answered. Retrievers find documents, their lists are fused, the best are reranked.

    query ─► retriever, retriever, … (side by side) ─► fuse ─► rerank ─► texts, snippets, reasons

A retriever or reranker that fails or is late leaves the answer to the others, and is named in `degraded`. What is wrong
with the request itself fails it. Of the first retriever's index are the texts.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from gossamer.kernels.errors import InputError, MismatchError, NotReadyError, ServiceError
from gossamer.serving.batching import Batcher
from gossamer.serving.passages import DOCUMENT, PASSAGE, RESERVED, best_of_each, document_of, of_documents
from gossamer.serving.schemas import FoundBy, SearchHit, SearchOptions, SearchResult, Vectors
from gossamer.serving.stage import Ask, Found, SearchStage, version_of

if TYPE_CHECKING:
    from gossamer.index.explain import Contribution
    from gossamer.index.fusion import Method
    from gossamer.lsr.passages import Passages
    from gossamer.serving.reranking import Reranker

logger = logging.getLogger(__name__)

_DEEPER: Final = 4  # as many passages as documents are looked for, and then again
_TEXTS: Final = ("id", "title", "text")
T = TypeVar("T")


@dataclass(frozen=True)
class Query:
    """A query: a text, and vectors for some of the retrievers."""

    text: str
    vectors: Vectors = field(default_factory=dict)


@dataclass(frozen=True)
class Retriever:
    """A stage, and what it counts for.

    Attributes:
        stage: index and encoder.
        weight: in fusion.
        timeout_s: after so long the answer does without it.
    """

    stage: SearchStage
    weight: float = 1.0
    timeout_s: float | None = None


class Pipeline:
    """Answers queries from one or several retrievers; safe to call from several threads.

    Args:
        retrievers: by name; the first one's index has the texts of all documents.
        fusion: how lists become one, where there are several; `ReciprocalRank()` if not given.
        n_candidates: documents that each retriever gives to fusion, at least.
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
        self._fusion, self._n_candidates, self._reranker = fusion, n_candidates, reranker
        self.passages = passages
        batch = partial(Batcher[Any, Any], max_size=max_batch, max_waiting=max_waiting)
        self._refreshing = Lock()
        needs_threads = batch_wait_s is not None or len(self.retrievers) > 1
        self._batchers = (
            {
                name: batch(_all(retriever.stage), name=f"retriever {name}", wait_s=batch_wait_s or 0.0)
                for name, retriever in self.retrievers.items()
            }
            if needs_threads
            else {}
        )
        self._reranking = None if reranker is None else batch(_each(reranker), name="reranker", max_size=1)

    @property
    def store(self) -> SearchStage:
        """The stage whose index has the texts."""
        return self.retrievers[self.main].stage

    def close(self) -> None:
        """Answer what was taken, and end the threads."""
        for batcher in (*self._batchers.values(), self._reranking):
            if batcher is not None:
                batcher.close()

    @property
    def n_waiting(self) -> dict[str, int]:
        """Queries that wait, by retriever."""
        return {name: batcher.n_waiting for name, batcher in self._batchers.items()}

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
        n_wanted = options.offset + options.k
        depth = n_wanted if self.passages is None else _DEEPER * n_wanted
        if len(self.retrievers) > 1 or self._reranker is not None:
            depth = max(depth, self._n_candidates)
        if self.passages is not None and DOCUMENT in self.store.index.documents.kinds:
            options = options.model_copy(update={"filters": of_documents(options.filters)})
        found, late = self._retrieve(self._asks(queries, depth, options), deadline)
        answers = []
        for place, query in enumerate(queries):
            mine, failed = {name: of[place] for name, of in found.items()}, late
            if self.passages is not None:
                mine, more = self._of_enough_documents(mine, n_wanted, depth, options, deadline)
                failed = [*late, *more]
            answers.append(self._answer(query, mine, failed, options, deadline))
        return answers

    def _of_enough_documents(
        self,
        found: dict[str, Found],
        n_wanted: int,
        depth: int,
        options: SearchOptions,
        deadline: float | None,
    ) -> tuple[dict[str, Found], list[str]]:
        """Find more passages until they are of so many documents, or there are no more; and who failed meanwhile."""
        failed: list[str] = []
        while not failed and any(of.rows.size >= depth for of in found.values()):
            if len({document_of(row) for of in found.values() for row in of.ids}) >= n_wanted:
                break
            depth *= _DEEPER
            asks = {name: [Ask("", of.vector, depth, options.filters)] for name, of in found.items()}
            more, failed = self._retrieve(asks, deadline)
            found = found | {name: of for name, (of,) in more.items()}
        return found, failed

    def _retrieve(
        self, asks: Mapping[str, list[Ask]], deadline: float | None
    ) -> tuple[dict[str, list[Found]], list[str]]:
        """What each retriever found for each query, and who was late or failed."""
        if not self._batchers:
            return {name: _raised(self.retrievers[name].stage.find(of)) for name, of in asks.items()}, []
        found: dict[str, list[Found]] = {}
        futures: dict[str, Future[Any]] = {}
        failures: dict[str, Exception] = {}
        for name, of in asks.items():
            try:
                futures[name] = self._batchers[name].submit(of, size=len(of), deadline=deadline)
            except ServiceError as error:
                failures[name] = error
        for name, future in futures.items():
            try:
                found[name] = self._awaited(name, future, deadline)
            except InputError:
                raise
            except Exception as error:
                failures[name] = error
        for name, failure in failures.items():
            if not found:
                raise failure
            logger.warning("retriever %s did not answer: %s", name, failure)
        return found, list(failures)

    def _awaited(self, name: str, future: Future[Any], deadline: float | None) -> list[Found]:
        timeout_s = self.retrievers[name].timeout_s
        mine = None if timeout_s is None or len(self.retrievers) == 1 else time.monotonic() + timeout_s
        until = min((one for one in (deadline, mine) if one is not None), default=None)
        found: list[Found] = self._batchers[name].wait(future, until)
        return found

    def _asks(self, queries: Sequence[Query], depth: int, options: SearchOptions) -> dict[str, list[Ask]]:
        """What each retriever that can is asked."""
        for query in queries:
            for name in query.vectors:
                if name not in self.retrievers:
                    raise InputError(
                        f"vectors.{name}: there is no such retriever; there are {list(self.retrievers)}"
                    )
        asks = {}
        for name, retriever in self.retrievers.items():
            if retriever.stage.encoder is None and any(name not in query.vectors for query in queries):
                continue
            asks[name] = [
                Ask(
                    query.text,
                    retriever.stage.vector(name, query.vectors[name]) if name in query.vectors else None,
                    min(depth, max(1, len(retriever.stage.index.documents))),
                    options.filters,
                )
                for query in queries
            ]
        if not asks:
            raise InputError(
                f"vectors: no retriever has an encoder; give vectors for one of {list(self.retrievers)}"
            )
        return asks

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
        if self._reranker is not None:
            reranked = self._reranked(query.text, view, rows, deadline)
            if reranked is None:
                degraded.append("rerank")
            else:
                rows, scores = reranked
        marks.append(time.perf_counter())
        page = slice(options.offset, options.offset + options.k)
        hits = self._hits(view, rows[page], scores[page], found, options)
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
        if not best.size or not text:
            return best, np.zeros(best.size, np.float32)
        texts = [f"{one['title']} {one['text']}".strip() for one in view.documents.take(best).to_pylist()]
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

    def _hits(
        self,
        view: Any,
        rows: NDArray[np.int64],
        scores: NDArray[np.float32],
        found: Mapping[str, Found],
        options: SearchOptions,
    ) -> list[SearchHit]:
        documents = view.documents.take(rows).to_pylist()
        ids = [document["id"] for document in documents]
        explaining, parts = self._reasons(rows, ids, found, options)
        found_by = self._found_by(ids, found) if options.explain and len(self.retrievers) > 1 else {}
        is_split = self.passages is not None
        return [
            SearchHit(
                id=document_of(document["id"]) if is_split else document["id"],
                score=score,
                title=document["title"],
                text=document["text"],
                passage=document[PASSAGE] if is_split else None,
                metadata={
                    name: as_json(document[name])
                    for name in document
                    if name not in _TEXTS and not (is_split and name in RESERVED)
                },
                matches=explaining.matches(parts.get(document["id"], [])) if options.explain else [],
                snippet=None
                if options.snippet_chars is None
                else explaining.snippet(
                    document["text"], parts.get(document["id"], []), options.snippet_chars
                ),
                found_by=found_by.get(document["id"], {}),
            )
            for document, score in zip(documents, scores.tolist(), strict=True)
        ]

    def _reasons(
        self,
        rows: NDArray[np.int64],
        ids: Sequence[str],
        found: Mapping[str, Found],
        options: SearchOptions,
    ) -> tuple[SearchStage, dict[str, list[Contribution]]]:
        """The first sparse retriever that answered, and what matched in each document by it; nothing if not asked."""
        if options.explain or options.snippet_chars is not None:
            for name, of in found.items():
                if hasattr(of.view, "explain_rows"):
                    stage = self.retrievers[name].stage
                    mine = rows if name == self.main else of.view.documents.rows_of(ids)
                    there = [(id_, int(row)) for id_, row in zip(ids, mine, strict=True) if row >= 0]
                    parts = stage.contributions(of, [row for _, row in there])
                    return stage, {id_: part for (id_, _), part in zip(there, parts, strict=True)}
        return self.store, {}

    def _found_by(self, ids: Sequence[str], found: Mapping[str, Found]) -> dict[str, dict[str, FoundBy]]:
        shown: dict[str, dict[str, FoundBy]] = {id_: {} for id_ in ids}
        for name, of in found.items():
            for rank, (id_, score) in enumerate(zip(of.ids, of.scores.tolist(), strict=True), start=1):
                if id_ in shown:
                    shown[id_][name] = FoundBy(rank=rank, score=score)
        return shown


def as_json(value: str | int | float | bool | None) -> str | int | float | bool | None:
    """A metadata value as JSON has it: without NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _all(stage: SearchStage) -> Callable[[Sequence[Sequence[Ask]]], list[list[Found] | Exception]]:
    """The work of a batcher whose items are the queries of one request each."""

    def work(requests: Sequence[Sequence[Ask]]) -> list[list[Found] | Exception]:
        found = iter(stage.find([ask for request in requests for ask in request]))
        answers: list[list[Found] | Exception] = []
        for request in requests:
            mine = [next(found) for _ in request]
            failure = next((one for one in mine if isinstance(one, Exception)), None)
            answers.append(failure or [one for one in mine if isinstance(one, Found)])
        return answers

    return work


def _each(reranker: Reranker) -> Callable[[Sequence[tuple[str, list[str]]]], list[Any]]:
    return lambda calls: [reranker.scores(text, texts) for text, texts in calls]


def _raised(found: Sequence[Found | Exception]) -> list[Found]:
    for one in found:
        if isinstance(one, Exception):
            raise one
    return [one for one in found if isinstance(one, Found)]
