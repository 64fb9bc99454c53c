"""Sparse vectors, the indexes that store them, run folders and measures.

Public names are imported on first use, so that `import gossamer.index` costs nothing.
"""

from importlib import import_module
from typing import Any

_HOME = {
    "BuildConfig": "inverted",
    "Documents": "documents",
    "EncoderInfo": "format",
    "Hits": "hits",
    "InvertedIndex": "inverted",
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
