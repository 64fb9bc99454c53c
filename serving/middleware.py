"""What surrounds every request: counting, security headers, the error shape, the limit on bodies.

Plain ASGI classes, outermost first as `app.py` stacks them.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Collection
from typing import Any, Final

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gossamer.kernels.errors import ServiceError, TooLargeError
from gossamer.serving.errors import INTERNAL, ErrorKind, kind_named, kind_of, printable
from gossamer.serving.metrics import Metrics
from gossamer.serving.schemas import ErrorBody, ErrorDetail

logger = logging.getLogger(__name__)

_HEADERS: Final = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


_TLS_HEADERS: Final = {"strict-transport-security": "max-age=31536000"}
_LATER: Final = {"retry-after": "1"}


def error_response(kind: ErrorKind, message: str, *, status: int | None = None) -> JSONResponse:
    """An error in the one shape that the service has for all of them."""
    body = ErrorBody(error=ErrorDetail(type=kind.name, message=message))
    headers = {401: {"www-authenticate": "Bearer"}, 429: _LATER, 503: _LATER}.get(kind.status)
    return _ErrorResponse(body.model_dump(), status_code=status or kind.status, headers=headers)


class _ErrorResponse(JSONResponse):
    """Leaves its type with the request, for those who count and log."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("state", {})["error"] = self._type
        await super().__call__(scope, receive, send)

    def render(self, content: dict[str, dict[str, str]]) -> bytes:
        self._type = content["error"]["type"]
        return super().render(content)


class Counted:
    """Counts and times requests under their route; a path that is no route counts as `other`."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, and note how that went."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        status = 500

        async def noting_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        started = time.perf_counter()
        with self._metrics.in_flight.track_inprogress():
            try:
                await self._app(scope, receive, noting_status)
            finally:
                route = getattr(scope.get("route"), "path", "other")  # which the router has noted
                self._metrics.requests.labels(route, status).inc()
                self._metrics.request_s.labels(route).observe(time.perf_counter() - started)
                refusal = scope.get("state", {}).get("error")
                if refusal is not None:
                    self._metrics.refusals.labels(refusal).inc()


class SecurityHeaders:
    """Adds to every answer the headers that keep a browser from doing more with it than the page needs."""

    def __init__(self, app: ASGIApp, *, is_tls: bool = False) -> None:
        self._app = app
        headers = _HEADERS | (_TLS_HEADERS if is_tls else {})
        self._headers = [(name.encode(), value.encode()) for name, value in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, with the headers."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *self._headers]
            await send(message)

        await self._app(scope, receive, with_headers)


class KnownHosts:
    """Refuses requests that call the service by a name that it does not go by.

    A page of another site can have its name resolve to this machine ("DNS rebinding"), and would then count as ours to
    the browser; but its requests still carry that name.
    """

    def __init__(self, app: ASGIApp, *, names: Collection[str]) -> None:
        self._app = app
        self._names = frozenset(name.strip("[]").lower() for name in names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer those who know the name."""
        if scope["type"] != "http" or "*" in self._names:
            return await self._app(scope, receive, send)
        given = Headers(scope=scope).get("host", "")
        name = given[1:].partition("]")[0] if given.startswith("[") else given.partition(":")[0]
        if name.lower() in self._names:
            return await self._app(scope, receive, send)
        response = error_response(
            kind_named("validation"),
            f"this service does not go by the name {printable(name[:80])!r}: call it by its address, or add the name "
            "to allowed_hosts",
            status=400,
        )
        return await response(scope, receive, send)


class InFlight:
    """Tells requests beyond a number to come back later, instead of keeping them in memory."""

    def __init__(self, app: ASGIApp, *, limit: int) -> None:
        self._app = app
        self._limit = limit
        self._n = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, if there is room."""
        if scope["type"] != "http" or scope["method"] == "GET":  # whoever looks after the service gets in
            return await self._app(scope, receive, send)
        if self._n >= self._limit:
            message = (
                f"{self._n:,} requests are being answered, which is this service's limit: ask again later"
            )
            return await error_response(kind_named("overloaded"), message)(scope, receive, send)
        self._n += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._n -= 1


class ErrorBoundary:
    """Turns exceptions into answers: ours say what is wrong, any other stays in the log and out of the answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, whatever happens."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        has_started = False

        async def noting_start(message: Message) -> None:
            nonlocal has_started
            has_started = True
            await send(message)

        try:
            await self._app(scope, receive, noting_start)
        except Exception as error:
            if has_started:
                raise  # half an answer is out: only closing the connection can tell the client
            kind = kind_of(error)
            message = str(error)
            if kind is INTERNAL:
                logger.exception("%s %s failed", scope["method"], scope["path"])
                message = "the service failed on this request; its log says why"
            await error_response(kind, message)(scope, receive, send)


class BodyLimit:
    """Refuses a body over `max_bytes`, by its declared length or, where it comes in chunks, as soon as it is over.

    A POST to a path like `streams` reads its body itself, a part at a time.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int, timeout_s: float, streams: str) -> None:
        self._app = app
        self._max_bytes, self._timeout_s = max_bytes, timeout_s
        self._streams = re.compile(streams)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the body, then answer."""
        is_streamed = (
            scope["type"] == "http"
            and scope["method"] == "POST"
            and self._streams.fullmatch(scope["path"]) is not None
        )
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD") or is_streamed:
            return await self._app(scope, receive, send)
        try:
            async with asyncio.timeout(self._timeout_s):
                body = await self._read(scope, receive)
        except ServiceError as error:
            return await self._refuse(kind_of(error), str(error), scope, receive, send)
        except TimeoutError:
            message = f"the body did not arrive within {self._timeout_s:g} s: send it faster, or less at once"
            return await self._refuse(kind_named("deadline"), message, scope, receive, send)
        if body is None:
            return None
        unread: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return unread.pop() if unread else await receive()

        return await self._app(scope, replay, send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes | None:
        """The whole body; None if who sent it is gone."""
        body = bytearray()
        declared = Headers(scope=scope).get("content-length", "")
        is_over, has_more = declared.isdecimal() and int(declared) > self._max_bytes, True
        while has_more and not is_over:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            has_more = message.get("more_body", False)
            is_over = len(body) > self._max_bytes
        if is_over:
            raise TooLargeError(
                f"the body is over {self._max_bytes:,} bytes, which is this service's limit: send less at once, or "
                "raise limits.max_body_bytes"
            )
        return bytes(body)

    @staticmethod
    async def _refuse(kind: ErrorKind, message: str, *to: Any) -> None:
        response = error_response(kind, message)
        response.headers["connection"] = "close"  # or the server would read on, to the end of the body
        await response(*to)
