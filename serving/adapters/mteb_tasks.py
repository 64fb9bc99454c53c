"""What MTEB gives, and what it asks for, of both adapters for it."""

from __future__ import annotations

from typing import Any

from mteb.models import ModelMeta

from gossamer.kernels.errors import InputError

Run = dict[str, dict[str, float]]
"""The scores of documents by query."""


def meta_of(name: str, revision: str) -> Any:
    """What MTEB keeps results by."""
    return ModelMeta.create_empty({"name": name, "revision": revision, "model_type": ["sparse"]})


def texts_of(queries: Any) -> list[str]:
    """The queries, each with its instruction, if it has one."""
    texts = list(queries["text"])
    if not all(isinstance(text, str) for text in texts):
        raise InputError("the queries of this task are conversations: only those of one text are known here")
    if "instruction" not in queries.column_names:
        return texts
    pairs = zip(texts, queries["instruction"], strict=True)
    return [f"{text} {instruction}" if instruction else text for text, instruction in pairs]
