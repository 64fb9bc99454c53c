"""`Retrieval`: several stages are asked side by side; who is late or fails leaves the answer to the others."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final

from gossamer.kernels.errors import DeadlineError, InputError, ServiceError
from gossamer.serving.batching import Batcher
from gossamer.serving.passages import document_of
from gossamer.serving.schemas import SearchOptions, Vectors
from gossamer.serving.stage import Ask, Found, SearchStage

logger = logging.getLogger(__name__)

_DEEPER: Final = 4  # as many passages as documents are looked for, and then again


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


class Retrieval:
    """Finds candidates; safe to call from several threads.

    Args:
        retrievers: by name.
        batch_wait_s, max_batch, max_waiting: see `Pipeline`.
    """

    def __init__(
        self,
        retrievers: Mapping[str, Retriever],
        *,
        batch_wait_s: float | None,
        max_batch: int,
        max_waiting: int,
    ) -> None:
        self.retrievers = dict(retrievers)
        self._batchers: dict[str, Batcher[list[Ask], list[Found]]] = {}
        if batch_wait_s is not None or len(self.retrievers) > 1:
            self._batchers = {
                name: Batcher(
                    _all(retriever.stage),
                    name=f"retriever {name}",
                    max_size=max_batch,
                    max_waiting=max_waiting,
                    wait_s=batch_wait_s or 0.0,
                )
                for name, retriever in self.retrievers.items()
            }

    @property
    def n_waiting(self) -> dict[str, int]:
        """Queries that wait, by retriever."""
        return {name: batcher.n_waiting for name, batcher in self._batchers.items()}

    def close(self) -> None:
        """Answer what was taken, and end the threads."""
        for batcher in self._batchers.values():
            batcher.close()

    def find(
        self, queries: Sequence[Query], depth: int, options: SearchOptions, deadline: float | None
    ) -> tuple[dict[str, list[Found]], list[str]]:
        """What each retriever finds for each query, so many rows of each, and who was late or failed.

        Raises:
            InputError: a vector or filter does not suit, or there is nobody who can be asked.
            ServiceError: nobody answered.
        """
        return self._retrieve(self._asks(queries, depth, options), deadline)

    def find_documents(
        self, queries: Sequence[Query], n_wanted: int, options: SearchOptions, deadline: float | None
    ) -> list[tuple[dict[str, Found], list[str]]]:
        """For each query, passages of so many documents by each retriever, and who was late or failed."""
        depth = _DEEPER * n_wanted
        found, late = self.find(queries, depth, options, deadline)
        answers = []
        for place in range(len(queries)):
            mine = {name: of[place] for name, of in found.items()}
            mine, more = self._deeper(mine, n_wanted, depth, options, deadline)
            answers.append((mine, [*late, *more]))
        return answers

    def _deeper(
        self,
        found: dict[str, Found],
        n_wanted: int,
        depth: int,
        options: SearchOptions,
        deadline: float | None,
    ) -> tuple[dict[str, Found], list[str]]:
        """Find more passages until each one's are of so many documents, or it has no more; and who failed meanwhile."""
        failed: list[str] = []
        while not failed:
            short = {
                name: of
                for name, of in found.items()
                if of.rows.size >= depth and len({document_of(row) for row in of.ids}) < n_wanted
            }
            if not short:
                break
            depth *= _DEEPER
            asks = {name: [Ask("", of.vector, depth, options.filters)] for name, of in short.items()}
            more, failed = self._retrieve(asks, deadline)
            found = found | {name: of for name, (of,) in more.items()}
        return found, failed

    def _retrieve(
        self, asks: Mapping[str, list[Ask]], deadline: float | None
    ) -> tuple[dict[str, list[Found]], list[str]]:
        """What each retriever found for each query, and who was late or failed."""
        if not self._batchers:
            here = {name: _raised(self.retrievers[name].stage.find(of)) for name, of in asks.items()}
            if deadline is not None and time.monotonic() > deadline:
                raise DeadlineError("the retriever did not answer in time: allow more, or ask less")
            return here, []
        if len(self.retrievers) == 1:
            ((name, only),) = asks.items()
            return {name: self._batchers[name].call(only, size=len(only), deadline=deadline)}, []
        began = time.monotonic()
        found: dict[str, list[Found]] = {}
        futures: dict[str, Future[list[Found]]] = {}
        failures: dict[str, Exception] = {}
        for name, of in asks.items():
            try:
                futures[name] = self._batchers[name].submit(of, size=len(of), deadline=deadline)
            except ServiceError as error:
                failures[name] = error
        for name, future in futures.items():
            try:
                found[name] = self._awaited(name, future, began, deadline)
            except InputError:
                raise
            except Exception as error:
                failures[name] = error
        for name, failure in failures.items():
            if not found:
                raise failure
            logger.warning("retriever %s did not answer: %s", name, failure)
        return found, list(failures)

    def _awaited(
        self, name: str, future: Future[list[Found]], began: float, deadline: float | None
    ) -> list[Found]:
        timeout_s = self.retrievers[name].timeout_s
        mine = None if timeout_s is None else began + timeout_s
        until = min((one for one in (deadline, mine) if one is not None), default=None)
        return self._batchers[name].wait(future, until)

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


def _raised(found: Sequence[Found | Exception]) -> list[Found]:
    for one in found:
        if isinstance(one, Exception):
            raise one
    return [one for one in found if isinstance(one, Found)]
