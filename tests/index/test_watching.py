"""An index that follows a folder: each file once, in step with the data, whatever is killed when."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pyarrow.fs as pafs
import pytest

from gossamer.index import BuildConfig, InvertedIndex, SparseVectors
from gossamer.index.watching import Seen, Watch, until_stopped
from gossamer.kernels.errors import FormatError, MismatchError, RecordError, VectorError
from tests.index.input_shards import CONFIG, N_TERMS, damage, some_rows

_ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "vectors").mkdir()
    return tmp_path / "vectors"


def put(folder: Path, name: str, n_rows: int, first: int = 0, *, seed: int = 0) -> None:
    some_rows(n_rows, first, seed=seed).write_parquet(folder / f"{name}.parquet")


def names(seen: list[Seen]) -> list[str]:
    return [one.name.removesuffix(".parquet") for one in seen]


def test_files_are_taken_in_by_name_and_once(tmp_path: Path, folder: Path) -> None:
    watch = Watch(tmp_path / "index", folder, config=CONFIG)
    assert list(watch.look()) == []
    assert not (tmp_path / "index").exists()
    for name, first in (("b", 10), ("a", 0), ("c", 20)):
        put(folder, name, 10, first)
    seen = list(watch.look())
    assert names(seen) == ["a", "b", "c"]
    assert [one.receipt.n_added for one in seen if one.receipt] == [10, 10, 10]
    assert list(watch.look()) == []
    again = Watch(tmp_path / "index", folder, config=CONFIG)
    assert list(again.look()) == []
    put(folder, "b", 12, 10, seed=1)  # ten in the place of others, and two of those of c
    (one,) = again.look()
    assert one.receipt is not None
    assert (one.receipt.n_added, one.receipt.n_deleted, again.n_documents) == (12, 12, 30)
    index = InvertedIndex.open(tmp_path / "index")
    assert sorted(index.sources) == ["a.parquet", "b.parquet", "c.parquet"]
    index.merge(1)
    whole = InvertedIndex.build(
        tmp_path / "whole",
        SparseVectors.concat([some_rows(10), some_rows(10, 20)[2:], some_rows(12, 10, seed=1)]),
        config=CONFIG,
    )
    queries = some_rows(5, 900)
    found, expected = (some.search(queries, 9, rescore="float") for some in (index, whole))
    assert found.to_run("abcde") == expected.to_run("abcde")
    assert sorted(InvertedIndex.open(tmp_path / "index").sources) == sorted(index.sources)


def test_files_that_are_being_written_are_left_for_later(tmp_path: Path, folder: Path) -> None:
    put(folder, "a", 5)
    put(folder, "b", 5, 5)
    whole = (folder / "b.parquet").read_bytes()
    (folder / "b.parquet").write_bytes(whole[:-50])
    watch = Watch(tmp_path / "index", folder, config=CONFIG)
    seen = list(watch.look())
    assert [(one.name, one.receipt is None, str(one)) for one in seen[1:]] == [
        ("b.parquet", True, "not complete yet")
    ]
    assert list(watch.look()) == []
    (folder / "b.parquet").write_bytes(whole)
    assert names(list(watch.look())) == ["b"]
    assert watch.n_documents == 10


def test_bad_files_are_named_and_left_out_until_they_change(tmp_path: Path, folder: Path) -> None:
    put(folder, "a", 5)
    put(folder, "b", 50, 5)
    whole = (folder / "b.parquet").read_bytes()
    damage(folder / "b.parquet", row=7)
    rows = some_rows(3, 90)
    SparseVectors(rows.indptr, rows.indices, rows.values, N_TERMS + 1, rows.ids).write_parquet(
        folder / "c.parquet"
    )
    SparseVectors(rows.indptr, rows.indices, rows.values, N_TERMS).write_parquet(folder / "d.parquet")
    (folder / "e.parquet").write_bytes(whole[:200] + bytes(len(whole) - 204) + whole[-4:])
    watch = Watch(tmp_path / "index", folder, config=CONFIG)
    seen = {one.name: one.error for one in watch.look()}
    kinds = {name: type(error) for name, error in seen.items() if error is not None}
    assert kinds == {
        "b.parquet": VectorError,
        "c.parquet": MismatchError,
        "d.parquet": RecordError,
        "e.parquet": FormatError,
    }
    assert "row 7" in str(seen["b.parquet"])
    assert (list(watch.look()), watch.n_documents) == ([], 5)
    (folder / "b.parquet").write_bytes(whole)
    assert names(list(watch.look())) == ["b"]
    assert watch.n_documents == 55


def test_other_filesystems_empty_files_and_signs(tmp_path: Path, folder: Path) -> None:
    some_rows(0).write_parquet(folder / "0.parquet")
    some_rows(5, signed=True).write_parquet(folder / "1.parquet")
    config = BuildConfig(impacts="int8")
    filesystem = pafs.SubTreeFileSystem(str(tmp_path), pafs.LocalFileSystem())
    watch = Watch(tmp_path / "index", "vectors", filesystem=filesystem, config=config)
    assert [one.receipt is not None for one in watch.look()] == [True, True]
    assert (watch.n_documents, list(watch.look())) == (5, [])


def test_a_kill_leaves_a_file_taken_in_or_not(tmp_path: Path, folder: Path) -> None:
    """Killed before the manifest of the second file counts, and right after."""
    for name, first in (("a", 0), ("b", 10), ("c", 20)):
        put(folder, name, 10, first)
    code = """
