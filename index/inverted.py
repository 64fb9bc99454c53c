"""`InvertedIndex`: exact search over sparse vectors, from a folder of memory-mapped arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from gossamer.index.document_files import Source, write_documents
from gossamer.index.documents import Documents
from gossamer.index.folders import draft_folder, recover
from gossamer.index.format import (
    FORMAT,
    MANIFEST,
    EncoderInfo,
    FileRecord,
    Manifest,
    SegmentRecord,
    record_files,
    verify_files,
)
from gossamer.index.hits import Hits
from gossamer.index.impacts import ImpactScale, Kind, quantise_queries
from gossamer.index.postings import Survey, map_postings, unpack, windows_of, write_postings
from gossamer.index.vectors import SparseVectors
from gossamer.kernels.errors import FormatError, InputError, MismatchError, StorageError
from gossamer.kernels.sparse_dot import Backend, sparse_dot_topk

_SEGMENT = "segments/0"
_DOCUMENTS = "documents"
_ATTEMPTS = 5


class BuildConfig(BaseModel):
    """How an index is built.

    Attributes:
        impacts: how a weight is stored; "auto" takes int8 if any is negative, else uint8.
        window: documents that are scored together; the default is the most that two bytes can number.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    impacts: Literal["auto"] | Kind = "auto"
    window: int = Field(default=65_536, ge=1, le=65_536)


@dataclass(frozen=True)
class Contribution:
    """What one term gave to a score.

    The products of all terms add up to the score: with `math.fsum`, rounded to float32, exactly (for float32
    impacts: added as float32 in the order given).

    Attributes:
        term: the dimension.
        query_weight: its weight in the query, as rounded for search.
        document_weight: its weight in the document, as stored.
        product: its part of the score.
    """

    term: int
    query_weight: float
    document_weight: float
    product: float


@dataclass(frozen=True)
class IndexInfo:
    """What an index holds, and how large it is.

    Attributes:
        path: its folder.
        n_documents: number of documents.
        n_terms: size of the vocabulary.
        nnz: number of postings.
        bytes: bytes on the disk of "postings" (local numbers and impacts), "offsets", "ids" and "documents".
        bytes_per_posting: of postings and offsets together; 0 if there are none.
        impacts: type of a stored weight.
        step: the weight that one level of it stands for.
        largest_error: the largest difference between a weight and what is stored for it.
        window: documents in a window.
        encoder: what made the vectors, if it was said.
        created: when, as ISO 8601 in UTC.
        created_by: which gossamer built it.
    """

    path: Path
    n_documents: int
    n_terms: int
    nnz: int
    bytes: dict[str, int]
    bytes_per_posting: float
    impacts: Kind
    step: float
    largest_error: float
    window: int
    encoder: EncoderInfo | None
    created: str
    created_by: str


