"""`LuceneIndex`: the same collection in Lucene, to compare with, by impacts or by BM25."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.index.answers import check_size, check_vocabulary, mask_of
from gossamer.index.document_files import Source, write_documents
from gossamer.index.document_set import DocumentSet, Part
from gossamer.index.documents import BATCH_ROWS, Documents
from gossamer.index.explain import Contribution
from gossamer.index.filters import Filters
from gossamer.index.folders import draft_folder, open_whole
from gossamer.index.format import EncoderInfo
from gossamer.index.hits import Hits
from gossamer.index.impacts import ImpactScale, ScaledQueries, quantise_queries
from gossamer.index.inverted_files import parts_of
from gossamer.index.lucene_engine import Scoring, Searcher, bm25, impacts, write_index
from gossamer.index.lucene_format import (
    DOCUMENTS,
    FORMAT,
    LUCENE,
    LuceneBm25,
    LuceneImpacts,
    LuceneInfo,
    LuceneManifest,
)
from gossamer.index.manifests import MANIFEST, check_contents, maker, record_files
from gossamer.index.postings import Survey
from gossamer.index.vectors import SparseVectors
from gossamer.kernels.errors import (
    ConfigError,
    CorruptError,
    FormatError,
    InputError,
    MismatchError,
    RecordError,
    StorageError,
)
from gossamer.kernels.sparse_dot import TopK

_LARGEST_IMPACT = 2**16 - 1
_LARGEST_SUM = 2**24  # up to here float32, in which Lucene adds, holds every whole number
_LARGEST_TOTAL = 2**31 - 1  # of a document's term frequencies


class LuceneIndex:
    """An index of Lucene's in a folder of ours: with documents, checksums, and an encoder's fingerprint.

    Its hits are those of brute force over the stored impacts; by BM25 they are Lucene's. All indexes of a process
    share one JVM, which starts with the first; `start_jvm` says more. Safe to share among threads, whose searches wait
    for each other; `n_threads` is what runs in parallel.

    Make one with `build`, `build_texts` or `open`.
    """

    def __init__(self, path: Path, manifest: LuceneManifest) -> None:
        self.path = path
        self._manifest = manifest
        self._searcher = _searcher(path, manifest)
        weakref.finalize(self, self._searcher.close).atexit = False  # Lucene unmaps nothing by itself
        if self._searcher.n_documents != manifest.n_documents:
            raise FormatError(
                f"{path} does not hold {manifest.n_documents} documents, but {self._searcher.n_documents}; build anew."
            )
        self.documents = DocumentSet([Part(Documents(path / DOCUMENTS, manifest.n_documents), None)])

    @classmethod
    def build(
        cls,
        path: str | Path,
        vectors: SparseVectors | str | Path,
        *,
        documents: Source | None = None,
        config: LuceneImpacts | None = None,
        encoder: EncoderInfo | None = None,
        replace: bool = False,
    ) -> LuceneIndex:
        """Write an index of impacts and open it. It appears at `path` whole or not at all.

        Args:
            path: the folder to make.
            vectors: the documents' vectors, in memory, or a Parquet file or folder of them, which is read twice.
            documents: titles, texts and metadata in the order of the vectors; see `write_documents`.
            config: how to round the weights.
            encoder: what made the vectors; `search` trusts its caller to use the same.
            replace: whether an index of Lucene's that is there already may be replaced.

        Raises:
            ExistsError: there is something at `path`, and it may not be replaced.
            InputError: the input cannot be indexed; the message names the row, where it is one's.
            BackendError: the extra is not installed, or the JVM cannot start.
        """
        config = config or LuceneImpacts()
        with draft_folder(Path(path), replace=replace, replaceable=_is_index) as draft:
            survey = Survey.of(parts_of(vectors))
            rounding = _Rounding(survey, config)
            write_documents(draft / DOCUMENTS, documents, survey.ids, survey.n_rows)
            write_index(draft / LUCENE, rounding.strings(parts_of(vectors)), impacts())
            if rounding.n_rows != survey.n_rows:
                raise InputError(f"{vectors} changed while it was read; build again when it is complete.")
            manifest = LuceneManifest(
                **_born(draft),
                config=config,
                n_documents=survey.n_rows,
                n_terms=survey.n_cols,
                nnz=rounding.nnz,
                step=rounding.step,
                largest_impact=rounding.largest_impact,
                largest_error=rounding.largest_error,
                encoder=encoder,
            )
            (draft / MANIFEST).write_bytes(manifest.to_bytes())
        return cls.open(path)

    @classmethod
    def build_texts(
        cls,
        path: str | Path,
        documents: Source,
        *,
        config: LuceneBm25 | None = None,
        replace: bool = False,
    ) -> LuceneIndex:
        """Write an index of texts, scored by BM25, and open it. It appears at `path` whole or not at all.

        Args:
            path: the folder to make.
            documents: ids, titles, texts and metadata; see `write_documents`. Title and text are read as one.
            config: parameters of BM25, and the language.
            replace: whether an index of Lucene's that is there already may be replaced.

        Raises:
            ExistsError: there is something at `path`, and it may not be replaced.
            RecordError: a document cannot be stored; the message names the row.
            BackendError: the extra is not installed, or the JVM cannot start.
        """
        config = config or LuceneBm25()
        with draft_folder(Path(path), replace=replace, replaceable=_is_index) as draft:
            n_documents = write_documents(draft / DOCUMENTS, documents, None, None)
            write_index(draft / LUCENE, _texts(Documents(draft / DOCUMENTS, n_documents)), _scoring(config))
            searcher = Searcher(draft / LUCENE, _scoring(config))
            n_terms, nnz = searcher.n_terms, searcher.nnz
            searcher.close()
            manifest = LuceneManifest(
                **_born(draft), config=config, n_documents=n_documents, n_terms=n_terms, nnz=nnz
            )
            (draft / MANIFEST).write_bytes(manifest.to_bytes())
        return cls.open(path)

    @classmethod
    def open(cls, path: str | Path) -> LuceneIndex:
        """Open an index; checks its manifest and the sizes of its files.

        Raises:
            NotFoundError: there is no folder.
            FormatError: it is no index of Lucene's, is truncated, or from a newer version.
            CorruptError: it was altered, where Lucene or the manifest's checksum sees it.
            StorageError: it was replaced each time that it was being opened.
            BackendError: the extra is not installed, or the JVM cannot start.
        """
        path = Path(path)
        return open_whole(path, MANIFEST, lambda: cls(path, LuceneManifest.read(path)))

    def verify(self) -> None:
        """Read every byte.

        Raises:
            CorruptError, FormatError: a file is not as it was written; the message names it.
        """
        check_contents(self.path, LuceneManifest.read(self.path).files)

    def search(
        self,
        queries: SparseVectors,
        k: int = 10,
        *,
        filters: Filters | None = None,
        allowed: NDArray[np.bool_] | Sequence[bool] | None = None,
        n_threads: int = 1,
    ) -> Hits:
        """The k documents with the largest dot product for each query, exactly, over the stored impacts.

        A query is rounded to whole numbers with its own step, so coarse that no sum passes 2²⁴, up to where Lucene's
        float32 is exact; the largest impact of the index thus limits how fine that is.

        Args:
            queries: Q queries over the same vocabulary, without negative weights.
            k: width of the answer; may be more than there are documents.
            filters: an expression over ids and metadata columns; see `gossamer.index.filters`. Others are no hits.
            allowed: bool `[n_documents]` by row, as `documents.mask` makes it from filters; others are no hits.
            n_threads: threads; the answer does not depend on them.

        Returns:
            Hits `[Q, k]`: score descending, then row ascending. A document is a hit if it shares a term with the query.

        Raises:
            MismatchError: the index is of texts, or the queries are over another vocabulary.
            InputError: an argument is out of range, or a weight is negative.
        """
        scaled = self._scaled(queries)
        rows, sums = self._find(_query_strings(scaled), k, filters, allowed, n_threads)
        whole = np.where(rows >= 0, sums, 0).astype(np.int32)
        return Hits(rows, scaled.scores(TopK(rows, whole)), self.documents.row_ids)

    def search_texts(
        self,
        texts: Sequence[str],
        k: int = 10,
        *,
        filters: Filters | None = None,
        allowed: NDArray[np.bool_] | Sequence[bool] | None = None,
        n_threads: int = 1,
    ) -> Hits:
        """The k documents with the highest BM25 for each text; arguments and order as in `search`.

        A text is a bag of words, without any syntax. Lucene keeps lengths of documents to about one digit.

        Raises:
            MismatchError: the index is of impacts.
            InputError: an argument is out of range, or a text is none.
        """
        if isinstance(self._manifest.config, LuceneImpacts):
            raise MismatchError(f"{self.path} is an index of impacts; encode the texts, and use search.")
        if isinstance(texts, str):
            raise InputError("texts is a single string; give a list of texts.")
        for number, text in enumerate(texts):
            if not isinstance(text, str):
                raise InputError(f"text {number} is {type(text).__name__}; give strings.")
        return Hits(*self._find(texts, k, filters, allowed, n_threads), self.documents.row_ids)

    def explain(self, query: SparseVectors, row: int) -> list[Contribution]:
        """What each term of a query gave to a document's score by impacts; terms ascending.

        Raises:
            InputError: there is not one query, or no such row.
            MismatchError: the index is of texts, or the query is over another vocabulary.
        """
        return self.explain_rows(query, [row])[0]

    def explain_rows(self, query: SparseVectors, rows: Sequence[int]) -> list[list[Contribution]]:
        """`explain` for several documents, in the order of `rows`; cheaper than one by one."""
        scaled = self._scaled(query)
        if query.n_rows != 1:
            raise InputError(f"an explanation takes one query, not {query.n_rows}.")
        for row in rows:
            if not 0 <= row < self.n_documents:
                raise InputError(f"row {row} is outside 0..{self.n_documents - 1}.")
        step, unit = float(scaled.steps[0]), float(scaled.units[0])
        order = sorted(range(len(rows)), key=rows.__getitem__)
        ascending = [int(rows[place]) for place in order]
        found: list[list[Contribution]] = [[] for _ in rows]
        for term, weight in zip(scaled.queries.terms.tolist(), scaled.queries.weights.tolist(), strict=True):
            for place, impact in zip(order, self._searcher.frequencies(str(term), ascending), strict=True):
                if impact:
                    document_weight = impact * self._manifest.step
                    product = weight * impact * unit
                    found[place].append(Contribution(term, weight * step, document_weight, product))
        return found

    def info(self) -> LuceneInfo:
        """Counts, sizes and parameters."""
        return LuceneInfo.of(self.path, self._manifest)

    @property
    def encoder(self) -> EncoderInfo | None:
        """What made the vectors, if the builder said so."""
        return self._manifest.encoder

    @property
    def n_documents(self) -> int:
        """Number of documents."""
        return self._manifest.n_documents

    @property
    def n_terms(self) -> int:
        """Size of the vocabulary; of texts, the terms that occur."""
        return self._manifest.n_terms

    @property
    def nnz(self) -> int:
        """Number of postings."""
        return self._manifest.nnz

    def __len__(self) -> int:
        return self.n_documents

    def __repr__(self) -> str:
        kind = self._manifest.config.kind
        return f"LuceneIndex({str(self.path)!r}, {self.n_documents:,} documents, {kind})"

    def _scaled(self, queries: SparseVectors) -> ScaledQueries:
        if isinstance(self._manifest.config, LuceneBm25):
            raise MismatchError(f"{self.path} is an index of texts; use search_texts.")
        check_vocabulary(queries, self.n_terms, self.encoder)
        if (queries.values < 0).any():
            entry = int(np.argmax(queries.values < 0))
            query = int(np.searchsorted(queries.indptr, entry, side="right")) - 1
            raise InputError(
                f"query {query} has the weight {queries.values[entry]} for term {queries.indices[entry]}; Lucene "
                "takes none below zero, so use InvertedIndex."
            )
        scale = ImpactScale("uint8", self._manifest.step)
        largest_sum = (
            _LARGEST_SUM * scale.levels // self._manifest.largest_impact
        )  # it takes impacts up to 255
        return quantise_queries(queries, scale, largest_sum=largest_sum)

    def _find(
        self,
        strings: Sequence[str],
        k: int,
        filters: Filters | None,
        allowed: NDArray[np.bool_] | Sequence[bool] | None,
        n_threads: int,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        check_size(k, n_threads)
        mask = mask_of(self.documents, filters, allowed)
        return self._searcher.search(strings, k, allowed=mask, n_threads=n_threads)


class _Rounding:
    """Weights on their way to strings of impacts, and what is learnt on it.

    Attributes:
        step, largest_impact: as the manifest has them.
        largest_error, n_rows, nnz: of what has passed.
    """

    def __init__(self, survey: Survey, config: LuceneImpacts) -> None:
        if survey.negative:
            raise InputError("there are negative weights, and Lucene stores none; use InvertedIndex.")
        self.step = config.step or ImpactScale.choose("uint8", largest=survey.largest, negative=False).step
        largest = round(survey.largest / self.step)
        if largest > _LARGEST_IMPACT:
            raise ConfigError(
                f"step={self.step} makes the largest weight, {survey.largest}, an impact of {largest:,}, and "
                f"{_LARGEST_IMPACT:,} is the limit; use a larger step, or None."
            )
        self.largest_impact = max(largest, 1)
        self.largest_error, self.n_rows, self.nnz = 0.0, 0, 0

    def strings(self, parts: Iterable[SparseVectors]) -> Iterator[str]:
        """A string for each row, such as `"12|255 7|3"`."""
        for part in parts:
            exact = part.values.astype(np.float64)
            rounded = np.rint(exact / self.step)
            self.largest_error = max(
                self.largest_error, float(np.abs(exact - rounded * self.step).max(initial=0))
            )
            self.nnz += int(np.count_nonzero(rounded))
            self._refuse_heavy(part.indptr, rounded)
            words = [
                f"{term}|{impact}" if impact else ""
                for term, impact in zip(part.indices.tolist(), rounded.astype(np.int64).tolist(), strict=True)
            ]
            for start, end in pairwise(part.indptr.tolist()):
                yield " ".join(words[start:end])
            self.n_rows += part.n_rows

    def _refuse_heavy(self, indptr: NDArray[np.int64], rounded: NDArray[np.float64]) -> None:
        before = np.concatenate([[0.0], np.cumsum(rounded)])
        heavy = before[indptr[1:]] - before[indptr[:-1]] > _LARGEST_TOTAL
        if heavy.any():
            raise RecordError(
                f"the impacts of row {self.n_rows + int(np.argmax(heavy))} add up to more than {_LARGEST_TOTAL:,}, "
                "which Lucene cannot count; use a larger step, or None."
            )


def _query_strings(scaled: ScaledQueries) -> list[str]:
    words = [
        f"{term}^{weight}"
        for term, weight in zip(scaled.queries.terms.tolist(), scaled.queries.weights.tolist(), strict=True)
    ]
    bounds = scaled.queries.indptr.tolist()
    return [" ".join(words[start:end]) for start, end in pairwise(bounds)]


def _texts(documents: Documents) -> Iterator[str]:
    for start in range(0, len(documents), BATCH_ROWS):
        rows = documents.take(range(start, min(start + BATCH_ROWS, len(documents))))
        for title, text in zip(rows["title"].to_pylist(), rows["text"].to_pylist(), strict=True):
            yield f"{title or ''} {text or ''}".strip()


def _scoring(config: LuceneImpacts | LuceneBm25) -> Scoring:
    return bm25(config.k1, config.b, config.language) if isinstance(config, LuceneBm25) else impacts()


def _searcher(path: Path, manifest: LuceneManifest) -> Searcher:
    scoring = _scoring(manifest.config)
    try:
        return Searcher(path / LUCENE, scoring)
    except StorageError as error:
        check_contents(path, manifest.files)  # which names the file, where one was altered
        raise CorruptError(f"{path} cannot be read: {error} Build the index anew.") from error


def _born(draft: Path) -> dict[str, Any]:
    created = datetime.now(UTC).isoformat(timespec="seconds")
    return {"created": created, "created_by": maker(), "files": record_files(draft, draft)}


def _is_index(folder: Path) -> bool:
    manifest = folder / MANIFEST
    return manifest.is_file() and f'"{FORMAT}"'.encode() in manifest.read_bytes()
