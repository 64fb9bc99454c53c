"""`InvertedIndex`: exact search over sparse vectors, from a folder of memory-mapped arrays."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from gossamer.index.calibration import WORTH_CALIBRATING, choose, with_curve
from gossamer.index.document_files import Source, write_documents
from gossamer.index.documents import Documents
from gossamer.index.explain import Contribution, explain_rows
from gossamer.index.filters import Filters
from gossamer.index.folders import draft_folder, open_whole, replace_manifest
from gossamer.index.format import (
    FORMAT,
    MANIFEST,
    Effort,
    EncoderInfo,
    ForwardRecord,
    Manifest,
    OperatingPoint,
    SegmentRecord,
    maker,
    record_files,
    verify_files,
)
from gossamer.index.forward import map_forward, write_forward
from gossamer.index.hits import Hits
from gossamer.index.impacts import ImpactScale, Kind
from gossamer.index.info import IndexInfo
from gossamer.index.postings import Survey, map_postings, parts_of, unpack, window_for, write_postings
from gossamer.index.segment import Call, Rescore, Segment
from gossamer.index.vectors import SparseVectors
from gossamer.kernels.errors import FormatError, InputError, MismatchError
from gossamer.kernels.sparse_dot import Backend

_SEGMENT = "segments/0"
_FORWARD = "forward"
_DOCUMENTS = "documents"


class BuildConfig(BaseModel):
    """How an index is built.

    Attributes:
        impacts: how a weight is stored; "auto" takes int8 if any is negative, else uint8.
        window: documents that are scored together; None chooses by the collection, see `window_for`.
        reorder: whether alike documents are put beside each other, which makes bounds tight. Rows keep their numbers.
        forward: whether the weights as given are kept too, for `recall=` and `rescore=`.
        calibrate: whether `calibrate` follows at once, where there are enough documents for it to matter.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    impacts: Literal["auto"] | Kind = "auto"
    window: int | None = Field(default=None, ge=1, le=65_536)
    reorder: bool = True
    forward: bool = True
    calibrate: bool = True


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
        self._segment = _map_segment(path / _SEGMENT, manifest.segments[0], manifest, self._scale)
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
            survey = Survey.of(parts_of(vectors))
            scale = ImpactScale.choose(config.impacts, largest=survey.largest, negative=survey.negative)
            write_documents(draft / _DOCUMENTS, documents, survey.ids, survey.n_rows)
            manifest = _write_segment(draft, vectors, survey, scale, config, on_rows or (lambda *_: None))
            manifest = manifest.model_copy(update={"encoder": encoder, "files": record_files(draft)})
            (draft / MANIFEST).write_bytes(manifest.to_bytes())
            if config.calibrate and survey.n_rows >= WORTH_CALIBRATING:
                segment = _map_segment(draft / _SEGMENT, manifest.segments[0], manifest, scale)
                if segment.can_approximate and manifest.nnz:
                    manifest = with_curve(manifest, segment, None)
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
        return open_whole(path, MANIFEST, lambda: cls(path, Manifest.read(path)))

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
        recall: float | None = None,
        effort: Effort | None = None,
        rescore: Rescore | None = None,
        filters: Filters | None = None,
        allowed: NDArray[np.bool_] | Sequence[bool] | None = None,
        backend: Backend = "auto",
        n_threads: int = 1,
    ) -> Hits:
        """The k documents with the largest dot product for each query; exactly, unless `recall` or `effort` is given.

        Args:
            queries: Q queries over the same vocabulary.
            k: width of the answer; may be more than there are documents.
            recall: the share of the exact hits that is enough, such as 0.99. The fastest operating point of the index's
                curve that had it in calibration is taken; without a curve, or where exact search is the fastest, that.
                Hits are judged, and scored, by the weights as given, where the index keeps them.
            effort: what to leave out, instead of an operating point that `recall` chooses.
            rescore: `"float"` scores by the weights as given instead of the stored impacts, and exactly so.
            filters: an expression over ids and metadata columns; see `gossamer.index.filters`. Others are no hits.
            allowed: bool `[n_documents]` by row, as `documents.mask` makes it from filters; others are no hits.
            backend: see `sparse_dot_topk`; one that is named runs or raises.
            n_threads: threads; the answer does not depend on them.

        Returns:
            Hits `[Q, k]`: score descending, then row ascending. A document is a hit if it shares a term with the query.

        Raises:
            MismatchError: the queries are over another vocabulary.
            InputError: an argument is out of range or of the wrong shape, or two exclude each other.
            BackendError: the backend cannot run here.
        """
        self._check_vocabulary(queries)
        call = Call(k, self._mask(filters, allowed), backend, n_threads)
        _check_call(k, rescore, n_threads)
        if recall is not None:
            if effort is not None:
                raise InputError("recall and effort were both given; recall is what chooses an effort.")
            effort = self.effort_for(recall)
        true = rescore == "float" or (recall is not None and self._segment.forward is not None)
        found = self._segment.search(queries, call, effort, true=true)
        return Hits(*found, self.documents.ids)

    def effort_for(self, recall: float) -> Effort | None:
        """The operating point that a recall stands for; None is exact search.

        Raises:
            InputError: `recall` is not above 0 and at most 1.
        """
        if not 0 < recall <= 1:
            raise InputError(f"recall is {recall}; it is a share, above 0 and at most 1.")
        return choose(self._manifest.curve or (), self._manifest.calibrated_on, recall)

    def calibrate(self, queries: SparseVectors | None = None) -> tuple[OperatingPoint, ...]:
        """Measure recall and time of efforts against exact search, and store the curve in the manifest.

        Args:
            queries: such as will be asked; by default some of the documents, cut to their larger half of terms.

        Returns:
            The curve, from the fastest to the exact point.

        Raises:
            InputError: the index has no bounds or no forward index, or there are no queries.
            StorageError: the index was replaced or calibrated by another since it was opened.
        """
        if queries is not None:
            self._check_vocabulary(queries)
        manifest = with_curve(self._manifest, self._segment, queries)
        replace_manifest(self.path / MANIFEST, manifest.to_bytes(), opened=self._manifest.to_bytes())
        self._manifest = manifest
        return manifest.curve or ()

    def explain(self, query: SparseVectors, row: int) -> list[Contribution]:
        """What each term of a query gave to a document's score; terms ascending.

        Args:
            query: one query.
            row: the document.

        Raises:
            InputError: there is not one query, or no such row.
            MismatchError: the query is over another vocabulary.
        """
        return self.explain_rows(query, [row])[0]

    def explain_rows(self, query: SparseVectors, rows: Sequence[int]) -> list[list[Contribution]]:
        """`explain` for several documents, in the order of `rows`; cheaper than one by one."""
        self._check_vocabulary(query)
        for row in rows:
            if not 0 <= row < self.n_documents:
                raise InputError(f"row {row} is outside 0..{self.n_documents - 1}.")
        positions = self._positions[np.asarray(rows, np.int64)].astype(np.int64)
        return explain_rows(query, rows, self._segment.postings, positions, self._scale)

    @cached_property
    def _positions(self) -> NDArray[np.uint32]:
        """Where each row stands in the postings; 4 bytes a document, made when first asked for."""
        rows = self._segment.postings.rows
        positions = np.empty_like(rows)
        positions[rows] = np.arange(len(rows), dtype=np.uint32)
        return positions

    def vectors(self) -> SparseVectors:
        """All rows as they are stored, with their ids; in memory."""
        rows = unpack(self._segment.postings, self._scale)
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
        return IndexInfo.of(self.path, self._manifest)

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

    def _mask(
        self, filters: Filters | None, allowed: NDArray[np.bool_] | Sequence[bool] | None
    ) -> NDArray[np.bool_] | None:
        mask = None if allowed is None else np.asarray(allowed)
        if filters is None or filters == {}:
            return mask
        if mask is not None and (mask.dtype != np.bool_ or mask.shape != (self.n_documents,)):
            raise InputError(
                f"allowed is {mask.dtype} of {mask.shape}; expected bool of ({self.n_documents},), one a document."
            )
        passing = self.documents.mask(filters)
        return passing if mask is None else passing & mask


