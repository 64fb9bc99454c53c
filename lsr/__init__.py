"""Text encoders: readers of text collections, learned sparse encoders, BM25, training, evaluation.

Public names are imported on first use, so that `import gossamer.lsr` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gossamer.lsr.backbone import BackboneConfig as BackboneConfig
    from gossamer.lsr.backbone import lexical_start as lexical_start
    from gossamer.lsr.bm25 import Bm25Config as Bm25Config
    from gossamer.lsr.bm25 import Bm25Encoder as Bm25Encoder
    from gossamer.lsr.data import read_corpus as read_corpus
    from gossamer.lsr.data import read_pairs as read_pairs
    from gossamer.lsr.data import read_qrels as read_qrels
    from gossamer.lsr.data import read_queries as read_queries
    from gossamer.lsr.encoder import Encoder as Encoder
    from gossamer.lsr.encoder import EncoderConfig as EncoderConfig
    from gossamer.lsr.encoder import SparseEncoder as SparseEncoder
    from gossamer.lsr.formats import load_encoder as load_encoder
    from gossamer.lsr.passages import Passages as Passages
    from gossamer.lsr.spans import TermSpans as TermSpans
    from gossamer.lsr.tokenizer import train_tokenizer as train_tokenizer
    from gossamer.lsr.train import TrainConfig as TrainConfig

_HOME = {
    "BackboneConfig": "backbone",
    "Bm25Config": "bm25",
    "Bm25Encoder": "bm25",
    "Encoder": "encoder",
    "EncoderConfig": "encoder",
    "Passages": "passages",
    "SparseEncoder": "encoder",
    "TermSpans": "spans",
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
