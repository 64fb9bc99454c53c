"""`Engine`: what answers for one collection, in this process; the HTTP service and its clients mirror its methods."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Unpack

from gossamer.index.filters import Filters
from gossamer.kernels.errors import NotFoundError
from gossamer.serving.facets import Facets
from gossamer.serving.item_schemas import (
    ItemArguments,
    ItemOptions,
    RecommendArguments,
    RecommendRequest,
    RecommendResponse,
    SimilarRequest,
    SimilarResponse,
)
from gossamer.serving.leasing import Swappable
from gossamer.serving.listing import ids_of, page, stored
from gossamer.serving.messages import checked
from gossamer.serving.passages import stored_document
from gossamer.serving.pipeline import Pipeline
from gossamer.serving.recommending import RecommendStage
from gossamer.serving.records import (
    DeleteRequest,
    Given,
    InteractionsRequest,
    Listed,
    ListRequest,
    PutRequest,
    Stored,
    Written,
    document,
)
from gossamer.serving.retrieval import Query, Retriever
from gossamer.serving.schemas import (
    FacetsResponse,
    HealthResponse,
    SearchArguments,
    SearchBatchRequest,
    SearchBatchResponse,
    SearchHealth,
    SearchOptions,
    SearchRequest,
    SearchResponse,
    SearchResult,
    Vectors,
)
from gossamer.serving.settings import Limits, ServeSettings
from gossamer.serving.stage import SearchStage
from gossamer.serving.writing import Writer, Writing

if TYPE_CHECKING:
    from gossamer.recsys.recommender import Recommender


@dataclass
class Parts:
    """What an engine answers from, and what is replaced together.

    Attributes:
        search: answers searches; None where there is no index.
        recommend: answers recommendations; None where there is no recommender.
        writer: takes documents; one that writes in this process unless given.
        limits: of that one.
    """

    search: Pipeline | None = None
    recommend: RecommendStage | None = None
    writer: Writing | None = None
    limits: Limits = field(default_factory=Limits)
    facets: Facets = field(init=False, default_factory=Facets)

    def __post_init__(self) -> None:
        if self.search is not None and self.writer is None:
            self.writer = Writer(self.search, limits=self.limits)

    def refresh(self) -> None:
        """Take over what others have changed."""
        if self.search is not None:
            self.search.refresh()
        if self.recommend is not None:
            self.recommend.refresh()

    def close(self) -> None:
        """Finish what was taken, and end the threads."""
        if self.writer is not None:
            self.writer.close()
        if self.search is not None:
            self.search.close()


class Engine:
    """Answers searches, recommendations, or both, and takes documents; safe to call from several threads.

    Args:
        search: Answers `search`: a pipeline, or the one stage that it would have; None where this engine has no index.
        recommend: Answers `recommend`, with clicks or without; None where this engine has no recommender.
        writer: Takes the documents of `put` and `delete`; by default one that writes them in this process.
        limits: What one request may ask for.
    """

    def __init__(
        self,
        search: Pipeline | SearchStage | None,
        recommend: RecommendStage | Recommender | None = None,
        *,
        writer: Writing | None = None,
        limits: Limits | None = None,
    ) -> None:
        if recommend is not None and not isinstance(recommend, RecommendStage):
            recommend = RecommendStage(recommend)
        if isinstance(search, SearchStage):
            search = Pipeline({"search": Retriever(search)})
        self.limits = limits or Limits()
        self._parts = Swappable(Parts(search, recommend, writer, self.limits))

    @classmethod
    def open(cls, settings: ServeSettings) -> Engine:
        """Open the folders of `index`, `encoder` and `recommender` that the settings name.

        Raises:
            StorageError: A folder is not there, is damaged, or is newer than this version.
            MismatchError: The index was built with another encoder.
        """
        from gossamer.serving.opening import config_of, open_parts

        return cls(*open_parts(config_of(settings), settings), limits=settings.limits)

    def replace(self, search: Pipeline | None, recommend: RecommendStage | None) -> None:
        """Answer from these from now on; what is under way ends as it began, and no request fails by it."""
        self._parts.replace(Parts(search, recommend, limits=self.limits))

    def close(self) -> None:
        """Answer and write what was taken, and end."""
        self._parts.close()
        with self._parts.use() as parts:
            if parts.recommend is not None:
                parts.recommend.close()

    def refresh(self) -> None:
        """Take over what other processes have changed."""
        with self._parts.use() as parts:
            parts.refresh()

    # -- searching

    def search(
        self, query: str = "", *, vectors: Vectors | None = None, **options: Unpack[SearchArguments]
    ) -> SearchResponse:
        """Find the k documents that score highest for a query.

        Args:
            query: Text; an empty one finds nothing.
            vectors: The query as its retrievers' encoders would have it, by their names.
            options: See `SearchOptions`. `filters` says which documents may be hits, such as
                `{"kind": ["function", "class"], "since": {">=": 2}}`; `gossamer.index.filters` has it all.

        Raises:
            InputError: A parameter is of the wrong type or out of range, or a filter does not suit the documents.
            TooLargeError: The request is over one of the limits.
            NotFoundError: This engine has no index.
            DeadlineError: There was no answer within `timeout_ms`.
        """
        given = {} if vectors is None else {"vectors": vectors}
        return self.answer_search(checked(SearchRequest, query=query, **given, **options))

    def answer_search(self, request: SearchRequest) -> SearchResponse:
        """`search`, as a request that was checked."""
        started = time.perf_counter()
        (result,) = self._answer([Query(request.query, request.vectors)], request)
        return SearchResponse.model_construct(**dict(result), took_ms=_ms_since(started))

    def search_batch(self, queries: Sequence[str], **options: Unpack[SearchArguments]) -> SearchBatchResponse:
        """`search` for several queries with the same options; the results come in the queries' order."""
        return self.answer_batch(checked(SearchBatchRequest, queries=queries, **options))

    def answer_batch(self, request: SearchBatchRequest) -> SearchBatchResponse:
        """`search_batch`, as a request that was checked."""
        started = time.perf_counter()
        results = self._answer([Query(text) for text in request.queries], request)
        return SearchBatchResponse(results=results, took_ms=_ms_since(started))

    def _answer(self, queries: list[Query], options: SearchOptions) -> list[SearchResult]:
        depth = options.offset + options.k
        self.limits.check("max_k", options.k, "k")
        self.limits.check("max_batch", len(queries), "the number of queries")
        self.limits.check(
            "max_depth", depth * len(queries), "offset and k together, times the number of queries,"
        )
        self.limits.check("max_hits", len(queries) * options.k, "the number of queries times k")
        longest = max((len(query.text) for query in queries), default=0)
        self.limits.check("max_query_chars", longest, "the length of the query in characters")
        with self._parts.use() as parts:
            search = _searching(parts)
            return search.search(queries, options) if queries else []

    def facets(self) -> FacetsResponse:
        """The metadata columns worth offering as filters, with their values; none where there is no index."""
        with self._parts.use() as parts:
            if parts.search is None:
                return FacetsResponse(facets=[])
            return FacetsResponse(facets=parts.facets.of(parts.search))

    # -- documents

    def get(self, id: str) -> Stored:  # as the document calls it
        """A document as it is stored.

        Raises:
            NotFoundError: There is none of this id, or no index.
        """
        with self._parts.use() as parts:
            search = _searching(parts)
            documents = search.store.view().documents
            found = stored_document(documents, id, is_split=search.passages is not None)
        if found is None:
            raise NotFoundError(f"there is no document {id[:80]!r}")
        return stored(found)

    def documents(self, *, k: int = 10, after: str | None = None, filters: Filters | None = None) -> Listed:
        """Documents by their ids, in code points' order, a page at a time.

        Args:
            k: Most of them.
            after: Only those whose ids are greater: `next` of the page before.
            filters: Which, as in a search.

        Raises:
            InputError: A filter does not suit the documents.
            TooLargeError: There are too many.
            NotFoundError: This engine has no index.
        """
        return self.answer_documents(checked(ListRequest, k=k, after=after, filters=filters or {}))

    def answer_documents(self, request: ListRequest) -> Listed:
        """`documents`, as a request that was checked."""
        self.limits.check("max_k", request.k, "k")
        with self._parts.use() as parts:
            return page(_searching(parts), request)

    def put(self, documents: Sequence[Given]) -> Written:
        """Add documents, in the place of those of the same ids. When this returns, they are on the disk.

        Args:
            documents: Of different ids; as `Document`, or as `{"id": …, "title": …, "text": …, "metadata": {…}}`.

        Raises:
            InputError: A document does not suit the index, or the index is of a kind that does not change.
            TooLargeError: There are too many.
            OverloadedError: Too many wait to be written.
            NotFoundError: This engine has no index.
        """
        self.limits.check("max_documents", len(documents), "the number of documents")
        request = checked(PutRequest, documents=[document(one) for one in documents])
        return self._written(lambda parts: _writing(parts).write(request.documents))

    def delete(self, ids: Sequence[str] | None = None, *, filters: Filters | None = None) -> Written:
        """Take documents out; see `put`.

        Args:
            ids: Which; those that are not there are passed over.
            filters: Instead, all that a filter leaves at this moment, of any number; in parts, so that if it fails some
                are gone, and asking again goes on.
        """
        given = {"ids": ids, "filters": filters}
        return self.answer_delete(
            checked(DeleteRequest, **{name: one for name, one in given.items() if one is not None})
        )

    def answer_delete(self, request: DeleteRequest) -> Written:
        """`delete`, as a request that was checked."""
        if request.ids is not None:
            self.limits.check("max_documents", len(request.ids), "the number of documents")
            return self._delete(request.ids)
        self.refresh()
        with self._parts.use() as parts:
            search = _searching(parts)
            ids, answer = ids_of(search, request.filters), Written(version=search.version)
        size = self.limits.max_documents
        for start in range(0, len(ids), size):
            written = self._delete(ids[start : start + size])
            answer = written.model_copy(update={"n_deleted": answer.n_deleted + written.n_deleted})
        return answer

    def _delete(self, ids: list[str]) -> Written:
        return self._written(lambda parts: _writing(parts).write(ids))

    def _written(self, write: Callable[[Parts], Written]) -> Written:
        """Write, and see to it that whatever answers now knows it: other parts may have taken their place meanwhile."""
        with self._parts.use() as parts:
            written = write(parts)
            was_replaced = not self._parts.is_current(parts)
        if was_replaced:
            self.refresh()
        return written

    # -- recommending

    def recommend(self, **options: Unpack[RecommendArguments]) -> RecommendResponse:
        """Recommend items to a `user`, or to whoever has a `history`; give exactly one of the two.

        The answer's `source` says what it rests on: popularity, where neither the user nor anything in the history
        is known. With a `query`, only what it finds is recommended.

        Args:
            options: See `RecommendRequest`.

        Raises:
            InputError: A parameter is of the wrong type or out of range, or both or none were given.
            TooLargeError: The request is over one of the limits.
            NotFoundError: This engine has no recommender.
        """
        return self.answer_recommend(checked(RecommendRequest, **options))

    def answer_recommend(self, request: RecommendRequest) -> RecommendResponse:
        """`recommend`, as a request that was checked."""
        started = time.perf_counter()
        self._check_items(request)
        self.limits.check("max_history", len(request.history or ()), "the number of items in the history")
        self.limits.check(
            "max_query_chars", len(request.query or ""), "the length of the query in characters"
        )
        with self._parts.use() as parts:
            found = _recommending(parts).recommend(request, parts.search)
        return RecommendResponse(**found, took_ms=_ms_since(started))

    def similar(self, item: str, **options: Unpack[ItemArguments]) -> SimilarResponse:
        """The items most like another.

        Raises:
            InputError: A parameter is of the wrong type or out of range.
            TooLargeError: The request is over one of the limits.
            NotFoundError: There is no such item, or no recommender.
        """
        return self.answer_similar(checked(SimilarRequest, item=item, **options))

    def answer_similar(self, request: SimilarRequest) -> SimilarResponse:
        """`similar`, as a request that was checked."""
        self._check_items(request)
        with self._parts.use() as parts:
            return _recommending(parts).similar(request)

    def interact(self, interactions: Sequence[Mapping[str, Any]]) -> Written:
        """Keep what users took, such as `{"user": "ada", "item": "os"}`. When this returns, it is on the disk.

        The next answer knows it: a user's new items count, and a user whom training never saw has a history.

        Raises:
            InputError: An interaction is none, or this engine keeps none.
            TooLargeError: There are too many.
            OverloadedError: Another process writes them.
            NotFoundError: This engine has no recommender.
        """
        request = checked(InteractionsRequest, interactions=interactions)
        self.limits.check("max_documents", len(request.interactions), "the number of interactions")
        return self._written(lambda parts: _recommending(parts).write(request.interactions))

    def _check_items(self, request: ItemOptions) -> None:
        self.limits.check("max_k", request.k, "k")
        self.limits.check("max_depth", request.offset + request.k, "offset and k together")

    # -- what there is

    @property
    def n_waiting(self) -> tuple[int, int]:
        """Queries that wait for their turn, and documents that wait to be written."""
        with self._parts.use() as parts:
            queries = 0 if parts.search is None else max(parts.search.n_waiting.values(), default=0)
            return queries, 0 if parts.writer is None else parts.writer.n_waiting

    def health(self) -> HealthResponse:
        """What this engine answers from."""
        with self._parts.use() as parts:
            return HealthResponse(
                status="ready",
                version=installed_version(),
                search=_search_health(parts),
                recommend=None if parts.recommend is None else parts.recommend.health(),
            )


def _searching(parts: Parts) -> Pipeline:
    if parts.search is None:
        raise NotFoundError("this collection has no index: name its folder in the settings")
    return parts.search


def _recommending(parts: Parts) -> RecommendStage:
    if parts.recommend is None:
        raise NotFoundError("this collection has no recommender: name its folder in the settings")
    return parts.recommend


def _writing(parts: Parts) -> Writing:
    _searching(parts)
    assert parts.writer is not None  # as there is an index
    return parts.writer


def _search_health(parts: Parts) -> SearchHealth | None:
    if parts.search is None or parts.writer is None:
        return None
    by_name = {name: retriever.stage.health() for name, retriever in parts.search.retrievers.items()}
    return SearchHealth(
        **dict(by_name[parts.search.main]),
        retrievers=by_name,
        version=parts.search.version,
        writable=parts.writer.can_write,
    )


@cache
def installed_version() -> str:
    """The version of gossamer that runs."""
    try:
        return version("gossamer")
    except PackageNotFoundError:  # run from a source tree
        return "from source"


def _ms_since(started: float) -> float:
    return (time.perf_counter() - started) * 1e3
