"""`DenseIndex`: exact and approximate search over dense vectors, in the same kind of folder as `InvertedIndex`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gossamer.index.answers import best_of_segments, check_size, mask_of, rounded
from gossamer.index.calibration import choose
from gossamer.index.creation import create, new_manifest
from gossamer.index.dense_calibration import dense_curve_of
from gossamer.index.dense_config import DenseConfig
from gossamer.index.dense_files import live_dense_rows, map_dense_segment, write_dense_segment
from gossamer.index.dense_segment import DenseCall, DenseSegment
from gossamer.index.dense_structure import check_effort
from gossamer.index.dense_vectors import DenseRows, DenseVectors, Given, checked
from gossamer.index.document_files import Source
from gossamer.index.faiss_library import Device, check_device, faiss_library
from gossamer.index.filters import Filters
from gossamer.index.format import (
    DenseEffort,
    DenseRecord,
    DenseSettings,
    EncoderInfo,
    Manifest,
    OperatingPoint,
    SegmentRecord,
)
from gossamer.index.hits import Hits
from gossamer.index.info import DenseInfo
from gossamer.index.manifests import record_files
from gossamer.index.segmented import SegmentedIndex
from gossamer.index.snapshots import Snapshot
from gossamer.kernels.errors import InputError, MismatchError


class DenseIndex(SegmentedIndex[DenseSegment, DenseRows]):
    """An index of dense vectors: its hits are those of brute force, unless it is told that less is enough.

    Make one with `build` or `open`, and share it among threads; `add`, `update`, `delete` and `merge` change it.
    """

    kind: ClassVar[str] = "dense"

    @classmethod
    def build(
        cls,
        path: str | Path,
        vectors: Given,
        *,
        documents: Source | None = None,
        config: DenseConfig | None = None,
        encoder: EncoderInfo | None = None,
        replace: bool = False,
    ) -> DenseIndex:
        """Write an index and open it.

        It appears at `path` whole or not at all. Vectors at a path are streamed, twice; a structure is made in memory.

        Args:
            path: the folder to make.
            vectors: `DenseVectors` with ids, an array `[N, D]` of float32 without, or the path of a .npy file, or of a
                Parquet or Arrow file or folder with a column `vector` and maybe `id`.
            documents: titles, texts and metadata in the order of the vectors; see `write_documents`.
            config: how vectors are compared and found.
            encoder: what made the vectors; `search` trusts its caller to use the same.
            replace: whether an index that is there already may be replaced.

        Raises:
            ExistsError: there is something at `path`, and it may not be replaced.
            VectorError, RecordError, FormatError: the input cannot be indexed; the message names the row.
            BackendError: faiss is not installed.
        """
        faiss_library()
        config = config or DenseConfig()

        def prepare() -> tuple[DenseRows, Manifest]:
            rows = DenseRows.of(vectors, config.metric)
            return rows, new_manifest(DenseSettings(n_dims=rows.n_dims, **dict(config)), encoder)

        def write(folder: Path, rows: DenseRows, manifest: Manifest) -> DenseRecord:
            return write_dense_segment(folder, rows, manifest.dense)

        create(Path(path), documents, prepare=prepare, write=write, replace=replace)
        index = cls.open(path)
        if config.calibrate and any(segment.structure for segment in index._snapshot.segments):
            index.calibrate()
        return index

    # -- searching

    def search(
        self,
        queries: NDArray[np.float32] | DenseVectors,
        k: int = 10,
        *,
        recall: float | None = None,
        effort: DenseEffort | None = None,
        filters: Filters | None = None,
        allowed: NDArray[np.bool_] | Sequence[bool] | None = None,
        n_threads: int = 1,
        device: Device = "cpu",
    ) -> Hits:
        """The k documents of the largest inner product, or cosine; exactly, unless `recall` or `effort` is given.

        Args:
            queries: float32 `[Q, D]`.
            k: width of the answer; may be more than there are documents.
            recall: the share of the exact hits that is enough, such as 0.99. The fastest operating point of the index's
                curve that had it in calibration is taken; without a curve, or where exact search is the fastest, that.
            effort: how much to look at, instead of an operating point that `recall` chooses.
            filters: an expression over ids and metadata columns; see `gossamer.index.filters`. Others are no hits.
            allowed: bool `[n_rows]`, as `documents.mask` makes it from filters; others are no hits.
            n_threads: threads. The answer does not depend on them.
            device: "cuda" lets faiss run on a GPU, or raises.

        Returns:
            Hits `[Q, k]`: score descending, then row ascending. Every document is a hit, even of a score below 0.

        Raises:
            MismatchError: the queries have other dimensions.
            VectorError: a query is not finite, or has no cosine.
            InputError: an argument is out of range or of the wrong shape, or two exclude each other.
            BackendError: the device cannot be used.
        """
        snapshot = self._snapshot
        asked = self._checked(queries)
        mask = mask_of(snapshot.documents, filters, allowed)
        check_size(k, n_threads)
        check_device(device)
        if recall is not None:
            if effort is not None:
                raise InputError("recall and effort were both given; recall is what chooses an effort.")
            effort = self.effort_for(recall)
        elif effort is not None:
            check_effort(effort, snapshot.manifest.dense.structure)
        found = []
        for place, segment in enumerate(snapshot.segments):
            rows = slice(snapshot.starts[place], snapshot.starts[place + 1])
            call = DenseCall(k, None if mask is None else mask[rows], n_threads, device)
            found.append(segment.search(asked, call, effort))
        rows_found, scores = best_of_segments(found, snapshot.starts, len(asked), k)
        return Hits(rows_found, rounded(scores), snapshot.documents.row_ids)

    def effort_for(self, recall: float) -> DenseEffort | None:
        """The operating point that a recall stands for; None is exact search.

        Raises:
            InputError: `recall` is not above 0 and at most 1.
        """
        if not 0 < recall <= 1:
            raise InputError(f"recall is {recall}; it is a share, above 0 and at most 1.")
        effort = choose(self._snapshot.manifest.curve_in_use, recall)
        assert effort is None or isinstance(effort, DenseEffort)
        return effort

    def calibrate(
        self, queries: NDArray[np.float32] | DenseVectors | None = None
    ) -> tuple[OperatingPoint, ...]:
        """Measure recall and time of efforts against exact search, and store the curve in the manifest.

        Args:
            queries: float32 `[Q, D]`, such as will be asked; by default some of the documents.

        Returns:
            The curve, from the fastest to the exact point.

        Raises:
            InputError: no segment has a structure, or there are no queries.
            StorageError: the index was replaced or changed by another meanwhile.
        """
        asked = None if queries is None else self._checked(queries)
        snapshot = self._snapshot
        if not snapshot.segments:
            raise InputError(f"{self.path} has no documents to calibrate on; add some.")
        largest = max(snapshot.segments, key=lambda segment: segment.n_rows)
        curve, n_queries = dense_curve_of(largest, snapshot.manifest.dense.structure, asked)
        self._keep_curve(snapshot, curve, n_queries, largest.n_rows)
        return curve

    def vectors(self) -> DenseVectors:
        """All rows as they are stored, deleted ones included, with their ids; in memory."""
        parts = [segment.values for segment in self._snapshot.segments]
        ids = self.documents.ids
        ids = ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids
        return DenseVectors(np.concatenate([np.zeros((0, self.n_dims), np.float32), *parts]), ids)

    def info(self) -> DenseInfo:
        """Counts, sizes and parameters."""
        return DenseInfo.of(self.path, self._snapshot.manifest)

    @property
    def n_dims(self) -> int:
        """Number of dimensions."""
        return self._snapshot.manifest.dense.n_dims

    def __repr__(self) -> str:
        kind = self._snapshot.manifest.dense.structure.kind
        return f"DenseIndex({str(self.path)!r}, {self.n_documents:,} documents, {self.n_dims} dimensions, {kind})"

    def _checked(self, queries: NDArray[np.float32] | DenseVectors) -> NDArray[np.float32]:
        given = queries if isinstance(queries, DenseVectors) else DenseVectors(queries)
        self._refuse_others("queries", given.n_dims)
        return checked(given.values, self._snapshot.manifest.dense.metric)

    def _refuse_others(self, what: str, n_dims: int) -> None:
        if n_dims != self.n_dims:
            made_by = f" of {self.encoder.name}" if self.encoder else ""
            raise MismatchError(
                f"the {what} have {n_dims:,} dimensions, and this index {self.n_dims:,}; encode them with the "
                f"encoder{made_by} that made the index."
            )

    # -- what `SegmentedIndex` asks for

    def _map(
        self, folder: Path, record: SegmentRecord, manifest: Manifest, live: NDArray[np.bool_] | None
    ) -> DenseSegment:
        return map_dense_segment(
            folder, record.dense, record.n_rows, manifest.dense, manifest.files, live=live
        )

    def _rows(self, vectors: Given) -> DenseRows:
        rows = DenseRows.of(vectors, self._snapshot.manifest.dense.metric)
        self._refuse_others("vectors", rows.n_dims)
        return rows

    def _write(self, folder: Path, rows: DenseRows, manifest: Manifest) -> DenseRecord:
        return write_dense_segment(folder, rows, manifest.dense)

    def _merged_rows(self, places: Sequence[int], snapshot: Snapshot[DenseSegment]) -> DenseRows:
        segments = [(snapshot.segments[place], snapshot.parts[place]) for place in places]
        return live_dense_rows(segments, snapshot.manifest.dense.n_dims)

    def _curve_of_merged(
        self, folder: Path, record: SegmentRecord, snapshot: Snapshot[DenseSegment]
    ) -> dict[str, Any]:
        settings = snapshot.manifest.dense
        if not (settings.calibrate and record.dense.structure):
            return {}
        files = record_files(folder, folder.parents[1])
        segment = map_dense_segment(folder, record.dense, record.n_rows, settings, files)
        curve, n_queries = dense_curve_of(segment, settings.structure, None)
        return {"curve": curve, "calibrated_on": n_queries, "calibrated_rows": record.n_rows}
