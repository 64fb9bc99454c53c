from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from gossamer.index.runs import RunFolder
from gossamer.kernels.collectives import World
from gossamer.kernels.errors import ConfigError, ExistsError
from gossamer.recsys import jobs, train_job
from gossamer.recsys.model import Factors
from gossamer.recsys.train import train
from tests.recsys.test_train import blocks, config

pytestmark = pytest.mark.usefixtures("ray_cluster")

# Adam divides by the size of gradients, and so magnifies the rounding of those that nearly cancel by its learning rate.
CONFIG = config(n_epochs=6, batch_users=15, checkpoint_every=5, log_every=2, learning_rate=0.0005)


def test_two_workers_equal_one_process(tmp_path: Path) -> None:
    logged: list[dict[str, float]] = []
    found = train_job(CONFIG, blocks(), tmp_path / "two", n_workers=2, on_metrics=logged.append)
    wanted = train(CONFIG, blocks(), RunFolder.start(tmp_path / "one", CONFIG))
    assert np.abs(found.users - wanted.users).max() < 1e-6
    assert np.abs(found.items - wanted.items).max() < 1e-6
    lines = RunFolder(tmp_path / "one").metrics()
    assert [line["step"] for line in logged] == [line["step"] for line in lines]
    assert [line["loss"] for line in logged] == pytest.approx([line["loss"] for line in lines], abs=1e-5)
    assert (tmp_path / "two" / "metrics.png").exists()
    with pytest.raises(ExistsError):
        train_job(CONFIG, blocks(), tmp_path / "two", n_workers=2)


def test_a_job_goes_on_where_a_killed_run_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a worker that Ray starts again: to the same result, no step logged twice, and on the same log only."""
    log = blocks()
    whole = train(CONFIG, log, RunFolder.start(tmp_path / "whole", CONFIG))

    def kill(line: dict[str, float]) -> None:
        if line["step"] == 14:
            raise KeyboardInterrupt

    inputs = {"log": log.fingerprint()}
    cut = RunFolder.start(tmp_path / "cut", CONFIG, inputs=inputs)
    with pytest.raises(KeyboardInterrupt):
        train(CONFIG, log, cut, on_metrics=kill)
    assert cut.last_step() == 10
    assert [line["step"] for line in cut.metrics()][-2:] == [12, 14]
    with pytest.raises(ConfigError, match="input log"):
        train_job(CONFIG, blocks(seed=1), cut.path, resume=True)
    monkeypatch.setattr(jobs, "spool", lambda _: pa.table({"user": log.users, "item": log.items}))
    jobs._train_worker(CONFIG, str(cut.path), inputs, (log.n_users, log.n_items), World())
    resumed = Factors.load(cut.path / jobs.FACTORS)
    assert np.array_equal(resumed.users, whole.users)
    assert np.array_equal(resumed.items, whole.items)
    assert [line["step"] for line in cut.metrics()] == list(range(2, 25, 2))
