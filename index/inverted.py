"""`InvertedIndex`: exact and approximate search over sparse vectors, from a folder of memory-mapped arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from gossamer.index.answers import best_of_segments, check_size, check_vocabulary, mask_of, rounded
from gossamer.index.budget import Budget, InputSize, return_unused
from gossamer.index.calibration import WORTH_CALIBRATING, choose, curve_of
from gossamer.index.creation import create, new_manifest
from gossamer.index.document_files import Source
from gossamer.index.exchange.files import VectorFile
from gossamer.index.explain import Contribution, explain_rows
from gossamer.index.filters import Filters
from gossamer.index.format import (
    DenseEffort,
    Effort,
    EncoderInfo,
    InvertedRecord,
    Manifest,
    OperatingPoint,
    PostingsRecord,
    SegmentRecord,
)
from gossamer.index.hits import Hits
from gossamer.index.impacts import ImpactScale, Kind
from gossamer.index.info import IndexInfo
from gossamer.index.inverted_files import (
    Rows,
    live_parts,
    live_rows,
    map_segment,
    split_rows,
    write_segment,
)
from gossamer.index.postings import Survey, unpack
from gossamer.index.segment import Call, Found, Rescore, Segment
from gossamer.index.shards import Splittable
from gossamer.index.snapshots import Snapshot
from gossamer.index.vectors import SparseVectors
from gossamer.kernels.errors import ConfigError, InputError, MismatchError
from gossamer.kernels.sparse_dot import Backend

_COARSER = 64  # times its own, a scale that an added segment shares; it leaves two bits of the largest weight
_COARSER_IN_MERGES = 2


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
        vectors: SparseVectors | VectorFile | str | Path,
        *,
        documents: Source | None = None,
        config: BuildConfig | None = None,
        encoder: EncoderInfo | None = None,
        replace: bool = False,
        budget_bytes: int | None = None,
        on_rows: Callable[[int, int], None] | None = None,
    ) -> InvertedIndex:
        """Write an index and open it.

        It appears at `path` whole or not at all. Memory holds one window of vectors and all ids.

        Args:
            path: the folder to make.
            vectors: the documents' vectors, in memory, or a file or folder of them, which is read twice; those that
                `read_vectors` can read without being told more, or what it returns.
            documents: titles, texts and metadata in the order of the vectors; see `write_documents`.
            config: how to store the weights.
            encoder: what made the vectors; `search` trusts its caller to use the same.
            replace: whether an index that is there already may be replaced.
            budget_bytes: memory that the build may use; see `gossamer.index.budget`. None for no limit.
            on_rows: called now and then with the rows done and the rows in all.

        Raises:
            ExistsError: there is something at `path`, and it may not be replaced.
            VectorError, RecordError, ConfigError: the input cannot be indexed; the message names the row.
        """
        budget = Budget() if budget_bytes is None else Budget.of(budget_bytes, InputSize.of(vectors))

        def prepare() -> tuple[Rows, Manifest]:
            rows = Rows.of(vectors, budget)
            return rows, cls._begin(rows, config, encoder)

        def write(folder: Path, rows: Rows, manifest: Manifest) -> PostingsRecord:
            return_unused()
            scale = _scale_for(rows, manifest.inverted.impacts, ())
            return write_segment(folder, rows, scale, manifest.inverted, on_rows=on_rows, budget=budget)

        create(Path(path), documents, prepare=prepare, write=write, replace=replace)
        return opened(path)

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
            recall: the share of the exact hits that is enough, such as 0.99, on average over queries. The fastest
                operating point of the index's curve that was shown to have it among the 10 best is taken; without a
                curve, or where exact search is the fastest, that.
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
        snapshot = self._snapshot
        rows, scores = self._find(
            snapshot,
            queries,
            k,
            recall=recall,
            effort=effort,
            rescore=rescore,
            filters=filters,
            allowed=allowed,
            backend=backend,
            n_threads=n_threads,
            wide=len(snapshot.segments) > 1,
        )
        return Hits(rows, rounded(scores), snapshot.documents.row_ids)

    def _find(
        self,
        snapshot: Snapshot[Segment],
        queries: SparseVectors,
        k: int,
        *,
        recall: float | None = None,
        effort: Effort | None = None,
        rescore: Rescore | None = None,
        filters: Filters | None = None,
        allowed: NDArray[np.bool_] | Sequence[bool] | None = None,
        backend: Backend = "auto",
        n_threads: int = 1,
        wide: bool = True,
    ) -> Found:
        check_vocabulary(queries, self.n_terms, self.encoder)
        mask = mask_of(snapshot.documents, filters, allowed)
        check_size(k, n_threads)
        _check_rescore(rescore)
        if recall is not None:
            if effort is not None:
                raise InputError("recall and effort were both given; recall is what chooses an effort.")
            effort = self.effort_for(recall)
        true = rescore == "float" or (recall is not None and all(part.forward for part in snapshot.segments))
        found = []
        for place, segment in enumerate(snapshot.segments):
            rows = slice(snapshot.starts[place], snapshot.starts[place + 1])
            call = Call(k, None if mask is None else mask[rows], backend, n_threads)
            found.append(segment.search(queries, call, effort, true=true, wide=wide))
        return best_of_segments(found, snapshot.starts, queries.n_rows, k)

    def effort_for(self, recall: float) -> Effort | None:
        """The operating point that a recall stands for; None is exact search.

        Raises:
            InputError: `recall` is not above 0 and at most 1.
        """
        if not 0 < recall <= 1:
            raise InputError(f"recall is {recall}; it is a share, above 0 and at most 1.")
        effort = choose(self._snapshot.manifest.curve_in_use, recall)
        assert not isinstance(effort, DenseEffort)
        return effort

    def calibrate(self, queries: SparseVectors | None = None) -> tuple[OperatingPoint, ...]:
        """Measure recall and time of efforts against exact search, and store the curve in the manifest.

        Args:
            queries: such as will be asked; a thousand are enough for .99. By default some are made of documents, short
                and long ones, and what is shown holds for the worst kind: so the curve is a slower one.

        Returns:
            The curve, from the fastest to the exact point.

        Raises:
            InputError: the index has no bounds or no forward index, or there are no queries.
            StorageError: the index was replaced by another since it was opened.
        """
        if queries is not None:
            check_vocabulary(queries, self.n_terms, self.encoder)
        snapshot = self._snapshot
        if not snapshot.segments:
            raise InputError(f"{self.path} has no documents to calibrate on; add some.")
        largest = max(snapshot.segments, key=lambda segment: segment.postings.n_documents)
        curve, n_queries = curve_of(largest, queries)
        self._keep_curve(snapshot, curve, n_queries, largest.postings.n_documents)
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
        check_vocabulary(query, self.n_terms, self.encoder)
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
        signed = self._snapshot.manifest.inverted.impacts != "uint8"
        return SparseVectors(rows.indptr, rows.indices, rows.values, rows.n_cols, ids, signed)

    def stream(self) -> Iterator[SparseVectors]:
        """The vectors of all documents in parts, with ids: as given where that is kept, else as they are stored."""
        snapshot = self._snapshot
        yield from live_parts(list(zip(snapshot.segments, snapshot.parts, strict=True)))
        if not snapshot.segments:
            yield SparseVectors.from_dicts([], self.n_terms)

    def posting_lengths(self) -> NDArray[np.int64]:
        """How many documents have each term, deleted ones included, `[n_terms]`."""
        lengths = np.zeros(self.n_terms, np.int64)
        for segment in self._snapshot.segments:
            terms = segment.postings.terms
            lengths[slice(None) if terms is None else terms] += segment.postings.offsets[:, -1]
        return lengths

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
        return self._snapshot.manifest.inverted.n_terms

    @property
    def nnz(self) -> int:
        """Number of postings, those of deleted documents included."""
        return sum(record.postings.nnz for record in self._snapshot.manifest.segments)

    def __repr__(self) -> str:
        impacts = self._snapshot.manifest.inverted.impacts
        return f"InvertedIndex({str(self.path)!r}, {self.n_documents:,} documents, {impacts})"

    # -- what `SegmentedIndex` asks for

    def _map(
        self, folder: Path, record: SegmentRecord, manifest: Manifest, live: NDArray[np.bool_] | None
    ) -> Segment:
        return map_segment(folder, record.postings, record.n_rows, manifest.inverted, live)

    def _rows(self, vectors: SparseVectors | VectorFile | str | Path) -> Rows:
        rows, settings = Rows.of(vectors), self._snapshot.manifest.inverted
        if rows.survey.n_cols != settings.n_terms:
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
        coarser = _COARSER_IN_MERGES if rows.steps and not self.is_shard else _COARSER
        scale = _scale_for(rows, manifest.inverted.impacts, manifest.segments, coarser)
        return write_segment(folder, rows, scale, manifest.inverted)

    def _merged_rows(self, places: Sequence[int], snapshot: Snapshot[Segment]) -> Rows:
        return live_rows([(snapshot.segments[place], snapshot.parts[place]) for place in places])

    def _curve_of_merged(
        self, folder: Path, record: SegmentRecord, snapshot: Snapshot[Segment]
    ) -> dict[str, Any]:
        settings = snapshot.manifest.inverted
        if not settings.calibrate or record.n_rows < WORTH_CALIBRATING:
            return {}
        segment = map_segment(folder, record.postings, record.n_rows, settings, None)
        if not segment.can_approximate or not record.postings.nnz:
            return {}
        curve, n_queries = curve_of(segment, None)
        return {"curve": curve, "calibrated_on": n_queries, "calibrated_rows": record.n_rows}

    # -- and where it is a shard

    @classmethod
    def _look_through(cls, vectors: SparseVectors | VectorFile | str | Path) -> Rows:
        return Rows.of(vectors)

    @classmethod
    def _begin(cls, rows: Rows, config: BuildConfig | None, encoder: EncoderInfo | None) -> Manifest:
        return manifest_for(rows.survey, config or BuildConfig(), encoder)

    @classmethod
    def _split(
        cls,
        rows: Rows,
        shards: Sequence[InvertedIndex],
        shard_of_row: NDArray[np.integer[Any]],
        spool: Path,
    ) -> list[Rows]:
        """All by the scale that one index of all shards would take."""
        manifests = [shard._snapshot.manifest for shard in shards]
        records = [record for manifest in manifests for record in manifest.segments]
        scale = _scale_for(rows, manifests[0].inverted.impacts, records)
        return split_rows(rows, shard_of_row, len(shards), scale, spool)

    def _after_build(self) -> None:
        segments = self._snapshot.segments
        enough = any(
            part.postings.n_documents >= WORTH_CALIBRATING and part.can_approximate for part in segments
        )
        if enough and self._snapshot.manifest.inverted.calibrate:
            self.calibrate()


def manifest_for(survey: Survey, config: BuildConfig, encoder: EncoderInfo | None) -> Manifest:
    """That of a new index of these rows, before there are any segments.

    Raises:
        ConfigError: the impacts that were asked for cannot store these weights.
    """
    scale = ImpactScale.choose(config.impacts, largest=survey.largest, negative=survey.negative)
    kept = config.model_dump(exclude={"impacts"})
    return new_manifest(InvertedRecord(n_terms=survey.n_cols, impacts=scale.kind, **kept), encoder)


def opened(path: str | Path) -> InvertedIndex:
    """Open an index that was just built, and measure its curve where that is worth it."""
    index = InvertedIndex.open(path)
    index._after_build()
    return index


def _scale_for(
    rows: Rows, kind: Kind, records: Sequence[SegmentRecord], coarser: int = _COARSER
) -> ImpactScale:
    """The scale of the segments that rows come from, or of the index, so that segments share one.

    A coarser one where weights would not fit it, and a finer one where it would leave too little of them: after
    documents with far larger weights are gone, and beside them.

    Args:
        rows: what is to be stored.
        kind: how.
        records: the segments of the index, or of all its shards.
        coarser: at most so many times their own scale is taken.
    """
    if rows.scale is not None:
        return rows.scale
    own = ImpactScale.choose(kind, largest=rows.survey.largest, negative=rows.survey.negative)
    of_index = [record.postings.step for record in records if record.postings.nnz]
    shared = max(rows.steps or of_index, default=0.0)
    return ImpactScale(kind, shared) if own.step <= shared <= coarser * own.step else own


def _check_rescore(rescore: Rescore | None) -> None:
    if rescore not in (None, "float"):
        raise InputError(f"there is no rescore={rescore!r}; it is 'float' or None.")
