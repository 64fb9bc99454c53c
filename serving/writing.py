"""`Writer`: documents into the indexes of a pipeline. What returns is on the disk, in all of them.

Writes that wait together become one change (group commit), so that many clients do not wait for a flush each. The
texts' index is changed last: what it knows, the others know, and its version stands for all. A write that was cut off
between two indexes was never acknowledged; writing it again mends that.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

from gossamer.kernels.errors import BusyError, InputError, OverloadedError
from gossamer.serving.batching import Batcher
from gossamer.serving.passages import (
    DOCUMENT,
    outdated,
    refuse_taken,
    row_id,
    split_documents,
    stored_rows,
)
from gossamer.serving.records import Document, Written
from gossamer.serving.settings import Limits
from gossamer.serving.stage import Rows, SearchStage

if TYPE_CHECKING:
    import pyarrow as pa

    from gossamer.serving.pipeline import Pipeline

logger = logging.getLogger(__name__)

Change: TypeAlias = "list[Document] | list[str]"
"""Documents to put in, or ids to take out."""


class Writing(Protocol):
    """What takes documents: `Writer`, or what passes them to one in another process."""

    @property
    def can_write(self) -> bool:
        """Whether all indexes are of kinds that change."""

    def write(self, change: Change, deadline: float | None = None) -> Written:
        """See `Writer.write`."""

    @property
    def n_waiting(self) -> int:
        """Documents that wait here."""

    def close(self) -> None:
        """Write what was taken, and end."""


class Writer:
    """Changes the indexes of a pipeline; safe to call from several threads.

    Args:
        pipeline: whose indexes.
        limits: of what one change takes, and what may wait.
    """

    def __init__(self, pipeline: Pipeline, *, limits: Limits) -> None:
        self._pipeline, self._limits = pipeline, limits
        self._batcher: Batcher[Change, Written] = Batcher(
            self._work, name="writer", max_size=limits.max_documents, max_waiting=limits.max_waiting
        )
        self._merging = ExitStack()
        self._is_merging = False

    @property
    def can_write(self) -> bool:
        """Whether all indexes are of kinds that change."""
        return is_writable(self._pipeline)

    @property
    def n_waiting(self) -> int:
        """Documents that wait."""
        return self._batcher.n_waiting

    def write(self, change: Change, deadline: float | None = None) -> Written:
        """Put documents in, in the place of those of the same ids, or take ids out; return when that is on the disk.

        Raises:
            InputError: a document does not suit the index, or an index cannot be changed; nothing is written.
            OverloadedError: too much waits, or another process changes the index and does not end.
            DeadlineError: it did not come to its turn in time; it may be written later.
        """
        if not self.can_write:
            raise InputError("an index of this collection is of a kind that does not change: build it anew")
        if not change:
            return Written(version=self._pipeline.version)
        return self._batcher.call(change, size=len(change), deadline=deadline)

    def close(self) -> None:
        """Write what was taken, and end."""
        self._batcher.close()
        self._merging.close()

    def _merge_beside(self) -> None:
        """From the first write on, indexes are merged by threads of their own, so that no write waits for a merge."""
        if self._is_merging:
            return
        self._is_merging = True
        from gossamer.index.merging import BackgroundMerger

        for _, stage in self._stages():
            self._merging.enter_context(BackgroundMerger(stage.index))

    def _work(self, changes: Sequence[Change]) -> list[Written | Exception]:
        """Neighbours of one sort together; if that fails, each half, so that one bad document fails only its own."""
        return [answer for group in _groups(changes) for answer in self._answers(group)]

    def _answers(self, group: Sequence[Change]) -> Sequence[Written | Exception]:
        try:
            return self._apply(group)
        except Exception as error:
            if len(group) == 1:
                return [_for_clients(error)]
            middle = len(group) // 2
            return [*self._answers(group[:middle]), *self._answers(group[middle:])]

    def _apply(self, group: Sequence[Change]) -> list[Written]:
        self._merge_beside()
        if isinstance(group[0][0], Document):
            return self._put([[one for one in change if isinstance(one, Document)] for change in group])
        return self._delete([[one for one in change if isinstance(one, str)] for change in group])

    def _put(self, group: Sequence[Sequence[Document]]) -> list[Written]:
        last = {document.id: document for change in group for document in change}
        documents = list(last.values())
        known = set(self._known([document.id for document in documents]))
        store = self._pipeline.store
        passages = self._pipeline.passages
        if passages is not None:
            refuse_taken(documents)
        self._refuse_strange_vectors(documents)
        table = _table(documents, store)
        n_columns = len({*store.index.documents.kinds, *table.column_names[3:]})
        self._limits.check("max_columns", n_columns, "the number of metadata columns of all documents")
        if passages is not None:
            table = split_documents(table, passages)
            documents = [last[id_] for id_ in table[DOCUMENT].to_pylist()]
        prepared = [(stage, _vectors(name, stage, documents, table)) for name, stage in self._stages()]
        for stage, vectors in prepared:
            kept = table if stage is store else table.drop_columns(["title", "text"])
            gone = {}
            if passages is not None:
                stage.refresh()
                gone = {"delete": outdated(stage.index.documents, table)}
            stage.index.update(vectors, documents=kept, encoder=stage.info, **gone)
        version = self._pipeline.version
        answers = []
        for change in group:
            ids = {document.id for document in change}
            n_replaced = len(ids & known)
            answers.append(Written(version=version, n_added=len(ids) - n_replaced, n_replaced=n_replaced))
            known |= ids
        return answers

    def _refuse_strange_vectors(self, documents: Sequence[Document]) -> None:
        known = self._pipeline.retrievers
        for document in documents:
            for name in document.vectors:
                if name not in known:
                    raise InputError(
                        f"document {document.id!r}: vectors.{name}: there is no such retriever; there are {list(known)}"
                    )

    def _delete(self, group: Sequence[Sequence[str]]) -> list[Written]:
        known = set(self._known([id_ for change in group for id_ in change]))
        ids = list(dict.fromkeys(id_ for change in group for id_ in change))
        for _, stage in self._stages():
            rows = ids
            if self._pipeline.passages is not None:
                stage.refresh()
                rows = [row for some in stored_rows(stage.index.documents, ids).values() for row in some]
            stage.index.delete(rows, missing=True)
        version = self._pipeline.version
        answers = []
        for change in group:
            mine = known & set(change)
            answers.append(Written(version=version, n_deleted=len(mine)))
            known -= mine
        return answers

    def _stages(self) -> list[tuple[str, SearchStage]]:
        """All stages by name, that of the texts last."""
        named = [(name, retriever.stage) for name, retriever in self._pipeline.retrievers.items()]
        return [*named[1:], named[0]]

    def _known(self, ids: Sequence[str]) -> list[str]:
        self._pipeline.store.refresh()
        is_split = self._pipeline.passages is not None
        rows = self._pipeline.store.index.documents.rows_of(
            [row_id(id_, 0) if is_split else id_ for id_ in ids]
        )
        return [id_ for id_, row in zip(ids, rows.tolist(), strict=True) if row >= 0]


def is_writable(pipeline: Pipeline) -> bool:
    """Whether all indexes of a pipeline are of kinds that change."""
    indexes = [retriever.stage.index for retriever in pipeline.retrievers.values()]
    if pipeline.passages is None:
        return all(hasattr(index, "update") for index in indexes)
    from gossamer.index.segmented import SegmentedIndex

    # shards change one after the other, and no document may be there in part
    return all(isinstance(getattr(index, "local", index), SegmentedIndex) for index in indexes)


def _groups(changes: Sequence[Change]) -> list[list[Change]]:
    """Neighbours that put documents in, and neighbours that take some out."""
    groups: list[list[Change]] = []
    for change in changes:
        if groups and isinstance(groups[-1][0][0], str) == isinstance(change[0], str):
            groups[-1].append(change)
        else:
            groups.append([change])
    return groups


def _for_clients(error: Exception) -> Exception:
    if isinstance(error, BusyError):
        return OverloadedError(f"another process changes this collection: {error}")
    return error


def _table(documents: Sequence[Document], store: SearchStage) -> pa.Table:
    """Ids, titles, texts and metadata; columns that the index has are of its types."""
    import pyarrow as pa

    columns: dict[str, Any] = {
        "id": pa.array([document.id for document in documents], pa.string()),
        "title": pa.array([document.title for document in documents], pa.string()),
        "text": pa.array([document.text for document in documents], pa.string()),
    }
    kinds = store.index.documents.kinds
    for name in dict.fromkeys(name for document in documents for name in document.metadata):
        if name in columns:
            raise InputError(f"metadata.{name}: that is the name of a part of every document; choose another")
        values = [document.metadata.get(name) for document in documents]
        column = _column(name, values, documents, kinds.get(name))
        if not pa.types.is_null(column.type):
            columns[name] = column
    return pa.table(columns)


def _column(name: str, values: Sequence[Any], documents: Sequence[Document], kind: Any) -> pa.Array:
    import pyarrow as pa

    if kind is None and any(isinstance(value, float) for value in values):
        kind = pa.float64()
    wrong = next((place for place, value in enumerate(values) if not _suits(value, kind)), None)
    if wrong is not None:
        raise InputError(
            f"document {documents[wrong].id!r}: metadata.{name} is a {type(values[wrong]).__name__}, and the column is "
            f"{kind}: give values of one type"
        )
    try:
        return pa.array(values, kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        raise InputError(f"metadata.{name}: give values of one type ({error})") from error


def _suits(value: Any, kind: Any) -> bool:
    """Whether a value is of a column's type; whole numbers are floats, too."""
    import pyarrow as pa

    if value is None or kind is None:
        return True
    if isinstance(value, bool):
        return bool(pa.types.is_boolean(kind))
    if isinstance(value, str):
        return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
    if isinstance(value, float):
        return bool(pa.types.is_floating(kind))
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _vectors(name: str, stage: SearchStage, documents: Sequence[Document], table: pa.Table) -> Any:
    """The documents' vectors for a stage, as they were given, or encoded from title and text."""
    import pyarrow as pa

    from gossamer.index.vectors import SparseVectors
    from gossamer.lsr.data import document_texts

    given = [name in document.vectors for document in documents]
    parts: list[Rows] = [
        stage.vector(name, document.vectors[name]) for document in documents if name in document.vectors
    ]
    if not all(given):
        parts.append(stage.encode_documents(document_texts(table.filter(pa.array(~np.array(given))))))
    place = np.empty(len(documents), np.int64)
    place[np.argsort(~np.array(given), kind="stable")] = np.arange(len(documents))
    if stage.is_dense:
        from gossamer.index.dense_vectors import DenseVectors

        return DenseVectors(
            np.concatenate([np.asarray(part) for part in parts])[place], table["id"].combine_chunks()
        )
    sparse = [part for part in parts if isinstance(part, SparseVectors)]
    return SparseVectors.concat(sparse)[place].with_ids(table["id"].combine_chunks())
