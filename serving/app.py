"""`create_app`: the engine as an HTTP service, with the page that people use."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse
from fastapi.routing import APIRoute
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from gossamer.serving.engine import Engine, installed_version
from gossamer.serving.errors import KINDS, describe, kind_named, kind_of_status, printable
from gossamer.serving.loading import Loading
from gossamer.serving.metrics import Metrics
from gossamer.serving.middleware import (
    BodyLimit,
    Counted,
    ErrorBoundary,
    KnownHosts,
    SecurityHeaders,
    error_response,
)
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
)
from gossamer.serving.settings import Limits, ServeSettings, known_hosts

_PAGE: Final = Path(__file__).parent / "page"
_ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    kind.status: {"model": ErrorBody, "description": kind.name.replace("_", " ")} for kind in KINDS
}


def create_app(
    source: Engine | ServeSettings,
    *,
    limits: Limits | None = None,
    host: str | None = None,
    on_failure: Callable[[], None] | None = None,
) -> FastAPI:
    """The service as an ASGI application, for uvicorn, Ray Serve or a test.

    Args:
        source: A ready engine, or settings, whose folders are then opened in the background after start-up.
        limits: Limits of HTTP itself; by default the source's own.
        host: Address that it listens on, where that is not the settings' own; see `ServeSettings.allowed_hosts`.
        on_failure: Called when the settings' folders could not be opened; `app.state.loading.error` says why.
    """
    limits = limits or source.limits
    app = FastAPI(
        title="gossamer",
        summary="Search and recommendation from sparse vectors.",
        version=installed_version(),
        docs_url=None,  # these pages load scripts from other hosts
        redoc_url=None,
        lifespan=_lifespan,
        responses=_ERRORS,
    )
    app.state.loading = Loading(source, on_failure=on_failure)
    app.state.metrics = metrics = Metrics()
    app.include_router(_router)
    app.mount("/static", StaticFiles(directory=_PAGE), name="static")
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _refused)
    routes = {route.path for route in _router.routes if isinstance(route, APIRoute)}
    app.add_middleware(BodyLimit, max_bytes=limits.max_body_bytes)  # the last added is outermost
    app.add_middleware(ErrorBoundary)
    app.add_middleware(KnownHosts, names=_known_hosts(source, host))
    app.add_middleware(SecurityHeaders)
    app.add_middleware(Counted, metrics=metrics, routes=routes)
    return app


def _known_hosts(source: Engine | ServeSettings, host: str | None) -> tuple[str, ...]:
    if isinstance(source, ServeSettings):
        if source.allowed_hosts is not None:
            return source.allowed_hosts
        host = host or source.host
    return ("*",) if host is None else known_hosts(host)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.loading.start()
    yield


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # the one class it is registered for
    return error_response(kind_named("validation"), describe(error.errors()))


async def _refused(request: Request, error: Exception) -> Response:
    """What the router itself refuses: an unknown path, a wrong method, a body that is no JSON."""
    assert isinstance(error, HTTPException)  # the one class it is registered for
    message = printable(f"{request.method} {request.url.path[:80]}: {error.detail}")
    response = error_response(kind_of_status(error.status_code), message, status=error.status_code)
    response.headers.update(error.headers or {})
    return response


# -- routes -------------------------------------------------------------------------------------------
# `def` routes run in a pool of threads: encoding and scoring would otherwise hold up every other request.

_router = APIRouter()


async def _engine(request: Request) -> Engine:
    loading: Loading = request.app.state.loading
    return loading.engine


async def _metrics(request: Request) -> Metrics:
    metrics: Metrics = request.app.state.metrics
    return metrics


UsesEngine = Annotated[Engine, Depends(_engine)]
UsesMetrics = Annotated[Metrics, Depends(_metrics)]


def _written(answer: BaseModel) -> Response:
    """The answer as JSON, written here in the thread; FastAPI would take another one to check it again first."""
    return Response(answer.model_dump_json(), media_type="application/json")


@_router.post("/search", response_model=SearchResponse)
def search(request: SearchRequest, engine: UsesEngine, metrics: UsesMetrics) -> Response:
    """Find the documents that score highest for a query."""
    answer = engine.search(request.query, k=request.k, filters=request.filters, explain=request.explain)
    metrics.engine_s.labels("search").observe(answer.took_ms / 1e3)
    return _written(answer)


@_router.post("/search/batch", response_model=SearchBatchResponse)
def search_batch(request: SearchBatchRequest, engine: UsesEngine, metrics: UsesMetrics) -> Response:
    """Find documents for several queries at once."""
    answer = engine.search_batch(
        request.queries, k=request.k, filters=request.filters, explain=request.explain
    )
    metrics.engine_s.labels("search_batch").observe(answer.took_ms / 1e3)
    return _written(answer)


@_router.post("/recommend", response_model=RecommendResponse)
def recommend(request: RecommendRequest, engine: UsesEngine, metrics: UsesMetrics) -> Response:
    """Recommend items to a user, or to whoever has a history; the answer says what it rests on."""
    answer = engine.recommend(
        user=request.user, history=request.history, k=request.k, include_seen=request.include_seen
    )
    metrics.engine_s.labels("recommend").observe(answer.took_ms / 1e3)
    metrics.sources.labels(answer.source).inc()
    return _written(answer)


@_router.get("/facets")
def facets(engine: UsesEngine) -> FacetsResponse:
    """The metadata columns worth offering as filters, with their values."""
    return engine.facets()


@_router.get("/healthz")
async def healthz(request: Request) -> HealthResponse:
    """Whether the process is well: loading or ready, and what it serves; 503 if it could not load."""
    loading: Loading = request.app.state.loading
    if not loading.is_over:
        return HealthResponse(status="loading", version=installed_version())
    return loading.engine.health()


@_router.get("/readyz")
async def readyz(engine: UsesEngine) -> HealthResponse:
    """Whether requests can be answered: 503 until everything is loaded."""
    return engine.health()


@_router.get("/metrics", response_class=Response)
async def metrics(request: Request, metrics: UsesMetrics) -> Response:
    """Counters and timings for Prometheus."""
    loading: Loading = request.app.state.loading
    metrics.ready.set(loading.is_over and loading.error is None)
    return Response(metrics.render(), media_type=Metrics.content_type)


@_router.get("/", include_in_schema=False)
async def page() -> FileResponse:
    """The page for people."""
    return FileResponse(_PAGE / "index.html", headers={"cache-control": "no-cache"})
