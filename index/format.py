"""The manifest of an index folder: what it holds, who made it, and the size and checksum of every file.

An index is a folder: `manifest.json`, arrays as `.npy`, documents as Arrow IPC; see README.md beside this file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from gossamer.index.dense_config import Metric, Structure
from gossamer.index.impacts import Kind
from gossamer.index.manifests import Record, SealedFiles, check_contents

FORMAT = "gossamer-index"
SHARDS_FORMAT = "gossamer-shards"
VERSION = 3


@dataclass(frozen=True)
class EncoderInfo:
    """Which encoder made an index's vectors; queries must come from the same one.

    Attributes:
        name: a name for people.
        fingerprint: hash of weights and settings.
        tokenizer_fingerprint: hash of the tokenizer; empty where there is none.
    """

    name: str
    fingerprint: str
    tokenizer_fingerprint: str = ""


class ForwardRecord(Record):
    """The forward index of a segment: how many weights, and how each is stored."""

    nnz: int
    weights: Literal["float16", "float32"]


class PostingsRecord(Record):
    """The postings of a segment of an inverted index.

    Attributes:
        nnz: number of postings.
        window: documents in a window.
        n_dense: terms that have a row of bytes, too.
        step: the weight that one level of an impact stands for; most often that of the other segments.
        largest_error: the largest difference between a weight and what is stored for it.
        forward: the rows as given, where they are kept.
    """

    nnz: int
    window: int
    n_dense: int
    step: float
    largest_error: float
    forward: ForwardRecord | None

    @property
    def kind(self) -> Literal["inverted"]:
        """Of an index that has such segments; it is no key of the file, as it is older than other kinds."""
        return "inverted"


class DenseRecord(Record):
    """The vectors of a segment of a dense index.

    Attributes:
        largest_norm: of a row; what rounding can do to a score is bounded by it.
        structure: whether there is a structure beside the vectors.
    """

    kind: Literal["dense"] = "dense"
    largest_norm: float
    structure: bool


SegmentData: TypeAlias = PostingsRecord | DenseRecord


class SegmentRecord(Record):
    """A run of documents with arrays of their own; it is never changed, but for which documents are deleted.

    Attributes:
        folder: its name under `segments/`.
        n_rows: number of documents, deleted ones included.
        first_number: insertion number of its first document.
        gaps: whether insertion numbers are not consecutive, and stand in a file.
        n_deleted: number of deleted documents.
        deletions: name of the file that says which; None if there are none.
        data: what is special to the kind of index.
    """

    folder: str
    n_rows: int
    first_number: int
    gaps: bool
    n_deleted: int = 0
    deletions: str | None = None
    data: SegmentData

    @property
    def n_documents(self) -> int:
        """Number of documents that are not deleted."""
        return self.n_rows - self.n_deleted

    @property
    def postings(self) -> PostingsRecord:
        """`data` of an inverted index."""
        assert isinstance(self.data, PostingsRecord), self.data
        return self.data

    @property
    def dense(self) -> DenseRecord:
        """`data` of a dense index."""
        assert isinstance(self.data, DenseRecord), self.data
        return self.data


class InvertedRecord(Record):
    """What all segments of an inverted index have in common, and how new ones are made.

    Attributes:
        n_terms: size of the vocabulary.
        impacts: type of an impact.
        window: documents in a window; None chooses by the segment.
        reorder, forward, calibrate: see `BuildConfig`.
    """

    kind: Literal["inverted"] = "inverted"
    n_terms: int
    impacts: Kind
    window: int | None
    reorder: bool
    forward: bool
    calibrate: bool


class DenseSettings(Record):
    """What all segments of a dense index have in common, and how new ones are made.

    Attributes:
        n_dims: dimensions of a vector.
        metric, structure, flat_below, calibrate, build_threads: see `DenseConfig`.
    """

    kind: Literal["dense"] = "dense"
    n_dims: int
    metric: Metric
    structure: Structure
    flat_below: int
    calibrate: bool
    build_threads: int


class Effort(Record):
    """What an approximate search leaves out before it scores what it found exactly; all three trade recall for time.

    Attributes:
        query_share: of a query's total weight; its smallest weights beyond that are left out.
        candidates_a_hit: documents that are scored exactly, for each hit asked for.
        max_windows: windows of documents that are looked into, those with the largest bounds; None for all.
    """

    query_share: float = Field(default=1.0, gt=0, le=1)
    candidates_a_hit: float = Field(default=2.0, ge=1)
    max_windows: int | None = Field(default=None, ge=1)


class DenseEffort(Record):
    """How much of a structure an approximate search looks at before it scores what it found exactly.

    Attributes:
        nprobe: lists of an `IvfPq` that are scanned.
        ef_search: candidates that are kept on the way through an `Hnsw`.
        candidates_a_hit: vectors that are scored exactly, for each hit asked for.
    """

    nprobe: int | None = Field(default=None, ge=1)
    ef_search: int | None = Field(default=None, ge=1)
    candidates_a_hit: float = Field(default=2.0, ge=1)


class OperatingPoint(Record):
    """What calibration showed of an effort.

    Attributes:
        effort: what is left out; None for exact search.
        recall: lower end of a 95 % confidence interval for the tie-aware recall of the 10 exact hits; 1 where exact.
        query_us: µs a query on that machine.
    """

    effort: Effort | DenseEffort | None
    recall: float
    query_us: float


class Manifest(SealedFiles):
    """Everything an index says about itself, but for its format, version and checksum.

    Attributes:
        uid: random, and kept for good: a build that takes the place of an index has another.
        created, created_by: when, as ISO 8601 in UTC, and by which gossamer the index was built.
        generation: how often the index was changed since; every change that was acknowledged counts.
        next_number: insertion number of the next document.
        next_segment: number of the next segment's folder.
        index: what is special to the kind of index.
        encoder: what made the vectors.
        curve: operating points, from the fastest to the exact one (whose effort is None); None if never calibrated.
        calibrated_on: number of queries behind the curve.
        calibrated_rows: rows of the segment that it was measured on; of no use once there is one of twice as many.
        segments: in the order of insertion.
        sources: files that were taken in, and their state then; see `gossamer.index.watching`.
        files: size and checksum of every file, by its path in the folder.
    """

    format_: ClassVar[str] = FORMAT
    version: ClassVar[int] = VERSION

    uid: str
    created: str
    created_by: str
    generation: int = 0
    next_number: int = 0
    next_segment: int = 0
    index: Annotated[InvertedRecord | DenseSettings, Field(discriminator="kind")]
    encoder: EncoderInfo | None
    curve: tuple[OperatingPoint, ...] | None = None
    calibrated_on: int = 0
    calibrated_rows: int = 0
    segments: tuple[SegmentRecord, ...] = ()
    sources: dict[str, str] = Field(default_factory=dict)

    @property
    def curve_in_use(self) -> tuple[OperatingPoint, ...]:
        """The curve, unless there is none or it is outgrown."""
        largest = max((segment.n_rows for segment in self.segments), default=0)
        return () if self.curve is None or largest > 2 * self.calibrated_rows else self.curve

    @model_validator(mode="after")
    def _is_of_one_kind(self) -> Self:
        for segment in self.segments:
            if segment.data.kind != self.index.kind:
                raise ValueError(
                    f"segment {segment.folder} is {segment.data.kind}, the index {self.index.kind}"
                )
        return self

    @property
    def inverted(self) -> InvertedRecord:
        """`index` of an inverted index."""
        assert isinstance(self.index, InvertedRecord), self.index
        return self.index

    @property
    def dense(self) -> DenseSettings:
        """`index` of a dense index."""
        assert isinstance(self.index, DenseSettings), self.index
        return self.index

    @property
    def n_documents(self) -> int:
        """Number of documents that are not deleted."""
        return sum(segment.n_documents for segment in self.segments)


def verify_files(folder: Path) -> None:
    """Read every byte of an index.

    Raises:
        CorruptError: a file differs from its checksum; the message names it.
        FormatError: a file is missing or of the wrong size.
    """
    check_contents(folder, Manifest.read(folder).files)
