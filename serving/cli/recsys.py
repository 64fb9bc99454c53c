"""`gossamer recsys train|export|evaluate|clicks|sample`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gossamer.serving.cli.show import (
    Address,
    Local,
    Overrides,
    Preset,
    Replace,
    Workers,
    bytes_,
    console,
    follow_metrics,
    progress,
    table,
)

app = typer.Typer(help="Train, export and evaluate sparse recommenders.", no_args_is_help=True)

Run = Annotated[Path, typer.Argument(help="Folder of the run.")]


@app.command()
def train(
    log: Annotated[
        Path, typer.Argument(help="CSV, TSV, Parquet or LightGCN lists; see [log] of the preset.")
    ],
    run: Run,
    preset: Preset = "imports",
    overrides: Overrides = None,
    log_overrides: Annotated[
        list[str] | None, typer.Option("--log", help="key=value over the preset's [log]; may be repeated.")
    ] = None,
    clicks: Annotated[
        list[Path] | None,
        typer.Option(help="File of `recsys clicks` to be added to the log; may be repeated."),
    ] = None,
    workers: Workers = 1,
    address: Address = None,
    local: Local = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
) -> None:
    """Train user and item vectors; the test part of the log is left out."""
    from gossamer.index.presets import load_preset
    from gossamer.index.runs import RunFolder
    from gossamer.recsys.dataset import LogConfig, read_split, remember
    from gossamer.recsys.jobs import FACTORS, train_job
    from gossamer.recsys.train import RecsysTrainConfig
    from gossamer.recsys.train import train as train_here

    config = load_preset(preset, RecsysTrainConfig, section="train", overrides=overrides or [])
    log_config = load_preset(preset, LogConfig, section="log", overrides=log_overrides or [])
    split = read_split(log, log_config, clicks=clicks or [])
    console.print(f"{split.fit!r} to learn from, {len(split.test):,} held out for test")
    inputs = {"log": split.fit.fingerprint()}
    folder = RunFolder.start(run, config, resume=resume, inputs=inputs)
    remember(run, log, log_config, split, clicks=clicks or [])
    total = config.n_steps(split.fit.n_users)
    with progress("training") as update:
        follow = follow_metrics(update, total)
        if local:
            train_here(config, split.fit, folder, on_metrics=follow).save(run / FACTORS)
            folder.plot()
        else:
            train_job(
                config, split.fit, run, n_workers=workers, address=address, resume=True, on_metrics=follow
            )
    console.print(f"run written to {run}; next: gossamer recsys export {run} RECOMMENDER")


@app.command()
def export(
    run: Run,
    path: Annotated[Path, typer.Argument(help="Recommender folder to make.")],
    group: Annotated[
        str | None, typer.Option(help="Feature of users within which popularity is counted too.")
    ] = None,
    items: Annotated[
        Path | None,
        typer.Option(help="Corpus of the items: ids, titles, texts and metadata, for filters and caps."),
    ] = None,
    preset: Preset = None,
    overrides: Overrides = None,
    replace: Replace = False,
) -> None:
    """Index a run's item vectors and write the folder that the service opens; [fold_in] says how histories are read."""
    from gossamer.index.presets import load_preset
    from gossamer.lsr.data import read_corpus
    from gossamer.recsys.dataset import recall
    from gossamer.recsys.fold_in import FoldInConfig
    from gossamer.recsys.jobs import FACTORS
    from gossamer.recsys.model import Factors
    from gossamer.recsys.recommender import Recommender

    fold_in = load_preset(preset, FoldInConfig, section="fold_in", overrides=overrides or [])
    split, _ = recall(run)
    factors = Factors.load(run / FACTORS)
    users, item_vectors = factors.user_vectors(), factors.item_vectors()
    if "nnz" not in fold_in.model_fields_set:
        fold_in = fold_in.model_copy(update={"nnz": max(1, round(users.nnz / users.n_rows))})
    built = Recommender.build(
        path,
        users=users,
        items=item_vectors,
        interactions=split.fit,
        item_documents=None if items is None else read_corpus(items),
        group=group,
        fold_in=fold_in,
        replace=replace,
    )
    rows: list[tuple[str, object]] = [
        ("users", built.n_users),
        ("items", built.n_items),
        ("non-zeros a user", users.nnz / users.n_rows),
        ("non-zeros an item", item_vectors.nnz / item_vectors.n_rows),
        ("size of the vectors, with indices", bytes_(built.stored_bytes)),
        ("size of the item index", bytes_(sum(built.items.info().bytes.values()))),
    ]
    table(str(path), ("", ""), rows)


@app.command()
def evaluate(
    run: Run,
    path: Annotated[Path, typer.Argument(help="Recommender folder that was exported from the run.")],
    preset: Preset = None,
    overrides: Overrides = None,
) -> None:
    """Measure a recommender on the run's test part, beside popularity."""
    from gossamer.index.presets import load_preset
    from gossamer.recsys.dataset import recall
    from gossamer.recsys.evaluate import CompareConfig, compare
    from gossamer.recsys.recommender import Recommender

    config = load_preset(preset, CompareConfig, section="evaluate", overrides=overrides or [])
    split, _ = recall(run)
    recommender = Recommender.open(path)
    rows = compare(
        recommender, split.fit, split.test, group=recommender.group, k=config.k, n_timed=config.n_timed
    )
    names = list(rows[0].measures)
    table(
        f"{len(split.test):,} held-out items, full ranking, seen items left out",
        ("model", *names, "size", "p50 µs", "p99 µs"),
        [
            (r.model, *r.measures.values(), bytes_(r.bytes) if r.bytes else None, r.p50_us, r.p99_us)
            for r in rows
        ],
    )


@app.command()
def clicks(
    folder: Annotated[Path, typer.Argument(help="Folder of live clicks.")],
    path: Annotated[Path, typer.Argument(help="File to write, .parquet or .tsv.")],
) -> None:
    """Write users' new clicks as a file, for `recsys train --clicks`."""
    from gossamer.recsys.dataset import write_clicks
    from gossamer.recsys.live import LiveInteractions

    live = LiveInteractions.open(folder)
    log = live.interactions()
    write_clicks(log, path)
    console.print(f"{log!r} up to position {live.position} written to {path}", markup=False)


@app.command()
def sample(folder: Annotated[Path, typer.Argument(help="Folder to make.")]) -> None:
    """Write the embedded log: which names the source files on this machine import."""
    from gossamer.recsys.imports import write_imports

    summary = write_imports(folder)
    rows = [
        ("source files (users)", summary.n_users),
        ("imported names (items)", summary.n_items),
        ("interactions", summary.n_interactions),
        ("fingerprint", summary.fingerprint[:16]),
    ]
    table(str(summary.path), ("", ""), rows)
