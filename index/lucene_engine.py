"""What is asked of Lucene: write documents that are strings, search with strings, look postings up.

Strings go in and JSON comes out, because each call from Python to Java costs microseconds whatever it carries.
Documents are added in order by one thread, and only neighbouring segments are merged, so Lucene's document number is
the row, and its own order of ties, by document number, is ours.

"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.index.lucene_jvm import java, visiting
from gossamer.kernels.errors import StorageError

_FIELD, _ROW = "contents", "row"
_SEARCH, _INDEX = "org.apache.lucene.search.", "org.apache.lucene.index."
_DOCUMENT = "org.apache.lucene.document."
_SEGMENTS_AT_ONCE = 1_000  # so many are merged in one go, at the end: every posting is written twice at most
_LARGEST_BUFFER_MB = 1_900.0  # Lucene's own limit is a little above


@dataclass(frozen=True)
class Scoring:
    """How strings are read and documents scored; made by `impacts` and `bm25`.

    Attributes:
        analyzer: makes terms of a document's string.
        similarity: Lucene's scoring function.
        norms: whether lengths of documents are stored.
        parse: makes a Lucene query of a string.
    """

    analyzer: Any
    similarity: Any
    norms: bool
    parse: Callable[[str], Any]


def impacts() -> Scoring:
    """Documents such as `"12|255 7|3"`, queries such as `"12^300 7^5"`; a score is the sum of the products."""
    no_options = java("java.util.HashMap")()
    custom = java("org.apache.lucene.analysis.custom.CustomAnalyzer").builder()
    custom = custom.withTokenizer("whitespace", no_options)
    analyzer = custom.addTokenFilter("delimitedTermFrequency", no_options).build()
    similarity = java("io.anserini.search.similarity.ImpactSimilarity")()
    whitespace = java("org.apache.lucene.analysis.core.WhitespaceAnalyzer")()
    parser = java("org.apache.lucene.queryparser.classic.QueryParser")
    return Scoring(analyzer, similarity, False, lambda text: parser(_FIELD, whitespace).parse(text))


def bm25(k1: float, b: float, language: str) -> Scoring:
    """Documents and queries are texts in a language, read by Anserini's analyzer for it."""
    if language == "en":
        analyzer = java("io.anserini.analysis.DefaultEnglishAnalyzer").newDefaultInstance()
    else:
        analyzer = java("io.anserini.analysis.AnalyzerMap").getLanguageSpecificAnalyzer(language)
    similarity = java(_SEARCH + "similarities.BM25Similarity")(k1, b)
    generator = java("io.anserini.search.query.BagOfWordsQueryGenerator")()
    return Scoring(analyzer, similarity, True, lambda text: generator.buildQuery(_FIELD, analyzer, text))


def write_index(
    folder: Path, documents: Iterable[str], scoring: Scoring, *, buffer_mb: float | None = None
) -> None:
    """Write an index of one segment.

    Args:
        folder: where it goes.
        documents: a string for each row.
        scoring: how they are read.
        buffer_mb: postings that are held before they are written; by default a quarter of the heap.

    Raises:
        StorageError: Lucene could not write.
    """
    with _failures_named(f"write {folder}"), _writer(folder, scoring, buffer_mb) as writer:
        document = java(_DOCUMENT + "Document")()
        text, row = _text_field(norms=scoring.norms), java(_DOCUMENT + "NumericDocValuesField")(_ROW, 0)
        document.add(text)
        document.add(row)
        set_text, set_row, add = text.setStringValue, row.setLongValue, writer.addDocument
        for number, string in enumerate(documents):
            set_text(string)
            set_row(number)
            add(document)
        writer.forceMerge(1)
    (folder / "write.lock").unlink(missing_ok=True)


@contextmanager
def _writer(folder: Path, scoring: Scoring, buffer_mb: float | None) -> Iterator[Any]:
    """An `IndexWriter` that commits at the end, or leaves nothing."""
    if buffer_mb is None:
        heap = java("java.lang.Runtime").getRuntime().maxMemory()
        buffer_mb = min(heap / 4 / 2**20, _LARGEST_BUFFER_MB)
    config = java(_INDEX + "IndexWriterConfig")(scoring.analyzer)
    config.setSimilarity(scoring.similarity)
    config.setRAMBufferSizeMB(buffer_mb)
    config.setUseCompoundFile(False)
    policy = java(_INDEX + "LogDocMergePolicy")()  # merges neighbours only
    policy.setMergeFactor(_SEGMENTS_AT_ONCE)
    config.setMergePolicy(policy)
    directory = _directory(folder)
    try:
        writer = java(_INDEX + "IndexWriter")(directory, config)
        try:
            yield writer
            writer.commit()
        except BaseException:
            writer.rollback()
            raise
        writer.close()
    finally:
        directory.close()


def _text_field(*, norms: bool) -> Any:
    kind = java(_DOCUMENT + "FieldType")()
    kind.setIndexOptions(java(_INDEX + "IndexOptions").DOCS_AND_FREQS)
    kind.setOmitNorms(not norms)
    kind.setTokenized(True)
    kind.freeze()
    signature = "(Ljava/lang/String;Ljava/lang/CharSequence;Lorg/apache/lucene/index/IndexableFieldType;)V"
    return java(_DOCUMENT + "Field")(_FIELD, java("java.lang.String")(""), kind, signature=signature)


