"""gossamer as a part of other frameworks; each module needs the extra of its name, such as `gossamer[langchain]`."""

from typing import Any, Protocol, Unpack, runtime_checkable

from gossamer.serving.schemas import SearchArguments, SearchHit, SearchResponse


@runtime_checkable
class Searcher(Protocol):
    """Whatever can be asked: a `Client`, or an `Engine` in the process."""

    def search(self, query: str = "", **options: Unpack[SearchArguments]) -> SearchResponse:
        """As `Engine.search`."""


@runtime_checkable
class AsyncSearcher(Protocol):
    """Whatever can be awaited: an `AsyncClient`."""

    async def search(self, query: str = "", **options: Unpack[SearchArguments]) -> SearchResponse:
        """As `Engine.search`."""


def metadata_of(hit: SearchHit) -> dict[str, Any]:
    """What frameworks keep beside a text: the title and the document's own metadata."""
    return {"title": hit.title, **hit.metadata}
