"""The files of `LiveInteractions`, and what they add up to.

live/
  live.json                          format and version
  clicks-FIRST.log                   clicks as they came, from the one at this position on; one line each write
  histories-POSITION-FORGOTTEN.log   all clicks up to POSITION, a line each user, but those up to FORGOTTEN
  write.lock                         held by the one that writes

A line is the CRC-32 of what follows, in eight hexadecimal digits, a space, and JSON: `{"first": 7, "clicks": [[user,
item, time], …]}`, or after a line of counts `{"user": …, "clicks": [[item, time, position], …]}`. One write is one line
and is flushed before the next, so a power cut can leave only the last line of the last file unwhole; that one was not
acknowledged. Anything else that is not whole has been damaged later.

The newest histories count, and the clicks after them; files that they replace are removed when they are on the disk.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from gossamer.kernels.errors import CorruptError, StorageError
from gossamer.recsys.clicks import Click

ABOUT = "live.json"
FORMAT = "gossamer-live"
VERSION = 1
_NAME = re.compile(r"(clicks|histories)-(\d{20})(?:-(\d{20}))?\.log")
_DRAFT = re.compile(r"\.(clicks|histories)-.*\.log\.draft")
_ATTEMPTS = 5
_REMEDY = "Put a copy of the folder in its place; until then nothing is read from it or written to it."


class Kept(NamedTuple):
    """The last click of a user on an item."""

    time: float
    position: int


@dataclass(frozen=True)
class Listing:
    """The files at one moment.

    Attributes:
        histories: the newest file of them, if there is one.
        upto: the position up to which that has all clicks, and up to which they are forgotten.
        clicks: first position and path of each file of later clicks, ascending.
        stale: files that these replace, and drafts.
    """

    histories: Path | None
    upto: tuple[int, int]
    clicks: list[tuple[int, Path]]
    stale: list[Path]

    @classmethod
    def of(cls, folder: Path) -> Listing:
        """Lists a folder."""
        histories: list[tuple[tuple[int, int], Path]] = []
        clicks: list[tuple[int, Path]] = []
        stale = []
        for path in folder.iterdir():
            found = _NAME.fullmatch(path.name)
            if found is None:
                stale += [path] if _DRAFT.fullmatch(path.name) else []
            elif found[1] == "clicks":
                clicks.append((int(found[2]), path))
            else:
                histories.append(((int(found[2]), int(found[3])), path))
        upto, newest = max(histories, default=((0, 0), None))
        stale += [path for _, path in histories if path != newest]
        stale += [path for first, path in clicks if first <= upto[0]]
        return cls(newest, upto, sorted(entry for entry in clicks if entry[0] > upto[0]), stale)


@dataclass
class Histories:
    """All clicks, by user, and how far the files have been read.

    Attributes:
        users: for each user the items, the one clicked last at the end.
        position: of the last click.
        upto: of the file of histories, see `Listing`.
        file: first position of the file of clicks that was read last; 0 for none.
        offset: bytes of it that were read, all of them whole lines.
        n_bytes: of the clicks in all files, those in histories not counted.
    """

    users: dict[str, dict[str, Kept]] = field(default_factory=dict)
    position: int = 0
    upto: tuple[int, int] = (0, 0)
    file: int = 0
    offset: int = 0
    n_bytes: int = 0

    @classmethod
    def load(cls, folder: Path) -> Histories:
        """Reads all files.

        Raises:
            CorruptError: one is damaged, or missing.
            StorageError: they were replaced each time.
        """
        for attempt in range(_ATTEMPTS):
            try:
                return cls._of(Listing.of(folder))
            except FileNotFoundError:  # replaced after it was listed
                continue
            except CorruptError:  # or replaced while they were listed, if it is not there the next time
                if attempt == _ATTEMPTS - 1:
                    raise
        raise StorageError(f"{folder} was rewritten again and again while it was read; try later.")

    @classmethod
    def _of(cls, listing: Listing) -> Histories:
        loaded = cls(position=listing.upto[0], upto=listing.upto)
        if listing.histories is not None:
            loaded.users = _read_histories(listing.histories, listing.upto)
        loaded.apply(*loaded.read_on(listing))
        return loaded

    def read_on(self, listing: Listing) -> tuple[list[Click], int, int, int]:
        """The clicks that the files have beyond what was read, and then `file`, `offset` and `n_bytes`."""
        clicks: list[Click] = []
        file, offset, n_bytes = self.file, self.offset, self.n_bytes
        last = listing.clicks[-1][0] if listing.clicks else 0
        for first, path in listing.clicks:
            if first < file:
                continue
            if first > file:
                file, offset = first, 0
                if first != self.position + len(clicks) + 1:
                    raise CorruptError(
                        f"{path.parent}: clicks from {self.position + len(clicks) + 1} to {first - 1} are missing "
                        f"before {path.name}. {_REMEDY}"
                    )
            found, end = read_clicks(path, offset, self.position + len(clicks) + 1, is_last=first == last)
            n_bytes += end - offset
            offset = end
            clicks += found
        return clicks, file, offset, n_bytes

    def apply(self, clicks: Iterable[Click], file: int, offset: int, n_bytes: int) -> None:
        """Adds what was read, or written."""
        for user, item, time in clicks:
            self.position += 1
            items = self.users.setdefault(user, {})
            items.pop(item, None)
            items[item] = Kept(time, self.position)
        self.file, self.offset, self.n_bytes = file, offset, n_bytes

    def without(self, forgotten: int) -> dict[str, dict[str, Kept]]:
        """The users with the clicks after a position."""
        kept = {
            user: {item: click for item, click in items.items() if click.position > forgotten}
            for user, items in self.users.items()
        }
        return {user: items for user, items in kept.items() if items}


def clicks_name(first: int) -> str:
    """The name of a file of clicks."""
    return f"clicks-{first:020d}.log"


def histories_name(upto: tuple[int, int]) -> str:
    """The name of a file of histories."""
    return f"histories-{upto[0]:020d}-{upto[1]:020d}.log"


def clicks_line(first: int, clicks: list[Click]) -> bytes:
    """One write."""
    return _line({"first": first, "clicks": clicks})


def histories_lines(users: dict[str, dict[str, Kept]], upto: tuple[int, int]) -> Iterator[bytes]:
    """A file of histories."""
    yield _line({"position": upto[0], "forgotten": upto[1], "n_users": len(users)})
    for user, items in users.items():
        yield _line({"user": user, "clicks": [[item, *kept] for item, kept in items.items()]})


def read_clicks(path: Path, offset: int, first: int, *, is_last: bool) -> tuple[list[Click], int]:
    """Reads a file of clicks.

    Args:
        path: the file.
        offset: where to begin.
        first: the position that the first click must have.
        is_last: whether its last line may be unwhole.

    Returns:
        The clicks, and where the whole lines end.

    Raises:
        CorruptError: a line is damaged.
    """
    with path.open("rb") as file:
        file.seek(offset)
        lines = file.read().splitlines(
            keepends=True
        )  # of bytes: at \n, \r and \r\n, and JSON has none within
    clicks: list[Click] = []
    for place, line in enumerate(lines):
        found = _value(line)
        if found is None and is_last and not any(_value(later) for later in lines[place + 1 :]):
            break
        if found is None or found["first"] != first + len(clicks):
            raise CorruptError(f"{path}: the line at byte {offset} is damaged. {_REMEDY}")
        clicks += [Click(*click) for click in found["clicks"]]
        offset += len(line)
    return clicks, offset


def _read_histories(path: Path, upto: tuple[int, int]) -> dict[str, dict[str, Kept]]:
    users: dict[str, dict[str, Kept]] = {}
    with path.open("rb") as file:
        head = _value(file.readline())
        for number, line in enumerate(file, 2):
            found = _value(line)
            if found is None:
                raise CorruptError(f"{path}: line {number} is damaged. {_REMEDY}")
            users[found["user"]] = {item: Kept(time, position) for item, time, position in found["clicks"]}
    if head != {"position": upto[0], "forgotten": upto[1], "n_users": len(users)}:
        raise CorruptError(f"{path}: users are missing. {_REMEDY}")
    return users


def _line(value: dict[str, Any]) -> bytes:
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


def _value(line: bytes) -> dict[str, Any] | None:
    """What a line says; None if it is not whole."""
    if len(line) < 10 or not line.endswith(b"\n") or line[:9] != b"%08x " % zlib.crc32(line[9:-1]):
        return None
    value: dict[str, Any] = json.loads(line[9:])
    return value
