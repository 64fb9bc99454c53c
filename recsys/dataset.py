"""A log and how it is read, cleaned and split: what a run has to remember to be evaluated and exported later."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt

from gossamer.kernels.errors import MismatchError, NotFoundError
from gossamer.recsys.data import Format, read_interactions
from gossamer.recsys.split import Split, leave_last_out, leave_one_out

_FILE = "log.json"


class LogConfig(BaseModel):
    """How a log becomes a split.

    Attributes:
        user: column of the user's id.
        item: column of the item's id.
        time: column of the time, or None.
        label: column of a rating, or None.
        min_label: rows with a lower label are left out.
        features: further columns to keep.
        format: see `read_interactions`.
        min_per_user: fewest items of a user (k-core); 1 keeps all.
        min_per_item: fewest users of an item (k-core).
        hold_out: what is kept from training: "one" item of each user at random for test and one for validation, the
            "last" two by time, or "none".
        seed: of the random split.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    user: str = "user"
    item: str = "item"
    time: str | None = None
    label: str | None = None
    min_label: float | None = None
    features: tuple[str, ...] = ()
    format: Format = "auto"
    min_per_user: int = Field(default=1, ge=1)
    min_per_item: int = Field(default=1, ge=1)
    hold_out: Literal["one", "last", "none"] = "one"
    seed: NonNegativeInt = 0


def read_split(path: str | Path, config: LogConfig) -> Split:
    """Reads, cleans and splits a log; the same file and settings always give the same split.

    Raises:
        NotFoundError, RecordError: if the log cannot be read.
        InputError: if it has no times and the last items were to be held out.
    """
    log = read_interactions(
        path,
        user=config.user,
        item=config.item,
        time=config.time,
        label=config.label,
        features=config.features,
        format=config.format,
    )
    if config.min_label is not None:
        log = log.filter_labels(config.min_label)
    log = log.merge_duplicates()
    if max(config.min_per_user, config.min_per_item) > 1:
        log = log.filter_k_core(users=config.min_per_user, items=config.min_per_item)
    if config.hold_out == "none":
        nothing = log.take(np.zeros(0, np.int64))
        return Split(log, nothing, nothing)
    return leave_last_out(log) if config.hold_out == "last" else leave_one_out(log, seed=config.seed)


def remember(run: str | Path, log: str | Path, config: LogConfig, split: Split) -> None:
    """Writes into a run folder which log it was trained on."""
    described = {
        "log": str(Path(log).resolve()),
        "config": config.model_dump(),
        "fingerprint": split.fit.fingerprint(),
    }
    Path(run).mkdir(parents=True, exist_ok=True)
    (Path(run) / _FILE).write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")


def recall(run: str | Path) -> tuple[Split, LogConfig]:
    """The split that a run was trained on.

    Raises:
        NotFoundError: if the folder holds no run of a recommender.
        MismatchError: if the log has changed since.
    """
    file = Path(run) / _FILE
    if not file.is_file():
        raise NotFoundError(f"{run} holds no recommender's run; train one with `gossamer recsys train`.")
    described = json.loads(file.read_text(encoding="utf-8"))
    config = LogConfig.model_validate(described["config"])
    split = read_split(described["log"], config)
    if split.fit.fingerprint() != described["fingerprint"]:
        raise MismatchError(f"{described['log']} has changed since {run} was trained on it; train again.")
    return split, config
