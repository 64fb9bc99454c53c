"""Requests and answers: the same models in the engine, the HTTP app and the clients.

Requests are strict (no `"10"` for 10) and refuse unknown parameters; answers ignore what they do not know, so that an
older client can talk to a newer service. No number is ever NaN or infinite. Those of recommendations are in
`item_schemas`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal, Self, TypeAlias, TypedDict

from pydantic import BeforeValidator, ConfigDict, Field, JsonValue, model_validator

from gossamer.index.filters import Filters, Scalar
from gossamer.serving.errors import ErrorType, kind_named
from gossamer.serving.filter_json import Filter
from gossamer.serving.messages import Answer, Count, Name, Request, Text, Texts

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


_LARGEST = 1e6
"""Magnitude of a weight: far beyond what encoders make, and no sum of such is infinite."""
Weight = Annotated[float, Field(ge=-_LARGEST, le=_LARGEST)]


class SparseVector(Request):
    """Weights of some terms, by their numbers."""

    terms: Annotated[list[int], Field(strict=False)]
    weights: Annotated[list[Weight], Field(strict=False)]

    @model_validator(mode="after")
    def _fit(self) -> Self:
        if len(self.terms) != len(self.weights):
            raise ValueError(f"there are {len(self.terms)} terms and {len(self.weights)} weights")
        if len(set(self.terms)) < len(self.terms) or min(self.terms, default=0) < 0:
            raise ValueError("terms are numbers from 0 on, each at most once")
        return self


Vector: TypeAlias = SparseVector | Annotated[list[Weight], Field(strict=False, min_length=1)]
"""What an encoder would have made: for a dense index a list of numbers."""
Vectors: TypeAlias = dict[Name, Vector]
"""By the name of the retriever."""


class SearchOptions(Request):
    """What every kind of search can be told."""

    k: Count = 10
    """Most hits to return for a query."""
    offset: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    """How many of the best hits to leave out, for the next page."""
    filters: Filter = Field(default_factory=dict)
    """Which documents may be hits: column → the value it must have, a list of values it may have, or comparisons by
    ==, in, <, <=, > and >=; `and` and `or` → a list of filters, `not` → a filter. All entries must hold. The column
    `id` is there always; a missing value satisfies no comparison."""
    explain: bool = True
    """Say which terms the query became, and which of them matched."""
    snippet_chars: Annotated[int, Field(ge=40, le=4_000)] | None = None
    """Also cut the part of each text out that says most of the query, so long at most."""
    fields: Annotated[list[Text], Field(strict=False)] | None = None
    """Which of `title`, `text` and the metadata columns hits have; all, if not given."""
    min_version: Text | None = None
    """The answer has to know at least the write that answered with this version."""
    timeout_ms: Annotated[float, Field(ge=1, le=600_000)] | None = None
    """After so long the answer is no longer wanted."""


class SearchRequest(SearchOptions):
    """One query."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"query": "read a file line by line", "k": 10},
                {"query": "sort", "filters": {"kind": "function"}},
                {"query": "sort", "filters": {"since": {">=": 2}, "not": {"kind": ["class", "method"]}}},
            ]
        }
    )
    query: Text = ""
    vectors: Vectors = Field(default_factory=dict)
    """The query as its retrievers' encoders would have it; those that are not named encode the text."""

    @model_validator(mode="after")
    def _asks_something(self) -> Self:
        if not self.vectors and "query" not in self.model_fields_set:
            raise ValueError("query: Field required, unless vectors are given")
        return self


