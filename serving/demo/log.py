"""The demo's recommendation half: import lists, a sparse model, its dense twin, a dense model of equal bytes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gossamer.index.presets import load_preset
from gossamer.serving.cli.show import follow_metrics, progress
from gossamer.serving.demo.stages import Stages

if TYPE_CHECKING:
    from gossamer.recsys.split import Split
    from gossamer.recsys.train import RecsysTrainConfig

SPARSE, TWIN, EQUAL = "sparse, through the index", "dense twin", "dense, equal bytes"
GROUP = "package"


@dataclass(frozen=True)
class ModelRow:
    """One model on the held-out imports: measures, stored bytes, seconds of training."""

    name: str
    measures: dict[str, float]
    bytes: int
    seconds: float | None


@dataclass(frozen=True)
class LogResult:
    """What the recommendation half came to; `recommender` is what the service opens."""

    n_users: int
    n_items: int
    n_interactions: int
    fingerprint: str
    rows: list[ModelRow]
    users: list[str]
    recommender: Path

    def claims(self) -> Iterator[tuple[str, float]]:
        """What the table should show, with the difference that decides it."""
        scores = self._scores()
        for name, score in scores.items():
            if name not in (SPARSE, TWIN):
                yield f"sparse recommender over {name}, nDCG@10", scores[SPARSE] - score

    def distance(self) -> str:
        """How far the sparse model is from the dense one of the same width: no claim, a figure."""
        scores = self._scores()
        return f"of the sparse recommender to its dense twin, nDCG@10: {scores[SPARSE] - scores[TWIN]:+.4f}"

    def _scores(self) -> dict[str, float]:
        return {row.name: row.measures["nDCG@10"] for row in self.rows}


def recommend(stages: Stages, preset: str) -> LogResult:
    """Run the recommendation half, or read what is left of an earlier run."""
    from gossamer.recsys.dataset import LogConfig, read_split
    from gossamer.recsys.train import RecsysTrainConfig

    log = stages.folder / "imports" / "interactions.parquet"
    summary = stages.once("imports read", lambda: _write_log(log.parent))
    log_config = load_preset(preset, LogConfig, section="log")
    configs = {
        SPARSE: load_preset(preset, RecsysTrainConfig, section="train"),
        TWIN: load_preset(preset, RecsysTrainConfig, section="dense_twin"),
        EQUAL: load_preset(preset, RecsysTrainConfig, section="dense_equal_bytes"),
    }
    split = read_split(log, log_config)
    runs = {name: stages.folder / f"log-run-{number}" for number, name in enumerate(configs)}
    seconds = {
        name: stages.once(f"trained: {name}", partial(_train, runs[name], config, split, name))
        for name, config in configs.items()
    }
    rows = stages.once("recommenders evaluated", partial(_evaluate, stages.folder, split, runs, seconds))
    return LogResult(
        n_users=summary["n_users"],
        n_items=summary["n_items"],
        n_interactions=summary["n_interactions"],
        fingerprint=summary["fingerprint"],
        rows=[ModelRow(**row) for row in rows],
        users=split.fit.user_ids.to_pylist(),
        recommender=stages.folder / "recommender",
    )


def _write_log(folder: Path) -> dict[str, Any]:
    from gossamer.recsys.imports import write_imports

    with progress("reading imports"):
        found = write_imports(folder)
    return {
        "n_users": found.n_users,
        "n_items": found.n_items,
        "n_interactions": found.n_interactions,
        "fingerprint": found.fingerprint,
    }


def _train(run: Path, config: RecsysTrainConfig, split: Split, name: str) -> float:
    from gossamer.recsys.jobs import train_job

    started = time.perf_counter()
    with progress(f"training {name}"[:28]) as update:
        follow = follow_metrics(update, config.n_steps(split.fit.n_users))
        train_job(config, split.fit, run, resume=True, on_metrics=follow)
    return time.perf_counter() - started


def _evaluate(
    folder: Path, split: Split, runs: dict[str, Path], seconds: dict[str, float]
) -> list[dict[str, Any]]:
    from gossamer.recsys.evaluate import compare
    from gossamer.recsys.jobs import FACTORS
    from gossamer.recsys.model import Factors
    from gossamer.recsys.recommender import Recommender

    factors = {name: Factors.load(run / FACTORS) for name, run in runs.items()}
    sparse = factors.pop(SPARSE)
    recommender = Recommender.build(
        folder / "recommender",
        users=sparse.user_vectors(),
        items=sparse.item_vectors(),
        interactions=split.fit,
        group=GROUP,
        replace=True,
    )
    with progress("evaluating recommenders"):
        compared = compare(recommender, split.fit, split.test, dense=factors, group=GROUP)
    return [asdict(ModelRow(row.model, row.measures, row.bytes, seconds.get(row.model))) for row in compared]
