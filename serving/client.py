"""`Client` and `AsyncClient`: the engine's methods, answered by a service over HTTP, with the same answers and errors.

Both are thin: a `_Call` says what to send and how to read what comes back, so neither knows more than how to send, and
when to send again: where the service was too busy; where nothing answered, if doing it twice is doing it once.
This module loads no torch, Ray, Numba or Arrow.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar, Unpack
from urllib.parse import quote

import httpx2
from pydantic import BaseModel, ValidationError

from gossamer.kernels.errors import (
    ConfigError,
    GossamerError,
    NotReadyError,
    OverloadedError,
    ServiceError,
    UnavailableError,
)
from gossamer.serving.errors import kind_named, kind_of_status
from gossamer.serving.messages import checked
from gossamer.serving.records import (
    BulkWritten,
    CollectionDropped,
    CollectionInfo,
    CollectionList,
    CreateRequest,
    DeleteRequest,
    Document,
    Given,
    InteractionsRequest,
    PutRequest,
    Stored,
    Written,
    document,
)
from gossamer.serving.schemas import (
    ErrorBody,
    FacetsResponse,
    HealthResponse,
    ItemArguments,
    RecommendArguments,
    RecommendRequest,
    RecommendResponse,
    SearchArguments,
    SearchBatchRequest,
    SearchBatchResponse,
    SearchRequest,
    SearchResponse,
    SimilarRequest,
    SimilarResponse,
    Vectors,
)
from gossamer.serving.settings import is_loopback

DEFAULT_TIMEOUT_S: Final = 10.0
BULK_TIMEOUT_S: Final = 300.0
_BULK_LINES: Final = 1_000
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
        key: API key; by default that of the environment's `GOSSAMER_KEY`. It is in no message.
        timeout_s: Seconds to wait for a connection, and then for each part of an answer.
        retries: How often it asks again where nothing answered, or the service was too busy, and asking twice does no
            harm; after a pause that doubles, of random length.
        transport: How requests are sent; for tests and special networks.

    Raises:
        ConfigError: The URL is not one of a service, or the key is none.
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
        self._calls = _Calls(collection)
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
        return self._send(_HEALTH)

    def get(self, id: str) -> Stored:  # as the document calls it
        """As `Engine.get`."""
        return self._send(self._calls.get(id))

    def put(self, documents: Sequence[Given]) -> Written:
        """As `Engine.put`."""
        return self._send(self._calls.put(documents))

    def put_many(
        self,
        documents: Iterable[Given],
        *,
        on_progress: OnProgress | None = None,
        timeout_s: float = BULK_TIMEOUT_S,
    ) -> BulkWritten:
        """Write any number of documents, a thousand a request; those that are refused are named, the others written.

        Args:
            documents: of any number, such as a generator.
            on_progress: is told how many are written, after each request.
            timeout_s: seconds to wait for a request, which may encode and write all of its documents.
        """
        report = BulkWritten(version="")
        for lines in _parts(documents):
            report = _joined(report, self._send(self._calls.put_lines(lines, timeout_s)))
            if on_progress is not None:
                on_progress(report.n_lines - report.n_refused)
        return report

    def delete(self, ids: Sequence[str]) -> Written:
        """As `Engine.delete`."""
        return self._send(self._calls.delete(ids))

    def collections(self) -> CollectionList:
        """All collections, and what they answer from."""
        return self._send(_COLLECTIONS)

    def create(self, name: str, retrievers: Mapping[str, str]) -> CollectionInfo:
        """Make a collection without documents; each retriever has the encoder that the service calls so."""
        return self._send(_create(name, retrievers))

    def drop(self, name: str) -> CollectionDropped:
        """Delete a collection that was made by `create`, with its documents."""
        return self._send(_drop(name))

    def reload(self) -> CollectionInfo:
        """Have the collection answer from what its file names now."""
        return self._send(self._calls.reload())

    def _send(self, call: _Call[A]) -> A:
        for pause_s in _pauses(self._retries):
            try:
                return self._send_once(call)
            except call.passing as error:
                if pause_s is None:
                    raise
                time.sleep(max(pause_s, _asked_to_wait(error)))
        raise AssertionError("the last pause is None")

    def _send_once(self, call: _Call[A]) -> A:
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
        self._calls = _Calls(collection)
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
        return await self._send(_HEALTH)

    async def get(self, id: str) -> Stored:  # as the document calls it
        """As `Engine.get`."""
        return await self._send(self._calls.get(id))

    async def put(self, documents: Sequence[Given]) -> Written:
        """As `Engine.put`."""
        return await self._send(self._calls.put(documents))

    async def put_many(
        self,
        documents: Iterable[Given],
        *,
        on_progress: OnProgress | None = None,
        timeout_s: float = BULK_TIMEOUT_S,
    ) -> BulkWritten:
        """Write any number of documents, a thousand a request; those that are refused are named, the others written.

        Args:
            documents: of any number, such as a generator.
            on_progress: is told how many are written, after each request.
            timeout_s: seconds to wait for a request, which may encode and write all of its documents.
        """
        report = BulkWritten(version="")
        for lines in _parts(documents):
            report = _joined(report, await self._send(self._calls.put_lines(lines, timeout_s)))
            if on_progress is not None:
                on_progress(report.n_lines - report.n_refused)
        return report

    async def delete(self, ids: Sequence[str]) -> Written:
        """As `Engine.delete`."""
        return await self._send(self._calls.delete(ids))

    async def collections(self) -> CollectionList:
        """All collections, and what they answer from."""
        return await self._send(_COLLECTIONS)

    async def create(self, name: str, retrievers: Mapping[str, str]) -> CollectionInfo:
        """Make a collection without documents; each retriever has the encoder that the service calls so."""
        return await self._send(_create(name, retrievers))

    async def drop(self, name: str) -> CollectionDropped:
        """Delete a collection that was made by `create`, with its documents."""
        return await self._send(_drop(name))

    async def reload(self) -> CollectionInfo:
        """Have the collection answer from what its file names now."""
        return await self._send(self._calls.reload())

    async def _send(self, call: _Call[A]) -> A:
        for pause_s in _pauses(self._retries):
            try:
                return await self._send_once(call)
            except call.passing as error:
                if pause_s is None:
                    raise
                await asyncio.sleep(max(pause_s, _asked_to_wait(error)))
        raise AssertionError("the last pause is None")

    async def _send_once(self, call: _Call[A]) -> A:
        try:
            response = await self._http.request(call.method, call.path, **call.options)
        except httpx2.RequestError as error:
            raise _unreachable(self._http.base_url, error) from error
        return call.read(response)


@dataclass(frozen=True)
class _Call(Generic[A]):
    """One request, and how to read its answer."""

    method: str
    path: str
    answer: type[A]
    request: BaseModel | None = None
    lines: Sequence[BaseModel] | None = None
    is_safe: bool = True
    """Whether doing it twice is doing it once."""
    timeout_s: float | None = None
    """Where it is another than the client's."""

    @property
    def passing(self) -> tuple[type[GossamerError], ...]:
        """Failures after which it may be done again: after the first two nothing was done."""
        return (OverloadedError, NotReadyError, *((UnavailableError,) if self.is_safe else ()))

    @property
    def body(self) -> bytes | None:
        if self.lines is not None:
            return b"".join(line.model_dump_json().encode() + b"\n" for line in self.lines)
        # only what was given, so that an older service is not told of parameters that it does not know
        return None if self.request is None else self.request.model_dump_json(exclude_unset=True).encode()

    @property
    def options(self) -> dict[str, Any]:
        timeout = {} if self.timeout_s is None else {"timeout": self.timeout_s}
        return {"content": self.body, "headers": self.headers, **timeout}

    @property
    def headers(self) -> dict[str, str]:
        if self.lines is not None:
            return {"content-type": "application/x-ndjson"}
        return {} if self.request is None else {"content-type": "application/json"}

    def read(self, response: httpx2.Response) -> A:
        if not response.is_success:
            raise _refusal(response)
        try:
            return self.answer.model_validate_json(response.content)
        except ValidationError as error:
            raise ServiceError(
                f"{response.url} did not answer as a gossamer service does ({error.error_count()} faults, the first: "
                f"{error.errors()[0]['msg']}): check the address, and that client and service have one version"
            ) from error