class SearchBatchRequest(SearchOptions):
    """Several queries that share their options."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"queries": ["sort a list", "parse a date"], "k": 5}]}
    )
    queries: Texts


class TermWeight(Answer):
    """A term that the query became, by name."""

    term: str
    weight: float


class TermMatch(Answer):
    """A term that query and document share; `contribution` is its part of the score."""

    term: str
    query_weight: float
    document_weight: float
    contribution: float


class Snippet(Answer):
    """A part of a text; `marks` are the beginnings and ends of what matched in it, in characters."""

    text: str
    marks: list[tuple[int, int]]


class FoundBy(Answer):
    """The place and the score that a retriever gave a document."""

    rank: int
    score: float


class SearchHit(Answer):
    """A document that was found."""

    id: str
    score: float
    title: str
    text: str
    """Of the best passage only, where documents are split into passages."""
    passage: int | None = None
    """Which one that is, from 0; null where documents are not split."""
    metadata: dict[str, JsonValue]
    matches: list[TermMatch]
    """Largest contribution first; empty unless asked to explain."""
    snippet: Snippet | None = None
    """Null unless asked for."""
    found_by: dict[str, FoundBy] = Field(default_factory=dict)
    """Where each retriever had it; empty unless there are several, and asked to explain."""


class SearchResult(Answer):
    """What one query found."""

    hits: list[SearchHit]
    """Best first; fewer than k where fewer documents share a term with the query."""
    expansion: list[TermWeight]
    """The query's own terms, heaviest first; empty unless asked to explain."""
    degraded: list[str] = Field(default_factory=list)
    """Stages that failed or were late, so that the answer had to do without them."""
    version: str = ""
    """What the answer knows: every write whose version is no later."""
    times_ms: dict[str, float] = Field(default_factory=dict)
    """Milliseconds of its stages; `encode` and `search` are the longest of the retrievers', each of a whole batch."""


class SearchResponse(SearchResult):
    """The answer to one query."""

    took_ms: float
    """Milliseconds that the engine took."""

    def to_arrow(self) -> "pa.Table":
        """The hits as a table, best first: `id`, `score`, `title`, `text`, `snippet` if asked for, and metadata."""
        from gossamer.serving.tables import hits_table

        return hits_table([self], numbered=False)

    def to_pandas(self) -> "pd.DataFrame":
        """`to_arrow` as a data frame."""
        return self.to_arrow().to_pandas()


class SearchBatchResponse(Answer):
    """The answers to several queries, in their order."""

    results: list[SearchResult]
    took_ms: float
    """Milliseconds that the engine took for all of them."""

    def to_arrow(self) -> "pa.Table":
        """The hits of all queries as a table, as `SearchResponse` has it; `query` says which one, from 0 on."""
        from gossamer.serving.tables import hits_table

        return hits_table(self.results, numbered=True)

    def to_pandas(self) -> "pd.DataFrame":
        """`to_arrow` as a data frame."""
        return self.to_arrow().to_pandas()


class FacetValue(Answer):
    """A value of a metadata column, and how many documents have it."""

    value: Scalar
    count: int


class Facet(Answer):
    """A metadata column with few distinct values, offered as a filter."""

    column: str
    values: list[FacetValue]
    """Most frequent first."""


class FacetsResponse(Answer):
    """The columns worth offering as filters."""

    facets: list[Facet]


class RetrieverHealth(Answer):
    """One of the indexes that searches are answered from."""

    kind: str
    n_documents: int
    n_terms: int
    """Terms of a sparse index, dimensions of a dense one."""
    encoder: str | None
    fingerprint: str | None


class SearchHealth(RetrieverHealth):
    """What searches are answered from: the first retriever, whose index has the texts, and all of them by name."""

    retrievers: dict[str, RetrieverHealth] = Field(default_factory=dict)
    version: str = ""
    writable: bool = False


class RecommendHealth(Answer):
    """What recommendations are answered from."""

    n_users: int
    n_items: int
    n_interactions: int | None = None
    """That came since; null where none are taken."""


class HealthResponse(Answer):
    """Whether the service can answer, and from what; a part is null where it is not served."""

    status: Literal["loading", "ready", "stopping"]
    version: str
    search: SearchHealth | None = None
    recommend: RecommendHealth | None = None


class ErrorDetail(Answer):
    """What went wrong: `type` is for programs, `message` for people."""

    type: Annotated[ErrorType, BeforeValidator(lambda name: kind_named(name).name)]
    message: str


class ErrorBody(Answer):
    """The one shape of every answer that is not 2xx."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"error": {"type": "validation", "message": "k: Input should be greater than or equal to 1"}}
            ]
        }
    )
    error: ErrorDetail


class SearchArguments(TypedDict, total=False):
    """What `search` and `search_batch` can be told, by the names and with the meanings of `SearchOptions`."""

    k: int
    offset: int
    filters: Filters | None
    explain: bool
    snippet_chars: int | None
    fields: Sequence[str] | None
    min_version: str | None
    timeout_ms: float | None
