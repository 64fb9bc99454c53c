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

from gossamer.serving.collections import Collections
from gossamer.serving.document_routes import router as document_router
from gossamer.serving.engine import Engine, installed_version
from gossamer.serving.errors import KINDS, describe, kind_named, kind_of_status, printable
from gossamer.serving.loading import Loading
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
from gossamer.serving.settings import Limits, ServeSettings, known_hosts

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
    host: str | None = None,
    allowed_hosts: tuple[str, ...] | None = None,
    on_failure: Callable[[], None] | None = None,
) -> FastAPI:
    """The service as an ASGI application, for uvicorn, Ray Serve or a test.

    Args:
        source: A ready engine, which is the collection `default`, ready collections, or settings, whose folders are
            then opened in the background after start-up.
        limits: Limits of HTTP itself; by default the source's own.
        host: Address that it listens on, where that is not the settings' own; see `ServeSettings.allowed_hosts`.
        allowed_hosts: Those, where the settings' own are not given.
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
    app.add_middleware(KnownHosts, names=_known_hosts(source, host, allowed_hosts))
    app.add_middleware(SecurityHeaders)
    app.add_middleware(Counted, metrics=metrics)
    return app


def _known_hosts(
    source: Engine | Collections | ServeSettings, host: str | None, allowed_hosts: tuple[str, ...] | None
) -> tuple[str, ...]:
    if isinstance(source, ServeSettings):
        host, allowed_hosts = host or source.host, allowed_hosts or source.allowed_hosts
    if allowed_hosts is not None:
        return allowed_hosts
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