class _Calls:
    """The requests to one collection."""

    def __init__(self, collection: str) -> None:
        self._path = f"/collections/{quote(collection, safe='')}"

    def search(self, query: str, vectors: Vectors | None, **options: Any) -> _Call[SearchResponse]:
        given = {} if vectors is None else {"vectors": vectors}
        request = checked(SearchRequest, query=query, **given, **options)
        return _Call("POST", f"{self._path}/search", SearchResponse, request)

    def search_batch(self, queries: Sequence[str], **options: Any) -> _Call[SearchBatchResponse]:
        request = checked(SearchBatchRequest, queries=queries, **options)
        return _Call("POST", f"{self._path}/search/batch", SearchBatchResponse, request)

    def recommend(self, **parameters: Any) -> _Call[RecommendResponse]:
        request = checked(RecommendRequest, **parameters)
        return _Call("POST", f"{self._path}/recommend", RecommendResponse, request)

    def similar(self, item: str, **parameters: Any) -> _Call[SimilarResponse]:
        request = checked(SimilarRequest, item=item, **parameters)
        return _Call("POST", f"{self._path}/similar", SimilarResponse, request)

    def interact(self, interactions: Sequence[Mapping[str, Any]]) -> _Call[Written]:
        request = checked(InteractionsRequest, interactions=interactions)
        return _Call("POST", f"{self._path}/interactions", Written, request, is_safe=False)

    def facets(self) -> _Call[FacetsResponse]:
        return _Call("GET", f"{self._path}/facets", FacetsResponse)

    def get(self, id_: str) -> _Call[Stored]:
        return _Call("GET", f"{self._path}/documents/{quote(id_, safe='')}", Stored)

    def put(self, documents: Sequence[Given]) -> _Call[Written]:
        request = checked(PutRequest, documents=[document(one) for one in documents])
        return _Call("POST", f"{self._path}/documents", Written, request)

    def put_lines(self, documents: Sequence[Document], timeout_s: float) -> _Call[BulkWritten]:
        path = f"{self._path}/documents/bulk"
        return _Call("POST", path, BulkWritten, lines=documents, timeout_s=timeout_s)

    def delete(self, ids: Sequence[str]) -> _Call[Written]:
        request = checked(DeleteRequest, ids=ids)
        return _Call("POST", f"{self._path}/documents/delete", Written, request)

    def reload(self) -> _Call[CollectionInfo]:
        return _Call("POST", f"{self._path}/reload", CollectionInfo)


