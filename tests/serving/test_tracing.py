"""Spans of requests and stages, as OpenTelemetry's SDK gets them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from gossamer.kernels.errors import ConfigError
from gossamer.serving import Engine, ServeSettings, create_app

sdk = pytest.importorskip("opentelemetry.sdk.trace", reason="needs opentelemetry-sdk, which is absent")
SETTINGS = ServeSettings(recommender=Path("r"), traces=True)


def test_requests_and_their_stages_are_spans_of_the_callers_trace(tiny_engine: Engine) -> None:
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from gossamer.serving.tracing import Traced

    kept, provider = InMemorySpanExporter(), sdk.TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    app = Traced(create_app(tiny_engine), tracer=provider.get_tracer("tests"))
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    with TestClient(app) as client:
        headers = {"traceparent": f"00-{trace}-{parent}-01"}
        client.post("/collections/default/search", json={"query": "list"}, headers=headers)
        client.get("/nowhere")
    *stages, request, other = kept.get_finished_spans()
    assert [span.name for span in stages] == ["encode", "search", "show"]
    assert (request.name, other.name) == ("POST /collections/{collection}/search", "GET other")
    assert request.attributes is not None
    assert request.attributes["http.response.status_code"] == 200
    assert f"{request.context.trace_id:032x}" == trace
    assert request.parent is not None
    assert f"{request.parent.span_id:016x}" == parent
    assert other.parent is None
    assert all(span.parent == request.context for span in stages)
    times = [request.start_time, *(time for span in stages for time in (span.start_time, span.end_time))]
    assert [*times, request.end_time] == sorted(
        time for time in [*times, request.end_time] if time is not None
    )


def test_traces_are_made_if_asked_and_the_extra_is_asked_for(
    empty_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with TestClient(create_app(empty_engine, settings=SETTINGS)) as client:
        assert client.get("/nowhere").status_code == 404
    monkeypatch.delitem(sys.modules, "gossamer.serving.tracing")
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(ConfigError, match=r"gossamer\[otel\]"):
        create_app(empty_engine, settings=SETTINGS)
