"""`Engine`: searches and recommendations in this process; the HTTP service and its clients mirror its methods."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from gossamer.index.filters import Filters
from gossamer.kernels.errors import NotFoundError
from gossamer.serving.schemas import (
    FacetsResponse,
    HealthResponse,
    RecommendedItem,
    RecommendHealth,
    RecommendRequest,
    RecommendResponse,
    SearchBatchRequest,
    SearchBatchResponse,
    SearchOptions,
    SearchRequest,
    SearchResponse,
    SearchResult,
    checked,
)
from gossamer.serving.settings import Limits, ServeSettings

if TYPE_CHECKING:
    from gossamer.recsys.recommender import Recommender
    from gossamer.serving.stage import SearchStage


class Engine:
    """Answers searches, recommendations, or both; safe to call from several threads.

    Args:
        search: Answers `search`; None where this engine has no index.
        recommend: Answers `recommend`; None where this engine has no recommender.
        limits: What one request may ask for.
    """

    def __init__(
        self, search: SearchStage | None, recommend: Recommender | None, *, limits: Limits | None = None
    ) -> None:
        self._search = search
        self._recommend = recommend
        self.limits = limits or Limits()

    @classmethod
    def open(cls, settings: ServeSettings) -> Engine:
        """Open every folder that the settings name.

        Raises:
            StorageError: A folder is not there, is damaged, or is newer than this version.
            MismatchError: The index was built with another encoder.
        """
        search, recommend = None, None
        if settings.index is not None and settings.encoder is not None:
            from gossamer.serving.stage import SearchStage

            search = SearchStage.open(settings.index, settings.encoder)
        if settings.recommender is not None:
            from gossamer.recsys.recommender import Recommender

            recommend = Recommender.open(settings.recommender)
        return cls(search, recommend, limits=settings.limits)

    def search(
        self,
        query: str,
        *,
        k: int = 10,
        filters: Filters | None = None,
        explain: bool = True,
    ) -> SearchResponse:
        """Find the k documents that score highest for a query.

        Args:
            query: Text; an empty one finds nothing.
            k: Most hits to return.
            filters: Which documents may be hits, such as `{"kind": ["function", "class"], "since": {">=": 2}}`;
                `gossamer.index.filters` has it all.
            explain: Also say which terms the query became, and which of them matched.

        Raises:
            InputError: A parameter is of the wrong type or out of range, or a filter does not suit the documents.
            TooLargeError: The request is over one of the limits.
            NotFoundError: This engine has no index.
        """
        started = time.perf_counter()
        request = checked(SearchRequest, query=query, k=k, filters=filters, explain=explain)
        (result,) = self._answer([request.query], request)
        return SearchResponse(hits=result.hits, expansion=result.expansion, took_ms=_ms_since(started))

    def search_batch(
        self,
        queries: Sequence[str],
        *,
        k: int = 10,
        filters: Filters | None = None,
        explain: bool = True,
    ) -> SearchBatchResponse:
        """`search` for several queries with the same options; the results come in the queries' order."""
        started = time.perf_counter()
        request = checked(SearchBatchRequest, queries=queries, k=k, filters=filters, explain=explain)
        return SearchBatchResponse(results=self._answer(request.queries, request), took_ms=_ms_since(started))

    def recommend(
        self,
        *,
        user: str | None = None,
        history: Sequence[str] | None = None,
        k: int = 10,
        include_seen: bool = False,
    ) -> RecommendResponse:
        """Recommend k items to a known user, or to whoever has this history; give exactly one of the two.

        The answer's `source` says what it rests on: popularity, where neither the user nor anything in the history
        is known.

        Raises:
            InputError: A parameter is of the wrong type or out of range, or both or none were given.
            TooLargeError: The request is over one of the limits.
            NotFoundError: This engine has no recommender.
        """
        started = time.perf_counter()
        request = checked(RecommendRequest, user=user, history=history, k=k, include_seen=include_seen)
        self.limits.check("max_k", request.k, "k")
        self.limits.check("max_history", len(request.history or ()), "the number of items in the history")
        if self._recommend is None:
            raise NotFoundError(
                "this service has no recommender: start it with `recommender` set to a folder"
            )
        found = self._recommend.recommend(
            user=request.user, history=request.history, k=request.k, exclude_seen=not request.include_seen
        )
        pairs = zip(found.item_ids, found.scores, strict=True)
        return RecommendResponse(
            items=[RecommendedItem(id=item, score=score) for item, score in pairs],
            source=found.source,
            unknown=list(found.unknown),
            took_ms=_ms_since(started),
        )

    def facets(self) -> FacetsResponse:
        """The metadata columns worth offering as filters, with their values; none where there is no index."""
        return FacetsResponse(facets=[] if self._search is None else self._search.facets())

    def health(self) -> HealthResponse:
        """What this engine answers from."""
        recommender = self._recommend
        return HealthResponse(
            status="ready",
            version=installed_version(),
            search=None if self._search is None else self._search.health(),
            recommend=None
            if recommender is None
            else RecommendHealth(n_users=recommender.n_users, n_items=recommender.n_items),
        )

    def _answer(self, queries: list[str], options: SearchOptions) -> list[SearchResult]:
        self.limits.check("max_k", options.k, "k")
        self.limits.check("max_batch", len(queries), "the number of queries")
        self.limits.check("max_hits", len(queries) * options.k, "the number of queries times k")
        longest = max(map(len, queries), default=0)
        self.limits.check("max_query_chars", longest, "the length of the query in characters")
        if self._search is None:
            raise NotFoundError(
                "this service has no index: start it with `index` and `encoder` set to folders"
            )
        if not queries:
            return []
        return self._search.search(queries, k=options.k, filters=options.filters, explain=options.explain)


@cache
def installed_version() -> str:
    """The version of gossamer that runs."""
    try:
        return version("gossamer")
    except PackageNotFoundError:  # run from a source tree
        return "from source"


def _ms_since(started: float) -> float:
    return (time.perf_counter() - started) * 1e3
