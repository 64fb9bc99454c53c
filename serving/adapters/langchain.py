"""A collection as a LangChain retriever; needs the extra `langchain`."""

from __future__ import annotations

from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import Field

from gossamer.serving.adapters import AsyncSearcher, Searcher, metadata_of
from gossamer.serving.schemas import SearchResponse


class GossamerRetriever(BaseRetriever):
    """Finds documents in a collection: `GossamerRetriever(client=Client(url)).invoke("sort a list", k=3)`.

    A hit becomes a `Document` of its text; its metadata are the title, the score and what the document has.
    """

    client: Searcher
    """A `Client`, or an `Engine` in the process."""
    async_client: AsyncSearcher | None = None
    """An `AsyncClient`, for `ainvoke`; without one, that asks `client` in a thread."""
    options: dict[str, Any] = Field(default_factory=dict)
    """What searches are told, such as `{"k": 5, "filters": {"kind": "function"}}`; see `SearchOptions`. A call may say
    others: `invoke(query, k=3)`."""

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,  # noqa: ARG002  # LangChain passes it
        **options: Any,
    ) -> list[Document]:
        return _documents(self.client.search(query, **self._told(options)))

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **options: Any
    ) -> list[Document]:
        if self.async_client is None:
            return await super()._aget_relevant_documents(query, run_manager=run_manager, **options)
        return _documents(await self.async_client.search(query, **self._told(options)))

    def _told(self, options: dict[str, Any]) -> dict[str, Any]:
        return {"explain": False, **self.options, **options}


def _documents(response: SearchResponse) -> list[Document]:
    return [
        Document(id=hit.id, page_content=hit.text, metadata={"score": hit.score, **metadata_of(hit)})
        for hit in response.hits
    ]