class InvertedIndex:
    """An exact index: its hits are those of brute force over the stored impacts. Safe to share among threads.

    Make one with `build` or `open`.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        if [segment.folder for segment in manifest.segments] != [_SEGMENT]:
            raise FormatError(f"{path} does not have exactly one segment; it is from another version.")
        self.path = path
        self._manifest = manifest
        self._scale = ImpactScale(manifest.impacts, manifest.step)
        self._postings = map_postings(path / _SEGMENT, manifest.segments[0], manifest)
        self.documents = Documents(path / _DOCUMENTS, manifest.n_documents)

    @classmethod
    def build(
        cls,
        path: str | Path,
        vectors: SparseVectors | str | Path,
        *,
        documents: Source | None = None,
        config: BuildConfig | None = None,
        encoder: EncoderInfo | None = None,
        replace: bool = False,
        on_rows: Callable[[int, int], None] | None = None,
    ) -> InvertedIndex:
        """Write an index and open it.

        It appears at `path` whole or not at all. Memory holds one window of vectors and all ids.

        Args:
            path: the folder to make.
            vectors: the documents' vectors, in memory, or a Parquet file or folder of them, which is read twice.
            documents: titles, texts and metadata in the order of the vectors; see `write_documents`.
            config: how to store the weights.
            encoder: what made the vectors; `search` trusts its caller to use the same.
            replace: whether an index that is there already may be replaced.
            on_rows: called now and then with the rows done and the rows in all.

        Raises:
            ExistsError: there is something at `path`, and it may not be replaced.
            VectorError, RecordError, ConfigError: the input cannot be indexed; the message names the row.
        """
        config = config or BuildConfig()
        with draft_folder(Path(path), replace=replace, replaceable=_is_index) as draft:
            survey = Survey.of(_parts(vectors, config.window))
            scale = ImpactScale.choose(config.impacts, largest=survey.largest, negative=survey.negative)
            write_documents(draft / _DOCUMENTS, documents, survey.ids, survey.n_rows)
            written = write_postings(
                draft / _SEGMENT,
                windows_of(_parts(vectors, config.window), config.window),
                scale,
                survey.n_cols,
                *([] if on_rows is None else [partial(_in_all, on_rows, survey.n_rows)]),
            )
            if written.n_rows != survey.n_rows:
                raise InputError(f"{vectors} changed while it was read; build again when it is complete.")
            manifest = Manifest(
                created=datetime.now(UTC).isoformat(timespec="seconds"),
                created_by=f"gossamer {_version()}",
                n_documents=survey.n_rows,
                n_terms=survey.n_cols,
                nnz=written.nnz,
                window=config.window,
                impacts=scale.kind,
                step=scale.step,
                largest_error=written.largest_error,
                encoder=encoder,
                segments=(SegmentRecord(folder=_SEGMENT, n_documents=survey.n_rows, nnz=written.nnz),),
                files=record_files(draft),
            )
            (draft / MANIFEST).write_bytes(manifest.to_bytes())
        return cls.open(path)

    @classmethod
    def open(cls, path: str | Path) -> InvertedIndex:
        """Map an index; milliseconds, whatever its size. Checks its manifest and the sizes of its files.

        An index that is replaced meanwhile is opened anew, so that all of what is mapped is of one.

        Raises:
            NotFoundError: there is no folder.
            FormatError: it is no index, is truncated, or from a newer version.
            CorruptError: its manifest was altered.
            StorageError: it was replaced each time that it was being opened.
        """
        path = Path(path)
        before = _identity(path)
        for _ in range(_ATTEMPTS):
            try:
                index = cls(path, Manifest.read(path))
                failure = None
            except (StorageError, OSError) as error:
                failure = error
            after = _identity(path)
            if after == before:
                if failure is not None:
                    raise failure
                return index
            before = after  # replaced while it was opened, so what is mapped may be of both
        raise StorageError(f"{path} was replaced again and again while it was opened; try later.")

    def verify(self) -> None:
        """Read every byte.

        Raises:
            CorruptError, FormatError: a file is not as it was written; the message names it.
        """
        verify_files(self.path)

    def search(
        self,
        queries: SparseVectors,
        k: int = 10,
        *,
        allowed: NDArray[np.bool_] | Sequence[bool] | None = None,
        backend: Backend = "auto",
        n_threads: int = 1,
    ) -> Hits:
        """The k documents with the largest dot product for each query, exactly, over the stored impacts.

        Args:
            queries: Q queries over the same vocabulary.
            k: width of the answer; may be more than there are documents.
            allowed: bool `[n_documents]`; others are no hits. `documents.mask` makes one from metadata.
            backend: see `sparse_dot_topk`; one that is named runs or raises.
            n_threads: threads; the answer does not depend on them.

        Returns:
            Hits `[Q, k]`: score descending, then row ascending. A document is a hit if it shares a term with the query.

        Raises:
            MismatchError: the queries are over another vocabulary.
            InputError: `k` or `allowed` is out of shape.
            BackendError: the backend cannot run here.
        """
        self._check_vocabulary(queries)
        scaled = quantise_queries(queries, self._scale)
        allowed = None if allowed is None else np.asarray(allowed)
        top = sparse_dot_topk(
            scaled.queries, self._postings, k, allowed=allowed, backend=backend, n_threads=n_threads
        )
        return Hits(top.rows, scaled.scores(top), self.documents.ids)

    def explain(self, query: SparseVectors, row: int) -> list[Contribution]:
        """What each shared term gave to the score of a document, terms ascending.

        Args:
            query: one query.
            row: the document's row.

        Raises:
            InputError: there is not exactly one query, or no such row.
            MismatchError: the query is over another vocabulary.
        """
        return self.explain_rows(query, [row])[0]

    def explain_rows(self, query: SparseVectors, rows: Sequence[int]) -> list[list[Contribution]]:
        """`explain` for several documents, in the order of `rows`; cheaper than one by one."""
        self._check_vocabulary(query)
        if query.n_rows != 1:
            raise InputError(f"an explanation takes one query, not {query.n_rows}.")
        for row in rows:
            if not 0 <= row < self.n_documents:
                raise InputError(f"row {row} is outside 0..{self.n_documents - 1}.")
        scaled = quantise_queries(query, self._scale)
        step, unit = float(scaled.steps[0]), float(scaled.units[0])
        is_float = self._scale.kind == "float32"  # its products are rounded as the kernel rounds them
        windows = self._by_window(rows)
        found: list[list[Contribution]] = [[] for _ in rows]
        for term, weight in zip(scaled.queries.terms.tolist(), scaled.queries.weights, strict=True):
            for window, places, locals_ in windows:
                has_term, impacts = self._impacts(term, window, locals_)
                for place, impact in zip(places[has_term].tolist(), impacts, strict=True):
                    product = float(weight * impact) if is_float else int(weight) * int(impact) * unit
                    document_weight = float(impact) * self._scale.step
                    found[place].append(Contribution(term, float(weight) * step, document_weight, product))
        return found

    def vectors(self) -> SparseVectors:
        """All rows as they are stored, with their ids; in memory."""
        rows = unpack(self._postings, self._scale)
        return SparseVectors(
            rows.indptr,
            rows.indices,
            rows.values,
            rows.n_cols,
            self.documents.ids,
            self._scale.kind != "uint8",
        )

    def info(self) -> IndexInfo:
        """Counts, sizes and parameters."""
        manifest = self._manifest
        sizes = _sizes(manifest.files)
        n_bytes = sizes["postings"] + sizes["offsets"]
        return IndexInfo(
            path=self.path,
            n_documents=manifest.n_documents,
            n_terms=manifest.n_terms,
            nnz=manifest.nnz,
            bytes=sizes,
            bytes_per_posting=n_bytes / manifest.nnz if manifest.nnz else 0.0,
            impacts=manifest.impacts,
            step=manifest.step,
            largest_error=manifest.largest_error,
            window=manifest.window,
            encoder=manifest.encoder,
            created=manifest.created,
            created_by=manifest.created_by,
        )

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
        """Size of the vocabulary."""
        return self._manifest.n_terms

    @property
    def nnz(self) -> int:
        """Number of postings."""
        return self._manifest.nnz

    def __len__(self) -> int:
        return self.n_documents

    def __repr__(self) -> str:
        return f"InvertedIndex({str(self.path)!r}, {self.n_documents:,} documents, {self._scale.kind})"

    def _check_vocabulary(self, queries: SparseVectors) -> None:
        if queries.n_cols != self.n_terms:
            made_by = f" of {self.encoder.name}" if self.encoder else ""
            raise MismatchError(
                f"the queries are over {queries.n_cols:,} terms, and this index over {self.n_terms:,}; encode "
                f"queries with the encoder{made_by} that made the index."
            )

    def _by_window(self, rows: Sequence[int]) -> list[tuple[int, NDArray[np.int64], NDArray[np.uint16]]]:
        """Rows, window by window: its number, the rows' places in `rows`, and their local numbers."""
        windows, locals_ = np.divmod(np.asarray(rows, dtype=np.int64), self._postings.window)
        groups = [(window, np.flatnonzero(windows == window)) for window in np.unique(windows).tolist()]
        return [(window, places, locals_[places].astype(np.uint16)) for window, places in groups]

    def _impacts(
        self, term: int, window: int, locals_: NDArray[np.uint16]
    ) -> tuple[NDArray[np.bool_], NDArray[Any]]:
        """Which documents of a window have a term, and its impacts in those; by binary search in its run."""
        postings = self._postings
        start, stop = postings.bases[window] + postings.offsets[window, term : term + 2].astype(np.int64)
        run = postings.local[start:stop]
        at = np.searchsorted(run, locals_)
        has_term = at < run.size
        has_term[has_term] = run[at[has_term]] == locals_[has_term]
        return has_term, postings.impacts[start + at[has_term]]


