"""The manifest of an index folder: what it holds, who made it, and the size and checksum of every file.

An index is a folder: `manifest.json`, arrays as `.npy`, documents as Arrow IPC; see README.md beside this file.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gossamer.index.impacts import Kind
from gossamer.kernels.errors import CorruptError, FormatError, NotFoundError

FORMAT = "gossamer-index"
VERSION = 3
MANIFEST = "manifest.json"
SHARDS, SHARDS_FORMAT = "shards.json", "gossamer-shards"

M = TypeVar("M", bound=BaseModel)


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


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class FileRecord(_Record):
    """What the manifest knows about a file."""

    size: int
    sha256: str


class ForwardRecord(_Record):
    """The forward index of a segment: how many weights, and how each is stored."""

    nnz: int
    weights: Literal["float16", "float32"]


class PostingsRecord(_Record):
    """The postings of a segment.

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


class SegmentRecord(_Record):
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
    data: PostingsRecord

    @property
    def n_documents(self) -> int:
        """Number of documents that are not deleted."""
        return self.n_rows - self.n_deleted


class InvertedRecord(_Record):
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


class Effort(_Record):
    """What an approximate search leaves out before it scores what it found exactly; all three trade recall for time.

    Attributes:
        query_share: of a query's total weight; its smallest weights beyond that are left out.
        candidates_a_hit: documents that are scored exactly, for each hit asked for.
        max_windows: windows of documents that are looked into, those with the largest bounds; None for all.
    """

    query_share: float = Field(default=1.0, gt=0, le=1)
    candidates_a_hit: float = Field(default=2.0, ge=1)
    max_windows: int | None = Field(default=None, ge=1)


class OperatingPoint(_Record):
    """What an effort gave in calibration: tie-aware recall of the exact hits, and µs a query on that machine."""

    effort: Effort | None
    recall: float
    query_us: float


class Manifest(_Record):
    """Everything an index says about itself, but for its format, version and checksum.

    Attributes:
        created, created_by: when, as ISO 8601 in UTC, and by which gossamer the index was built.
        generation: how often the index was changed since; every change that was acknowledged counts.
        next_number: insertion number of the next document.
        next_segment: number of the next segment's folder.
        index: what is special to the kind of index.
        encoder: what made the vectors.
        curve: operating points, from the fastest to the exact one (whose effort is None); None if never calibrated.
        calibrated_on: number of queries behind the curve.
        segments: in the order of insertion.
        files: size and checksum of every file, by its path in the folder.
    """

    created: str
    created_by: str
    generation: int = 0
    next_number: int = 0
    next_segment: int = 0
    index: InvertedRecord
    encoder: EncoderInfo | None
    curve: tuple[OperatingPoint, ...] | None = None
    calibrated_on: int = 0
    segments: tuple[SegmentRecord, ...] = ()
    files: dict[str, FileRecord] = Field(default_factory=dict)

    @property
    def n_documents(self) -> int:
        """Number of documents that are not deleted."""
        return sum(segment.n_documents for segment in self.segments)

    def to_bytes(self) -> bytes:
        """The manifest file: canonical JSON with the checksum of the rest in it."""
        return to_checked(self, FORMAT, VERSION)

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read and check the manifest of a folder, and the presence and sizes of its files.

        Raises:
            NotFoundError: there is no folder.
            FormatError: it is no index, is incomplete, or from a newer version.
            CorruptError: the manifest was altered.
        """
        if not folder.is_dir():
            raise NotFoundError(f"there is no index at {folder}; make one with InvertedIndex.build().")
        path = folder / MANIFEST
        try:
            data = path.read_bytes()
        except FileNotFoundError as error:
            raise FormatError(f"{folder} has no {MANIFEST}, so it is no index; build it anew.") from error
        manifest = from_checked(cls, path, data, FORMAT, VERSION)
        for name, record in manifest.files.items():
            _check_size(folder / name, record.size)
        return manifest


def is_index(folder: Path) -> bool:
    """Whether a folder holds an index of ours, sharded or not, of any version and in any state."""
    kinds = ((MANIFEST, FORMAT), (SHARDS, SHARDS_FORMAT))
    return any(
        (folder / name).is_file() and kind.encode() in (folder / name).read_bytes() for name, kind in kinds
    )


def to_checked(record: BaseModel, format_: str, version: int) -> bytes:
    """A record as canonical JSON, with its format, version and a checksum of the rest in it."""
    body = {"format": format_, "version": version, **json.loads(record.model_dump_json())}
    return _encode({**body, "checksum": _digest(_encode(body))})


def from_checked(kind: type[M], path: Path, data: bytes, format_: str, version: int) -> M:
    """What `to_checked` wrote.

    Raises:
        FormatError: it is something else, is incomplete, or from a newer version.
        CorruptError: it was altered.
    """
    try:
        body = json.loads(data)
    except ValueError as error:
        raise FormatError(
            f"{path} is truncated or altered: it is no JSON ({error}); build the index anew."
        ) from error
    if not isinstance(body, dict) or body.get("format") != format_:
        raise FormatError(f"{path} does not describe a gossamer index; open the folder of one.")
    found = body.get("version")
    if found != version:
        newer = isinstance(found, int) and found > version
        remedy = "it is newer; upgrade gossamer" if newer else "build the index anew"
        raise FormatError(
            f"{path} has format version {found!r}, and this gossamer reads {version}: {remedy}."
        )
    checksum = body.pop("checksum", None)
    if checksum != _digest(_encode(body)) or _encode({**body, "checksum": checksum}) != data:
        raise CorruptError(f"{path} was altered: its checksum does not hold. Build the index anew.")
    del body["format"], body["version"]
    try:
        return kind.model_validate_json(json.dumps(body))
    except ValidationError as error:
        key = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise FormatError(
            f"{path}: {key}: {error.errors()[0]['msg']}; it was not written by this version of gossamer."
        ) from error


def _encode(body: dict[str, object]) -> bytes:
    return (json.dumps(body, indent=1, sort_keys=True) + "\n").encode()


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _check_size(path: Path, expected: int) -> None:
    try:
        size = path.stat().st_size
    except FileNotFoundError as error:
        raise FormatError(f"{path} is missing; restore it or build the index anew.") from error
    if size != expected:
        raise FormatError(
            f"{path} has {size:,} bytes instead of {expected:,}: it is truncated or altered. Build the index anew."
        )


def record_files(folder: Path, prefix: str) -> dict[str, FileRecord]:
    """Size and checksum of every file under a folder, by `prefix/` and the path relative to it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {f"{prefix}/{path.relative_to(folder).as_posix()}": record_file(path) for path in files}


def record_file(path: Path) -> FileRecord:
    """Size and checksum of a file."""
    return FileRecord(size=path.stat().st_size, sha256=_file_digest(path))


def verify_files(folder: Path) -> None:
    """Read every byte of an index.

    Raises:
        CorruptError: a file differs from its checksum; the message names it.
        FormatError: a file is missing or of the wrong size.
    """
    for name, record in Manifest.read(folder).files.items():
        if _file_digest(folder / name) != record.sha256:
            raise CorruptError(
                f"{folder / name} was altered: its bytes differ from its checksum. Build the index anew."
            )


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
