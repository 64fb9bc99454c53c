"""Recommenders whose users and items are sparse vectors, served by the same index and kernel as text.

Public names are imported on first use, so that `import gossamer.recsys` costs nothing.
"""

from importlib import import_module
from typing import Any

_HOME = {
    "Factors": "model",
    "FoldInConfig": "fold_in",
    "Interactions": "interactions",
    "Popularity": "popularity",
    "Recommendation": "recommender",
    "Recommender": "recommender",
    "RecsysTrainConfig": "train",
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
