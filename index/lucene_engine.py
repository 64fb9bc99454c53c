"""What is asked of Lucene: write documents that are strings, search with strings, look postings up.

Strings go in and JSON comes out, because each call from Python to Java costs microseconds whatever it carries.
Documents are added in order by one thread, and only neighbouring segments are merged, so Lucene's document number is
the row, and its own order of ties, by document number, is ours.

"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.index.lucene_jvm import java, visit
from gossamer.kernels.errors import StorageError

_FIELD, _ROW = "contents", "row"
_SEARCH, _INDEX = "org.apache.lucene.search.", "org.apache.lucene.index."
_DOCUMENT = "org.apache.lucene.document."
_SEGMENTS_AT_ONCE = 1_000  # so many are merged in one go, at the end: every posting is written twice at most
_BATCH = 1_024  # documents a visit
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


@visit
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


@visit
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
    """Write an index of one segment. Searches of other threads go on meanwhile.

    Args:
        folder: where it goes.
        documents: a string for each row.
        scoring: how they are read.
        buffer_mb: postings that are held before they are written; by default a quarter of the heap.

    Raises:
        StorageError: Lucene could not write.
    """
    writer = _Writer(folder, scoring, buffer_mb)
    try:
        rows = iter(documents)
        while batch := list(islice(rows, _BATCH)):
            writer.add(batch)
        writer.finish()
    except BaseException:
        writer.abandon()
        raise
    (folder / "write.lock").unlink(missing_ok=True)


class _Writer:
    """An `IndexWriter`, and the one document that is filled again and again."""

    @visit
    def __init__(self, folder: Path, scoring: Scoring, buffer_mb: float | None) -> None:
        self._folder, self._n_rows = folder, 0
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
        self._document = java(_DOCUMENT + "Document")()
        self._text = _text_field(norms=scoring.norms)
        self._row = java(_DOCUMENT + "NumericDocValuesField")(_ROW, 0)
        self._document.add(self._text)
        self._document.add(self._row)
        with _failures_named(f"write {folder}"):
            self._writer = java(_INDEX + "IndexWriter")(_directory(folder), config)

    @visit
    def add(self, strings: Sequence[str]) -> None:
        # bound anew in each visit: see `lucene_jvm`
        set_text, set_row, add = self._text.setStringValue, self._row.setLongValue, self._writer.addDocument
        with _failures_named(f"write {self._folder}"):
            for row, string in enumerate(strings, self._n_rows):
                set_text(string)
                set_row(row)
                add(self._document)
        self._n_rows += len(strings)

    @visit
    def finish(self) -> None:
        with _failures_named(f"write {self._folder}"):
            self._writer.forceMerge(1)
            self._writer.close()

    @visit
    def abandon(self) -> None:
        with suppress(StorageError), _failures_named("roll back"):  # what led here says more
            self._writer.rollback()


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

    @visit
    def __init__(self, folder: Path, scoring: Scoring) -> None:
        with _failures_named(f"read {folder}"):
            self._parse = scoring.parse
            self._reader = java(_INDEX + "DirectoryReader").open(_directory(folder))
            signature = "(Lorg/apache/lucene/index/IndexReader;)V"
            self._searcher = _searchers()(self._reader, signature=signature)
            self._searcher.setSimilarity(scoring.similarity)
            leaves = self._reader.leaves()
            self._leaf = leaves.get(0).reader() if leaves.size() else None
            terms = self._leaf.terms(_FIELD) if self._leaf else None
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
            n_threads: Java's threads; the answer does not depend on them.
        """
        rows = np.full((len(queries), k), -1, dtype=np.int64)
        scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
        depth = min(k, self.n_documents, self.n_documents if allowed is None else int(allowed.sum()))
        asked = [number for number, query in enumerate(queries) if query]
        if depth and asked:
            answers = self._answers([queries[number] for number in asked], depth, allowed, n_threads)
            for number, answer in zip(asked, answers, strict=True):
                hits = json.loads(answer)["scoreDocs"]
                rows[number, : len(hits)] = [hit["doc"] for hit in hits]
                scores[number, : len(hits)] = [hit["score"] for hit in hits]
        return rows, scores

    @visit
    def _answers(
        self, queries: Sequence[str], k: int, allowed: NDArray[np.bool_] | None, n_threads: int
    ) -> list[str]:
        with _failures_named("search"):
            narrow = _narrowing(allowed)
            parsed = (narrow(self._parse(query)) for query in queries)
            if n_threads == 1 or len(queries) == 1:
                return [_json(self._searcher.search(query, k)) for query in parsed]
            return [_json(found) for found in _in_parallel(self._searcher, parsed, k, n_threads)]

    @visit
    def frequencies(self, term: str, rows: Sequence[int]) -> list[int]:
        """How often a term occurs in each of these rows, which ascend; of impacts, the impact."""
        with _failures_named("look up postings"):
            found = self._leaf and self._leaf.postings(java(_INDEX + "Term")(_FIELD, term))
            if not found:
                return [0] * len(rows)
            return [int(found.freq()) if _advance(found, row) == row else 0 for row in rows]

    @visit
    def close(self) -> None:
        """Unmap its files; what is searched after that fails."""
        self._reader.close()


def _advance(postings: Any, row: int) -> int:
    at = int(postings.docID())
    return at if at >= row else int(postings.advance(row))


def _in_parallel(searcher: Any, queries: Iterable[Any], k: int, n_threads: int) -> Iterator[Any]:
    """What `searcher.search(query, k)` finds for each query, run by a pool of Java's threads.

    A call that waits to be run is a method handle with its arguments bound, seen as a `Callable`.
    """
    from jnius import find_javaclass

    handles, invoke = java("java.lang.invoke.MethodHandles"), "java.lang.invoke."
    boxed = java("java.lang.Integer")
    shape = java(invoke + "MethodType").methodType(
        find_javaclass(_SEARCH + "TopDocs"), find_javaclass(_SEARCH + "Query"), boxed.TYPE
    )
    search = handles.publicLookup().findVirtual(find_javaclass(_SEARCH + "IndexSearcher"), "search", shape)
    as_interface = java(invoke + "MethodHandleProxies").asInterfaceInstance
    callable_, calls = find_javaclass("java.util.concurrent.Callable"), java("java.util.ArrayList")()
    for query in queries:
        calls.add(as_interface(callable_, handles.insertArguments(search, 0, searcher, query, boxed(k))))
    pool = java("java.util.concurrent.Executors").newFixedThreadPool(n_threads)
    try:
        done = pool.invokeAll(calls)
        yield from (done.get(number).get() for number in range(done.size()))
    finally:
        pool.shutdown()


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
        heap = "; give it more heap, by start_jvm" if "OutOfMemory" in str(error.classname) else ""
        raise StorageError(
            f"Lucene could not {what}: {error.classname}: {error.innermessage}{heap}."
        ) from error
