"""Recommenders whose users and items are sparse vectors, served by the same index and kernel as text.

Public names are imported on first use, so that `import gossamer.recsys` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gossamer.recsys.answers import Recommendation as Recommendation
    from gossamer.recsys.answers import SimilarItems as SimilarItems
    from gossamer.recsys.clicks import Click as Click
    from gossamer.recsys.data import read_interactions as read_interactions
    from gossamer.recsys.evaluate import compare as compare
    from gossamer.recsys.fold_in import FoldInConfig as FoldInConfig
    from gossamer.recsys.imports import write_imports as write_imports
    from gossamer.recsys.interactions import Interactions as Interactions
    from gossamer.recsys.jobs import train_job as train_job
    from gossamer.recsys.live import LiveInteractions as LiveInteractions
    from gossamer.recsys.model import Factors as Factors
    from gossamer.recsys.popularity import Popularity as Popularity
    from gossamer.recsys.reasons import Because as Because
    from gossamer.recsys.recommender import Recommender as Recommender
    from gossamer.recsys.split import Split as Split
    from gossamer.recsys.split import leave_last_out as leave_last_out
    from gossamer.recsys.split import leave_one_out as leave_one_out
    from gossamer.recsys.train import RecsysTrainConfig as RecsysTrainConfig

_HOME = {
    "Because": "reasons",
    "Click": "clicks",
    "Factors": "model",
    "FoldInConfig": "fold_in",
    "Interactions": "interactions",
    "LiveInteractions": "live",
    "Popularity": "popularity",
    "Recommendation": "answers",
    "Recommender": "recommender",
    "RecsysTrainConfig": "train",
    "SimilarItems": "answers",
    "Split": "split",
    "compare": "evaluate",
    "leave_last_out": "split",
    "leave_one_out": "split",
    "read_interactions": "data",
    "train_job": "jobs",
    "write_imports": "imports",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
