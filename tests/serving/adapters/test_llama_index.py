"""The LlamaIndex retriever, over HTTP and in the process."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytest.importorskip("llama_index.core", reason="the extra llama-index is not installed", exc_type=ImportError)

from gossamer.serving import AsyncClient, Client, Engine, RunningService
from gossamer.serving.adapters.llama_index import GossamerRetriever


def test_retrieves(service: RunningService, tiny_engine: Engine) -> None:
    expected = tiny_engine.search("sort a list", k=3).hits
    with Client(service.url) as client:
        found = GossamerRetriever(client, k=3).retrieve("sort a list")
        methods = GossamerRetriever(client, filters={"kind": "method"}).retrieve("sort a list")
    assert [(one.node.node_id, one.score) for one in found] == [(hit.id, hit.score) for hit in expected]
    assert found[0].text == expected[0].text
    assert found[0].metadata == {"title": expected[0].title, **expected[0].metadata}
    assert {one.node.node_id for one in methods} == {"list.sort", "list.append"}
    assert GossamerRetriever(tiny_engine, k=3).retrieve("sort a list") == found
    assert GossamerRetriever(tiny_engine).retrieve("qqq") == []


def test_retrieves_without_waiting(service: RunningService) -> None:
    async def ask() -> list[Any]:
        async with AsyncClient(service.url) as client:
            with Client(service.url) as blocking:
                awaiting = GossamerRetriever(blocking, async_client=client, k=2)
                threaded = GossamerRetriever(blocking, k=2)
                return list(await asyncio.gather(awaiting.aretrieve("sort"), threaded.aretrieve("sort")))

    awaited, threaded = asyncio.run(ask())
    assert len(awaited) == 2
    assert awaited == threaded
