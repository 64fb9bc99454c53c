"""The documents of a collection one after another, and those that a filter leaves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gossamer.serving.passages import DOCUMENT, PASSAGE, document_of, of_documents, row_id, stored_document
from gossamer.serving.records import Listed, ListRequest, Stored
from gossamer.serving.showing import metadata_of

if TYPE_CHECKING:
    from gossamer.index.document_set import DocumentSet
    from gossamer.serving.pipeline import Pipeline


def page(search: Pipeline, request: ListRequest) -> Listed:
    """A page of documents.

    Raises:
        InputError: the filter does not suit the documents.
    """
    documents, is_split = search.store.view().documents, search.passages is not None
    among = _which(documents, request.filters, is_split=is_split)
    after = row_id(request.after, 0) if is_split and request.after is not None else request.after
    rows = documents.after(after, request.k + 1, among)
    found = documents.take(rows[: request.k]).to_pylist()
    if is_split:
        whole = (stored_document(documents, document_of(one["id"]), is_split=True) for one in found)
        found = [one for one in whole if one is not None]
    is_last = rows.size <= request.k
    return Listed(
        documents=[stored(one) for one in found],
        next=None if is_last else found[-1]["id"],
        total=int(among.sum()),
    )


def ids_of(search: Pipeline, filters: Mapping[str, Any]) -> list[str]:
    """The ids of all documents that a filter leaves.

    Raises:
        InputError: the filter does not suit the documents.
    """
    import pyarrow as pa

    documents, is_split = search.store.view().documents, search.passages is not None
    rows = np.flatnonzero(_which(documents, filters, is_split=is_split))
    ids: list[str] = documents.row_ids.take(pa.array(rows)).to_pylist()
    return [document_of(row) for row in ids] if is_split else ids


def stored(found: Mapping[str, Any]) -> Stored:
    """A document of an index as an answer."""
    return Stored(id=found["id"], title=found["title"], text=found["text"], metadata=metadata_of(found))


def _which(documents: DocumentSet, filters: Mapping[str, Any], *, is_split: bool) -> NDArray[np.bool_]:
    """Which rows are documents that a filter leaves; of those that are split, their first passages."""
    if is_split and DOCUMENT in documents.kinds:
        return documents.mask({"and": [{PASSAGE: 0}, of_documents(filters)]})
    return documents.mask(filters) if filters else documents.live
