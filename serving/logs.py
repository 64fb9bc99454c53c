"""Log lines of a service: for people, or as JSON, a line an object; each says which request it belongs to."""

from __future__ import annotations

import json
import logging
import re
import secrets
import sys
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gossamer.serving.settings import Style

if TYPE_CHECKING:
    from gossamer.serving.schemas import SearchRequest, SearchResponse

access = logging.getLogger("gossamer.access")
slow = logging.getLogger("gossamer.slow")

_request_id: ContextVar[str] = ContextVar("request_id", default="")
_GIVEN: Final = re.compile(r"^[A-Za-z0-9._-]{1,64}$")


class RequestIds:
    """Gives each request an id, its own if that is a plain one, and logs it when it is answered."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, and log how that went."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        given = Headers(scope=scope).get("x-request-id", "")
        id_ = given if _GIVEN.match(given) else secrets.token_hex(8)
        token = _request_id.set(id_)
        status, n_bytes, started = 500, 0, time.perf_counter()

        async def noting(message: Message) -> None:
            nonlocal status, n_bytes
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", id_.encode())]
            n_bytes += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            if access.isEnabledFor(logging.INFO):
                route = getattr(scope.get("route"), "path", "other")
                fields = {
                    "method": scope["method"],
                    "route": route,
                    "status": status,
                    "ms": round((time.perf_counter() - started) * 1e3, 2),
                    "bytes": n_bytes,
                    "key": scope.get("state", {}).get("key_name"),
                    "error": scope.get("state", {}).get("error"),
                }
                access.info("%s %s %s", scope["method"], route, status, extra={"fields": fields})
            _request_id.reset(token)


class SlowQueries:
    """Logs searches that took longer than some time.

    Args:
        over_ms: the time; None logs none.
        with_query: whether the line says what was asked.
    """

    def __init__(self, over_ms: float | None = None, *, with_query: bool = False) -> None:
        self._over_ms, self._with_query = over_ms, with_query

    def see(self, web: Request, request: SearchRequest, answer: SearchResponse) -> None:
        """Log a search, if it was slow."""
        if self._over_ms is None or answer.took_ms <= self._over_ms:
            return
        fields: dict[str, Any] = {
            "collection": web.path_params.get("collection"),
            "ms": round(answer.took_ms, 2),
            **{f"{stage}_ms": round(ms, 2) for stage, ms in answer.times_ms.items()},
            "k": request.k,
            "offset": request.offset,
            "n_terms": len(answer.expansion) or None,
            "degraded": answer.degraded or None,
            "query": request.query if self._with_query else None,
        }
        slow.warning("a slow query", extra={"fields": fields})


def configure(style: Style) -> None:
    """Log to standard error: for a process of its own, not for code beside others."""
    if style == "off":
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if style == "json" else _Text())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    for name in ("gossamer", "gossamer.access", "gossamer.slow"):
        logging.getLogger(name).setLevel(logging.INFO)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    fields: dict[str, Any] = getattr(record, "fields", {})
    return {name: value for name, value in fields.items() if value is not None}


def _on_one_line(text: str) -> str:
    """As it is, but for what could pass for the end of a line: what others send must not look like lines of ours."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text
    )


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "request": _request_id.get() or None,
            **_fields(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps({name: value for name, value in line.items() if value is not None}, default=str)


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        parts = [self.formatTime(record), record.levelname.lower(), _on_one_line(record.getMessage())]
        parts += [f"{name}={_on_one_line(str(value))}" for name, value in _fields(record).items()]
        if _request_id.get():
            parts.append(f"request={_request_id.get()}")
        line = " ".join(parts)
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line
