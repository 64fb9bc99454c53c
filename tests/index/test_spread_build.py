"""A build in steps over shards: the same bytes as in one piece, resumed where it was, and what is refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest

from gossamer.index import BuildConfig, InvertedIndex, SparseVectors
from gossamer.index.input_shards import InputShard, find_shards
from gossamer.index.spread_build import build_spread, in_turn
from gossamer.kernels.errors import (
    ConfigError,
    ExistsError,
    FormatError,
    NotFoundError,
    RecordError,
    StorageError,
    VectorError,
)
from tests.index.input_shards import CONFIG, N_TERMS, damage, same_files, some_rows, write_shards

_ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def vectors(tmp_path: Path) -> Path:
    write_shards(tmp_path / "vectors", n_rows=900, n_files=3)
    return tmp_path / "vectors"


class Counted:
    """`in_turn`, that counts what is really done, and stops before one item of a step."""

    def __init__(self, stop_at: tuple[str, int] | None = None) -> None:
        self.n_read, self._stop_at = 0, stop_at

    def __call__(
        self, work: Callable[[Any], Any], items: Sequence[Any], on_done: Callable[[int], None] | None = None
    ) -> list[Any]:
        name = getattr(work, "func", work).__name__
        results = []
        for number, item in enumerate(items):
            if self._stop_at == (name, number):
                raise KeyboardInterrupt
            results += in_turn(work, [item])
        return results


@pytest.mark.parametrize(
    ("impacts", "signed", "forward"),
    [("auto", False, True), ("auto", True, True), ("float32", False, True), ("uint8", False, False)],
)
def test_it_is_the_index_of_the_whole(tmp_path: Path, impacts: Any, signed: bool, forward: bool) -> None:
    write_shards(tmp_path / "vectors", n_rows=2_000, n_files=3, signed=signed)
    (tmp_path / "vectors" / "notes.txt").write_text("no vectors")
    (tmp_path / "vectors" / ".part-9.parquet").write_text("half-written")
    (tmp_path / "vectors" / ".part-9.parquet").rename(tmp_path / "vectors" / "_part-9.parquet.partial")
    config = BuildConfig(window=256, impacts=impacts, forward=forward, calibrate=False)
    documents = pa.table({"id": [f"d{row}" for row in range(2_000)], "year": list(range(2_000))})
    whole = InvertedIndex.build(tmp_path / "whole", tmp_path / "vectors", documents=documents, config=config)
    built = build_spread(
        tmp_path / "index", tmp_path / "vectors", documents=documents, config=config, n_threads=2
    )
    assert same_files(whole, built)
    built.verify()
    assert not (tmp_path / ".index.build").exists()


def test_halves_and_odd_shards(tmp_path: Path) -> None:
    """Weights that float16 holds, a shard without rows, one with an empty row, and names out of order."""
    folder = tmp_path / "vectors"
    folder.mkdir()
    rows = SparseVectors.from_dicts([{1: 0.5}, {}, {0: 2.0, 3: 0.25}], 7, ids=["a", "b", "c"])
    rows[2:].write_parquet(folder / "9.parquet")
    rows[:2].write_parquet(folder / "10.parquet")
    rows[:0].write_parquet(folder / "5.parquet")
    whole = InvertedIndex.build(tmp_path / "whole", folder)
    built = build_spread(tmp_path / "index", folder)
    assert same_files(whole, built)
    assert built.documents.ids.to_pylist() == ["a", "b", "c"]
    (folder / "9.parquet").unlink()
    (folder / "10.parquet").unlink()
    assert build_spread(tmp_path / "empty", folder).n_documents == 0


def test_files_are_cut_between_row_groups(tmp_path: Path) -> None:
    rows = some_rows(500)
    pq.write_table(rows.to_arrow(), tmp_path / "all.parquet", row_group_size=60)
    shards = find_shards(tmp_path / "all.parquet", rows_a_shard=100)
    assert [(shard.first, shard.n_rows) for shard in shards] == [
        (0, 120),
        (120, 120),
        (240, 120),
        (360, 120),
        (480, 20),
    ]
    assert sum(shard.nnz for shard in shards) == rows.nnz
    parts = SparseVectors.concat([part for shard in shards for part in shard.stream(50)])
    assert parts.equals(rows)
    assert len({shard.key for shard in shards}) == 5


def test_several_segments_answer_as_one(tmp_path: Path, vectors: Path) -> None:
    """Their documents come from one stream, whose batches end elsewhere."""
    table = pa.table({"id": [f"d{row}" for row in range(900)], "year": list(range(900))})
    whole = InvertedIndex.build(tmp_path / "whole", vectors, documents=table, config=CONFIG)
    batches = iter(table.to_batches(max_chunksize=130))
    built = build_spread(tmp_path / "index", vectors, documents=batches, config=CONFIG, n_segments=2)
    assert [segment.postings.n_documents for segment in built.segments] == [300, 600]
    assert built.insertion_numbers(np.arange(900)).tolist() == list(range(900))
    queries = some_rows(20, 5_000)
    for filters in (None, {"year": {">=": 450}}):
        one, other = whole.search(queries, 30, filters=filters), built.search(queries, 30, filters=filters)
        assert np.array_equal(one.rows, other.rows)
        assert np.array_equal(one.scores, other.scores)
    assert built.documents.take([0, 299, 300, 899])["year"].to_pylist() == [0, 299, 300, 899]
    with pytest.raises(RecordError, match="row 600 is a document without a vector"):
        build_spread(tmp_path / "other", vectors, documents=pa.concat_tables([table, table]), n_segments=2)
    names = pa.table({"id": ["x", *(f"y{row}" for row in range(898)), "x"]})
    write_unnamed(vectors)
    with pytest.raises(RecordError, match=r"'x' is given to row 0 of .*part-0.* and row 299 of .*part-2"):
        build_spread(tmp_path / "other", vectors, documents=names, n_segments=2)
    numbered = build_spread(tmp_path / "other", vectors, n_segments=3)
    assert numbered.documents.ids.to_pylist() == [str(row) for row in range(900)]


def write_unnamed(vectors: Path) -> None:
    for file in vectors.iterdir():
        rows = SparseVectors.read_parquet(file)
        SparseVectors(rows.indptr, rows.indices, rows.values, rows.n_cols).write_parquet(file)


def test_filesystems_of_arrow_and_of_others(tmp_path: Path, vectors: Path) -> None:
    mock = pafs._MockFileSystem()
    mock.create_dir("bucket/vectors")
    for file in vectors.iterdir():
        with mock.open_output_stream(f"bucket/vectors/{file.name}") as stream:
            stream.write(file.read_bytes())
    whole = InvertedIndex.build(tmp_path / "whole", vectors, config=CONFIG)
    built = build_spread(tmp_path / "mocked", "bucket/vectors", filesystem=mock, config=CONFIG)
    assert same_files(whole, built)
    built = build_spread(tmp_path / "uri", f"file://{vectors}", config=CONFIG)
    assert same_files(whole, built)
    fsspec = pytest.importorskip("fsspec")
    built = build_spread(
        tmp_path / "fsspec", str(vectors), filesystem=fsspec.filesystem("file"), config=CONFIG
    )
    assert same_files(whole, built)
    for nowhere in (tmp_path / "nowhere", tmp_path / "whole", "no-such-scheme://bucket"):
        with pytest.raises(NotFoundError, match=Path(nowhere).name):
            build_spread(tmp_path / "index", nowhere)


def test_what_was_done_is_not_done_again(
    tmp_path: Path, vectors: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    stream = InputShard.stream

    def noted(shard: InputShard, batch_rows: int) -> Iterator[SparseVectors]:
        read.append(Path(shard.path).name)
        return stream(shard, batch_rows)

    monkeypatch.setattr(InputShard, "stream", noted)
    path = tmp_path / "index"
    with pytest.raises(KeyboardInterrupt):
        build_spread(path, vectors, config=CONFIG, spread=Counted(("read_shard", 2)))
    assert (read, path.exists()) == (["part-0.parquet", "part-1.parquet"], False)
    read.clear()
    with pytest.raises(KeyboardInterrupt):
        build_spread(path, vectors, config=CONFIG, spread=Counted(("round_shard", 1)))
    assert read == ["part-2.parquet"]
    read.clear()
    some_rows(350, 300, seed=1).write_parquet(vectors / "part-1.parquet")  # d600 to d649 would repeat
    with pytest.raises(RecordError, match=r"'d6..' is given to row 300 of .*part-1.* and row 0 of .*part-2"):
        build_spread(path, vectors, config=CONFIG)
    some_rows(300, 300, seed=1).write_parquet(vectors / "part-1.parquet")
    built = build_spread(path, vectors, config=CONFIG)
    assert read == ["part-1.parquet", "part-1.parquet"]
    assert same_files(built, InvertedIndex.build(tmp_path / "whole", vectors, config=CONFIG))
    assert not (tmp_path / ".index.build").exists()


def test_a_killed_build_goes_on(tmp_path: Path, vectors: Path) -> None:
    code = """