import os, signal, sys
from gossamer.index import commits
from gossamer.index.watching import Watch
from tests.index.input_shards import CONFIG
real, after = commits.replace_file, sys.argv[3] == "after"
def dying(path, data):
    if b"b.parquet" in data and not after:
        os.kill(os.getpid(), signal.SIGKILL)
    real(path, data)
    if b"b.parquet" in data:
        os.kill(os.getpid(), signal.SIGKILL)
commits.replace_file = dying
list(Watch(sys.argv[1], sys.argv[2], config=CONFIG).look())
"""
    environment = {**os.environ, "PYTHONPATH": f"{_ROOT / '.editable'}{os.pathsep}{_ROOT}"}
    for when, left in (("before", ["b", "c"]), ("after", ["c"])):
        path = tmp_path / when
        command = [sys.executable, "-c", code, str(path), str(folder), when]
        killed = subprocess.run(command, env=environment, check=False, capture_output=True)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        watch = Watch(path, folder, config=CONFIG)
        seen = list(watch.look())
        assert names(seen) == left
        assert [one.receipt.n_deleted for one in seen if one.receipt] == [0] * len(left)
        assert watch.n_documents == 30


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_it_after_the_file_at_hand(tmp_path: Path, folder: Path, kind: signal.Signals) -> None:
    put(folder, "a", 5)
    put(folder, "b", 5, 5)
    before = signal.getsignal(kind)
    watch = Watch(tmp_path / "index", folder, config=CONFIG)
    seen = []
    for one in until_stopped(watch, every_s=60):
        seen.append(one)
        os.kill(os.getpid(), kind)
    assert names(seen) == ["a"]
    assert signal.getsignal(kind) is before
    assert names(list(until_stopped(watch, every_s=60, once=True))) == ["b"]


def test_it_looks_again(tmp_path: Path, folder: Path) -> None:
    put(folder, "a", 5)
    watch, seen = Watch(tmp_path / "index", folder, config=CONFIG), []
    stop = threading.Timer(30, os.kill, (os.getpid(), signal.SIGTERM))
    stop.start()
    for one in until_stopped(watch, every_s=0.01):
        seen.append(one)
        if len(seen) < 3:
            put(folder, "abc"[len(seen)], 5, 5 * len(seen))
        else:
            os.kill(os.getpid(), signal.SIGTERM)
    stop.cancel()
    assert names(seen) == ["a", "b", "c"]
