"""Traces: a span for every request, and within it one for each stage, by OpenTelemetry (the extra `otel`).

Only OpenTelemetry's API is used, so spans go nowhere until whoever runs the service sets up its SDK.
"""

from __future__ import annotations

import time

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gossamer.kernels.errors import ConfigError
from gossamer.serving.logs import REQUEST_ID, route_of
from gossamer.serving.stages import Stage, told

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
        caller = propagate.extract(dict(Headers(scope=scope)))
        method: str = scope["method"]
        with self._tracer.start_as_current_span(method, caller, trace.SpanKind.SERVER) as span:
            context = trace.set_span_in_context(span)

            def add(stage: Stage, seconds: float) -> None:
                now = time.time_ns()
                self._tracer.start_span(stage, context, start_time=now - int(seconds * 1e9)).end(now)

            async def noting(message: Message) -> None:
                if message["type"] == "http.response.start":
                    span.set_attribute("http.response.status_code", message["status"])
                    if message["status"] >= 500:
                        span.set_status(trace.StatusCode.ERROR)
                await send(message)

            with told([add]):
                await self._app(scope, receive, noting)
            span.update_name(f"{method} {route_of(scope)}")
            span.set_attributes({"http.request.method": method, "http.route": route_of(scope)})
            span.set_attribute("gossamer.request_id", REQUEST_ID.get() or "")
