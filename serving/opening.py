"""Opening what a collection's file, or the settings, name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gossamer.serving.collection_config import CollectionConfig, RetrieverConfig
from gossamer.serving.passages import refuse_unsplit
from gossamer.serving.pipeline import Pipeline
from gossamer.serving.retrieval import Retriever
from gossamer.serving.settings import ServeSettings
from gossamer.serving.stage import AnyIndex, SearchStage, open_encoder

if TYPE_CHECKING:
    from gossamer.lsr.encoder import Encoder
    from gossamer.serving.recommending import RecommendStage


def _open_index(folder: Path) -> AnyIndex:
    from gossamer.index.open import open_index

    return open_index(folder)


@dataclass(frozen=True)
class Openers:
    """What makes an index and an encoder of their folders: in this process, unless others are given."""

    index: Callable[[Path], AnyIndex] = _open_index
    encoder: Callable[[Path], Encoder] = open_encoder


IN_PROCESS = Openers()


def config_of(settings: ServeSettings) -> CollectionConfig:
    """The collection of the settings' own folders."""
    retrievers = {}
    if settings.index is not None:
        retrievers["search"] = RetrieverConfig(index=settings.index, encoder=settings.encoder)
    return CollectionConfig(retrievers=retrievers, recommender=settings.recommender, clicks=settings.clicks)


def open_parts(
    config: CollectionConfig, settings: ServeSettings, openers: Openers = IN_PROCESS
) -> tuple[Pipeline | None, RecommendStage | None]:
    """Open every folder that a collection names.

    Raises:
        StorageError: A folder is not there, is damaged, or is newer than this version.
        MismatchError: An index was built with another encoder.
    """
    search, recommend = None, None
    if config.retrievers:
        search = _pipeline(config, settings, openers)
    if config.recommender is not None:
        from gossamer.serving.recommending import RecommendStage

        recommend = RecommendStage.open(config.recommender, config.clicks)
    return search, recommend


def _pipeline(config: CollectionConfig, settings: ServeSettings, openers: Openers) -> Pipeline:
    retrievers = {
        name: Retriever(
            _stage(one, settings, openers),
            weight=one.weight,
            timeout_s=None if one.timeout_ms is None else one.timeout_ms / 1e3,
        )
        for name, one in config.retrievers.items()
    }
    if config.passages is not None:
        for name, retriever in retrievers.items():
            refuse_unsplit(name, retriever.stage)
    reranker = None
    if config.rerank is not None:
        from gossamer.serving.reranking import Reranker

        reranker = Reranker.open(
            config.rerank.encoder,
            n_candidates=config.rerank.n_candidates,
            timeout_s=config.rerank.timeout_ms / 1e3,
            load=openers.encoder,
        )
    return Pipeline(
        retrievers,
        fusion=config.fusion,
        n_candidates=config.n_candidates,
        reranker=reranker,
        passages=config.passages,
        **settings.batching,
    )


def _stage(one: RetrieverConfig, settings: ServeSettings, openers: Openers) -> SearchStage:
    encoder = None if one.encoder is None else openers.encoder(one.encoder)
    stage = SearchStage(openers.index(one.index), encoder, recall=one.recall, n_threads=settings.n_threads)
    stage.warm_up()
    return stage
