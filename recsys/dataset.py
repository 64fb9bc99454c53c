"""A log and how it is read, cleaned and split: what a run has to remember to be evaluated and exported later."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt

from gossamer.kernels.errors import InputError, MismatchError, NotFoundError
from gossamer.recsys.data import Format, read_interactions
from gossamer.recsys.interactions import Interactions
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


def read_split(path: str | Path, config: LogConfig, *, clicks: Sequence[str | Path] = ()) -> Split:
    """Reads, cleans and splits a log; the same files and settings always give the same split.

    Args:
        path: the log.
        config: how it is read.
        clicks: files that `write_clicks` wrote, which are added to it; their users have the features that the log
            gives them, and any labels are for the log only.

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
    if clicks:
        log = _joined(log, [read_interactions(file, time="time") for file in clicks], config.features)
    log = log.merge_duplicates()
    if max(config.min_per_user, config.min_per_item) > 1:
        log = log.filter_k_core(users=config.min_per_user, items=config.min_per_item)
    if config.hold_out == "none":
        nothing = log.take(np.zeros(0, np.int64))
        return Split(log, nothing, nothing)
    return leave_last_out(log) if config.hold_out == "last" else leave_one_out(log, seed=config.seed)


def write_clicks(log: Interactions, path: str | Path) -> None:
    """Writes users, items and times of a log as one Parquet (.parquet) or TSV (.tsv) file, whole or not at all.

    Raises:
        InputError: if the file has another suffix, or it is .tsv and an id has a tab, a quote or a line break.
    """
    from pyarrow import csv, parquet

    path = Path(path)
    table = log.table.select(["user", "item", "time"])
    table = pa.table(
        [table[0].cast(pa.string()), table[1].cast(pa.string()), table[2]], names=table.column_names
    )
    draft = path.with_name(f".{path.name}.draft")
    try:
        if path.suffix == ".parquet":
            parquet.write_table(table, draft)
        elif path.suffix == ".tsv":
            csv.write_csv(table, draft, csv.WriteOptions(delimiter="\t", quoting_style="none"))
        else:
            raise InputError(f"{path} is neither .parquet nor .tsv; choose one of these.")
        draft.replace(path)
    except pa.ArrowInvalid as error:
        raise InputError(f"{path} cannot have all ids ({error}); write a .parquet file.") from error
    finally:
        draft.unlink(missing_ok=True)


def _joined(log: Interactions, clicks: list[Interactions], features: Sequence[str]) -> Interactions:
    """A log and clicks: times only where the log has them, and the features that their users have in the log."""
    names = ["user", "item"] if log.times is None else ["user", "item", "time"]
    tables = [log.table, *(part.table.select(names) for part in clicks)]
    table = pa.concat_tables(tables, promote_options="default").unify_dictionaries().combine_chunks()
    for name in features:
        of_users = Interactions(table).user_feature(name).take(pa.array(Interactions(table).users))
        place = table.column_names.index(name)
        table = table.set_column(place, name, pc.coalesce(table[name].combine_chunks(), of_users))
    return Interactions(table)


def remember(
    run: str | Path, log: str | Path, config: LogConfig, split: Split, *, clicks: Sequence[str | Path] = ()
) -> None:
    """Writes into a run folder which log, and which clicks, it was trained on."""
    described = {
        "log": str(Path(log).resolve()),
        "clicks": [str(Path(file).resolve()) for file in clicks],
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
    clicks = described.get("clicks", [])
    split = read_split(described["log"], config, clicks=clicks)
    if split.fit.fingerprint() != described["fingerprint"]:
        files = ", ".join([described["log"], *clicks])
        raise MismatchError(f"{files} changed since {run} was trained on it; train again.")
    return split, config
