"""What a service logs: a line a request, slow queries, failures; each with the request's id.

Records go to Python's logging, so that whoever embeds the service decides where they end. `show_logs` is for a process
that is the service.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import time
from collections.abc import Mapping
from contextlib import ExitStack
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gossamer.serving.stages import Stage, told

requests = logging.getLogger("gossamer.requests")
slow_queries = logging.getLogger("gossamer.slow_queries")

REQUEST_ID: Final[ContextVar[str | None]] = ContextVar("request_id", default=None)
"""Of the request that is being answered."""
_SAFE_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_PLAIN: Final = re.compile(r"[!#-<>-~]+")  # needs no quotes: neither blanks nor " nor =


@dataclass(frozen=True)
class Event:
    """The message of a log record that has fields; as text, `name key=value …` on one line."""

    name: str
    fields: Mapping[str, Any]

    def __str__(self) -> str:
        return " ".join([self.name, *(f"{key}={_shown(value)}" for key, value in self.fields.items())])


class RequestLog:
    """Gives each request an id, or takes its own if it is short and plain, and logs it when it is answered.

    Args:
        app: What answers.
        is_on: Whether there is a line for every request; they are of level INFO.
        slow_query_ms: Queries that take longer are logged with the times of their stages, as warnings; None: none.
        log_queries: Whether those have their texts.
    """

    def __init__(
        self, app: ASGIApp, *, is_on: bool, slow_query_ms: float | None = None, log_queries: bool = False
    ) -> None:
        self._app = app
        self._is_on, self._slow_ms, self._log_queries = is_on, slow_query_ms, log_queries

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, and log that."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        given = Headers(scope=scope).get("x-request-id", "")
        id_ = given if _SAFE_ID.fullmatch(given) else secrets.token_hex(8)
        scope.setdefault("state", {})
        status, n_bytes = None, 0

        async def noting(message: Message) -> None:
            nonlocal status, n_bytes
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = id_
            n_bytes += len(message.get("body", b""))
            await send(message)

        times = StageTimes()
        started = time.perf_counter()
        token = REQUEST_ID.set(id_)
        try:
            with ExitStack() as listening:
                if self._slow_ms is not None:
                    listening.enter_context(told([times.add]))
                await self._app(scope, receive, noting)
        finally:
            ms = round((time.perf_counter() - started) * 1e3, 3)
            if self._is_on:
                requests.info(_request_event(id_, scope, status, ms, n_bytes))
            about = scope["state"].get("query")
            if self._slow_ms is not None and ms > self._slow_ms and about is not None:
                slow_queries.warning(self._slow_event(id_, about, ms, times))
            REQUEST_ID.reset(token)

    def _slow_event(self, id_: str, about: Mapping[str, Any], ms: float, times: StageTimes) -> Event:
        kept = {key: value for key, value in about.items() if key != "texts" or self._log_queries}
        return Event("slow query", {"id": id_, **kept, "ms": ms, "stages_ms": times.in_ms()})


class StageTimes:
    """The stages of one request; a batch that it shared counts whole."""

    def __init__(self) -> None:
        self._told: list[tuple[Stage, float]] = []  # to which several threads may append

    def add(self, stage: Stage, seconds: float) -> None:
        """Listen."""
        self._told.append((stage, seconds))

    def in_ms(self) -> dict[str, float]:
        """Milliseconds by stage."""
        times: dict[str, float] = {}
        for stage, seconds in self._told:
            times[stage] = round(times.get(stage, 0.0) + seconds * 1e3, 3)
        return times


def show_logs(log: Literal["json", "text"]) -> None:
    """Write our records, and the server's, to standard error; for a process that is the service."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if log == "json" else TextLines())
    for name in ("gossamer", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
    logging.getLogger("gossamer").setLevel(logging.INFO)


class JsonLines(logging.Formatter):
    """A record as a JSON object on a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        if REQUEST_ID.get() is not None:
            line["id"] = REQUEST_ID.get()
        if isinstance(record.msg, Event):
            line |= {"message": record.msg.name, **record.msg.fields}
        else:
            line["message"] = record.getMessage()
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


class TextLines(logging.Formatter):
    """A record as a line for people; what an exception came through is below."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        message = record.getMessage().replace("\r", "\\r").replace("\n", "\\n")
        line = f"{_time(record)} {record.levelname} {message}"
        if REQUEST_ID.get() is not None and not isinstance(record.msg, Event):
            line += f" id={REQUEST_ID.get()}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def route_of(scope: Scope) -> str:
    """The route that answered, which the router has noted; `other` for a path that is none."""
    return getattr(scope.get("route"), "path", "other")


def _request_event(id_: str, scope: Scope, status: int | None, ms: float, n_bytes: int) -> Event:
    state = scope["state"]
    fields = {
        "id": id_,
        "key": getattr(state.get("key"), "name", None),
        "method": scope["method"],
        "route": route_of(scope),
        "status": status,
        "ms": ms,
        "bytes": n_bytes,
    }
    if "error" in state:
        fields["error"] = state["error"]
    return Event("request", fields)


def _shown(value: Any) -> str:
    if isinstance(value, str) and _PLAIN.fullmatch(value):
        return value
    return "-" if value is None else json.dumps(value)


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