def _directory(folder: Path) -> Any:
    return java("org.apache.lucene.store.FSDirectory").open(java("java.nio.file.Paths").get(str(folder)))


class Searcher:
    """An index of Lucene's, opened. Safe to share among threads.

    Args:
        folder: what `write_index` wrote.
        scoring: as it was written.

    Raises:
        StorageError: Lucene cannot read it.
    """

    def __init__(self, folder: Path, scoring: Scoring) -> None:
        with visiting(), _failures_named(f"read {folder}"):
            self._parse = scoring.parse
            self._reader = java(_INDEX + "DirectoryReader").open(_directory(folder))
            signature = "(Lorg/apache/lucene/index/IndexReader;)V"
            self._searcher = _searchers()(self._reader, signature=signature)
            self._searcher.setSimilarity(scoring.similarity)
            leaves = self._reader.leaves()
            self._leaf = leaves.get(0).reader() if leaves.size() else None
            terms = self._leaf.terms(_FIELD) if self._leaf is not None else None
            self.n_terms, self.nnz = (int(terms.size()), int(terms.getSumDocFreq())) if terms else (0, 0)
            self.n_documents = int(self._reader.maxDoc())

    def search(
        self, queries: Sequence[str], k: int, *, allowed: NDArray[np.bool_] | None = None, n_threads: int = 1
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Rows int64 and scores float32 `[Q, k]`: score descending, then row ascending; past the end -1 and -inf.

        Args:
            queries: Q strings, as the scoring reads them; "" has no hits.
            k: width of the answer.
            allowed: bool `[n_documents]`; others are no hits.
            n_threads: threads; the answer does not depend on them.
        """
        rows = np.full((len(queries), k), -1, dtype=np.int64)
        scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
        depth = min(k, self.n_documents, self.n_documents if allowed is None else int(allowed.sum()))
        if depth == 0:
            return rows, scores

        narrow = _narrowing(allowed)

        def answer(part: range) -> None:
            with visiting(), _failures_named("search"):
                for number in part:
                    if queries[number]:
                        hits = self._hits(narrow(self._parse(queries[number])), depth)
                        rows[number, : len(hits)] = [hit["doc"] for hit in hits]
                        scores[number, : len(hits)] = [hit["score"] for hit in hits]

        parts = [range(first, len(queries), n_threads) for first in range(min(n_threads, len(queries)))]
        if len(parts) == 1:
            answer(parts[0])
        else:
            with ThreadPoolExecutor(len(parts)) as pool:
                list(pool.map(answer, parts))  # which raises what they raised
        return rows, scores

    def _hits(self, query: Any, k: int) -> list[dict[str, Any]]:
        hits: list[dict[str, Any]] = json.loads(_json(self._searcher.search(query, k)))["scoreDocs"]
        return hits

    def frequencies(self, term: str, rows: Sequence[int]) -> list[int]:
        """How often a term occurs in each of these rows, which ascend; of impacts, the impact."""
        with visiting(), _failures_named("look up postings"):
            found = self._leaf and self._leaf.postings(java(_INDEX + "Term")(_FIELD, term))
            if not found:
                return [0] * len(rows)
            return [int(found.freq()) if _advance(found, row) == row else 0 for row in rows]

    def close(self) -> None:
        """Unmap its files; what is searched after that fails."""
        with visiting():
            self._reader.close()


def _advance(postings: Any, row: int) -> int:
    at = int(postings.docID())
    return at if at >= row else int(postings.advance(row))


@cache
def _searchers() -> Any:
    """The class of searchers, with no limit to the terms of a query (Lucene's is 1,024 unless told otherwise)."""
    class_ = java(_SEARCH + "IndexSearcher")
    class_.setMaxClauseCount(2**31 - 1)
    return class_


@cache
def _mapper() -> Any:
    return java("com.fasterxml.jackson.databind.ObjectMapper")()


def _json(found: Any) -> str:
    text: str = _mapper().writeValueAsString(found)
    return text


def _narrowing(allowed: NDArray[np.bool_] | None) -> Callable[[Any], Any]:
    """What makes of a query one for these rows only; they, or the others if fewer, are listed once."""
    if allowed is None or allowed.all():
        return lambda query: query
    occur = java(_SEARCH + "BooleanClause$Occur")
    most = 2 * int(allowed.sum()) > len(allowed)
    listed = np.flatnonzero(~allowed if most else allowed).tolist()
    rows = java(_DOCUMENT + "NumericDocValuesField").newSlowSetQuery(_ROW, *listed)

    def narrow(query: Any) -> Any:
        builder = java(_SEARCH + "BooleanQuery$Builder")().add(query, occur.MUST)
        return builder.add(rows, occur.MUST_NOT if most else occur.FILTER).build()

    return narrow


@contextmanager
def _failures_named(what: str) -> Iterator[None]:
    """Java's exceptions as ours."""
    java("java.lang.System")  # starts the JVM, with errors of its own
    from jnius import JavaException

    try:
        yield
    except JavaException as error:
        heap = "; give more by start_jvm(heap_bytes=…)" if "OutOfMemory" in str(error.classname) else ""
        raise StorageError(f"Lucene could not {what}: {error}{heap}.") from error
