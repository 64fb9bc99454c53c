"""The Ray plumbing: order, workers, and errors that come back as ours."""

from __future__ import annotations

from pathlib import Path

import pytest

from gossamer.index.jobs import fit, ray_session, spool
from gossamer.index.runs import RunFolder
from gossamer.kernels.collectives import World
from gossamer.kernels.errors import ConfigError


def test_every_worker_reads_all_rows_in_order_and_metrics_are_followed(
    ray_cluster: None, tmp_path: Path
) -> None:
    import ray

    def loop(world: World) -> None:
        rows = spool("train")["id"].to_pylist()
        assert rows == list(range(20_000))
        if world.rank == 0:
            RunFolder(tmp_path).log(1, rows=len(rows), workers=world.size)

    seen: list[dict[str, float]] = []
    dataset = ray.data.range(20_000, override_num_blocks=7)
    fit(loop, datasets={"train": dataset}, run_path=tmp_path, n_workers=2, on_metrics=seen.append)
    assert seen == [{"step": 1, "rows": 20_000, "workers": 2}]


def test_an_error_of_ours_ends_the_run_and_comes_back(ray_cluster: None, tmp_path: Path) -> None:
    def loop(world: World) -> None:
        raise ConfigError("steps is 0; it must be positive.")

    with pytest.raises(ConfigError, match="steps is 0"):
        fit(loop, datasets={}, run_path=tmp_path, n_workers=1)


def test_a_session_that_runs_is_used_and_left_running(ray_cluster: None) -> None:
    import ray

    with ray_session(address="127.0.0.1:1"):
        assert ray.is_initialized()
    assert ray.is_initialized()
