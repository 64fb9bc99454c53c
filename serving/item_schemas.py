"""Requests and answers of recommendations, by the rules of `schemas`."""

from collections.abc import Sequence
from typing import Annotated, Literal, Self, TypedDict

from pydantic import ConfigDict, Field, JsonValue, model_validator

from gossamer.index.filters import Filters
from gossamer.serving.filter_json import Filter
from gossamer.serving.messages import Answer, Count, Request, Text, Texts


class MostPer(Request):
    """At most so many items of one value of a metadata column."""

    column: Text
    at_most: Count


class ItemOptions(Request):
    """What recommendations and similar items can be told."""

    k: Count = 10
    """Most items to return."""
    offset: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    """How many of the best items to leave out, for the next page."""
    filters: Filter = Field(default_factory=dict)
    """Which items may be named, by their metadata; as in a search."""
    most_per: MostPer | None = None
    """For diversity."""


class RecommendRequest(ItemOptions):
    """For a known user, or for whoever has this history; exactly one of both."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"history": ["os.path", "sys"], "k": 10}, {"user": "json/decoder.py"}]
        }
    )
    user: Text | None = None
    history: Texts | None = None
    query: Text | None = None
    """Only what this query finds, ordered by how well it suits the query and the user."""
    include_seen: bool = False
    """Also return items that the user, or the history, already has."""
    explain: bool = True
    """Say which items of the user's are the reason."""
    min_version: Text | None = None
    """The answer has to know at least the interactions that were answered with this version."""

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.user is None) == (self.history is None):
            raise ValueError("user, history: give exactly one of the two")
        return self


class SimilarRequest(ItemOptions):
    """Items like one item."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"item": "os", "k": 5}]})
    item: Text


class Because(Answer):
    """Why an item is recommended.

    `kind` is `history`, where the score is a sum over the history, and `items` has its largest parts; `similar`, where
    `items` has those of the user's items that are most like it, by their cosines; or `popularity`.
    """

    kind: Literal["history", "similar", "popularity"]
    items: dict[str, float]


class RecommendedItem(Answer):
    """An item, and how well it suits; scores compare within one answer only."""

    id: str
    score: float
    title: str = ""
    metadata: dict[str, JsonValue] = Field(default_factory=dict)
    because: Because | None = None
    """Null unless asked to explain, and where a query found it."""


class RecommendResponse(Answer):
    """Recommended items, best first, and what they rest on."""

    items: list[RecommendedItem]
    source: Literal["user", "history", "popularity", "query"]
    """`popularity`, or with a query `query`, where neither the user nor anything in the history is known."""
    unknown: list[str]
    """The user or the items of the history that the recommender has never seen."""
    version: str = ""
    """What the answer knows: every interaction whose version is no later."""
    took_ms: float
    """Milliseconds that the engine took."""


class SimilarResponse(Answer):
    """Items like another, most similar first; scores are cosines."""

    items: list[RecommendedItem]


class ItemArguments(TypedDict, total=False):
    """What `recommend` and `similar` can be told, by the names and with the meanings of `ItemOptions`."""

    k: int
    offset: int
    filters: Filters | None
    most_per: MostPer | dict[str, str | int] | None


class RecommendArguments(ItemArguments, total=False):
    """What `recommend` can be told, by the names and with the meanings of `RecommendRequest`."""

    user: str | None
    history: Sequence[str] | None
    query: str | None
    include_seen: bool
    explain: bool
    min_version: str | None
