"""Builds whose shards are worked on by Ray: the same index, and what becomes of lost workers and bad files."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path

import pyarrow.fs as pafs
import pytest

from gossamer.index import InvertedIndex
from gossamer.index.jobs import build_job, spread
from gossamer.kernels.errors import BackendError, InputError, VectorError
from tests.index.input_shards import CONFIG, damage, same_files, write_shards


def die_once(folder: Path, item: int) -> int:
    """End the process that runs this, the first time that it is called for an item of 3."""
    marker = folder / f"died-{item}"
    if item == 3 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return item * item


def die(item: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return item


def fail(item: int) -> int:
    if item == 1:
        raise VectorError("row 7: the weight is not finite.")
    return item


def test_an_item_whose_worker_was_lost_is_done_again(ray_cluster: None, tmp_path: Path) -> None:
    done: list[int] = []
    found = spread(partial(die_once, tmp_path), range(5), done.append, n_workers=2)
    assert found == [0, 1, 4, 9, 16]
    assert done == [1, 2, 3, 4, 5]
    assert (tmp_path / "died-3").exists()


def test_errors_come_back_as_they_were(ray_cluster: None) -> None:
    with pytest.raises(VectorError, match=r"^row 7: the weight is not finite\.$"):
        spread(fail, range(4), n_workers=2)
    with pytest.raises(BackendError, match="could not finish this job"):
        spread(die, [0], n_workers=1, max_losses=0)
    with pytest.raises(InputError, match="n_workers is 0"):
        build_job("index", "vectors", n_workers=0)


def test_an_index_of_shards_is_that_of_the_whole(ray_cluster: None, tmp_path: Path) -> None:
    write_shards(tmp_path / "vectors", n_rows=3_000, n_files=3)
    whole = InvertedIndex.build(tmp_path / "whole", tmp_path / "vectors", config=CONFIG)
    seen: list[tuple[str, int, int]] = []
    built = build_job(
        tmp_path / "index",
        "vectors",
        filesystem=pafs.SubTreeFileSystem(str(tmp_path), pafs.LocalFileSystem()),
        n_workers=2,
        config=CONFIG,
        on_step=lambda *step: seen.append(step),
    )
    assert same_files(whole, built)
    assert [step for step in seen if step[1] == step[2]][:2] == [("reading", 3, 3), ("rounding", 3, 3)]
    assert {entry.name for entry in tmp_path.iterdir()} == {"vectors", "whole", "index"}


def test_a_bad_shard_is_named(ray_cluster: None, tmp_path: Path) -> None:
    write_shards(tmp_path / "vectors", n_rows=300, n_files=3)
    damage(tmp_path / "vectors" / "part-1.parquet", row=42)
    with pytest.raises(VectorError, match=r"part-1\.parquet, counting from row 0: row 42 .*is not finite"):
        build_job(tmp_path / "index", tmp_path / "vectors", n_workers=2, config=CONFIG)
    assert not (tmp_path / "index").exists()
