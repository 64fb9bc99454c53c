"""What a service counts and times about itself, in Prometheus' text form.

Every app has a registry of its own, so that two apps in one process (tests, notebooks) do not share counters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

if TYPE_CHECKING:
    from gossamer.serving.schemas import SearchResult

_SECONDS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_TOGETHER: Final = ("encode", "search")  # the stages that are of a whole batch


class Metrics:
    """Requests by route and status, their time, the engine's share of it, and where recommendations come from.

    Labels come from closed sets only (a route, a status, a source), never from what a request contains.
    """

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter(
            "gossamer_http_requests", "Requests answered", ["route", "status"], registry=registry
        )
        self.request_s = Histogram(
            "gossamer_http_request_seconds",
            "Time from a request's arrival to the end of its answer",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.engine_s = Histogram(
            "gossamer_engine_seconds",
            "Time within the engine: encoding, searching, recommending",
            ["operation"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.stage_s = Histogram(
            "gossamer_stage_seconds",
            "Time of a search within its stages; encoding and searching are of the batch it was in",
            ["stage"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.degraded = Counter(
            "gossamer_degraded", "Searches that had to do without a retriever or reranker", registry=registry
        )
        self.refusals = Counter(
            "gossamer_refusals", "Answers other than 2xx, by their type", ["type"], registry=registry
        )
        self.waiting = Gauge(
            "gossamer_waiting", "Queries and documents that wait for their turn", ["what"], registry=registry
        )
        self.in_flight = Gauge(
            "gossamer_http_requests_in_flight", "Requests being answered now", registry=registry
        )
        self.ready = Gauge("gossamer_ready", "1 once index and models are loaded", registry=registry)
        self.sources = Counter(
            "gossamer_recommendations", "Recommendations by what they rest on", ["source"], registry=registry
        )

    def see_waiting(self, queries: int, documents: int) -> None:
        """Note what waits."""
        self.waiting.labels("queries").set(queries)
        self.waiting.labels("documents").set(documents)

    def see_stages(self, *answers: SearchResult) -> None:
        """Note the stages of searches that were asked together; what was done for all of them counts once."""
        for stage in answers[0].times_ms if answers else ():
            each = [answer.times_ms[stage] for answer in answers]
            self.stage_s.labels(stage).observe((each[0] if stage in _TOGETHER else sum(each)) / 1e3)
        self.degraded.inc(sum(bool(answer.degraded) for answer in answers))

    def render(self) -> bytes:
        """All metrics in the text form that Prometheus reads."""
        return generate_latest(self._registry)
