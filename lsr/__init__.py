"""Text encoders: readers of text collections, learned sparse encoders, BM25, training, evaluation.

Public names are imported on first use, so that `import gossamer.lsr` costs nothing.
"""

from importlib import import_module
from typing import Any

_HOME = {
    "BackboneConfig": "backbone",
    "Bm25Config": "bm25",
    "Bm25Encoder": "bm25",
    "Encoder": "encoder",
    "EncoderConfig": "encoder",
    "SparseEncoder": "encoder",
    "TrainConfig": "train",
    "lexical_start": "backbone",
    "load_encoder": "formats",
    "read_corpus": "data",
    "read_pairs": "data",
    "read_qrels": "data",
    "read_queries": "data",
    "train_tokenizer": "tokenizer",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
