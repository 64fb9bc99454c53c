"""`Client` and `AsyncClient`: the engine's methods, answered by a service over HTTP, with the same answers and errors.

Both are thin: a `Call` says what to send and how to read what comes back, so neither knows more than how to send, and
when to send again: where the service was too busy; where nothing answered, if doing it twice is doing it once.
This module loads no torch, Ray, Numba or Arrow.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self, TypeVar, Unpack

import httpx2
from pydantic import BaseModel

from gossamer.index.filters import Filters
from gossamer.kernels.errors import (
    ConfigError,
    GossamerError,
    UnavailableError,
)
from gossamer.lsr.passages import Passages
from gossamer.serving.calls import COLLECTIONS, HEALTH, Call, Calls, create, drop, joined, parts
from gossamer.serving.item_schemas import (
    ItemArguments,
    RecommendArguments,
    RecommendResponse,
    SimilarResponse,
)
from gossamer.serving.records import (
    BulkWritten,
    CollectionDropped,
    CollectionInfo,
    CollectionList,
    Given,
    Listed,
    Stored,
    Table,
    Written,
)
from gossamer.serving.schemas import (
    FacetsResponse,
    HealthResponse,
    SearchArguments,
    SearchBatchResponse,
    SearchResponse,
    Vectors,
)
from gossamer.serving.settings import is_loopback

DEFAULT_TIMEOUT_S: Final = 10.0
BULK_TIMEOUT_S: Final = 300.0
_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 5.0

A = TypeVar("A", bound=BaseModel)
OnProgress = Callable[[int], None]
"""Called with the number of documents that are written."""


class Client:
    """Talks to a service; use it as a context manager, or `close` it. Safe to share between threads.

    Args:
        url: Where the service listens, such as `http://127.0.0.1:8080`. Proxies that the environment names are used,
            but not to reach this machine itself.
        collection: Whom it asks.
        key: Of `gossamer keys add`; the environment's `GOSSAMER_KEY` if not given.
        timeout_s: Seconds to wait for a connection, and then for each part of an answer.
        retries: How often it asks again where nothing answered, or the service was too busy, and asking twice does no
            harm; after a pause that doubles, of random length.
        transport: How requests are sent; for tests and special networks.

    Raises:
        ConfigError: The URL is not one of a service.
    """

    def __init__(
        self,
        url: str,
        *,
        collection: str = "default",
        key: str | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        retries: int = 3,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        base_url = _checked_url(url)
        self._calls = Calls(collection)
        self._retries = retries
        self._http = httpx2.Client(
            base_url=base_url,
            headers=_authorization(key),
            timeout=timeout_s,
            transport=transport,
            trust_env=not is_loopback(base_url.host),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def search(
        self, query: str = "", *, vectors: Vectors | None = None, **options: Unpack[SearchArguments]
    ) -> SearchResponse:
        """As `Engine.search`."""
        return self._send(self._calls.search(query, vectors, **options))

    def search_batch(self, queries: Sequence[str], **options: Unpack[SearchArguments]) -> SearchBatchResponse:
        """As `Engine.search_batch`."""
        return self._send(self._calls.search_batch(queries, **options))

    def recommend(self, **options: Unpack[RecommendArguments]) -> RecommendResponse:
        """As `Engine.recommend`."""
        return self._send(self._calls.recommend(**options))

    def similar(self, item: str, **options: Unpack[ItemArguments]) -> SimilarResponse:
        """As `Engine.similar`."""
        return self._send(self._calls.similar(item, **options))

    def interact(self, interactions: Sequence[Mapping[str, Any]]) -> Written:
        """As `Engine.interact`; not asked again where nothing answered, as it may have been kept."""
        return self._send(self._calls.interact(interactions))

    def facets(self) -> FacetsResponse:
        """As `Engine.facets`."""
        return self._send(self._calls.facets())

    def health(self) -> HealthResponse:
        """As `Engine.health`; a service that is still loading says so."""
        return self._send(HEALTH)

    def get(self, id: str) -> Stored:  # as the document calls it
        """As `Engine.get`."""
        return self._send(self._calls.get(id))

    def put(self, documents: Sequence[Given]) -> Written:
        """As `Engine.put`."""
        return self._send(self._calls.put(documents))

    def put_many(
        self,
        documents: Iterable[Given] | Table,
        *,
        on_progress: OnProgress | None = None,
        timeout_s: float = BULK_TIMEOUT_S,
    ) -> BulkWritten:
        """Write any number of documents, a thousand a request; those that are refused are named, the others written.

        Args:
            documents: of any number, such as a generator; or an Arrow table or stream, or a data frame, with a column
                `id`, perhaps `title` and `text`, and others for the metadata. Nulls and NaN count as missing.
            on_progress: is told how many are written, after each request.
            timeout_s: seconds to wait for a request, which may encode and write all of its documents.

        Raises:
            InputError: one of them is no document; those that were sent before it are written.
        """
        report = BulkWritten(version="")
        for lines in parts(documents):
            report = joined(report, self._send(self._calls.put_lines(lines, timeout_s)))
            if on_progress is not None:
                on_progress(report.n_lines - report.n_refused)
        return report

    def documents(self, *, k: int = 10, after: str | None = None, filters: Filters | None = None) -> Listed:
        """As `Engine.documents`."""
        return self._send(self._calls.documents(k, after, filters))

    def delete(self, ids: Sequence[str] | None = None, *, filters: Filters | None = None) -> Written:
        """As `Engine.delete`."""
        return self._send(self._calls.delete(ids, filters))

    def collections(self) -> CollectionList:
        """All collections, and what they answer from."""
        return self._send(COLLECTIONS)

    def create(
        self, name: str, retrievers: Mapping[str, str], *, passages: Passages | None = None
    ) -> CollectionInfo:
        """Make a collection without documents; each retriever has the encoder that the service calls so.

        With `passages`, documents are split, and found by their best passage.
        """
        return self._send(create(name, retrievers, passages))

    def drop(self, name: str) -> CollectionDropped:
        """Delete a collection that was made by `create`, with its documents."""
        return self._send(drop(name))

    def reload(self) -> CollectionInfo:
        """Have the collection answer from what its file names now."""
        return self._send(self._calls.reload())

    def _send(self, call: Call[A]) -> A:
        for pause_s in _pauses(self._retries):
            try:
                return self._send_once(call)
            except call.passing as error:
                if pause_s is None:
                    raise
                time.sleep(max(pause_s, _asked_to_wait(error)))
        raise AssertionError("the last pause is None")

    def _send_once(self, call: Call[A]) -> A:
        try:
            response = self._http.request(call.method, call.path, **call.options)
        except httpx2.RequestError as error:
            raise _unreachable(self._http.base_url, error) from error
        return call.read(response)


class AsyncClient:
    """`Client` for asyncio; use it as an asynchronous context manager, or `close` it."""

    def __init__(
        self,
        url: str,
        *,
        collection: str = "default",
        key: str | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        retries: int = 3,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        base_url = _checked_url(url)
        self._calls = Calls(collection)
        self._retries = retries
        self._http = httpx2.AsyncClient(
            base_url=base_url,
            headers=_authorization(key),
            timeout=timeout_s,
            transport=transport,
            trust_env=not is_loopback(base_url.host),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def search(
        self, query: str = "", *, vectors: Vectors | None = None, **options: Unpack[SearchArguments]
    ) -> SearchResponse:
        """As `Engine.search`."""
        return await self._send(self._calls.search(query, vectors, **options))

    async def search_batch(
        self, queries: Sequence[str], **options: Unpack[SearchArguments]
    ) -> SearchBatchResponse:
        """As `Engine.search_batch`."""
        return await self._send(self._calls.search_batch(queries, **options))

    async def recommend(self, **options: Unpack[RecommendArguments]) -> RecommendResponse:
        """As `Engine.recommend`."""
        return await self._send(self._calls.recommend(**options))

    async def similar(self, item: str, **options: Unpack[ItemArguments]) -> SimilarResponse:
        """As `Engine.similar`."""
        return await self._send(self._calls.similar(item, **options))

    async def interact(self, interactions: Sequence[Mapping[str, Any]]) -> Written:
        """As `Engine.interact`; not asked again where nothing answered, as it may have been kept."""
        return await self._send(self._calls.interact(interactions))

    async def facets(self) -> FacetsResponse:
        """As `Engine.facets`."""
        return await self._send(self._calls.facets())

    async def health(self) -> HealthResponse:
        """As `Engine.health`; a service that is still loading says so."""
        return await self._send(HEALTH)

    async def get(self, id: str) -> Stored:  # as the document calls it
        """As `Engine.get`."""
        return await self._send(self._calls.get(id))

    async def put(self, documents: Sequence[Given]) -> Written:
        """As `Engine.put`."""
        return await self._send(self._calls.put(documents))

    async def put_many(
        self,
        documents: Iterable[Given] | Table,
        *,
        on_progress: OnProgress | None = None,
        timeout_s: float = BULK_TIMEOUT_S,
    ) -> BulkWritten:
        """Write any number of documents, a thousand a request; those that are refused are named, the others written.

        Args:
            documents: of any number, such as a generator; or an Arrow table or stream, or a data frame, with a column
                `id`, perhaps `title` and `text`, and others for the metadata. Nulls and NaN count as missing.
            on_progress: is told how many are written, after each request.
            timeout_s: seconds to wait for a request, which may encode and write all of its documents.

        Raises:
            InputError: one of them is no document; those that were sent before it are written.
        """
        report = BulkWritten(version="")
        for lines in parts(documents):
            report = joined(report, await self._send(self._calls.put_lines(lines, timeout_s)))
            if on_progress is not None:
                on_progress(report.n_lines - report.n_refused)
        return report

    async def documents(
        self, *, k: int = 10, after: str | None = None, filters: Filters | None = None
    ) -> Listed:
        """As `Engine.documents`."""
        return await self._send(self._calls.documents(k, after, filters))

    async def delete(self, ids: Sequence[str] | None = None, *, filters: Filters | None = None) -> Written:
        """As `Engine.delete`."""
        return await self._send(self._calls.delete(ids, filters))

    async def collections(self) -> CollectionList:
        """All collections, and what they answer from."""
        return await self._send(COLLECTIONS)

    async def create(
        self, name: str, retrievers: Mapping[str, str], *, passages: Passages | None = None
    ) -> CollectionInfo:
        """Make a collection without documents; each retriever has the encoder that the service calls so.

        With `passages`, documents are split, and found by their best passage.
        """
        return await self._send(create(name, retrievers, passages))

    async def drop(self, name: str) -> CollectionDropped:
        """Delete a collection that was made by `create`, with its documents."""
        return await self._send(drop(name))

    async def reload(self) -> CollectionInfo:
        """Have the collection answer from what its file names now."""
        return await self._send(self._calls.reload())

    async def _send(self, call: Call[A]) -> A:
        for pause_s in _pauses(self._retries):
            try:
                return await self._send_once(call)
            except call.passing as error:
                if pause_s is None:
                    raise
                await asyncio.sleep(max(pause_s, _asked_to_wait(error)))
        raise AssertionError("the last pause is None")

    async def _send_once(self, call: Call[A]) -> A:
        try:
            response = await self._http.request(call.method, call.path, **call.options)
        except httpx2.RequestError as error:
            raise _unreachable(self._http.base_url, error) from error
        return call.read(response)


def _pauses(retries: int) -> Iterator[float | None]:
    """Seconds to wait after each attempt; None after the last. With full jitter (Brooker, 2015)."""
    for attempt in range(retries):
        yield random.uniform(0, min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**attempt))
    yield None


def _asked_to_wait(error: GossamerError) -> float:
    """Seconds that the service asked to be left alone for."""
    seconds: float = getattr(error, "retry_after_s", 0.0)
    return seconds


def _checked_url(url: str) -> httpx2.URL:
    try:
        parsed = httpx2.URL(url)
    except (httpx2.InvalidURL, TypeError) as error:
        raise ConfigError(f"{url!r} is no URL: {error}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ConfigError(f"{url!r} is no address of a service: expected one such as http://127.0.0.1:8080")
    return parsed


def _authorization(key: str | None) -> dict[str, str]:
    given = os.environ.get("GOSSAMER_KEY", "") if key is None else key
    if not given:
        return {}
    if not given.isascii() or not given.isprintable() or " " in given:
        raise ConfigError("the key is none of `gossamer keys add`: it has characters that no key has")
    return {"authorization": f"Bearer {given}"}


def _unreachable(url: httpx2.URL, error: httpx2.RequestError) -> UnavailableError:
    if isinstance(error, httpx2.TimeoutException):
        return UnavailableError(f"{url} did not answer in time: raise timeout_s, or ask for less at once")
    return UnavailableError(
        f"{url} cannot be reached ({error or type(error).__name__}): check that the service runs there"
    )