_HEALTH: Final = _Call("GET", "/healthz", HealthResponse)
_COLLECTIONS: Final = _Call("GET", "/collections", CollectionList)


def _create(name: str, retrievers: Mapping[str, str]) -> _Call[CollectionInfo]:
    request = checked(CreateRequest, name=name, retrievers=dict(retrievers))
    return _Call("POST", "/collections", CollectionInfo, request, is_safe=False)


def _drop(name: str) -> _Call[CollectionDropped]:
    return _Call("DELETE", f"/collections/{quote(name, safe='')}", CollectionDropped, is_safe=False)


def _parts(documents: Iterable[Given]) -> Iterator[list[Document]]:
    rest = iter(documents)
    while part := [document(one) for one in islice(rest, _BULK_LINES)]:
        yield part


def _joined(before: BulkWritten, new: BulkWritten) -> BulkWritten:
    """One report of two, lines counted through."""
    later = [one.model_copy(update={"line": one.line + before.n_lines}) for one in new.refused]
    counts = {
        name: getattr(before, name) + getattr(new, name)
        for name in ("n_added", "n_replaced", "n_lines", "n_refused")
    }
    return BulkWritten(version=new.version or before.version, refused=[*before.refused, *later], **counts)


def _pauses(retries: int) -> Iterator[float | None]:
    """Seconds to wait after each attempt; None after the last. With full jitter (Brooker, 2015)."""
    for attempt in range(retries):
        yield random.uniform(0, min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**attempt))
    yield None


def _asked_to_wait(error: GossamerError) -> float:
    """Seconds that the service asked to be left alone for."""
    seconds: float = getattr(error, "retry_after_s", 0.0)
    return seconds


def _retry_after(response: httpx2.Response) -> float:
    given = response.headers.get("retry-after", "")
    return min(_LONGEST_PAUSE_S, float(given)) if given.isdecimal() else 0.0


def _refusal(response: httpx2.Response) -> GossamerError:
    """The exception that an answer other than 2xx stands for."""
    try:
        detail = ErrorBody.model_validate_json(response.content).error
    except ValidationError:  # not from our service: a proxy in between, or another program at the address
        error = kind_of_status(response.status_code).raised(
            f"{response.url} answered {response.status_code} {response.reason_phrase}, and not as a gossamer service "
            "does: check the address and any proxy before it"
        )
    else:
        error = kind_named(detail.type).raised(detail.message)
    error.retry_after_s = _retry_after(response)  # type: ignore[attr-defined] # for `_asked_to_wait` alone
    return error


def _checked_url(url: str) -> httpx2.URL:
    try:
        parsed = httpx2.URL(url)
    except (httpx2.InvalidURL, TypeError) as error:
        raise ConfigError(f"{url!r} is no URL: {error}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ConfigError(f"{url!r} is no address of a service: expected one such as http://127.0.0.1:8080")
    return parsed


def _authorization(key: str | None) -> dict[str, str]:
    key = os.environ.get("GOSSAMER_KEY", "") if key is None else key
    if not key:
        return {}
    if (
        not key.isascii() or not key.isprintable() or " " in key
    ):  # else a message of the network's would show it
        raise ConfigError("the key is none: it has characters that no key has; copy it once more")
    return {"authorization": f"Bearer {key}"}


def _unreachable(url: httpx2.URL, error: httpx2.RequestError) -> UnavailableError:
    if isinstance(error, httpx2.TimeoutException):
        return UnavailableError(f"{url} did not answer in time: raise timeout_s, or ask for less at once")
    return UnavailableError(
        f"{url} cannot be reached ({error or type(error).__name__}): check that the service runs there"
    )
