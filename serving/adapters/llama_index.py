"""A collection as a LlamaIndex retriever; needs the extra `llama-index`."""

from __future__ import annotations

import asyncio
from typing import Unpack

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.callbacks import CallbackManager
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from gossamer.serving.adapters import AsyncSearcher, Searcher, metadata_of
from gossamer.serving.schemas import SearchArguments, SearchResponse


class GossamerRetriever(BaseRetriever):
    """Finds nodes in a collection: `GossamerRetriever(Client(url), k=3).retrieve("sort a list")`.

    A hit becomes a `TextNode` of its text and id, whose metadata are the title and what the document has.

    Args:
        client: A `Client`, or an `Engine` in the process.
        async_client: An `AsyncClient`, for `aretrieve`; without one, that asks `client` in a thread.
        callback_manager: LlamaIndex's own.
        options: What searches are told; see `SearchOptions`.
    """

    def __init__(
        self,
        client: Searcher,
        *,
        async_client: AsyncSearcher | None = None,
        callback_manager: CallbackManager | None = None,
        **options: Unpack[SearchArguments],
    ) -> None:
        super().__init__(callback_manager=callback_manager)
        self._client, self._async_client = client, async_client
        self._options: SearchArguments = {"explain": False, **options}

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return _nodes(self._client.search(query_bundle.query_str, **self._options))

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        if self._async_client is None:
            return await asyncio.to_thread(self._retrieve, query_bundle)
        return _nodes(await self._async_client.search(query_bundle.query_str, **self._options))


def _nodes(response: SearchResponse) -> list[NodeWithScore]:
    return [
        NodeWithScore(node=TextNode(id_=hit.id, text=hit.text, metadata=metadata_of(hit)), score=hit.score)
        for hit in response.hits
    ]
