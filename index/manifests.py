"""What all our manifests are: sealed JSON, which names every file of a folder, with its size and checksum."""

from __future__ import annotations

import hashlib
import json
import os
import re
from importlib import metadata
from pathlib import Path
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gossamer.kernels.errors import CorruptError, FormatError, NotFoundError

MANIFEST = "manifest.json"
SHARDS = "shards.json"
"""Of an index in shards, each of which has a `MANIFEST` of its own."""

_NO_CHECKSUM = "0" * 64
_CHECKSUM_LINE = re.compile(rb'^ "checksum": "[0-9a-f]{64}",\n', re.MULTILINE)


class Record(BaseModel):
    """A part of a manifest: strict, frozen, and without keys that nobody knows."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class FileRecord(Record):
    """What the manifest knows about a file."""

    size: int
    sha256: str


def _checksum(data: bytes) -> str:
    """Of all lines of a manifest but its own; of the bytes as they are, because encoding them again takes longest."""
    return hashlib.sha256(_CHECKSUM_LINE.sub(b"", data, count=1)).hexdigest()


def _check_size(path: str, expected: int) -> None:
    try:
        size = os.stat(path).st_size
    except FileNotFoundError as error:
        raise FormatError(f"{path} is missing; restore it or build the index anew.") from error
    if size != expected:
        raise FormatError(
            f"{path} has {size:,} bytes instead of {expected:,}: it is truncated or altered. Build the index anew."
        )


def record_files(folder: Path, root: Path) -> dict[str, FileRecord]:
    """Size and checksum of every file under a folder, by its path relative to the index."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): record_file(path) for path in files}


def record_file(path: Path) -> FileRecord:
    """Size and checksum of a file."""
    return FileRecord(size=path.stat().st_size, sha256=_file_digest(path))


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal(body: dict[str, object], *, format_: str, version: int) -> bytes:
    """A manifest file: JSON with sorted keys of what a manifest says, with format, version and a checksum of it all."""
    body = {**body, "format": format_, "version": version, "checksum": _NO_CHECKSUM}
    data = (json.dumps(body, indent=1, sort_keys=True) + "\n").encode()
    return data.replace(_NO_CHECKSUM.encode(), _checksum(data).encode(), 1)


def unseal(folder: Path, *, format_: str, version: int, name: str = MANIFEST) -> dict[str, object]:
    """What the manifest of a folder says, without format, version and checksum, which are checked.

    Args:
        folder: an index.
        format_: what its manifest must call itself.
        version: the one that is read.
        name: of the manifest.

    Raises:
        NotFoundError: there is no folder.
        FormatError: it is of another kind, truncated, or of another version.
        CorruptError: the manifest was altered.
    """
    path = folder / name
    if not folder.is_dir():
        raise NotFoundError(f"there is no index at {folder}; build one.")
    try:
        data = path.read_bytes()
        body = json.loads(data)
    except FileNotFoundError as error:
        if (folder / SHARDS).is_file():
            raise FormatError(f"{folder} is an index in shards; open it with open_index().") from error
        raise FormatError(f"{folder} has no {name}, so it is no index; build it anew.") from error
    except ValueError as error:
        raise FormatError(
            f"{path} is truncated or altered: it is no JSON ({error}); build it anew."
        ) from error
    if not isinstance(body, dict) or body.get("format") != format_:
        other = f": it calls itself {body['format']!r}" if isinstance(body, dict) and "format" in body else ""
        raise FormatError(f"{path} does not describe a {format_}{other}; open the folder of one.")
    found = body.get("version")
    if found != version:
        newer = isinstance(found, int) and found > version
        remedy = "it is newer; upgrade gossamer" if newer else "build the index anew"
        raise FormatError(
            f"{path} has format version {found!r}, and this gossamer reads {version}: {remedy}."
        )
    if body.get("checksum") != _checksum(data):
        raise CorruptError(f"{path} was altered: its checksum does not hold. Build the index anew.")
    return {key: value for key, value in body.items() if key not in ("format", "version", "checksum")}


def format_of(folder: Path) -> str | None:
    """What the manifest of a folder calls itself; None where there is none, or it is unreadable."""
    try:
        return str(json.loads((folder / MANIFEST).read_bytes())["format"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


class Sealed(Record):
    """What a manifest says, but for its format, version and checksum; a subclass names the first two, and the file."""

    format_: ClassVar[str]
    version: ClassVar[int]
    name: ClassVar[str] = MANIFEST

    def to_bytes(self) -> bytes:
        """The manifest file."""
        return seal(json.loads(self.model_dump_json()), format_=self.format_, version=self.version)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read and check the manifest of a folder, and the presence of what it names.

        Raises:
            NotFoundError: there is no folder.
            FormatError: it is none of these, is incomplete, or from a newer version.
            CorruptError: the manifest was altered.
        """
        body = unseal(folder, format_=cls.format_, version=cls.version, name=cls.name)
        try:
            manifest = cls.model_validate_json(json.dumps(body))
        except ValidationError as error:
            key = ".".join(str(part) for part in error.errors()[0]["loc"])
            raise FormatError(
                f"{folder / cls.name}: {key}: {error.errors()[0]['msg']}; this version of gossamer did not write it."
            ) from error
        manifest.check_presence(folder)
        return manifest

    def check_presence(self, folder: Path) -> None:
        """Raise FormatError if something that it names is missing or truncated."""


class SealedFiles(Sealed):
    """A manifest that names files.

    Attributes:
        files: size and checksum of every file, by its path in the folder.
    """

    files: dict[str, FileRecord] = Field(default_factory=dict)

    def check_presence(self, folder: Path) -> None:
        """Raise FormatError if a file is missing or of another size."""
        check_sizes(folder, self.files)


def check_sizes(folder: Path, files: dict[str, FileRecord]) -> None:
    """Raise FormatError if a file is missing or of another size."""
    for name, record in files.items():
        _check_size(f"{folder}/{name}", record.size)


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
