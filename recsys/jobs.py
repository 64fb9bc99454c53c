"""Training as a Ray job: the log goes to the workers through Ray Data, `train` runs on each of them.

The run folder holds what a resumed run needs: ids, the log in rows, checkpoints; and in the end `factors.safetensors`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from gossamer.index.jobs import fit, ray_session, spool
from gossamer.index.runs import RunFolder
from gossamer.recsys.interactions import Interactions
from gossamer.recsys.model import Factors
from gossamer.recsys.train import RecsysTrainConfig, train

if TYPE_CHECKING:
    from gossamer.kernels.collectives import World

FACTORS = "factors.safetensors"


def train_job(
    config: RecsysTrainConfig,
    interactions: Interactions,
    run_path: str | Path,
    *,
    n_workers: int = 1,
    address: str | None = None,
    resume: bool = False,
    on_metrics: Callable[[dict[str, float]], None] | None = None,
) -> Factors:
    """Trains on Ray workers and returns what `train` would.

    Args:
        config: what to train.
        interactions: the log; written into the run folder as Parquet, which Ray Data streams to the workers.
        run_path: the run folder, on storage that all workers see.
        n_workers: how many workers share each batch.
        address: of a Ray cluster; None means `RAY_ADDRESS`, or a local start.
        resume: go on from the last checkpoint of a run in that folder.
        on_metrics: called with each logged line while the run goes on.

    Raises:
        ExistsError: if the folder holds a run and `resume` is not set.
        ConfigError: if the run that is resumed has another configuration or another log.
        TrainingError: if the run diverged, or workers were lost too often.
    """
    inputs = {"log": interactions.fingerprint()}
    run = RunFolder.start(run_path, config, resume=resume, inputs=inputs)
    rows = run.path / "interactions.parquet"
    pq.write_table(pa.table({"user": interactions.users, "item": interactions.items}), rows)
    with ray_session(address):
        import ray.data

        log = ray.data.read_parquet(str(rows.resolve()))
        loop = partial(
            _train_worker,
            config,
            str(run.path.resolve()),
            inputs,
            (interactions.n_users, interactions.n_items),
        )
        fit(loop, datasets={"log": log}, run_path=run.path, n_workers=n_workers, on_metrics=on_metrics)
    run.plot()
    return Factors.load(run.path / FACTORS)


def _train_worker(
    config: RecsysTrainConfig,
    run_path: str,
    inputs: dict[str, str],
    shape: tuple[int, int],
    world: World,
) -> None:
    """The loop of one worker; after a loss of workers it is called again and goes on from the last checkpoint."""
    table = spool("log")
    log = Interactions.from_rows(
        table["user"].to_numpy(), table["item"].to_numpy(), n_users=shape[0], n_items=shape[1]
    )
    first = world.rank == 0
    run = RunFolder.start(run_path, config, resume=True, inputs=inputs) if first else RunFolder(run_path)
    factors = train(config, log, run, world)
    if first:
        factors.save(Path(run_path) / FACTORS)
