"""The Ray plumbing: order, workers, and errors that come back as ours."""

from __future__ import annotations

from pathlib import Path

import pytest

from gossamer.index.jobs import fit, ray_session, spool
from gossamer.index.runs import RunFolder
from gossamer.kernels.collectives import World
from gossamer.kernels.errors import ConfigError


def test_workers_read_in_order_log_and_end_with_errors_of_ours(ray_cluster: None, tmp_path: Path) -> None:
    """One group for three laws, since starting one takes longer than all of them."""
    import ray

    def loop(world: World) -> None:
        rows = spool("train")["id"].to_pylist()
        if world.rank == 0:
            RunFolder(tmp_path).log(
                1, rows=len(rows), in_order=rows == list(range(20_000)), workers=world.size
            )
        raise ConfigError("steps is 0; it must be positive.")

    seen: list[dict[str, float]] = []
    dataset = ray.data.range(20_000, override_num_blocks=7)
    with pytest.raises(ConfigError, match="steps is 0"):
        fit(
            loop,
            datasets={"train": dataset},
            run_path=tmp_path,
            n_workers=2,
            on_metrics=seen.append,
            max_failures=0,
        )
    assert seen == [{"step": 1, "rows": 20_000, "in_order": True, "workers": 2}]


def test_a_session_that_runs_is_used_and_left_running(ray_cluster: None) -> None:
    import ray

    with ray_session(address="127.0.0.1:1"):
        assert ray.is_initialized()
    assert ray.is_initialized()
