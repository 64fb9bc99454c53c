"""The metadata columns that are worth offering as filters."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, Final

from gossamer.serving.passages import PASSAGE, RESERVED
from gossamer.serving.schemas import Facet, FacetValue
from gossamer.serving.stage import version_of

if TYPE_CHECKING:
    from gossamer.index.document_set import DocumentSet
    from gossamer.serving.pipeline import Pipeline

_MAX_VALUES: Final = 24  # a longer list is no filter a person would pick from


class Facets:
    """The facets of an index; counted when they are first asked for after a change, then kept."""

    def __init__(self) -> None:
        self._kept: tuple[str, list[Facet]] | None = None
        self._counting = Lock()

    def of(self, search: Pipeline) -> list[Facet]:
        """The columns with few distinct values, counted by documents."""
        view, is_split = search.store.view(), search.passages is not None
        with self._counting:
            version = version_of(view)
            if self._kept is None or self._kept[0] != version:
                self._kept = version, _count(view.documents, is_split=is_split)
            return self._kept[1]


def _count(documents: DocumentSet, *, is_split: bool) -> list[Facet]:
    facets = []
    kinds = documents.schema
    first = documents.mask({PASSAGE: 0}) if is_split and PASSAGE in documents.kinds else None
    for column in documents.metadata:
        if is_split and column in RESERVED:
            continue
        if str(kinds.field(column).type) == "double":
            continue  # nobody picks a float from a list
        counts = documents.counts(column, _MAX_VALUES, among=first)
        if len(counts) > 1:
            values = [FacetValue(value=value, count=count) for value, count in counts.items()]
            facets.append(Facet(column=column, values=values))
    return facets
