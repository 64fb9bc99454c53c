"""Run folders: what a killed run leaves, and how it goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import BaseModel

from gossamer.index.runs import RunFolder
from gossamer.kernels.errors import ConfigError, ExistsError, FormatError


class Config(BaseModel):
    steps: int = 3


def test_checkpoints_round_trip_and_only_the_newest_two_stay(tmp_path: Path) -> None:
    run = RunFolder.start(tmp_path / "run", Config())
    assert (run.last_step(), run.load_checkpoint()) == (0, None)
    for step in (5, 10, 15):
        run.save_checkpoint(step, {"w": torch.full((2,), float(step)).t()}, {"note": step})
    tensors, state = run.load_checkpoint() or ({}, {})
    assert tensors["w"].tolist() == [15.0, 15.0]
    assert state == {"step": 15, "note": 15}
    assert len(list((run.path / "checkpoints").iterdir())) == 2


def test_resuming_cuts_metrics_that_came_after_the_checkpoint(tmp_path: Path) -> None:
    run = RunFolder.start(tmp_path / "run", Config())
    run.log(1, loss=2.0)
    run.save_checkpoint(1, {"w": torch.zeros(1)})
    run.log(2, loss=1.0)
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "lo')  # killed in the middle of a line
    again = RunFolder.start(tmp_path / "run", Config(), resume=True)
    assert again.metrics() == [{"step": 1, "loss": 2.0}]


def test_a_run_is_neither_overwritten_nor_continued_with_other_settings(tmp_path: Path) -> None:
    RunFolder.start(tmp_path / "run", Config())
    with pytest.raises(ExistsError, match="holds a run already"):
        RunFolder.start(tmp_path / "run", Config())
    with pytest.raises(ConfigError, match=r"other values of \['steps'\]"):
        RunFolder.start(tmp_path / "run", Config(steps=4), resume=True)


def test_a_run_is_not_continued_on_other_data(tmp_path: Path) -> None:
    RunFolder.start(tmp_path / "run", Config(), inputs={"log": "a"})
    RunFolder.start(tmp_path / "run", Config(), inputs={"log": "a"}, resume=True)
    with pytest.raises(ConfigError, match=r"other values of \['input log'\]"):
        RunFolder.start(tmp_path / "run", Config(), inputs={"log": "b"}, resume=True)


def test_a_broken_checkpoint_is_named(tmp_path: Path) -> None:
    run = RunFolder.start(tmp_path / "run", Config())
    run.save_checkpoint(1, {"w": torch.zeros(4)})
    file = run.path / "checkpoints" / "step-000000001" / "tensors.safetensors"
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(FormatError, match="step-000000001"):
        run.load_checkpoint()


def test_plot_draws_a_picture(tmp_path: Path) -> None:
    run = RunFolder.start(tmp_path / "run", Config())
    for step in range(5):
        run.log(step, loss=1.0 / (step + 1), nnz=3.0)
    assert run.plot().read_bytes().startswith(b"\x89PNG")
