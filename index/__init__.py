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
    from gossamer.index.format import DenseEffort as DenseEffort
    from gossamer.index.format import Effort as Effort
    from gossamer.index.format import EncoderInfo as EncoderInfo
    from gossamer.index.hits import Hits as Hits
    from gossamer.index.inverted import BuildConfig as BuildConfig
    from gossamer.index.inverted import InvertedIndex as InvertedIndex
    from gossamer.index.measures import evaluate as evaluate
    from gossamer.index.presets import load_preset as load_preset
    from gossamer.index.runs import RunFolder as RunFolder
    from gossamer.index.vectors import SparseVectors as SparseVectors

_HOME = {
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
    "RunFolder": "runs",
    "SparseVectors": "vectors",
    "evaluate": "measures",
    "load_preset": "presets",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
