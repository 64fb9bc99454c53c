"""What the replicas of a deployment are; `deploy` says how many of each there are, and how they reach each other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, NoReturn

from gossamer.index.open import open_index
from gossamer.kernels.errors import ConfigError
from gossamer.serving.collection_config import CollectionConfig
from gossamer.serving.collections import Collections
from gossamer.serving.engine import Engine
from gossamer.serving.opening import Openers, open_parts
from gossamer.serving.records import CreateRequest, Document, Written
from gossamer.serving.remote import (
    Ask,
    EncoderFacts,
    Handle,
    RemoteEncoder,
    RemoteIndex,
    RemoteWriter,
    parts_of,
    places_by_group,
)
from gossamer.serving.scoring import Part, Scorer
from gossamer.serving.settings import Limits, ServeSettings
from gossamer.serving.stage import SearchStage, open_encoder
from gossamer.serving.writing import Change

if TYPE_CHECKING:
    from fastapi import FastAPI

    from gossamer.index.shard_search import ShardHits
    from gossamer.index.vectors import SparseVectors
    from gossamer.lsr.encoder import Encoder
    from gossamer.lsr.spans import TermSpans
    from gossamer.serving.pipeline import Pipeline
    from gossamer.serving.recommending import RecommendStage


class Encoders:
    """Encodes texts, a batch at a time.

    Args:
        folders: of all encoders.
        n_threads: of one batch.
    """

    def __init__(self, folders: Sequence[Path], n_threads: int) -> None:
        import torch

        torch.set_num_threads(n_threads)
        self._encoders: dict[Path, Encoder] = {folder: open_encoder(folder) for folder in folders}
        self._encoding = Lock()
        self._facts = {}
        for folder, encoder in self._encoders.items():
            encoder.encode_queries(["warm up"])
            self._facts[folder] = EncoderFacts(
                encoder.info, [encoder.term(n) for n in range(encoder.n_terms)]
            )

    def facts(self, folder: Path) -> EncoderFacts:
        """What is known of an encoder without running it."""
        return self._facts[folder]

    def encode_queries(self, folder: Path, texts: Sequence[str], batch_size: int) -> SparseVectors:
        """One row a query."""
        with self._encoding:
            return self._encoders[folder].encode_queries(texts, batch_size=batch_size)

    def encode_documents(self, folder: Path, texts: Sequence[str], batch_size: int) -> SparseVectors:
        """One row a document."""
        with self._encoding:
            return self._encoders[folder].encode_documents(texts, batch_size=batch_size)

    def term_spans(self, folder: Path, text: str) -> TermSpans:
        """Where a text says which terms."""
        with self._encoding:
            return self._encoders[folder].term_spans(text)


class Shards:
    """Searches the shards of one group.

    Args:
        indexes: folders of all indexes.
        group: which group this is.
        n_groups: of how many.
    """

    def __init__(self, indexes: Sequence[Path], group: int, n_groups: int) -> None:
        folders: list[Path] = []
        for index in map(open_index, indexes):
            parts = parts_of(index)
            folders += [
                parts[place].path
                for place in places_by_group(index.path, len(parts), n_groups).get(group, ())
            ]
        self._scorer = Scorer(folders)

    def search(
        self, parts: Sequence[Part], queries: Any, k: int, how: Mapping[str, Any]
    ) -> list[ShardHits | None]:
        """See `Scorer.search`."""
        return self._scorer.search(parts, queries, k, how)


class DocumentWriter:
    """Writes the documents of all collections, the only one to do so."""

    async def __init__(  # type: ignore[misc] # Ray Serve awaits it; calls are waited for in a thread
        self,
        settings: ServeSettings,
        configs: Mapping[str, CollectionConfig],
        encoders: Handle,
        ask: Ask,
    ) -> None:
        openers = Openers(encoder=lambda folder: RemoteEncoder(folder, encoders, ask))

        def open_engines() -> dict[str, Engine]:
            return {
                name: Engine(*open_parts(of, settings, openers), limits=settings.limits)
                for name, of in configs.items()
            }

        self._engines = await asyncio.to_thread(open_engines)

    def write(self, collection: str, change: Change) -> Written:
        """Put documents in, or take ids out; when this returns, that is on the disk."""
        engine = self._engines[collection]
        documents = [one for one in change if isinstance(one, Document)]
        if documents:
            return engine.put(documents)
        return engine.delete([one for one in change if isinstance(one, str)])

    def interact(self, collection: str, interactions: Sequence[Mapping[str, Any]]) -> Written:
        """Keep interactions; one that is repeated is kept once."""
        return self._engines[collection].interact(interactions)


class Router:
    """The app, whose engines have others encode, search and write."""

    async def __init__(  # type: ignore[misc] # Ray Serve awaits it; calls are waited for in a thread
        self,
        settings: ServeSettings,
        configs: Mapping[str, CollectionConfig],
        *,
        encoders: Handle,
        groups: Sequence[Handle],
        writer: Handle,
        ask: Ask,
    ) -> None:

        def open_remote(folder: Path) -> RemoteIndex:
            index = open_index(folder)
            SearchStage(index).warm_up()  # it may have to be searched here
            return RemoteIndex(index, groups, ask)

        openers = Openers(index=open_remote, encoder=lambda folder: RemoteEncoder(folder, encoders, ask))

        def open_collections() -> Collections:
            engines = {}
            for name, of in configs.items():
                search, recommend = open_parts(of, settings, openers)
                writing = None if search is None else RemoteWriter(name, search, writer, ask)
                interact = partial(writer.interact.remote, name)
                engines[name] = _Engine(
                    search, recommend, writer=writing, limits=settings.limits, interact=interact, ask=ask
                )
            return DeployedCollections(engines, refresh_s=settings.refresh_s)

        self._settings = settings
        self._collections = await asyncio.to_thread(open_collections)

    def __serve_build_asgi_app__(self) -> FastAPI:
        from gossamer.serving.app import create_app

        return create_app(self._collections, settings=self._settings, host=self._settings.host)


class _Engine(Engine):
    """Has interactions kept by the one process that writes."""

    def __init__(
        self,
        search: Pipeline | None,
        recommend: RecommendStage | None,
        *,
        writer: RemoteWriter | None,
        limits: Limits,
        interact: Callable[..., Any],
        ask: Ask,
    ) -> None:
        super().__init__(search, recommend, writer=writer, limits=limits)
        self._interact, self._ask = interact, ask

    def interact(self, interactions: Sequence[Mapping[str, Any]]) -> Written:
        """As `Engine.interact`; this process knows them when it returns."""
        written: Written
        (written,) = self._ask([partial(self._interact, interactions)])
        self.refresh()
        return written


class DeployedCollections(Collections):
    """Collections that several routers share, so that none of these can change which there are."""

    def create(self, request: CreateRequest) -> NoReturn:  # noqa: ARG002
        """Raises: ConfigError."""
        self._refuse()

    def drop(self, name: str) -> NoReturn:  # noqa: ARG002
        """Raises: ConfigError."""
        self._refuse()

    def reload(self, name: str) -> NoReturn:  # noqa: ARG002
        """Raises: ConfigError."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise ConfigError(
            "a deployment's collections are those it was started with: change them, and deploy again"
        )
