"""An index whose disk fails, whose power goes off, and whose writer is killed: what was acknowledged is there."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from gossamer.index.disk import using
from gossamer.index.inverted import InvertedIndex
from gossamer.index.vectors import SparseVectors
from gossamer.kernels.errors import StorageError
from tests.contracts.disks import Crash, Failing, Recorder, Short
from tests.contracts.index_life import Unflushed

_ROOT = Path(__file__).resolve().parents[2]


def some(*names: str) -> SparseVectors:
    return SparseVectors.from_dicts([{ord(name[0]) % 7: 1.0, 7: 2.0} for name in names], 8, ids=list(names))


def texts(*names: str) -> pa.Table:
    return pa.table({"id": list(names), "text": [f"of {name}" for name in names]})


def built(path: Path) -> InvertedIndex:
    return InvertedIndex.build(path, some("a", "b", "c"), documents=texts("a", "b", "c"))


CHANGES: list[tuple[Callable[[InvertedIndex], object], list[str]]] = [
    (lambda index: index.add(some("d", "e"), documents=texts("d", "e")), ["a", "b", "c", "d", "e"]),
    (lambda index: index.delete(["b"]), ["a", "c", "d", "e"]),
    (
        lambda index: index.update(some("c", "f"), documents=texts("c", "f"), delete=["d"]),
        ["a", "e", "c", "f"],
    ),
    (lambda index: index.merge(1), ["a", "e", "c", "f"]),
    (lambda index: index.delete(["e"]), ["a", "c", "f"]),
    (lambda index: built_anew(index), ["x"]),
]
"""What is done to an index of a, b and c, and which documents there are afterwards."""


def built_anew(index: InvertedIndex) -> None:
    InvertedIndex.build(index.path, some("x"), documents=texts("x"), replace=True)


def names_of(index: InvertedIndex) -> list[str]:
    """The names of all documents, all of which are whole."""
    index.verify()
    table = index.documents.take(np.flatnonzero(index.documents.live))
    names = table["id"].to_pylist()
    assert table["text"].to_pylist() == [f"of {name}" for name in names]
    hits = index.search(SparseVectors.from_dicts([{7: 1.0}], 8), 10, rescore="float")
    assert [name for name, _ in hits.of(0)] == names
    return list(names)


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recorder, Path]:
    """All that was asked of the disk for all changes."""
    root = tmp_path_factory.mktemp("record")
    recorder = Recorder()
    with using(recorder):
        index = built(root / "index")
        recorder.told(0)
        for number, (change, _) in enumerate(CHANGES):
            change(index)
            index.refresh()
            recorder.told(number + 1)
    return recorder, root


def test_no_power_cut_loses_what_was_acknowledged(record: tuple[Recorder, Path], tmp_path: Path) -> None:
    """After every step, with what was not flushed there or not, whole or in part, and in any order."""
    recorder, root = record
    states = [["a", "b", "c"], *(names for _, names in CHANGES)]
    first = recorder.ops.index(("told", 0)) + 1
    seen, n_crashes = set(), 0
    with using(Unflushed()):
        for n_ops in range(first, len(recorder.ops) + 1):
            left = tmp_path / "left"
            crash = Crash(recorder.ops, root, np.random.default_rng(n_ops))
            told = crash.after(n_ops, left)
            index = InvertedIndex.open(left / "index")
            names = names_of(index)
            assert names in states[told : told + 2], f"after {n_ops} steps, {told} changes acknowledged"
            seen.add((told, names == states[told]))
            if n_crashes % 5 == 0:  # and it can be changed again
                index.add(some("z"), documents=texts("z"))
                assert names_of(InvertedIndex.open(left / "index")) == [*names, "z"]
                kept = {segment.name for segment in (left / "index" / "segments").iterdir()}
                assert len(kept) == index.n_segments, "what crashed changes left is removed"
            shutil.rmtree(left)
            n_crashes += 1
    assert n_crashes > 100
    print(f"power cuts: {n_crashes}")  # benchmarks/lifecycle.py counts them
    assert {(number, True) for number in range(len(CHANGES))} <= seen
    assert any(not before for _, before in seen), "some crashes came after the change counted"


def test_a_crash_in_the_first_build_leaves_no_half_index(
    record: tuple[Recorder, Path], tmp_path: Path
) -> None:
    recorder, root = record
    with using(Unflushed()):
        for n_ops in range(recorder.ops.index(("told", 0)) + 1):
            left = tmp_path / "left"
            Crash(recorder.ops, root, np.random.default_rng(n_ops)).after(n_ops, left)
            if (left / "index").exists():
                assert names_of(InvertedIndex.open(left / "index")) == ["a", "b", "c"]
            shutil.rmtree(left)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("which", range(4))
def test_a_disk_that_fails_at_any_step_loses_nothing(tmp_path: Path, which: int, number: int) -> None:
    with using(Unflushed()):
        built(tmp_path / "before")
        for change, _ in CHANGES[:which]:
            change(InvertedIndex.open(tmp_path / "before"))
        before = names_of(InvertedIndex.open(tmp_path / "before"))
    change, after = CHANGES[which]
    step = 3 if number == errno.ENOSPC else 11
    for fatal in range(0, 1000, step):
        shutil.copytree(tmp_path / "before", tmp_path / "index")
        index = InvertedIndex.open(tmp_path / "index")
        disk = Failing(fatal, number)
        with using(disk), suppress(StorageError):
            change(index)
        if not disk.has_failed:
            print(f"failing steps: {fatal // step}")
            assert names_of(index) == after
            assert fatal > 10
            return
        assert names_of(index) in (before, after)
        names = names_of(InvertedIndex.open(tmp_path / "index"))
        assert names in (before, after)
        with using(Unflushed()):
            index.add(some("z"), documents=texts("z"))
        assert names_of(InvertedIndex.open(tmp_path / "index")) == [*names, "z"]
        assert len(list((tmp_path / "index" / "segments").iterdir())) == index.n_segments
        shutil.rmtree(tmp_path / "index")
    pytest.fail("there are more steps than this test tries")


def test_a_file_may_take_few_bytes_at_a_time(tmp_path: Path) -> None:
    with using(Short()):
        index = built(tmp_path / "index")
        for change, names in CHANGES[:-1]:
            change(index)
            assert names_of(InvertedIndex.open(tmp_path / "index")) == names


def test_a_writer_may_be_killed_at_any_time(tmp_path: Path) -> None:
    """Twenty writers, each killed after a random time; every document that one was told of is there."""
    command = [sys.executable, "benchmarks/killing.py", "--kills", "20", "--folder", str(tmp_path)]
    environment = {"PYTHONPATH": str(_ROOT / ".editable"), "PATH": "/usr/bin:/bin"}
    result = subprocess.run(command, check=False, cwd=_ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    counts = json.loads(result.stdout)
    assert counts["kills"] == 20
    assert counts["acknowledged"] > 20
    assert counts["lost"] == counts["damaged"] == 0
