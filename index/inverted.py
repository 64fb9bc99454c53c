"""`InvertedIndex`: exact and approximate search over sparse vectors, from a folder of memory-mapped arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from gossamer.index.calibration import WORTH_CALIBRATING, choose, curve_of
from gossamer.index.commits import SEGMENTS, Change, write_lock
from gossamer.index.disk import disk
from gossamer.index.document_files import Source, write_documents
from gossamer.index.explain import Contribution, explain_rows
from gossamer.index.filters import Filters
from gossamer.index.folders import draft_folder
from gossamer.index.format import (
    MANIFEST,
    Effort,
    EncoderInfo,
    InvertedRecord,
    Manifest,
    OperatingPoint,
    PostingsRecord,
    SegmentRecord,
    is_index,
    record_files,
)
from gossamer.index.hits import Hits
from gossamer.index.impacts import ImpactScale, Kind
from gossamer.index.info import IndexInfo
from gossamer.index.inverted_files import Rows, live_rows, map_segment, split_rows, write_segment
from gossamer.index.postings import unpack
from gossamer.index.segment import Call, Found, Rescore, Segment
from gossamer.index.segmented import DOCUMENTS, Snapshot
from gossamer.index.shards import Splittable
from gossamer.index.vectors import SparseVectors
from gossamer.kernels.errors import ConfigError, InputError, MismatchError, StorageError
from gossamer.kernels.refine import best_of
from gossamer.kernels.sparse_dot import Backend


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


class InvertedIndex(Splittable[Segment, Rows]):
    """An index of sparse vectors: its hits are those of brute force over the stored impacts.

    Make one with `build` or `open`, and share it among threads; `add`, `update`, `delete` and `merge` change it.
    """

    kind: ClassVar[str] = "inverted"

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
        with draft_folder(Path(path), replace=replace, replaceable=is_index) as draft:
            rows = cls._look_through(vectors)
            manifest = cls._begin(rows, config, encoder)
            disk().mkdir(draft / SEGMENTS)
            if rows.n_rows:
                manifest = _with_first_segment(draft, rows, documents, manifest, on_rows=on_rows)
            else:
                write_documents(draft / "none", documents, None, 0)  # refuses documents without vectors
                disk().remove(draft / "none")
            with disk().create(draft / MANIFEST) as file:
                file.write(manifest.to_bytes())
        index = cls.open(path)
        index._after_build()
        return index

    # -- searching

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
            allowed: bool `[n_rows]`, as `documents.mask` makes it from filters; others are no hits.
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
        snapshot = self._snapshot
        mask = _mask(snapshot, filters, allowed)
        _check_call(k, rescore, n_threads)
        if recall is not None:
            if effort is not None:
                raise InputError("recall and effort were both given; recall is what chooses an effort.")
            effort = self.effort_for(recall)
        true = rescore == "float" or (recall is not None and all(part.forward for part in snapshot.segments))
        found = []
        for place, segment in enumerate(snapshot.segments):
            rows = slice(snapshot.starts[place], snapshot.starts[place + 1])
            call = Call(k, None if mask is None else mask[rows], backend, n_threads)
            found.append(segment.search(queries, call, effort, true=true))
        return Hits(*_merged(found, snapshot.starts, queries.n_rows, k), snapshot.documents.row_ids)

    def effort_for(self, recall: float) -> Effort | None:
        """The operating point that a recall stands for; None is exact search.

        Raises:
            InputError: `recall` is not above 0 and at most 1.
        """
        if not 0 < recall <= 1:
            raise InputError(f"recall is {recall}; it is a share, above 0 and at most 1.")
        manifest = self._snapshot.manifest
        return choose(manifest.curve or (), manifest.calibrated_on, recall)

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
        snapshot = self._snapshot
        if not snapshot.segments:
            raise InputError(f"{self.path} has no documents to calibrate on; add some.")
        largest = max(snapshot.segments, key=lambda segment: segment.postings.n_documents)
        curve, n_queries = curve_of(largest, queries)
        with write_lock(self.path, self.lock_timeout_s) as lock:
            self.refresh()
            if largest not in self._snapshot.segments:
                raise StorageError(f"{self.path} was changed while it was calibrated; repeat.")
            change = Change(self.path, self._snapshot.manifest, lock)
            manifest = change.publish(curve=curve, calibrated_on=n_queries)
            self._snapshot = self._load(manifest, self._snapshot)
        return curve

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
        snapshot = self._snapshot
        explained: list[list[Contribution]] = []
        for row in rows:
            if not 0 <= row < len(snapshot.documents):
                raise InputError(f"row {row} is outside 0..{len(snapshot.documents) - 1}.")
        places = np.searchsorted(snapshot.starts, np.asarray(rows, np.int64), side="right") - 1
        for row, place in zip(rows, places.tolist(), strict=True):
            segment, local = snapshot.segments[place], int(row - snapshot.starts[place])
            positions = segment.positions[[local]].astype(np.int64)
            explained += explain_rows(query, [row], segment.postings, positions, segment.scale)
        return explained

    def vectors(self) -> SparseVectors:
        """All rows as they are stored, deleted ones included, with their ids; in memory."""
        stored = [unpack(segment.postings, segment.scale) for segment in self._snapshot.segments]
        rows = SparseVectors.concat(stored) if stored else SparseVectors.from_dicts([], self.n_terms)
        ids = self.documents.ids
        ids = ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids
        signed = self._snapshot.manifest.index.impacts != "uint8"
        return SparseVectors(rows.indptr, rows.indices, rows.values, rows.n_cols, ids, signed)

    def info(self) -> IndexInfo:
        """Counts, sizes and parameters."""
        return IndexInfo.of(self.path, self._snapshot.manifest)

    @property
    def segments(self) -> tuple[Segment, ...]:
        """What is searched now."""
        return self._snapshot.segments

    @property
    def n_terms(self) -> int:
        """Size of the vocabulary."""
        return self._snapshot.manifest.index.n_terms

    @property
    def nnz(self) -> int:
        """Number of postings, those of deleted documents included."""
        return sum(record.data.nnz for record in self._snapshot.manifest.segments)

    def __repr__(self) -> str:
        impacts = self._snapshot.manifest.index.impacts
        return f"InvertedIndex({str(self.path)!r}, {self.n_documents:,} documents, {impacts})"

    def _check_vocabulary(self, queries: SparseVectors) -> None:
        if queries.n_cols != self.n_terms:
            made_by = f" of {self.encoder.name}" if self.encoder else ""
            raise MismatchError(
                f"the queries are over {queries.n_cols:,} terms, and this index over {self.n_terms:,}; encode "
                f"queries with the encoder{made_by} that made the index."
            )

    # -- what `SegmentedIndex` asks for

    def _map(
        self, folder: Path, record: SegmentRecord, manifest: Manifest, live: NDArray[np.bool_] | None
    ) -> Segment:
        return map_segment(folder, record.data, record.n_rows, manifest.index, live)

    def _rows(self, vectors: SparseVectors | str | Path) -> Rows:
        rows, settings = Rows.of(vectors), self._snapshot.manifest.index
        if rows.n_rows and rows.survey.n_cols != settings.n_terms:
            raise MismatchError(
                f"the vectors are over {rows.survey.n_cols:,} terms, and this index over {settings.n_terms:,}; encode "
                "them with the encoder that made the index."
            )
        if rows.survey.negative and settings.impacts == "uint8":
            raise ConfigError(
                "some of the vectors have negative weights, which this index of uint8 impacts cannot store; build it "
                "anew with BuildConfig(impacts='int8')."
            )
        return rows

    def _write(self, folder: Path, rows: Rows, manifest: Manifest) -> PostingsRecord:
        return write_segment(folder, rows, _scale_for(rows, manifest), manifest.index)

    def _merged_rows(self, places: Sequence[int], snapshot: Snapshot[Segment]) -> Rows:
        return live_rows([(snapshot.segments[place], snapshot.parts[place]) for place in places])

    def _after_merge(
        self, folder: Path, record: SegmentRecord, places: Sequence[int], snapshot: Snapshot[Segment]
    ) -> dict[str, Any]:
        """The curve is that of the largest segment, so one that becomes the largest is measured."""
        others = [
            segment.n_rows for place, segment in enumerate(snapshot.manifest.segments) if place not in places
        ]
        settings = snapshot.manifest.index
        if not (settings.calibrate and record.n_rows >= max(WORTH_CALIBRATING, *others, 0)):
            return {}
        segment = map_segment(folder, record.data, record.n_rows, settings, None)
        if not segment.can_approximate:
            return {}
        curve, n_queries = curve_of(segment, None)
        return {"curve": curve, "calibrated_on": n_queries}

    # -- and where it is a shard

    @classmethod
    def _look_through(cls, vectors: SparseVectors | str | Path) -> Rows:
        return Rows.of(vectors)

    @classmethod
    def _begin(cls, rows: Rows, config: BuildConfig | None, encoder: EncoderInfo | None) -> Manifest:
        config, survey = config or BuildConfig(), rows.survey
        scale = ImpactScale.choose(config.impacts, largest=survey.largest, negative=survey.negative)
        kept = config.model_dump(exclude={"impacts"})
        return Manifest(
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            created_by=f"gossamer {_version()}",
            index=InvertedRecord(n_terms=survey.n_cols, impacts=scale.kind, **kept),
            encoder=encoder,
        )

    @classmethod
    def _split(
        cls,
        rows: Rows,
        shards: Sequence[InvertedIndex],
        shard_of_row: NDArray[np.integer[Any]],
        spool: Path,
    ) -> list[Rows]:
        """All on one scale: the coarsest of any shard, or that of all rows together."""
        manifests = [shard._snapshot.manifest for shard in shards]
        levels = ImpactScale(manifests[0].index.impacts, 1.0).levels
        steps = [
            record.data.step for manifest in manifests for record in manifest.segments if record.data.nnz
        ]
        largest = max([rows.survey.largest, *(step * levels for step in steps)])
        return split_rows(rows, shard_of_row, len(shards), largest, spool)

    def _after_build(self) -> None:
        segments = self._snapshot.segments
        enough = any(
            part.postings.n_documents >= WORTH_CALIBRATING and part.can_approximate for part in segments
        )
        if enough and self._snapshot.manifest.index.calibrate:
            self.calibrate()


def _with_first_segment(
    draft: Path,
    rows: Rows,
    documents: Source | None,
    manifest: Manifest,
    *,
    on_rows: Callable[[int, int], None] | None,
) -> Manifest:
    """Write the documents of a new index, and name them in its manifest."""
    folder = draft / SEGMENTS / f"{0:06d}"
    disk().mkdir(folder)
    write_documents(folder / DOCUMENTS, documents, rows.ids, rows.n_rows)
    data = write_segment(folder, rows, _scale_for(rows, manifest), manifest.index, on_rows)
    record = SegmentRecord(folder=folder.name, n_rows=rows.n_rows, first_number=0, gaps=False, data=data)
    return manifest.model_copy(
        update={
            "next_number": rows.n_rows,
            "next_segment": 1,
            "segments": (record,),
            "files": record_files(folder, f"{SEGMENTS}/{folder.name}"),
        }
    )


def _scale_for(rows: Rows, manifest: Manifest) -> ImpactScale:
    """The coarsest scale of the index, so that segments share one; a coarser one where weights would not fit it."""
    kind = manifest.index.impacts
    own = ImpactScale.choose(kind, largest=rows.survey.largest, negative=rows.survey.negative)
    steps = [record.data.step for record in manifest.segments if record.data.nnz]
    if not steps:
        return own
    shared = ImpactScale(kind, max(steps))
    return shared if own.step <= shared.step else own


def _merged(
    found: Sequence[Found], starts: NDArray[np.int64], n_queries: int, k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The best hits over all segments: score descending, then row ascending."""
    if len(found) == 1:
        return found[0]
    rows = [np.where(rows >= 0, rows + start, -1) for (rows, _), start in zip(found, starts, strict=False)]
    scores = [scores.astype(np.float64) for _, scores in found]
    nothing = np.full((n_queries, 1), -1), np.full((n_queries, 1), -np.inf)
    best = best_of(np.hstack([nothing[0], *rows]), np.hstack([nothing[1], *scores]), k)
    return best[0], best[1].astype(np.float32)


def _mask(
    snapshot: Snapshot[Segment],
    filters: Filters | None,
    allowed: NDArray[np.bool_] | Sequence[bool] | None,
) -> NDArray[np.bool_] | None:
    mask = None if allowed is None else np.asarray(allowed)
    n_rows = len(snapshot.documents)
    if mask is not None and (mask.dtype != np.bool_ or mask.shape != (n_rows,)):
        raise InputError(f"allowed is {mask.dtype} of {mask.shape}; expected bool of ({n_rows},), one a row.")
    if filters is None or filters == {}:
        return mask
    passing = snapshot.documents.mask(filters)
    return passing if mask is None else passing & mask


def _check_call(k: int, rescore: Rescore | None, n_threads: int) -> None:
    if k < 1:
        raise InputError(f"k is {k}; ask for at least 1 hit")
    if n_threads < 1:
        raise InputError(f"n_threads is {n_threads}; give at least 1")
    if rescore not in (None, "float"):
        raise InputError(f"there is no rescore={rescore!r}; it is 'float' or None.")


def _version() -> str:
    try:
        return version("gossamer")
    except PackageNotFoundError:  # run from a source tree
        return "from source"