def _identity(path: Path) -> tuple[int, bytes] | None:
    """What tells the index at a path from one that takes its place; None where there is none."""
    recover(path)
    manifest = path / MANIFEST
    try:
        return manifest.stat().st_ino, manifest.read_bytes()
    except OSError:
        return None


def _is_index(folder: Path) -> bool:
    manifest = folder / MANIFEST
    return manifest.is_file() and FORMAT.encode() in manifest.read_bytes()


def _parts(vectors: SparseVectors | str | Path, window: int) -> Iterable[SparseVectors]:
    """The vectors in parts, from the start, as often as asked."""
    if not isinstance(vectors, SparseVectors):
        return SparseVectors.stream_parquet(vectors, batch_rows=window)
    if vectors.n_rows <= window:
        return [vectors]
    return (vectors[start : start + window] for start in range(0, vectors.n_rows, window))


def _in_all(on_rows: Callable[[int, int], None], total: int, done: int) -> None:
    on_rows(done, total)


def _sizes(files: dict[str, FileRecord]) -> dict[str, int]:
    parts = {"postings": 0, "offsets": 0, "ids": 0, "documents": 0}
    for name, record in files.items():
        stem = Path(name).stem
        parts[_PART_OF[stem]] += record.size
    return parts


_PART_OF = {
    "local": "postings",
    "impacts": "postings",
    "bases": "offsets",
    "offsets": "offsets",
    "ids": "ids",
    "order": "ids",
    "columns": "documents",
}


def _version() -> str:
    try:
        return version("gossamer")
    except PackageNotFoundError:  # run from a source tree
        return "from source"
