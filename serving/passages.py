"""Passages: a document is stored as rows `id#0`, `id#1`, …, and found as one, by the best of them.

The id of every row ends so, of short documents too: what is before its last # is the document's id, whatever that
holds. A document scores as its best passage does: MaxP (Dai and Callan 2019, "Deeper Text Understanding for IR with
Contextual Neural Language Modeling").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from gossamer.kernels.errors import ConfigError, InputError

if TYPE_CHECKING:
    import pyarrow as pa

    from gossamer.index.document_set import DocumentSet
    from gossamer.lsr.passages import Passages
    from gossamer.serving.records import Document
    from gossamer.serving.stage import SearchStage

DOCUMENT: Final = "document"
PASSAGE: Final = "passage"
START: Final = "passage_start"
RESERVED: Final = (DOCUMENT, PASSAGE, START)
"""Metadata columns of passages: the document's id, which of its passages, and where in its text that begins."""
_FIRST_LOOK: Final = 8


def row_id(document: str, number: int) -> str:
    """The id of a passage."""
    return f"{document}#{number}"


def document_of(row: str) -> str:
    """The id of the document that a passage is of."""
    return row.rpartition("#")[0]


# -- storing


def split_documents(table: pa.Table, passages: Passages) -> pa.Table:
    """Documents as their passages, in order: each with its document's title and metadata, and the reserved columns."""
    import pyarrow as pa

    names, texts = table["id"].to_pylist(), table["text"].to_pylist()
    spans = [passages.split(text) for text in texts]
    split = table.take(pa.array(np.repeat(np.arange(len(spans)), [len(some) for some in spans])))
    new = {
        "id": [row_id(name, n) for name, some in zip(names, spans, strict=True) for n in range(len(some))],
        "text": [text[start:end] for text, some in zip(texts, spans, strict=True) for start, end in some],
        PASSAGE: [number for some in spans for number in range(len(some))],
        START: [start for some in spans for start, _ in some],
    }  # fmt: skip
    kinds = {PASSAGE: pa.int64(), START: pa.int64()}
    columns = {name: split[name] for name in split.column_names} | {DOCUMENT: split["id"]}
    return pa.table(
        columns | {name: pa.array(values, kinds.get(name, pa.string())) for name, values in new.items()}
    )


def refuse_taken(documents: Sequence[Document]) -> None:
    """Raises: InputError: a document brings what its passages are given here."""
    for document in documents:
        if document.vectors:
            raise InputError(
                f"document {document.id!r}: vectors: documents are split into passages here, and these are encoded: "
                "leave it out"
            )
        for name in RESERVED:
            if name in document.metadata:
                raise InputError(
                    f"document {document.id!r}: metadata.{name}: that is a name of passages' own; choose another"
                )


def refuse_unsplit(name: str, stage: SearchStage) -> None:
    """Raises: ConfigError: the documents of a retriever are not passages."""
    documents = stage.index.documents
    if stage.index.n_documents and any(column not in documents.kinds for column in RESERVED):
        raise ConfigError(
            f"passages: the documents of retriever {name} were not split into passages: take [passages] out, or write "
            "them into a new collection"
        )


def stored_rows(documents: DocumentSet, ids: Sequence[str]) -> dict[str, list[str]]:
    """The ids of the rows that each document has, ascending; none where it is not there."""
    stored: dict[str, list[str]] = {id_: [] for id_ in ids}
    asked, first, n = list(stored), 0, _FIRST_LOOK
    while asked:
        names = [row_id(id_, number) for id_ in asked for number in range(first, first + n)]
        there = np.reshape(documents.rows_of(names) >= 0, (len(asked), n))
        for place, id_ in enumerate(asked):
            stored[id_] += [row_id(id_, first + number) for number in np.flatnonzero(there[place]).tolist()]
        asked = [id_ for id_, goes_on in zip(asked, np.all(there, axis=1).tolist(), strict=True) if goes_on]
        first, n = first + n, 2 * n
    return stored


def outdated(documents: DocumentSet, split: pa.Table) -> list[str]:
    """The ids of the rows that documents have and no longer will, once they are replaced by these passages."""
    new = set(split["id"].to_pylist())
    stored = stored_rows(documents, split[DOCUMENT].to_pylist())
    return [row for rows in stored.values() for row in rows if row not in new]


def stored_document(documents: DocumentSet, id_: str, *, is_split: bool) -> dict[str, Any] | None:
    """Title, text and metadata of a document, put together again from its passages; None if it is not there."""
    rows = stored_rows(documents, [id_])[id_] if is_split else [id_]
    places = documents.rows_of(rows)
    if not rows or places[0] < 0:
        return None
    parts: list[dict[str, Any]] = documents.take(places).to_pylist()
    first = parts[0]
    if not is_split:
        return first
    text: list[str] = []
    n_chars = 0
    for part in parts:
        text.append(part["text"][n_chars - part[START] :])
        n_chars += len(text[-1])
    whole = {name: value for name, value in first.items() if name not in RESERVED}
    return whole | {"id": id_, "text": "".join(text)}


# -- finding


def best_of_each(rows: Sequence[str]) -> NDArray[np.int64]:
    """Where the best passage of each document stands, in a list of rows' ids that is best first."""
    first: dict[str, int] = {}
    for place, row in enumerate(rows):
        first.setdefault(document_of(row), place)
    return np.fromiter(first.values(), np.int64, len(first))


def of_documents(filters: Mapping[str, Any]) -> dict[str, Any]:
    """A filter, with the documents' ids for `id`."""
    return {
        DOCUMENT if key == "id" else key: (
            [of_documents(part) for part in value]
            if key in ("and", "or")
            else of_documents(value)
            if key == "not"
            else value
        )
        for key, value in filters.items()
    }
