"""What a service is asked: searches and recommendations of a collection.

`def` routes run in a pool of threads: encoding and scoring would otherwise hold up every other request.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic import BaseModel

from gossamer.kernels.errors import NotReadyError
from gossamer.serving.access import READ
from gossamer.serving.collections import Collections
from gossamer.serving.engine import Engine, installed_version
from gossamer.serving.loading import Loading
from gossamer.serving.messages import NAME_PATTERN
from gossamer.serving.metrics import Metrics
from gossamer.serving.schemas import (
    FacetsResponse,
    HealthResponse,
    RecommendRequest,
    RecommendResponse,
    SearchBatchRequest,
    SearchBatchResponse,
    SearchRequest,
    SearchResponse,
    SimilarRequest,
    SimilarResponse,
)

router = APIRouter()

CollectionName = Annotated[str, Path(pattern=NAME_PATTERN)]


async def _loaded(request: Request) -> Collections:
    loading: Loading = request.app.state.loading
    return loading.collections


UsesCollections = Annotated[Collections, Depends(_loaded)]


async def _engine(collection: CollectionName, collections: UsesCollections) -> Engine:
    return collections[collection]


async def _metrics(request: Request) -> Metrics:
    metrics: Metrics = request.app.state.metrics
    return metrics


UsesEngine = Annotated[Engine, Depends(_engine)]
UsesMetrics = Annotated[Metrics, Depends(_metrics)]


def written(answer: BaseModel) -> Response:
    """The answer as JSON, written here in the thread; FastAPI would take another one to check it again first."""
    return Response(answer.model_dump_json(), media_type="application/json")


def _note(http: Request, operation: str, k: int, texts: Sequence[str]) -> None:
    """Leave with the request what the slow-query log says of it."""
    collection = http.path_params["collection"]
    http.state.query = {"collection": collection, "operation": operation, "k": k, "texts": texts}


@router.post("/collections/{collection}/search", dependencies=READ, response_model=SearchResponse)
def search(http: Request, request: SearchRequest, engine: UsesEngine, metrics: UsesMetrics) -> Response:
    """Find the documents that score highest for a query."""
    _note(http, "search", request.k, [request.query])
    answer = engine.answer_search(request)
    metrics.engine_s.labels("search").observe(answer.took_ms / 1e3)
    return written(answer)


@router.post("/collections/{collection}/search/batch", dependencies=READ, response_model=SearchBatchResponse)
def search_batch(
    http: Request, request: SearchBatchRequest, engine: UsesEngine, metrics: UsesMetrics
) -> Response:
    """Find documents for several queries at once."""
    _note(http, "search_batch", request.k, request.queries)
    answer = engine.answer_batch(request)
    metrics.engine_s.labels("search_batch").observe(answer.took_ms / 1e3)
    return written(answer)


@router.post("/collections/{collection}/recommend", dependencies=READ, response_model=RecommendResponse)
def recommend(http: Request, request: RecommendRequest, engine: UsesEngine, metrics: UsesMetrics) -> Response:
    """Recommend items to a user, or to whoever has a history; the answer says what it rests on."""
    _note(http, "recommend", request.k, [] if request.query is None else [request.query])
    answer = engine.answer_recommend(request)
    metrics.engine_s.labels("recommend").observe(answer.took_ms / 1e3)
    metrics.sources.labels(answer.source).inc()
    return written(answer)


@router.post("/collections/{collection}/similar", dependencies=READ, response_model=SimilarResponse)
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
    if loading.is_stopping:
        return HealthResponse(status="stopping", version=installed_version())
    if not loading.is_over:
        return HealthResponse(status="loading", version=installed_version())
    return _health(request)


@router.get("/readyz")
async def readyz(request: Request) -> HealthResponse:
    """Whether requests can be answered: 503 until everything is loaded, and when the service stops."""
    return _health(request)


def _health(request: Request) -> HealthResponse:
    """What is served; to those without a key, where keys are needed, only that it is."""
    loading: Loading = request.app.state.loading
    if request.state.key is not None:
        return loading.collections.health()
    if loading.error is not None:
        raise NotReadyError("the service could not load: its log says why")
    return HealthResponse(status=loading.collections.health().status, version=installed_version())


@router.get("/metrics", dependencies=READ, response_class=Response)
async def metrics(request: Request, metrics: UsesMetrics) -> Response:
    """Counters and timings for Prometheus."""
    loading: Loading = request.app.state.loading
    is_ready = loading.is_over and loading.error is None and not loading.is_stopping
    metrics.ready.set(is_ready)
    for what, n in zip(
        ("queries", "documents"), loading.collections.n_waiting if is_ready else (0, 0), strict=True
    ):
        metrics.waiting.labels(what).set(n)
    return Response(metrics.render(), media_type=Metrics.content_type)
