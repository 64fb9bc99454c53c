"""Opening what a collection's file, or the settings, name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gossamer.serving.collection_config import CollectionConfig, RetrieverConfig
from gossamer.serving.passages import refuse_unsplit
from gossamer.serving.pipeline import Pipeline, Retriever
from gossamer.serving.settings import ServeSettings

if TYPE_CHECKING:
    from gossamer.serving.recommending import RecommendStage


def config_of(settings: ServeSettings) -> CollectionConfig:
    """The collection of the settings' own folders."""
    retrievers = {}
    if settings.index is not None:
        retrievers["search"] = RetrieverConfig(index=settings.index, encoder=settings.encoder)
    return CollectionConfig(retrievers=retrievers, recommender=settings.recommender, clicks=settings.clicks)


def open_parts(
    config: CollectionConfig, settings: ServeSettings
) -> tuple[Pipeline | None, RecommendStage | None]:
    """Open every folder that a collection names.

    Raises:
        StorageError: A folder is not there, is damaged, or is newer than this version.
        MismatchError: An index was built with another encoder.
    """
    search, recommend = None, None
    if config.retrievers:
        search = _pipeline(config, settings)
    if config.recommender is not None:
        from gossamer.serving.recommending import RecommendStage

        recommend = RecommendStage.open(config.recommender, config.clicks)
    return search, recommend


def _pipeline(config: CollectionConfig, settings: ServeSettings) -> Pipeline:
    from gossamer.serving.stage import SearchStage

    retrievers = {
        name: Retriever(
            SearchStage.open(one.index, one.encoder, recall=one.recall, n_threads=settings.n_threads),
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
        )
    return Pipeline(
        retrievers,
        fusion=config.fusion,
        n_candidates=config.n_candidates,
        reranker=reranker,
        passages=config.passages,
        **settings.batching,
    )
