"""`Showing`: rows that were found as the hits that people see, with texts, reasons and snippets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from gossamer.kernels.errors import InputError
from gossamer.serving.errors import printable
from gossamer.serving.passages import PASSAGE, RESERVED, document_of
from gossamer.serving.schemas import FoundBy, SearchHit, SearchOptions
from gossamer.serving.stage import AnyIndex, Found, SearchStage

if TYPE_CHECKING:
    from gossamer.index.explain import Contribution

_TEXTS: Final = ("id", "title", "text")


class Showing:
    """Makes hits of rows; safe to call from several threads.

    Args:
        stages: by the name of their retriever; of the first one's index are the texts.
        is_split: whether documents are stored as passages.
    """

    def __init__(self, stages: Mapping[str, SearchStage], *, is_split: bool) -> None:
        self._stages, self._is_split = dict(stages), is_split
        self._main, *_ = self._stages

    def hits(
        self,
        view: AnyIndex,
        rows: NDArray[np.int64],
        scores: NDArray[np.float32],
        found: Mapping[str, Found],
        options: SearchOptions,
    ) -> list[SearchHit]:
        """The hits in these rows of the texts' index, as its documents, with what was asked for beside them."""
        documents = view.documents.take(rows).to_pylist()
        fields = self._fields(view, options.fields)
        ids = [document["id"] for document in documents]
        explaining, parts = self._reasons(rows, ids, found, options)
        found_by = self._found_by(ids, found) if options.explain and len(self._stages) > 1 else {}
        is_split = self._is_split
        return [
            SearchHit(
                id=document_of(document["id"]) if is_split else document["id"],
                score=score,
                title=document["title"] if "title" in fields else "",
                text=document["text"] if "text" in fields else "",
                passage=document[PASSAGE] if is_split else None,
                metadata=metadata_of({name: document[name] for name in fields}),
                matches=explaining.matches(parts.get(document["id"], [])) if options.explain else [],
                snippet=None
                if options.snippet_chars is None
                else explaining.snippet(
                    document["text"], parts.get(document["id"], []), options.snippet_chars
                ),
                found_by=found_by.get(document["id"], {}),
            )
            for document, score in zip(documents, scores.tolist(), strict=True)
        ]

    def _fields(self, view: AnyIndex, asked: Sequence[str] | None) -> list[str]:
        """The columns that hits have, in the documents' order.

        Raises:
            InputError: there is no such column.
        """
        there = [
            name
            for name in (*_TEXTS[1:], *view.documents.kinds)
            if not self._is_split or name not in RESERVED
        ]
        if asked is None:
            return there
        for name in asked:
            if name not in there:
                nearest = get_close_matches(name[:64], there, n=1)
                meant = f"did you mean {nearest[0]!r}?" if nearest else f"there are {there}"
                raise InputError(f"fields: the documents have no {printable(name[:64])!r}; {meant}")
        return [name for name in there if name in asked]

    def _reasons(
        self,
        rows: NDArray[np.int64],
        ids: Sequence[str],
        found: Mapping[str, Found],
        options: SearchOptions,
    ) -> tuple[SearchStage, dict[str, list[Contribution]]]:
        """The first sparse retriever that answered, and what matched in each document by it; nothing if not asked."""
        if options.explain or options.snippet_chars is not None:
            for name, of in found.items():
                if hasattr(of.view, "explain_rows"):
                    stage = self._stages[name]
                    mine = rows if name == self._main else of.view.documents.rows_of(ids)
                    there = [(id_, int(row)) for id_, row in zip(ids, mine, strict=True) if row >= 0]
                    parts = stage.contributions(of, [row for _, row in there])
                    return stage, {id_: part for (id_, _), part in zip(there, parts, strict=True)}
        return self._stages[self._main], {}

    def _found_by(self, ids: Sequence[str], found: Mapping[str, Found]) -> dict[str, dict[str, FoundBy]]:
        shown: dict[str, dict[str, FoundBy]] = {id_: {} for id_ in ids}
        for name, of in found.items():
            for rank, (id_, score) in enumerate(zip(of.ids, of.scores.tolist(), strict=True), start=1):
                if id_ in shown:
                    shown[id_][name] = FoundBy(rank=rank, score=score)
        return shown


def metadata_of(document: Mapping[str, Any], *but: str) -> dict[str, Any]:
    """The metadata of a document as JSON has it, without some columns."""
    return {name: _as_json(document[name]) for name in document if name not in _TEXTS and name not in but}


def _as_json(value: str | int | float | bool | None) -> str | int | float | bool | None:
    """A value without NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