import os, signal, sys
from gossamer.index import spread_build
from tests.index.input_shards import CONFIG
rounded = spread_build.round_shard
def dying(work, rounding, shard):
    if "part-1" in shard.path:
        os.kill(os.getpid(), signal.SIGKILL)
    rounded(work, rounding, shard)
spread_build.round_shard = dying
spread_build.build_spread(sys.argv[1], sys.argv[2], config=CONFIG)
"""
    environment = {**os.environ, "PYTHONPATH": f"{_ROOT / '.editable'}{os.pathsep}{_ROOT}"}
    command = [sys.executable, "-c", code, str(tmp_path / "index"), str(vectors)]
    killed = subprocess.run(command, env=environment, check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    kept = sorted(path.parent.name for path in (tmp_path / ".index.build").glob("*/survey.json"))
    assert kept == sorted(shard.key for shard in find_shards(vectors))
    (vectors / "part-2.parquet").touch()  # another time: read again
    built = build_spread(tmp_path / "index", vectors, config=CONFIG)
    assert same_files(built, InvertedIndex.build(tmp_path / "whole", vectors, config=CONFIG))
    assert {entry.name for entry in tmp_path.iterdir()} == {"index", "vectors", "whole"}


def test_bad_files_are_named(tmp_path: Path, vectors: Path) -> None:
    def fails(error: type[Exception], match: str) -> None:
        with pytest.raises(error, match=match):
            build_spread(tmp_path / "index", vectors, config=CONFIG)
        assert not (tmp_path / "index").exists()

    file = vectors / "part-1.parquet"
    whole = file.read_bytes()
    damage(file, row=42)
    fails(VectorError, r"part-1\.parquet, counting from row 0: row 42 .*is not finite")
    file.write_bytes(whole[:-100])
    fails(FormatError, r"part-1\.parquet cannot be read as sparse vectors")
    file.write_bytes(whole[:200] + bytes(400) + whole[600:])
    fails(FormatError, r"part-1\.parquet cannot be read as sparse vectors")
    pq.write_table(pa.table({"id": ["x"], "indices": [[1]]}), file)
    fails(FormatError, r"part-1\.parquet: the column 'values' is missing")
    rows = some_rows(3, 5_000)
    SparseVectors(rows.indptr, rows.indices, rows.values, N_TERMS + 1, rows.ids).write_parquet(file)
    fails(VectorError, r"part-1\.parquet has 121 terms, and .*part-0\.parquet 120")
    SparseVectors(rows.indptr, rows.indices, rows.values, N_TERMS).write_parquet(file)
    fails(VectorError, r"part-1\.parquet and .*part-0\.parquet one has ids and one has none")


def test_what_is_refused(tmp_path: Path, vectors: Path) -> None:
    built = build_spread(tmp_path / "index", vectors, config=CONFIG)
    with pytest.raises(ExistsError, match="replace=True"):
        build_spread(built.path, vectors, config=CONFIG)
    assert build_spread(built.path, vectors, config=CONFIG, replace=True).n_documents == 900
    with pytest.raises(ConfigError, match="n_segments is 0"):
        build_spread(tmp_path / "other", vectors, n_segments=0)

    def build_too(*args: Any) -> Any:
        with pytest.raises(StorageError, match=r"another build of .* is running"):
            build_spread(tmp_path / "other", vectors, config=CONFIG)
        return in_turn(*args)

    build_spread(tmp_path / "other", vectors, config=CONFIG, spread=cast("Any", build_too))
