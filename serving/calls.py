"""The requests that clients send, and how their answers are read."""

# ruff: noqa: D102  # `Engine` says what each of its methods asks for

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, Generic, TypeVar
from urllib.parse import quote

import httpx2
from pydantic import BaseModel, ValidationError

from gossamer.index.filters import Filters
from gossamer.kernels.errors import (
    GossamerError,
    NotReadyError,
    OverloadedError,
    ServiceError,
    UnavailableError,
)
from gossamer.lsr.passages import Passages
from gossamer.serving.errors import kind_named, kind_of_status
from gossamer.serving.item_schemas import RecommendRequest, RecommendResponse, SimilarRequest, SimilarResponse
from gossamer.serving.messages import checked
from gossamer.serving.records import (
    BulkWritten,
    CollectionDropped,
    CollectionInfo,
    CollectionList,
    CreateRequest,
    DeleteRequest,
    Document,
    Given,
    InteractionsRequest,
    Listed,
    ListRequest,
    PutRequest,
    Stored,
    Table,
    Written,
    document,
)
from gossamer.serving.schemas import (
    ErrorBody,
    FacetsResponse,
    HealthResponse,
    SearchBatchRequest,
    SearchBatchResponse,
    SearchRequest,
    SearchResponse,
    Vectors,
)

_BULK_LINES: Final = 1_000
_LONGEST_WAIT_S: Final = 5.0

A = TypeVar("A", bound=BaseModel)


@dataclass(frozen=True)
class Call(Generic[A]):
    """One request, and how to read its answer."""

    method: str
    path: str
    answer: type[A]
    request: BaseModel | None = None
    lines: Sequence[BaseModel] | None = None
    is_safe: bool = True
    """Whether doing it twice is doing it once."""
    timeout_s: float | None = None
    """Where it is another than the client's."""

    @property
    def passing(self) -> tuple[type[GossamerError], ...]:
        """Failures after which it may be done again: after the first two nothing was done."""
        return (OverloadedError, NotReadyError, *((UnavailableError,) if self.is_safe else ()))

    @property
    def body(self) -> bytes | None:
        if self.lines is not None:
            return b"".join(line.model_dump_json().encode() + b"\n" for line in self.lines)
        # only what was given, so that an older service is not told of parameters that it does not know
        return None if self.request is None else self.request.model_dump_json(exclude_unset=True).encode()

    @property
    def options(self) -> dict[str, Any]:
        timeout = {} if self.timeout_s is None else {"timeout": self.timeout_s}
        return {"content": self.body, "headers": self.headers, **timeout}

    @property
    def headers(self) -> dict[str, str]:
        if self.lines is not None:
            return {"content-type": "application/x-ndjson"}
        return {} if self.request is None else {"content-type": "application/json"}

    def read(self, response: httpx2.Response) -> A:
        if not response.is_success:
            raise _refusal(response)
        try:
            return self.answer.model_validate_json(response.content)
        except ValidationError as error:
            raise ServiceError(
                f"{response.url} did not answer as a gossamer service does ({error.error_count()} faults, the first: "
                f"{error.errors()[0]['msg']}): check the address, and that client and service have one version"
            ) from error


