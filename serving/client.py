"""`Client` and `AsyncClient`: the engine's methods, answered by a service over HTTP, with the same answers and errors.

Both are thin: a `_Call` says what to send and how to read what comes back, so neither knows more than how to send.
This module loads no torch, Ray, Numba or Arrow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar

import httpx2
from pydantic import BaseModel, ValidationError

from gossamer.index.filters import Filters
from gossamer.kernels.errors import ConfigError, GossamerError, ServiceError, UnavailableError
from gossamer.serving.errors import kind_named, kind_of_status
from gossamer.serving.schemas import (
    ErrorBody,
    FacetsResponse,
    HealthResponse,
    RecommendRequest,
    RecommendResponse,
    SearchBatchRequest,
    SearchBatchResponse,
    SearchRequest,
    SearchResponse,
    checked,
)
from gossamer.serving.settings import is_loopback

DEFAULT_TIMEOUT_S: Final = 10.0

A = TypeVar("A", bound=BaseModel)


class Client:
    """Talks to a service; use it as a context manager, or `close` it. Safe to share between threads.

    Args:
        url: Where the service listens, such as `http://127.0.0.1:8080`. Proxies that the environment names are used,
            but not to reach this machine itself.
        timeout_s: Seconds to wait for a connection, and then for each part of an answer.
        transport: How requests are sent; for tests and special networks.

    Raises:
        ConfigError: The URL is not one of a service.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        base_url = _checked_url(url)
        self._http = httpx2.Client(
            base_url=base_url,
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
        self,
        query: str,
        *,
        k: int = 10,
        filters: Filters | None = None,
        explain: bool = True,
    ) -> SearchResponse:
        """As `Engine.search`."""
        return self._send(_search(query, k=k, filters=filters, explain=explain))

    def search_batch(
        self,
        queries: Sequence[str],
        *,
        k: int = 10,
        filters: Filters | None = None,
        explain: bool = True,
    ) -> SearchBatchResponse:
        """As `Engine.search_batch`."""
        return self._send(_search_batch(queries, k=k, filters=filters, explain=explain))

    def recommend(
        self,
        *,
        user: str | None = None,
        history: Sequence[str] | None = None,
        k: int = 10,
        include_seen: bool = False,
    ) -> RecommendResponse:
        """As `Engine.recommend`."""
        return self._send(_recommend(user=user, history=history, k=k, include_seen=include_seen))

    def facets(self) -> FacetsResponse:
        """As `Engine.facets`."""
        return self._send(_FACETS)

    def health(self) -> HealthResponse:
        """As `Engine.health`; a service that is still loading says so."""
        return self._send(_HEALTH)

    def _send(self, call: _Call[A]) -> A:
        try:
            response = self._http.request(call.method, call.path, content=call.body, headers=_JSON)
        except httpx2.RequestError as error:
            raise _unreachable(self._http.base_url, error) from error
        return call.read(response)


class AsyncClient:
    """`Client` for asyncio; use it as an asynchronous context manager, or `close` it."""

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        base_url = _checked_url(url)
        self._http = httpx2.AsyncClient(
            base_url=base_url,
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
        self,
        query: str,
        *,
        k: int = 10,
        filters: Filters | None = None,
        explain: bool = True,
    ) -> SearchResponse:
        """As `Engine.search`."""
        return await self._send(_search(query, k=k, filters=filters, explain=explain))

    async def search_batch(
        self,
        queries: Sequence[str],
        *,
        k: int = 10,
        filters: Filters | None = None,
        explain: bool = True,
    ) -> SearchBatchResponse:
        """As `Engine.search_batch`."""
        return await self._send(_search_batch(queries, k=k, filters=filters, explain=explain))

    async def recommend(
        self,
        *,
        user: str | None = None,
        history: Sequence[str] | None = None,
        k: int = 10,
        include_seen: bool = False,
    ) -> RecommendResponse:
        """As `Engine.recommend`."""
        return await self._send(_recommend(user=user, history=history, k=k, include_seen=include_seen))

    async def facets(self) -> FacetsResponse:
        """As `Engine.facets`."""
        return await self._send(_FACETS)

    async def health(self) -> HealthResponse:
        """As `Engine.health`; a service that is still loading says so."""
        return await self._send(_HEALTH)

    async def _send(self, call: _Call[A]) -> A:
        try:
            response = await self._http.request(call.method, call.path, content=call.body, headers=_JSON)
        except httpx2.RequestError as error:
            raise _unreachable(self._http.base_url, error) from error
        return call.read(response)


@dataclass(frozen=True)
class _Call(Generic[A]):
    """One request, and how to read its answer."""

    path: str
    answer: type[A]
    request: BaseModel | None = None

    @property
    def method(self) -> str:
        return "GET" if self.request is None else "POST"

    @property
    def body(self) -> bytes | None:
        return None if self.request is None else self.request.model_dump_json().encode()

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


_JSON: Final = {"content-type": "application/json"}
_FACETS: Final = _Call("/facets", FacetsResponse)
_HEALTH: Final = _Call("/healthz", HealthResponse)


def _search(query: str, *, filters: Filters | None, **options: Any) -> _Call[SearchResponse]:
    request = checked(SearchRequest, query=query, filters=filters, **options)
    return _Call("/search", SearchResponse, request)


def _search_batch(
    queries: Sequence[str], *, filters: Filters | None, **options: Any
) -> _Call[SearchBatchResponse]:
    request = checked(SearchBatchRequest, queries=queries, filters=filters, **options)
    return _Call("/search/batch", SearchBatchResponse, request)


def _recommend(**parameters: Any) -> _Call[RecommendResponse]:
    return _Call("/recommend", RecommendResponse, checked(RecommendRequest, **parameters))


def _refusal(response: httpx2.Response) -> GossamerError:
    """The exception that an answer other than 2xx stands for."""
    try:
        detail = ErrorBody.model_validate_json(response.content).error
    except ValidationError:  # not from our service: a proxy in between, or another program at the address
        return kind_of_status(response.status_code).raised(
            f"{response.url} answered {response.status_code} {response.reason_phrase}, and not as a gossamer service "
            "does: check the address and any proxy before it"
        )
    return kind_named(detail.type).raised(detail.message)


def _checked_url(url: str) -> httpx2.URL:
    try:
        parsed = httpx2.URL(url)
    except (httpx2.InvalidURL, TypeError) as error:
        raise ConfigError(f"{url!r} is no URL: {error}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ConfigError(f"{url!r} is no address of a service: expected one such as http://127.0.0.1:8080")
    return parsed


def _unreachable(url: httpx2.URL, error: httpx2.RequestError) -> UnavailableError:
    if isinstance(error, httpx2.TimeoutException):
        return UnavailableError(f"{url} did not answer in time: raise timeout_s, or ask for less at once")
    return UnavailableError(
        f"{url} cannot be reached ({error or type(error).__name__}): check that the service runs there"
    )
