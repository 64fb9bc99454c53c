"""Sparse vectors, the indexes that store them, run folders and measures.

Public names are imported on first use, so that `import gossamer.index` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gossamer.index.documents import Documents as Documents
    from gossamer.index.format import Effort as Effort
    from gossamer.index.format import EncoderInfo as EncoderInfo
    from gossamer.index.hits import Hits as Hits
    from gossamer.index.inverted import BuildConfig as BuildConfig
    from gossamer.index.inverted import InvertedIndex as InvertedIndex
    from gossamer.index.measures import evaluate as evaluate
    from gossamer.index.open import open_index as open_index
    from gossamer.index.presets import load_preset as load_preset
    from gossamer.index.runs import RunFolder as RunFolder
    from gossamer.index.shard_actors import ActorShards as ActorShards
    from gossamer.index.sharded import ShardedIndex as ShardedIndex
    from gossamer.index.vectors import SparseVectors as SparseVectors

_HOME = {
    "ActorShards": "shard_actors",
    "BuildConfig": "inverted",
    "Documents": "documents",
    "Effort": "format",
    "EncoderInfo": "format",
    "Hits": "hits",
    "InvertedIndex": "inverted",
    "RunFolder": "runs",
    "ShardedIndex": "sharded",
    "SparseVectors": "vectors",
    "evaluate": "measures",
    "load_preset": "presets",
    "open_index": "open",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
