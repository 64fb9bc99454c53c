"""What a service is asked: searches and recommendations of a collection.

`def` routes run in a pool of threads: encoding and scoring would otherwise hold up every other request.
"""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic import BaseModel

from gossamer.kernels.errors import NotReadyError
from gossamer.serving.access import READ, may_read
from gossamer.serving.collections import Collections
from gossamer.serving.engine import Engine, installed_version
from gossamer.serving.item_schemas import RecommendRequest, RecommendResponse, SimilarRequest, SimilarResponse
from gossamer.serving.loading import Loading
from gossamer.serving.logs import SlowQueries
from gossamer.serving.messages import NAME_PATTERN
from gossamer.serving.metrics import Metrics
from gossamer.serving.schemas import (
    FacetsResponse,
    HealthResponse,
    SearchBatchRequest,
    SearchBatchResponse,
    SearchRequest,
    SearchResponse,
)

router = APIRouter()

CollectionName = Annotated[str, Path(pattern=NAME_PATTERN)]


async def _loaded(request: Request) -> Collections:
    loading: Loading = request.app.state.loading
    return loading.collections


UsesCollections = Annotated[Collections, Depends(_loaded)]


async def _engine(request: Request, collection: CollectionName) -> Engine:
    loading: Loading = request.app.state.loading
    return loading.collections[collection]


UsesEngine = Annotated[Engine, Depends(_engine)]


def _metrics(request: Request) -> Metrics:
    metrics: Metrics = request.app.state.metrics
    return metrics


def written(answer: BaseModel) -> Response:
    """The answer as JSON, written here in the thread; FastAPI would take another one to check it again first."""
    return Response(answer.model_dump_json(), media_type="application/json")


@router.post("/collections/{collection}/search", response_model=SearchResponse, dependencies=READ)
def search(web: Request, request: SearchRequest, engine: UsesEngine) -> Response:
    """Find the documents that score highest for a query."""
    answer, metrics = engine.answer_search(request), _metrics(web)
    metrics.engine_s.labels("search").observe(answer.took_ms / 1e3)
    metrics.see_stages(answer)
    web.state.times_ms = answer.times_ms
    settings: SlowQueries = web.app.state.slow_queries
    settings.see(web, request, answer)
    return written(answer)


@router.post("/collections/{collection}/search/batch", response_model=SearchBatchResponse, dependencies=READ)
def search_batch(web: Request, request: SearchBatchRequest, engine: UsesEngine) -> Response:
    """Find documents for several queries at once."""
    answer, metrics = engine.answer_batch(request), _metrics(web)
    metrics.engine_s.labels("search_batch").observe(answer.took_ms / 1e3)
    metrics.see_stages(*answer.results)
    return written(answer)


@router.post("/collections/{collection}/recommend", response_model=RecommendResponse, dependencies=READ)
def recommend(web: Request, request: RecommendRequest, engine: UsesEngine) -> Response:
    """Recommend items to a user, or to whoever has a history; the answer says what it rests on."""
    answer, metrics = engine.answer_recommend(request), _metrics(web)
    metrics.engine_s.labels("recommend").observe(answer.took_ms / 1e3)
    metrics.sources.labels(answer.source).inc()
    return written(answer)


@router.post("/collections/{collection}/similar", response_model=SimilarResponse, dependencies=READ)
def similar(request: SimilarRequest, engine: UsesEngine) -> Response:
    """Find the items most like another."""
    return written(engine.answer_similar(request))


@router.get("/collections/{collection}/facets", dependencies=READ)
def facets(engine: UsesEngine) -> FacetsResponse:
    """The metadata columns worth offering as filters, with their values."""
    return engine.facets()


@router.get("/healthz")
async def healthz(request: Request) -> HealthResponse:
    """Whether the process is well: loading, ready or stopping, and what it serves; 503 if it could not load."""
    loading: Loading = request.app.state.loading
    if loading.is_stopping or not loading.is_over:
        status: Literal["loading", "stopping"] = "stopping" if loading.is_stopping else "loading"
        return HealthResponse(status=status, version=installed_version())
    return _told(request)


@router.get("/readyz")
async def readyz(request: Request) -> HealthResponse:
    """Whether requests should be sent here: 503 until everything is loaded, and once it is told to stop."""
    loading: Loading = request.app.state.loading
    if loading.is_stopping:
        raise NotReadyError("the service is stopping: ask another replica, or later")
    return _told(request)


@router.get("/metrics", response_class=Response, dependencies=READ)
async def metrics(request: Request) -> Response:
    """Counters and timings for Prometheus."""
    loading, metrics = request.app.state.loading, _metrics(request)
    is_ready = loading.is_over and loading.error is None and not loading.is_stopping
    metrics.ready.set(is_ready)
    metrics.see_waiting(*(loading.collections.n_waiting if is_ready else (0, 0)))
    return Response(metrics.render(), media_type=Metrics.content_type)


def _told(request: Request) -> HealthResponse:
    """What is served, or why nothing is, for those who may know it."""
    loading: Loading = request.app.state.loading
    if may_read(request):
        return loading.collections.health()
    if loading.error is not None:
        raise NotReadyError("the service could not load: its log says why")
    assert loading.collections is not None  # or it says that it is loading
    return HealthResponse(status="ready", version=installed_version())
