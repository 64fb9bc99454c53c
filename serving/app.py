"""`create_app`: the engine as an HTTP service, with the page that people use."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from anyio.to_thread import current_default_thread_limiter
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from gossamer.serving.access import Keys, Strangers
from gossamer.serving.collections import Collections
from gossamer.serving.document_routes import router as document_router
from gossamer.serving.engine import Engine, installed_version
from gossamer.serving.errors import KINDS, describe, kind_named, kind_of_status, printable
from gossamer.serving.loading import Loading
from gossamer.serving.logs import RequestIds, SlowQueries
from gossamer.serving.metrics import Metrics
from gossamer.serving.middleware import (
    BodyLimit,
    Counted,
    ErrorBoundary,
    InFlight,
    KnownHosts,
    SecurityHeaders,
    error_response,
)
from gossamer.serving.routes import router
from gossamer.serving.schemas import ErrorBody
from gossamer.serving.settings import Limits, ServeSettings, is_loopback, known_hosts, refuse_open

_page_router = APIRouter()
_PAGE: Final = Path(__file__).parent / "page"
_ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    400: {"model": ErrorBody, "description": "validation: the body is no text"},
    **{kind.status: {"model": ErrorBody, "description": kind.name.replace("_", " ")} for kind in KINDS},
}


def create_app(
    source: Engine | Collections | ServeSettings,
    *,
    limits: Limits | None = None,
    settings: ServeSettings | None = None,
    host: str | None = None,
    on_failure: Callable[[], None] | None = None,
) -> FastAPI:
    """The service as an ASGI application, for uvicorn, Ray Serve or a test.

    Args:
        source: A ready engine, which is the collection `default`, ready collections, or settings, whose folders are
            then opened in the background after start-up.
        limits: Limits of HTTP itself; by default the source's own.
        settings: Keys, origins and logs, where the source is no settings.
        host: Address that it listens on, where that is not the settings' own; see `ServeSettings.allowed_hosts`.
        on_failure: Called when the settings' folders could not be opened; `app.state.loading.error` says why.

    Raises:
        ConfigError: Others than this machine could ask, and there are no keys; or their file is bad; or
            traces are to be made without OpenTelemetry.
    """
    limits = limits or source.limits
    settings = source if isinstance(source, ServeSettings) else settings
    listens = host or (None if settings is None else settings.host)
    if listens is not None:
        refuse_open(listens, None if settings is None else settings.keys)
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
    app.state.keys = None if settings is None or settings.keys is None else Keys(settings.keys)
    app.state.slow_queries = (
        SlowQueries()
        if settings is None
        else SlowQueries(settings.slow_query_ms, with_query=settings.log_queries)
    )
    app.state.max_in_flight = limits.max_in_flight
    app.state.metrics = metrics = Metrics()
    for routes in (router, document_router, _page_router):
        app.include_router(routes)
    app.mount("/static", StaticFiles(directory=_PAGE), name="static")
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _refused)
    app.add_middleware(  # the last is outermost
        BodyLimit,
        max_bytes=limits.max_body_bytes,
        timeout_s=limits.body_timeout_s,
        streams="/collections/[^/]+/documents/bulk",
    )
    app.add_middleware(ErrorBoundary)
    app.add_middleware(InFlight, limit=limits.max_in_flight)
    origins = () if settings is None else settings.cors_origins
    app.add_middleware(Strangers, keys=app.state.keys, origins=origins)
    app.add_middleware(KnownHosts, names=_known_hosts(settings, host))
    app.add_middleware(SecurityHeaders, is_tls=_is_https(settings))
    if settings is not None and settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=["authorization", "content-type", "x-request-id"],
            expose_headers=["x-request-id", "retry-after"],
        )
    app.add_middleware(Counted, metrics=metrics)
    if settings is not None and settings.traces:
        from gossamer.serving.tracing import Traced

        app.add_middleware(Traced)
    app.add_middleware(RequestIds)
    return app


def _is_https(settings: ServeSettings | None) -> bool:
    """Whether browsers are to ask by HTTPS only; not of this machine itself, whose other services may have none."""
    return settings is not None and settings.tls_key is not None and not is_loopback(settings.host)


def _known_hosts(settings: ServeSettings | None, host: str | None) -> tuple[str, ...]:
    if settings is not None:
        if settings.allowed_hosts is not None:
            return settings.allowed_hosts
        host = host or settings.host
    return ("*",) if host is None else known_hosts(host)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    loading: Loading = app.state.loading
    # as many threads as requests, so that these wait where deadlines and limits are minded, and not for a thread
    current_default_thread_limiter().total_tokens = app.state.max_in_flight
    loading.start()
    yield
    loading.is_stopping = True
    await run_in_threadpool(loading.close)  # what was taken is written


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


@_page_router.get("/", include_in_schema=False)
async def page() -> FileResponse:
    """The page for people."""
    return FileResponse(_PAGE / "index.html", headers={"cache-control": "no-cache"})
