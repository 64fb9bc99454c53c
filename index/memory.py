"""Memory of this process, told apart: what is its own, and what are pages of mapped files that others share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_MAPS = Path("/proc/self/smaps")
_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class MappedMemory:
    """How much of a folder's files is mapped into this process.

    Attributes:
        mapped_bytes: address space; costs nothing by itself.
        resident_bytes: of that, what is in memory now. The system takes it back when it needs it, and processes that
            map the same files share it.
    """

    mapped_bytes: int
    resident_bytes: int

    @classmethod
    def of(cls, folder: Path) -> MappedMemory | None:
        """Of the files under a folder; None where the system does not tell (it is read from `/proc`)."""
        try:
            lines = _MAPS.read_text().splitlines()
        except OSError:
            return None
        prefix, inside = f"{folder.resolve()}/", False
        sizes = {"Size:": 0, "Rss:": 0}
        for line in lines:
            key, *rest = line.split(maxsplit=1)
            if not key.endswith(":"):  # the head of a mapping, which ends with its file
                inside = bool(rest) and prefix in line
            elif inside and key in sizes:
                sizes[key] += int(rest[0].split()[0]) * 1024
        return cls(sizes["Size:"], sizes["Rss:"])


def anonymous_bytes() -> int | None:
    """Resident memory of this process that is no file's; None where the system does not tell."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:")), None)
