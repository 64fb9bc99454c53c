"""The manifest of an index folder: what it holds, who made it, and the size and checksum of every file.

An index is a folder: `manifest.json`, arrays as `.npy`, documents as Arrow IPC; see README.md beside this file.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gossamer.index.impacts import Kind
from gossamer.kernels.errors import CorruptError, FormatError, NotFoundError

FORMAT = "gossamer-index"
VERSION = 2
MANIFEST = "manifest.json"


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


class SegmentRecord(_Record):
    """One segment: a run of documents with postings of their own, and their rows as given, where those are kept."""

    folder: str
    n_documents: int
    nnz: int
    n_dense: int
    forward: ForwardRecord | None


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
        curve: operating points, from the fastest to the exact one (whose effort is None); None if never calibrated.
        calibrated_on: number of queries behind the curve.
    """

    created: str
    created_by: str
    n_documents: int
    n_terms: int
    nnz: int
    window: int
    impacts: Kind
    step: float
    largest_error: float
    encoder: EncoderInfo | None
    curve: tuple[OperatingPoint, ...] | None = None
    calibrated_on: int = 0
    segments: tuple[SegmentRecord, ...]
    files: dict[str, FileRecord]

    def to_bytes(self) -> bytes:
        """The manifest file: canonical JSON with the checksum of the rest in it."""
        body = {"format": FORMAT, "version": VERSION, **json.loads(self.model_dump_json())}
        return _encode({**body, "checksum": _digest(_encode(body))})

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
        manifest = cls._parse(path, data)
        for name, record in manifest.files.items():
            _check_size(folder / name, record.size)
        return manifest

    @classmethod
    def _parse(cls, path: Path, data: bytes) -> Manifest:
        try:
            body = json.loads(data)
        except ValueError as error:
            raise FormatError(
                f"{path} is truncated or altered: it is no JSON ({error}); build the index anew."
            ) from error
        if not isinstance(body, dict) or body.get("format") != FORMAT:
            raise FormatError(f"{path} does not describe a gossamer index; open the folder of one.")
        version = body.get("version")
        if version != VERSION:
            newer = isinstance(version, int) and version > VERSION
            remedy = "it is newer; upgrade gossamer" if newer else "build the index anew"
            raise FormatError(
                f"{path} has format version {version!r}, and this gossamer reads {VERSION}: {remedy}."
            )
        checksum = body.pop("checksum", None)
        if checksum != _digest(_encode(body)) or _encode({**body, "checksum": checksum}) != data:
            raise CorruptError(f"{path} was altered: its checksum does not hold. Build the index anew.")
        del body["format"], body["version"]
        try:
            return cls.model_validate_json(json.dumps(body))
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


def record_files(folder: Path) -> dict[str, FileRecord]:
    """Size and checksum of every file under a folder, by path relative to it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): FileRecord(size=path.stat().st_size, sha256=_file_digest(path))
        for path in files
    }


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


def seal(body: dict[str, object], *, format_: str, version: int) -> bytes:
    """A manifest file: canonical JSON of what a manifest says, with format, version and the checksum of it all."""
    body = {**body, "format": format_, "version": version}
    return _encode({**body, "checksum": _digest(_encode(body))})


def unseal(folder: Path, *, format_: str, version: int, what: str) -> dict[str, object]:
    """What the manifest of a folder says, without format, version and checksum, which are checked.

    Args:
        folder: an index.
        format_: what its manifest must call itself.
        version: the one that is read.
        what: whose folder it must be, for messages.

    Raises:
        NotFoundError: there is no folder.
        FormatError: it is of another kind, truncated, or of another version.
        CorruptError: the manifest was altered.
    """
    path = folder / MANIFEST
    if not folder.is_dir():
        raise NotFoundError(f"there is no index at {folder}; make one with {what}.build().")
    try:
        data = path.read_bytes()
        body = json.loads(data)
    except FileNotFoundError as error:
        raise FormatError(f"{folder} has no {MANIFEST}, so it is no index; build it anew.") from error
    except ValueError as error:
        raise FormatError(
            f"{path} is truncated or altered: it is no JSON ({error}); build it anew."
        ) from error
    if not isinstance(body, dict) or body.get("format") != format_:
        other = "" if not isinstance(body, dict) else f" (but {body.get('format')!r})"
        raise FormatError(
            f"{path} does not describe a gossamer index of {what}{other}; open the folder of one."
        )
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
    return {key: value for key, value in body.items() if key not in ("format", "version")}


def check_sizes(folder: Path, files: dict[str, FileRecord]) -> None:
    """Raise FormatError if a file is missing or of another size."""
    for name, record in files.items():
        _check_size(folder / name, record.size)


def check_contents(folder: Path, files: dict[str, FileRecord]) -> None:
    """Read every byte; raise CorruptError with the name of a file that differs."""
    for name, record in files.items():
        if _file_digest(folder / name) != record.sha256:
            raise CorruptError(
                f"{folder / name} was altered: its bytes differ from its checksum. Build the index anew."
            )


def maker() -> str:
    """Which gossamer this is, for manifests."""
    try:
        return f"gossamer {metadata.version('gossamer')}"
    except metadata.PackageNotFoundError:  # run from a source tree
        return "gossamer from source"
