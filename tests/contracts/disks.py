"""Disks that record, fail and lose: what `index.disk` is replaced with."""

from __future__ import annotations

import errno
import io
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from gossamer.index.disk import Disk

Op = tuple[Any, ...]
"""`("create" | "mkdir" | "remove" | "flush folder", path)`, `("rename", from, to)`, `("flush file", path, bytes)`, or
`("told", number)`: so many changes had been acknowledged."""


class Recorder(Disk):
    """Does all that is asked, and keeps a record of it."""

    def __init__(self) -> None:
        self.ops: list[Op] = []
        self._lock = threading.Lock()

    def told(self, number: int) -> None:
        """A change was acknowledged."""
        self._record("told", number)

    def _record(self, *op: Any) -> None:
        with self._lock:
            self.ops.append(op)

    def create(self, path: Path) -> BinaryIO:
        self._record("create", path)
        return super().create(path)

    def mkdir(self, path: Path, *, parents: bool = False) -> None:
        for folder in reversed([path, *path.parents] if parents else [path]):
            if not folder.exists():
                self._record("mkdir", folder)
        super().mkdir(path, parents=parents)

    def rename(self, source: Path, target: Path) -> None:
        super().rename(source, target)
        self._record("rename", source, target)

    def remove(self, path: Path) -> None:
        if path.exists():
            self._record("remove", path)
        super().remove(path)

    def sync(self, path: Path) -> None:
        super().sync(path)
        if path.is_dir():
            self._record("flush folder", path)
        else:
            self._record("flush file", path, path.read_bytes())


@dataclass
class _Node:
    """A file or a folder, as a crash may leave it."""

    content: bytes = b""
    entries: dict[str, _Node] | None = None


@dataclass
class Crash:
    """What is on a disk after the power went off: flushed things for sure, others by chance, and in any order.

    Args:
        ops: all that was done, also after the crash.
        root: the folder that it was done in.
        rng: what decides.
    """

    ops: Sequence[Op]
    root: Path
    rng: np.random.Generator
    _top: _Node = field(default_factory=lambda: _Node(entries={}))

    def after(self, n_ops: int, target: Path) -> int:
        """Leave in `target` what may be there after the first `n_ops`; how many changes had been acknowledged."""
        told = 0
        for place, op in enumerate(self.ops[:n_ops]):
            if op[0] == "told":
                told = op[1]
            elif op[0] != "flush folder" and self._happened(place, n_ops):
                self._apply(op, place)
        self._leave(self._top, target)
        return told

    def _happened(self, place: int, n_ops: int) -> bool:
        """Whether it is on the disk: entries are if their folder was flushed since, and else perhaps."""
        kind, path = self.ops[place][0], self.ops[place][-1]
        if kind == "flush file":
            return True
        flushed = ("flush folder", path.parent) in self.ops[place:n_ops]
        return flushed or bool(self.rng.random() < 0.5)

    def _apply(self, op: Op, place: int) -> None:
        kind, path = op[0], op[1]
        parent = self._find(path.parent)
        if parent is None or parent.entries is None:
            return
        if kind == "mkdir":
            parent.entries.setdefault(path.name, _Node(entries={}))
        elif kind == "create":
            parent.entries[path.name] = _Node(self._unflushed(path, place))
        elif kind == "remove":
            parent.entries.pop(path.name, None)
        elif kind == "flush file" and path.name in parent.entries:
            parent.entries[path.name].content = op[2]
        elif kind == "rename" and path.name in parent.entries:
            there = self._find(op[2])
            goal = self._find(op[2].parent)
            if goal is not None and goal.entries is not None and not (there and there.entries):
                goal.entries[op[2].name] = parent.entries.pop(path.name)

    def _unflushed(self, path: Path, place: int) -> bytes:
        """Nothing, zeros, or the half of what will be there."""
        later = next((op[2] for op in self.ops[place:] if op[:2] == ("flush file", path)), b"x" * 100)
        return [b"", bytes(len(later)), later[: len(later) // 2], later][self.rng.integers(4)]

    def _find(self, path: Path) -> _Node | None:
        node = self._top
        for name in path.relative_to(self.root).parts:
            if node.entries is None or name not in node.entries:
                return None
            node = node.entries[name]
        return node

    def _leave(self, node: _Node, target: Path) -> None:
        if node.entries is None:
            target.write_bytes(node.content)
            return
        target.mkdir()
        for name, entry in node.entries.items():
            self._leave(entry, target / name)


class Failing(Disk):
    """Fails at one step, and works again afterwards.

    Args:
        fatal: the number of the step; a write to a file is one, too.
        number: of the error.
    """

    def __init__(self, fatal: int, number: int = errno.ENOSPC) -> None:
        self._left, self._number = fatal, number
        self._lock = threading.Lock()

    @property
    def has_failed(self) -> bool:
        return self._left < 0

    def step(self, path: Path) -> None:
        """Count; fail if it is time."""
        with self._lock:
            self._left -= 1
            if self._left == -1:
                raise OSError(self._number, errno.errorcode[self._number], str(path))

    def create(self, path: Path) -> BinaryIO:
        self.step(path)
        return cast(BinaryIO, io.BufferedWriter(_Watched(path, lambda data: self._written(path, data))))

    def _written(self, path: Path, data: memoryview) -> int:
        self.step(path)
        return len(data)

    def mkdir(self, path: Path, *, parents: bool = False) -> None:
        self.step(path)
        super().mkdir(path, parents=parents)

    def rename(self, source: Path, target: Path) -> None:
        self.step(target)
        super().rename(source, target)

    def sync(self, path: Path) -> None:
        self.step(path)
        super().sync(path)


class Short(Disk):
    """Writes a few bytes of what it is given at a time, as a file may."""

    def create(self, path: Path) -> BinaryIO:
        return cast(BinaryIO, io.BufferedWriter(_Watched(path, lambda data: min(len(data), 61))))


class _Watched(io.FileIO):
    """A file that asks how many of the bytes to write."""

    def __init__(self, path: Path, allowed: Callable[[memoryview], int]) -> None:
        super().__init__(path, "wb")
        self._allowed = allowed

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        return super().write(view[: self._allowed(view)]) or 0