def _is_index(folder: Path) -> bool:
    manifest = folder / MANIFEST
    return manifest.is_file() and FORMAT.encode() in manifest.read_bytes()


def _check_call(k: int, rescore: Rescore | None, n_threads: int) -> None:
    if k < 1:
        raise InputError(f"k is {k}; ask for at least 1 hit")
    if n_threads < 1:
        raise InputError(f"n_threads is {n_threads}; give at least 1")
    if rescore not in (None, "float"):
        raise InputError(f"there is no rescore={rescore!r}; it is 'float' or None.")


def _write_segment(  # noqa: PLR0917
    draft: Path,
    vectors: SparseVectors | str | Path,
    survey: Survey,
    scale: ImpactScale,
    config: BuildConfig,
    on_rows: Callable[[int, int], None],
) -> Manifest:
    """Write the one segment of a new index; what a manifest says of it, without files and encoder."""
    keeps = config.forward and scale.kind != "float32"  # where the postings are the weights as given
    spooled = write_forward(
        draft / _SEGMENT / _FORWARD,
        draft / "spool",
        parts_of(vectors),
        scale,
        n_terms=survey.n_cols,
        halves=survey.halves if keeps else None,
        on_rows=lambda done: on_rows(done // 2, survey.n_rows),
    )
    if spooled.n_rows != survey.n_rows:
        raise InputError(f"{vectors} changed while it was read; build again when it is complete.")
    window = config.window or window_for(survey.n_cols, survey.n_rows, survey.nnz)
    written = write_postings(
        draft / _SEGMENT,
        spooled.rows,
        scale.kind,
        n_terms=survey.n_cols,
        window=window,
        reorder=config.reorder,
        on_rows=lambda done: on_rows((survey.n_rows + done) // 2, survey.n_rows),
    )
    for folder in spooled.unneeded:
        shutil.rmtree(folder)
    weights: Literal["float16", "float32"] = "float16" if survey.halves else "float32"
    segment = SegmentRecord(
        folder=_SEGMENT,
        n_documents=survey.n_rows,
        nnz=written.nnz,
        n_dense=written.n_dense,
        forward=ForwardRecord(nnz=survey.nnz, weights=weights) if keeps else None,
    )
    return Manifest(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        created_by=maker(),
        n_documents=survey.n_rows,
        n_terms=survey.n_cols,
        nnz=written.nnz,
        window=window,
        impacts=scale.kind,
        step=scale.step,
        largest_error=spooled.largest_error,
        encoder=None,
        segments=(segment,),
        files={},
    )


def _map_segment(folder: Path, record: SegmentRecord, manifest: Manifest, scale: ImpactScale) -> Segment:
    forward = None
    if record.forward is not None:
        halves = record.forward.weights == "float16"
        n_terms, nnz = manifest.n_terms, record.forward.nnz
        forward = map_forward(folder / _FORWARD, record.n_documents, n_terms, nnz, halves=halves)
    return Segment(map_postings(folder, record, manifest), forward, scale, manifest.largest_error)
