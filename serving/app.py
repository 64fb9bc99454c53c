"""`create_app`: the engine as an HTTP service, with the page that people use."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from gossamer.kernels.errors import ConfigError
from gossamer.serving.access import Authenticated
from gossamer.serving.collections import Collections
from gossamer.serving.document_routes import router as document_router
from gossamer.serving.engine import Engine, installed_version
from gossamer.serving.errors import KINDS, describe, kind_named, kind_of_status, printable
from gossamer.serving.keys import Keys
from gossamer.serving.loading import Loading
from gossamer.serving.logs import RequestLog
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
from gossamer.serving.settings import HttpSettings, Limits, ServeSettings, is_loopback, known_hosts

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
    http: HttpSettings | None = None,
    host: str | None = None,
    on_failure: Callable[[], None] | None = None,
) -> FastAPI:
    """The service as an ASGI application, for uvicorn, Ray Serve or a test.

    Args:
        source: A ready engine, which is the collection `default`, ready collections, or settings, whose folders are
            then opened in the background after start-up.
        limits: Limits of HTTP itself; by default the source's own.
        http: Who may ask, and how; by default the settings' own.
        host: Address that it listens on, where that is not the settings' own; see `ServeSettings.allowed_hosts`.
        on_failure: Called when the settings' folders could not be opened; `app.state.loading.error` says why.

    Raises:
        ConfigError: Others than this machine could ask, and there are no keys; or their file is bad; or
            traces are wanted, and OpenTelemetry is not there.
    """
    limits = limits or source.limits
    if isinstance(source, ServeSettings):
        http, host = http or source, host or source.host
    http = http or HttpSettings()
    _refuse_open_door(http, host)
    keys = None if http.keys is None else Keys(http.keys)
    is_public = host is not None and not is_loopback(host)
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
    for routes in (router, document_router, _page_router):
        app.include_router(routes)
    app.mount("/static", StaticFiles(directory=_PAGE), name="static")
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _refused)
    app.add_middleware(
        BodyLimit, max_bytes=limits.max_body_bytes, streams="/documents/bulk"
    )  # the last is outermost
    app.add_middleware(ErrorBoundary)
    app.add_middleware(InFlight, limit=limits.max_in_flight)
    app.add_middleware(Authenticated, keys=keys, origins=http.cors_origins)
    if http.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=http.cors_origins,
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=["authorization", "content-type", "x-request-id"],
            expose_headers=["retry-after", "x-request-id"],
        )
    app.add_middleware(KnownHosts, names=_known_hosts(source, host))
    app.add_middleware(
        SecurityHeaders, hsts=is_public and http.tls_certificate is not None
    )  # not for localhost, where other services are
    app.add_middleware(Counted, metrics=metrics)
    if http.traces:
        from gossamer.serving.tracing import Traced

        app.add_middleware(Traced)
    app.add_middleware(
        RequestLog,
        is_on=http.log != "off",
        slow_query_ms=http.slow_query_ms,
        log_queries=http.log_queries,
    )
    return app


def _refuse_open_door(http: HttpSettings, host: str | None) -> None:
    if http.keys is None and host is not None and not is_loopback(host):
        raise ConfigError(
            f"host {host}: without keys, anybody who reaches it could read and change everything: make a key with "
            "`gossamer keys add keys.json NAME --role admin` and set `keys` to that file, or listen on 127.0.0.1"
        )


def _known_hosts(source: Engine | Collections | ServeSettings, host: str | None) -> tuple[str, ...]:
    if isinstance(source, ServeSettings) and source.allowed_hosts is not None:
        return source.allowed_hosts
    return ("*",) if host is None else known_hosts(host)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    loading: Loading = app.state.loading
    loading.start()
    yield
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
