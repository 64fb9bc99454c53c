"""Traces: a span for every request, and within it one for each stage of a search, by OpenTelemetry (the extra `otel`).

Only OpenTelemetry's API is used, so spans go nowhere until whoever runs the service sets up its SDK. Stages are known
by their durations; their spans are laid end to end from the request's start.
"""

from __future__ import annotations

import time

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gossamer.kernels.errors import ConfigError

try:
    from opentelemetry import propagate, trace
except ImportError as error:
    raise ConfigError("traces: OpenTelemetry is not installed; install gossamer[otel]") from error


class Traced:
    """Makes the spans; those of requests go on with the caller's trace, where they name one."""

    def __init__(self, app: ASGIApp, *, tracer: trace.Tracer | None = None) -> None:
        self._app = app
        self._tracer = tracer or trace.get_tracer("gossamer")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, and trace that."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        caller, method = propagate.extract(dict(Headers(scope=scope))), scope["method"]
        with self._tracer.start_as_current_span(method, caller, trace.SpanKind.SERVER) as span:
            at = time.time_ns()

            async def noting(message: Message) -> None:
                if message["type"] == "http.response.start":
                    span.set_attribute("http.response.status_code", message["status"])
                    if message["status"] >= 500:
                        span.set_status(trace.StatusCode.ERROR)
                await send(message)

            await self._app(scope, receive, noting)
            for stage, ms in scope.get("state", {}).get("times_ms", {}).items():
                part = self._tracer.start_span(stage, start_time=at)
                at += int(ms * 1e6)
                part.end(at)
            route = getattr(scope.get("route"), "path", "other")
            span.update_name(f"{method} {route}")
            span.set_attributes({"http.request.method": method, "http.route": route})
