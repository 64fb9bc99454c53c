"""The LangChain retriever, over HTTP and in the process."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytest.importorskip("langchain_core", reason="the extra langchain is not installed", exc_type=ImportError)

from langchain_core.documents import Document
from pydantic import ValidationError

from gossamer.kernels.errors import InputError
from gossamer.serving import AsyncClient, Client, Engine, RunningService
from gossamer.serving.adapters.langchain import GossamerRetriever


def test_invokes(service: RunningService, tiny_engine: Engine) -> None:
    expected = tiny_engine.search("sort a list", k=3).hits
    with Client(service.url) as client:
        retriever = GossamerRetriever(client=client, options={"k": 3})
        found = retriever.invoke("sort a list")
        assert [document.id for document in found] == [hit.id for hit in expected]
        assert found[0] == Document(
            id=expected[0].id,
            page_content=expected[0].text,
            metadata={"score": expected[0].score, "title": expected[0].title, **expected[0].metadata},
        )
        methods = retriever.invoke("sort a list", k=5, filters={"kind": "method"})
        assert {document.id for document in methods} == {"list.sort", "list.append"}
        assert retriever.batch(["sort a list", "qqq"]) == [found, []]
        with pytest.raises(InputError, match="did you mean k"):
            retriever.invoke("sort a list", kk=5)
    assert GossamerRetriever(client=tiny_engine, options={"k": 3}).invoke("sort a list") == found


def test_invokes_without_waiting(service: RunningService) -> None:
    async def ask() -> list[Any]:
        with Client(service.url) as blocking:
            async with AsyncClient(service.url) as client:
                awaiting = GossamerRetriever(client=blocking, async_client=client, options={"k": 2})
                threaded = GossamerRetriever(client=blocking, options={"k": 2})
                several = (awaiting.ainvoke("sort"), threaded.ainvoke("sort"), awaiting.ainvoke("sort", k=1))
                return list(await asyncio.gather(*several))

    awaited, threaded, one = asyncio.run(ask())
    assert len(awaited) == 2
    assert awaited == threaded
    assert one == awaited[:1]


def test_what_cannot_be_asked_is_refused() -> None:
    with pytest.raises(ValidationError, match="Searcher"):
        GossamerRetriever(client="http://127.0.0.1:8080")
