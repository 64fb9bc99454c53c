"""Sparse and dense vectors, the indexes that store them, run folders and measures.

Public names are imported on first use, so that `import gossamer.index` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gossamer.index.dense import DenseIndex as DenseIndex
    from gossamer.index.dense_config import DenseConfig as DenseConfig
    from gossamer.index.dense_config import Flat as Flat
    from gossamer.index.dense_config import Hnsw as Hnsw
    from gossamer.index.dense_config import IvfPq as IvfPq
    from gossamer.index.dense_vectors import DenseVectors as DenseVectors
    from gossamer.index.documents import Documents as Documents
    from gossamer.index.exchange.files import read_vectors as read_vectors
    from gossamer.index.exchange.files import write_vectors as write_vectors
    from gossamer.index.exchange.vocabulary import read_vocabulary as read_vocabulary
    from gossamer.index.format import DenseEffort as DenseEffort
    from gossamer.index.format import Effort as Effort
    from gossamer.index.format import EncoderInfo as EncoderInfo
    from gossamer.index.fusion import AsGiven as AsGiven
    from gossamer.index.fusion import MinMax as MinMax
    from gossamer.index.fusion import ReciprocalRank as ReciprocalRank
    from gossamer.index.fusion import ZScore as ZScore
    from gossamer.index.fusion import fuse as fuse
    from gossamer.index.hits import Hits as Hits
    from gossamer.index.inverted import BuildConfig as BuildConfig
    from gossamer.index.inverted import InvertedIndex as InvertedIndex
    from gossamer.index.lucene import LuceneIndex as LuceneIndex
    from gossamer.index.lucene_format import LuceneBm25 as LuceneBm25
    from gossamer.index.lucene_format import LuceneImpacts as LuceneImpacts
    from gossamer.index.lucene_jvm import start_jvm as start_jvm
    from gossamer.index.measures import evaluate as evaluate
    from gossamer.index.measures import per_query as per_query
    from gossamer.index.open import open_index as open_index
    from gossamer.index.plan import plan_build as plan_build
    from gossamer.index.presets import load_preset as load_preset
    from gossamer.index.runs import RunFolder as RunFolder
    from gossamer.index.shard_actors import ActorShards as ActorShards
    from gossamer.index.sharded import ShardedIndex as ShardedIndex
    from gossamer.index.significance import paired_tests as paired_tests
    from gossamer.index.spread_build import build_spread as build_spread
    from gossamer.index.vectors import SparseVectors as SparseVectors
    from gossamer.index.watching import Watch as Watch

_HOME = {
    "ActorShards": "shard_actors",
    "AsGiven": "fusion",
    "BuildConfig": "inverted",
    "DenseConfig": "dense_config",
    "DenseEffort": "format",
    "DenseIndex": "dense",
    "DenseVectors": "dense_vectors",
    "Documents": "documents",
    "Effort": "format",
    "EncoderInfo": "format",
    "Flat": "dense_config",
    "Hits": "hits",
    "Hnsw": "dense_config",
    "InvertedIndex": "inverted",
    "IvfPq": "dense_config",
    "MinMax": "fusion",
    "ReciprocalRank": "fusion",
    "LuceneBm25": "lucene_format",
    "LuceneImpacts": "lucene_format",
    "LuceneIndex": "lucene",
    "RunFolder": "runs",
    "ShardedIndex": "sharded",
    "SparseVectors": "vectors",
    "Watch": "watching",
    "ZScore": "fusion",
    "build_spread": "spread_build",
    "evaluate": "measures",
    "fuse": "fusion",
    "load_preset": "presets",
    "open_index": "open",
    "paired_tests": "significance",
    "per_query": "measures",
    "plan_build": "plan",
    "read_vectors": "exchange.files",
    "read_vocabulary": "exchange.vocabulary",
    "write_vectors": "exchange.files",
    "start_jvm": "lucene_jvm",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