class Calls:
    """The requests to one collection."""

    def __init__(self, collection: str) -> None:
        self._path = f"/collections/{quote(collection, safe='')}"

    def search(self, query: str, vectors: Vectors | None, **options: Any) -> Call[SearchResponse]:
        given = {} if vectors is None else {"vectors": vectors}
        request = checked(SearchRequest, query=query, **given, **options)
        return Call("POST", f"{self._path}/search", SearchResponse, request)

    def search_batch(self, queries: Sequence[str], **options: Any) -> Call[SearchBatchResponse]:
        request = checked(SearchBatchRequest, queries=queries, **options)
        return Call("POST", f"{self._path}/search/batch", SearchBatchResponse, request)

    def recommend(self, **parameters: Any) -> Call[RecommendResponse]:
        request = checked(RecommendRequest, **parameters)
        return Call("POST", f"{self._path}/recommend", RecommendResponse, request)

    def similar(self, item: str, **parameters: Any) -> Call[SimilarResponse]:
        request = checked(SimilarRequest, item=item, **parameters)
        return Call("POST", f"{self._path}/similar", SimilarResponse, request)

    def interact(self, interactions: Sequence[Mapping[str, Any]]) -> Call[Written]:
        request = checked(InteractionsRequest, interactions=interactions)
        return Call("POST", f"{self._path}/interactions", Written, request, is_safe=False)

    def facets(self) -> Call[FacetsResponse]:
        return Call("GET", f"{self._path}/facets", FacetsResponse)

    def get(self, id_: str) -> Call[Stored]:
        return Call("GET", f"{self._path}/documents/{quote(id_, safe='')}", Stored)

    def put(self, documents: Sequence[Given]) -> Call[Written]:
        request = checked(PutRequest, documents=[document(one) for one in documents])
        return Call("POST", f"{self._path}/documents", Written, request)

    def put_lines(self, documents: Sequence[Document], timeout_s: float) -> Call[BulkWritten]:
        path = f"{self._path}/documents/bulk"
        return Call("POST", path, BulkWritten, lines=documents, timeout_s=timeout_s)

    def documents(self, k: int, after: str | None, filters: Filters | None) -> Call[Listed]:
        request = checked(ListRequest, k=k, after=after, filters=filters or {})
        return Call("POST", f"{self._path}/documents/list", Listed, request)

    def delete(self, ids: Sequence[str] | None, filters: Filters | None) -> Call[Written]:
        given = {"ids": ids, "filters": filters}
        request = checked(DeleteRequest, **{name: one for name, one in given.items() if one is not None})
        return Call("POST", f"{self._path}/documents/delete", Written, request)

    def reload(self) -> Call[CollectionInfo]:
        return Call("POST", f"{self._path}/reload", CollectionInfo)


HEALTH: Final = Call("GET", "/healthz", HealthResponse)
COLLECTIONS: Final = Call("GET", "/collections", CollectionList)


def create(name: str, retrievers: Mapping[str, str], passages: Passages | None) -> Call[CollectionInfo]:
    """See `Collections.create`."""
    given = {} if passages is None else {"passages": passages}
    request = checked(CreateRequest, name=name, retrievers=dict(retrievers), **given)
    return Call("POST", "/collections", CollectionInfo, request, is_safe=False)


def drop(name: str) -> Call[CollectionDropped]:
    """See `Collections.drop`."""
    return Call("DELETE", f"/collections/{quote(name, safe='')}", CollectionDropped, is_safe=False)


def parts(documents: Iterable[Given] | Table) -> Iterator[list[Document]]:
    """Documents, as many as go into one request at a time."""
    if hasattr(documents, "__arrow_c_stream__"):
        from gossamer.serving.tables import documents_of  # it imports Arrow

        documents = documents_of(documents)
    rest = iter(documents)
    while part := [document(one) for one in islice(rest, _BULK_LINES)]:
        yield part


def joined(before: BulkWritten, new: BulkWritten) -> BulkWritten:
    """One report of two, lines counted through."""
    later = [one.model_copy(update={"line": one.line + before.n_lines}) for one in new.refused]
    counts = {
        name: getattr(before, name) + getattr(new, name)
        for name in ("n_added", "n_replaced", "n_lines", "n_refused")
    }
    return BulkWritten(version=new.version or before.version, refused=[*before.refused, *later], **counts)


def _retry_after(response: httpx2.Response) -> float:
    given = response.headers.get("retry-after", "")
    return min(_LONGEST_WAIT_S, float(given)) if given.isdecimal() else 0.0


def _refusal(response: httpx2.Response) -> GossamerError:
    """The exception that an answer other than 2xx stands for."""
    try:
        detail = ErrorBody.model_validate_json(response.content).error
    except ValidationError:  # not from our service: a proxy in between, or another program at the address
        error = kind_of_status(response.status_code).raised(
            f"{response.url} answered {response.status_code} {response.reason_phrase}, and not as a gossamer service "
            "does: check the address and any proxy before it"
        )
    else:
        error = kind_named(detail.type).raised(detail.message)
    error.retry_after_s = _retry_after(response)  # type: ignore[attr-defined] # for `_asked_to_wait` alone
    return error
