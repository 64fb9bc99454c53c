"""Requests and answers: the same models in the engine, the HTTP app and the clients.

Requests are strict (no `"10"` for 10) and refuse unknown parameters; answers ignore what they do not know, so that an
older client can talk to a newer service. No number is ever NaN or infinite.
"""

import difflib
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    model_validator,
)

from gossamer.index.filters import Scalar
from gossamer.kernels.errors import InputError
from gossamer.serving.errors import ErrorType, describe, kind_named, printable
from gossamer.serving.filter_json import Filter

_MAX_INT = 2**31 - 1


def _valid_unicode(text: str) -> str:
    if not text.isascii() and printable(text) != text:
        raise ValueError("half of a surrogate pair is no character; send valid Unicode")
    return text


Text = Annotated[str, AfterValidator(_valid_unicode)]
"""A string that can be written as UTF-8."""
Texts = Annotated[list[Text], Field(strict=False)]  # a tuple will do
Count = Annotated[int, Field(ge=1, le=_MAX_INT)]


class _Request(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    @model_validator(mode="before")
    @classmethod
    def _no_unknown_parameters(cls, data: Any) -> Any:
        """Say which parameter was probably meant, which pydantic's own refusal does not."""
        known = list(cls.model_fields)
        for name in data if isinstance(data, dict) else ():
            if name not in known:
                nearest = difflib.get_close_matches(str(name), known, n=1)
                meant = f"did you mean {nearest[0]}?" if nearest else f"known are {', '.join(known)}"
                raise ValueError(f"{printable(str(name)[:64])}: no such parameter; {meant}")
        return data


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, use_attribute_docstrings=True)


class SearchOptions(_Request):
    """What every kind of search can be told."""

    k: Count = 10
    """Most hits to return for a query."""
    filters: Filter = Field(default_factory=dict)
    """Which documents may be hits: column → the value it must have, a list of values it may have, or comparisons by
    ==, in, <, <=, > and >=; `and` and `or` → a list of filters, `not` → a filter. All entries must hold. The column
    `id` is there always; a missing value satisfies no comparison."""
    explain: bool = True
    """Say which terms the query became, and which of them matched."""


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
    query: Text


class SearchBatchRequest(SearchOptions):
    """Several queries that share their options."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"queries": ["sort a list", "parse a date"], "k": 5}]}
    )
    queries: Texts


class TermWeight(_Answer):
    """A term that the query became, by name."""

    term: str
    weight: float


class TermMatch(_Answer):
    """A term that query and document share; `contribution` is its part of the score."""

    term: str
    query_weight: float
    document_weight: float
    contribution: float


class SearchHit(_Answer):
    """A document that was found."""

    id: str
    score: float
    title: str
    text: str
    metadata: dict[str, JsonValue]
    matches: list[TermMatch]
    """Largest contribution first; empty unless asked to explain."""


class SearchResult(_Answer):
    """What one query found."""

    hits: list[SearchHit]
    """Best first; fewer than k where fewer documents share a term with the query."""
    expansion: list[TermWeight]
    """The query's own terms, heaviest first; empty unless asked to explain."""


class SearchResponse(SearchResult):
    """The answer to one query."""

    took_ms: float
    """Milliseconds that the engine took."""


class SearchBatchResponse(_Answer):
    """The answers to several queries, in their order."""

    results: list[SearchResult]
    took_ms: float
    """Milliseconds that the engine took for all of them."""


class RecommendRequest(_Request):
    """For a known user, or for whoever has this history; exactly one of both."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"history": ["os.path", "sys"], "k": 10}, {"user": "json/decoder.py"}]
        }
    )
    user: Text | None = None
    history: Texts | None = None
    k: Count = 10
    """Most items to return."""
    include_seen: bool = False
    """Also return items that the user, or the history, already has."""

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.user is None) == (self.history is None):
            raise ValueError("user, history: give exactly one of the two")
        return self


class RecommendedItem(_Answer):
    """An item, and how well it suits; scores compare within one answer only."""

    id: str
    score: float


class RecommendResponse(_Answer):
    """Recommended items, best first, and what they rest on."""

    items: list[RecommendedItem]
    source: Literal["user", "history", "popularity"]
    """`popularity` where neither the user nor anything in the history is known."""
    unknown: list[str]
    """The user or the items of the history that the recommender has never seen."""
    took_ms: float
    """Milliseconds that the engine took."""


class FacetValue(_Answer):
    """A value of a metadata column, and how many documents have it."""

    value: Scalar
    count: int


class Facet(_Answer):
    """A metadata column with few distinct values, offered as a filter."""

    column: str
    values: list[FacetValue]
    """Most frequent first."""


class FacetsResponse(_Answer):
    """The columns worth offering as filters."""

    facets: list[Facet]


class SearchHealth(_Answer):
    """What searches are answered from."""

    n_documents: int
    n_terms: int
    encoder: str
    fingerprint: str


class RecommendHealth(_Answer):
    """What recommendations are answered from."""

    n_users: int
    n_items: int


class HealthResponse(_Answer):
    """Whether the service can answer, and from what; a part is null where it is not served."""

    status: Literal["loading", "ready"]
    version: str
    search: SearchHealth | None = None
    recommend: RecommendHealth | None = None


class ErrorDetail(_Answer):
    """What went wrong: `type` is for programs, `message` for people."""

    type: Annotated[ErrorType, BeforeValidator(lambda name: kind_named(name).name)]
    message: str


class ErrorBody(_Answer):
    """The one shape of every answer that is not 2xx."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"error": {"type": "validation", "message": "k: Input should be greater than or equal to 1"}}
            ]
        }
    )
    error: ErrorDetail


R = TypeVar("R", bound=_Request)


def checked(model: type[R], **values: Any) -> R:
    """Make a request from Python values.

    Raises:
        InputError: A value has the wrong type or is out of range; worded as the service words it.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise InputError(describe(error.errors(include_context=False, include_url=False))) from None
