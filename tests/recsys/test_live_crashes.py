"""Clicks whose disk fails, and whose power goes off at any step: what was acknowledged is there."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest

from gossamer.index.disk import using
from gossamer.kernels.errors import StorageError
from gossamer.recsys import LiveInteractions
from tests.contracts.disks import Crash, Failing, Recorder, Short
from tests.contracts.index_life import Unflushed

State = tuple[int, dict[str, list[str]]]

USERS = ("u", "v", "w")
SMALL = 250  # bytes, after which histories are written


class Torn(Crash):
    """A crash that also leaves parts of what was added to a file and not yet flushed, in any order."""

    def after(self, n_ops: int, target: Path) -> int:
        told = super().after(n_ops, target)
        for path in {op[1] for op in self.ops[:n_ops] if op[0] == "flush file"}:
            left = target / path.relative_to(self.root)
            later = next((op[2] for op in self.ops[n_ops:] if op[:2] == ("flush file", path)), None)
            if later is None or not left.is_file():
                continue
            there = left.read_bytes()
            if later.startswith(there) and self.rng.random() < 0.7:
                left.write_bytes(there + self._torn(later[len(there) :]))
        return told

    def _torn(self, added: bytes) -> bytes:
        blocks = [added[at : at + 16] for at in range(0, len(added), 16)]
        kept = [block if self.rng.random() < 0.5 else bytes(len(block)) for block in blocks]
        return b"".join(kept[: self.rng.integers(len(kept) + 1)])


def opened(path: Path) -> LiveInteractions:
    return LiveInteractions.open(path, create=True, compact_bytes=SMALL)


def state_of(live: LiveInteractions) -> State:
    return live.position, {user: live.items_of(user) for user in USERS}


def changes() -> list[Callable[[LiveInteractions], object]]:
    """Appends of one or several, some of which make histories due; then what was read is forgotten."""
    steps: list[Callable[[LiveInteractions], object]] = []
    for number in range(14):
        some = [(USERS[(number + more) % 3], f"i{number * 5 % 8}", number) for more in range(1 + number % 3)]
        steps.append(lambda live, some=some: live.append(some))  # type: ignore[misc]
    steps.insert(9, lambda live: live.forget(6))
    steps.insert(5, lambda live: live.close())
    return steps


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recorder, Path, list[State]]:
    root = tmp_path_factory.mktemp("record")
    recorder = Recorder()
    with using(recorder), opened(root / "deep" / "live") as live:
        recorder.told(0)
        states = [state_of(live)]
        for number, change in enumerate(changes()):
            change(live)
            states.append(state_of(live))
            recorder.told(number + 1)
    names = [op[2].name for op in recorder.ops if op[0] == "rename"]
    assert sum(name.startswith("histories") for name in names) >= 3
    return recorder, root, states


@pytest.mark.parametrize("seed", range(3))
def test_no_power_cut_loses_what_was_acknowledged(
    record: tuple[Recorder, Path, list[State]], tmp_path: Path, seed: int
) -> None:
    recorder, root, states = record
    first = recorder.ops.index(("told", 0)) + 1
    later = set()
    with using(Unflushed()):
        for n_ops in range(first, len(recorder.ops) + 1):
            left = tmp_path / "left"
            told = Torn(recorder.ops, root, np.random.default_rng([seed, n_ops])).after(n_ops, left)
            path = left / "deep" / "live"
            found = state_of(LiveInteractions.open(path))
            assert found in states[told : told + 2], f"after {n_ops} steps, {told} changes acknowledged"
            later.add(found != states[told])
            with opened(path) as live:  # and it goes on
                assert live.append([("u", "z")]) == found[0] + 1
                assert live.items_of("u") == [*found[1]["u"], "z"]
                wanted = state_of(live)
            assert state_of(LiveInteractions.open(path)) == wanted
            shutil.rmtree(left)
    assert later == {True, False}, "some crashes came after the change counted"


def test_a_second_power_cut_loses_nothing_either(
    record: tuple[Recorder, Path, list[State]], tmp_path: Path
) -> None:
    """What the first left is repaired and written on, and the power goes off again."""
    recorder, root, _ = record
    first = recorder.ops.index(("told", 0)) + 1
    for n_ops in range(first, len(recorder.ops) + 1, 5):
        left = tmp_path / "left"
        Torn(recorder.ops, root, np.random.default_rng(n_ops)).after(n_ops, left)
        path = left / "deep" / "live"
        before = state_of(LiveInteractions.open(path))
        shutil.copytree(left, tmp_path / "copy")
        again = Recorder()
        with using(again), opened(path) as live:
            live.append([("u", "y")])
            again.told(1)
            live.append([("u", "z")])
            again.told(2)
        for n_more in range(0, len(again.ops) + 1, 2):
            shutil.copytree(tmp_path / "copy", tmp_path / "twice")
            target = tmp_path / "after"
            told = _Onto(again.ops, left, np.random.default_rng(n_more), tmp_path / "twice").after(
                n_more, target
            )
            found = state_of(LiveInteractions.open(target / "deep" / "live"))
            items = found[1]["u"]
            wanted = [*before[1]["u"], "y", "z"]
            assert items in [wanted[: len(wanted) - 2 + n] for n in range(told, 3)], (n_ops, n_more, told)
            shutil.rmtree(target)
            shutil.rmtree(tmp_path / "twice")
        shutil.rmtree(left)
        shutil.rmtree(tmp_path / "copy")


class _Onto(Torn):
    """A crash of a disk that had something on it, all flushed."""

    def __init__(self, ops: object, root: Path, rng: np.random.Generator, before: Path) -> None:
        super().__init__(ops, root, rng)  # type: ignore[arg-type]
        self._fill(self._top, before)

    def _fill(self, node: object, folder: Path) -> None:
        for entry in folder.iterdir():
            made = type(self._top)(entries={}) if entry.is_dir() else type(self._top)(entry.read_bytes())
            node.entries[entry.name] = made  # type: ignore[attr-defined]
            if entry.is_dir():
                self._fill(made, entry)


class _Killed(BaseException):
    pass


class _Killing(Recorder):
    """Ends a writer at one step; what it does afterwards, as it cleans up, is not done."""

    def __init__(self, fatal: int) -> None:
        super().__init__()
        self.left = fatal

    def _step(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise _Killed

    def create(self, path: Path) -> BinaryIO:
        self._step()
        return super().create(path)

    def rename(self, source: Path, target: Path) -> None:
        self._step()
        super().rename(source, target)

    def remove(self, path: Path) -> None:
        self._step()
        super().remove(path)

    def sync(self, path: Path) -> None:
        self._step()
        super().sync(path)


@pytest.mark.parametrize("seed", range(3))
def test_a_killed_writer_and_then_a_power_cut_lose_nothing(tmp_path: Path, seed: int) -> None:
    """What the killed one left is there to be read, but not on the disk yet."""
    for fatal in range(20 + seed, 120, 5):
        disk, root = _Killing(fatal), tmp_path / str(fatal)
        root.mkdir()
        told: list[int] = []
        with using(disk):
            live = opened(root / "live")
            try:
                for number in range(50):
                    told.append(live.append([("u", f"item {number}"), ("v", "x" * 40)]))
                    disk.told(len(told))
            except _Killed:
                disk.left = 10**6
            assert live._writer is not None
            live._writer._lock.close()
            first = len(disk.ops)
            with opened(root / "live") as again:
                again.append([("u", "last")])
                disk.told(10**6)
        for n_ops in range(first, len(disk.ops) + 1):
            left = tmp_path / "left"
            n_told = Torn(disk.ops, root, np.random.default_rng([seed, n_ops])).after(n_ops, left)
            items = LiveInteractions.open(left / "live").items_of("u")
            assert items[: len(told)] == [f"item {number}" for number in range(len(told))]
            assert "last" in items or n_told < 10**6
            shutil.rmtree(left)


def test_a_crash_while_the_folder_is_made_leaves_none_or_an_empty_one(
    record: tuple[Recorder, Path, list[State]], tmp_path: Path
) -> None:
    recorder, root, _ = record
    with using(Unflushed()):
        for n_ops in range(recorder.ops.index(("told", 0)) + 1):
            left = tmp_path / "left"
            Torn(recorder.ops, root, np.random.default_rng(n_ops)).after(n_ops, left)
            with opened(left / "deep" / "live") as live:
                assert live.append([("u", "a")]) == 1
            shutil.rmtree(left)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_fails_at_any_step_loses_nothing(tmp_path: Path, number: int) -> None:
    """What was refused is not there, and all else goes on once the disk does."""
    for fatal in range(1_000):
        path = tmp_path / str(fatal)
        live = opened(path)
        disk = Failing(fatal, number)
        wanted: dict[str, list[str]] = {user: [] for user in USERS}
        with using(disk), live:
            for step in range(25):
                user, item = USERS[step % 3], f"i{step * 5 % 8}"
                with suppress(StorageError):
                    live.append([(user, item)])
                    wanted[user] = [*(one for one in wanted[user] if one != item), item]
                assert state_of(live)[1] == wanted
        assert state_of(LiveInteractions.open(path))[1] == wanted
        assert not list(path.glob(".*")), "no draft is left"
        if not disk.has_failed:
            assert fatal > 60
            return
    pytest.fail("there are more steps than this test tries")


def test_a_file_may_take_few_bytes_at_a_time(tmp_path: Path) -> None:
    with using(Short()), opened(tmp_path / "live") as live:
        for number in range(9):
            live.append([("u", f"i{number}"), ("v", "x" * 200)])
    assert LiveInteractions.open(tmp_path / "live").items_of("u") == [f"i{number}" for number in range(9)]
