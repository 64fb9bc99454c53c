"""What is written over HTTP and in the process: documents and interactions, and what a write answers."""

from collections.abc import Mapping
from typing import Annotated, Any, Protocol, Self, TypeAlias

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from gossamer.lsr.passages import Passages
from gossamer.serving.filter_json import Filter
from gossamer.serving.messages import Answer, Count, Name, Request, Text, checked
from gossamer.serving.schemas import RecommendHealth, SearchHealth, Vectors


def _no_dots(id_: str) -> str:
    if id_ in (".", ".."):
        raise ValueError("that is no document's address in a URL; choose another id")
    return id_


Id = Annotated[Text, Field(min_length=1, max_length=512), AfterValidator(_no_dots)]
Value = Text | bool | int | float | None
"""Of a metadata column; a column has one type."""


class Document(Request):
    """A document as it is written; one of the same id is replaced."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"id": "zip", "title": "zip(*iterables)", "text": "Iterate over several at once."}]
        }
    )
    id: Id
    title: Text = ""
    text: Text = ""
    metadata: dict[Text, Value] = Field(default_factory=dict)
    vectors: Vectors = Field(default_factory=dict)
    """The document as its retrievers' encoders would have it; those that are not named encode title and text."""


Given: TypeAlias = Document | Mapping[str, Any]
"""A document, or its parts by name."""


class Table(Protocol):
    """Rows of any number, as Arrow's, pandas' and polars' tables and streams give them to each other."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...


def document(given: Given) -> Document:
    """A document that was given as one, or in parts.

    Raises:
        InputError: a part is not known, or of the wrong type.
    """
    return given if isinstance(given, Document) else checked(Document, **given)


class DocumentBody(Request):
    """A document whose id stands in the path."""

    title: Text = ""
    text: Text = ""
    metadata: dict[Text, Value] = Field(default_factory=dict)
    vectors: Vectors = Field(default_factory=dict)


class PutRequest(Request):
    """Documents of different ids."""

    documents: Annotated[list[Document], Field(min_length=1)]

    @model_validator(mode="after")
    def _differ(self) -> Self:
        seen: set[str] = set()
        for document in self.documents:
            if document.id in seen:
                raise ValueError(f"documents: the id {document.id[:80]!r} is there twice")
            seen.add(document.id)
        return self


class DeleteRequest(Request):
    """Documents that are to go: by their ids, or all that a filter leaves; exactly one of both."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"ids": ["zip"]}, {"filters": {"year": {"<": 2000}}}]}
    )
    ids: Annotated[list[Id], Field(strict=False, min_length=1)] | None = None
    filters: Filter = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.ids is None) != bool(self.filters):
            raise ValueError("ids, filters: give exactly one of the two (to delete all, drop the collection)")
        return self


class ListRequest(Request):
    """A page of documents, by their ids in code points' order."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"k": 20}, {"filters": {"kind": "class"}, "after": "json.loads"}]}
    )
    k: Count = 10
    """Most documents to return."""
    after: Text | None = None
    """Only those whose ids are greater: `next` of the page before."""
    filters: Filter = Field(default_factory=dict)
    """Which documents, as in a search."""


class Interaction(Request):
    """A user took an item."""

    user: Id
    item: Id
    time: float | None = None
    """Seconds since 1970; now, if not given."""


class InteractionsRequest(Request):
    """New interactions, in the order they came."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"interactions": [{"user": "new", "item": "os"}]}]}
    )
    interactions: Annotated[list[Interaction], Field(min_length=1)]


class Stored(Answer):
    """A document as it is stored."""

    id: str
    title: str
    text: str
    metadata: dict[str, str | bool | int | float | None]


class Listed(Answer):
    """A page of documents; what is written meanwhile neither shifts nor repeats the next ones."""

    documents: list[Stored]
    next: str | None = None
    """`after` of the next page; null where there is none."""
    total: int
    """How many documents there are, on all pages."""


class Written(Answer):
    """A write that is on the disk; searches that are given its `version` as `min_version` know it."""

    version: str
    n_added: int = 0
    n_replaced: int = 0
    n_deleted: int = 0


class RefusedLine(Answer):
    """A line that was not written, counted from 1, and why."""

    line: int
    id: str | None
    message: str


class BulkWritten(Written):
    """What became of many lines: those not among `refused` are on the disk."""

    n_lines: int = 0
    n_refused: int = 0
    refused: list[RefusedLine] = Field(default_factory=list)
    """The first thousand."""


class CreateRequest(Request):
    """A new, empty collection; each retriever has the encoder of that name in the service's `encoders`."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "notes", "retrievers": {"words": "bm25"}}]}
    )
    name: Name
    retrievers: Annotated[dict[Name, Name], Field(min_length=1)]
    passages: Passages | None = None
    """How documents are split, so that long ones are found by their best passage."""


class CollectionInfo(Answer):
    """A collection, and what it answers from."""

    name: str
    search: SearchHealth | None = None
    recommend: RecommendHealth | None = None


class CollectionList(Answer):
    """All collections, by name."""

    collections: list[CollectionInfo]


class CollectionDropped(Answer):
    """A collection that is no more."""

    name: str
