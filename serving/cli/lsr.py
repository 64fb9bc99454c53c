"""`gossamer lsr train|encode|evaluate|bm25|sample`."""

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
    console,
    follow_metrics,
    progress,
    table,
)

app = typer.Typer(help="Train, run and evaluate sparse text encoders.", no_args_is_help=True)

Data = Annotated[Path, typer.Argument(help="BEIR folder; for training also JSONL, TSV or Parquet of pairs.")]
EncoderFolder = Annotated[Path, typer.Argument(help="Folder of an encoder.")]
StartOverrides = Annotated[
    list[str] | None, typer.Option("--start", help="key=value over the preset's [start]; may be repeated.")
]


@app.command()
def train(
    data: Data,
    run: Annotated[Path, typer.Argument(help="Run folder to make; the encoder lands in RUN/encoder.")],
    encoder: Annotated[
        Path | None, typer.Option(help="Encoder to start from; without one, [start] of the preset makes it.")
    ] = None,
    preset: Preset = "docstrings",
    overrides: Overrides = None,
    start_overrides: StartOverrides = None,
    workers: Workers = 1,
    gpu: Annotated[bool, typer.Option("--gpu", help="A GPU for each worker.")] = False,
    address: Address = None,
    local: Local = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
) -> None:
    """Train an encoder on pairs of query and document."""
    from gossamer.index.presets import load_preset
    from gossamer.lsr.start import StartConfig, start_encoder
    from gossamer.lsr.train import TrainConfig

    config = load_preset(preset, TrainConfig, section="train", overrides=overrides or [])
    if encoder is None:
        start = load_preset(preset, StartConfig, section="start", overrides=start_overrides or [])
        encoder = run / "start"
        if not (resume and encoder.exists()):
            console.print("reading the corpus for a vocabulary …")
            start_encoder(start, data).save(encoder, replace=resume)
    with progress("training") as update:
        follow = follow_metrics(update, config.steps)
        if local:
            from gossamer.lsr.local import train_files

            trained = train_files(config, data, encoder, run, resume=resume, on_metrics=follow)
        else:
            from gossamer.lsr.jobs import train_job

            trained = train_job(
                config,
                data,
                encoder,
                run,
                n_workers=workers,
                use_gpu=gpu,
                resume=resume,
                address=address,
                on_metrics=follow,
            )
    console.print(f"encoder written to {trained}")


@app.command()
def encode(
    encoder: EncoderFolder,
    corpus: Annotated[Path, typer.Argument(help="BEIR folder, JSONL, TSV or Parquet of documents.")],
    out: Annotated[Path, typer.Argument(help="Folder of Parquet vectors to make.")],
    actors: Annotated[int, typer.Option(min=1, help="Ray actors, each with the encoder.")] = 2,
    preset: Preset = None,
    overrides: Overrides = None,
    gpu: Annotated[bool, typer.Option("--gpu", help="A GPU for each actor.")] = False,
    address: Address = None,
    local: Local = False,
    replace: Replace = False,
    changed: Annotated[
        bool,
        typer.Option("--changed", help="Replace what is at OUT, and encode only new and changed documents."),
    ] = False,
) -> None:
    """Encode a corpus into Parquet vectors; a killed call goes on where it was."""
    from gossamer.index.presets import load_preset
    from gossamer.lsr.encode import EncodeConfig, encode_corpus
    from gossamer.lsr.known_rows import Changes

    config = load_preset(preset, EncodeConfig, section="encode", overrides=overrides or [])
    had_some = changed and out.exists()
    with progress("encoding") as update:
        if local:
            from gossamer.lsr.formats import load_encoder

            loaded = load_encoder(encoder, precision=config.precision)
            encode_corpus(
                loaded,
                corpus,
                out,
                batch_size=config.batch_size,
                replace=replace,
                changed=changed,
                progress=update,
            )
        else:
            from gossamer.lsr.jobs import encode_job

            encode_job(
                encoder,
                corpus,
                out,
                n_actors=actors,
                use_gpu=gpu,
                batch_size=config.batch_size,
                precision=config.precision,
                replace=replace,
                changed=changed,
                address=address,
                progress=update,
            )
    console.print(f"vectors written to {out}")
    if had_some:
        counts = Changes.read(out)
        console.print(
            f"{counts.n_encoded:,} documents were encoded, {counts.n_reused:,} are as they were, "
            f"{counts.n_dropped:,} are gone"
        )


@app.command()
def evaluate(
    encoder: EncoderFolder,
    data: Annotated[Path, typer.Argument(help="BEIR folder with queries and judgements.")],
    index: Annotated[Path | None, typer.Option(help="Index of the corpus by this encoder.")] = None,
    run: Annotated[
        Path | None, typer.Option(help="Write the hits as a TREC run here, for `gossamer evaluate`.")
    ] = None,
    preset: Preset = None,
    overrides: Overrides = None,
) -> None:
    """Measure how well an encoder retrieves."""
    from gossamer.index.presets import load_preset
    from gossamer.lsr.evaluate import EvaluateConfig, evaluate_encoder
    from gossamer.lsr.formats import load_encoder

    config = load_preset(preset, EvaluateConfig, section="evaluate", overrides=overrides or [])
    with progress("encoding") as update:
        result = evaluate_encoder(
            load_encoder(encoder),
            data,
            split=config.split,
            index=index,
            measures=config.measures,
            run=run,
            progress=update,
        )
    rows: list[tuple[str, object]] = [
        *result.measures.items(),
        ("documents", result.n_documents),
        ("queries", result.n_queries),
        ("non-zeros a document", result.document_nnz),
        ("non-zeros a query", result.query_nnz),
    ]
    table(f"{encoder} on {data} ({config.split})", ("", ""), rows)


@app.command()
def bm25(
    corpus: Annotated[Path, typer.Argument(help="BEIR folder, JSONL, TSV or Parquet of documents.")],
    out: Annotated[Path, typer.Argument(help="Encoder folder to make.")],
    preset: Preset = None,
    overrides: Overrides = None,
    replace: Replace = False,
) -> None:
    """Count a corpus for BM25, the baseline that is an encoder like any other."""
    from gossamer.index.presets import load_preset
    from gossamer.lsr.bm25 import Bm25Config, Bm25Encoder
    from gossamer.lsr.data import corpus_texts

    config = load_preset(preset, Bm25Config, section="bm25", overrides=overrides or [])
    Bm25Encoder.fit(corpus_texts(corpus), config=config).save(out, replace=replace)
    console.print(f"encoder written to {out}")


@app.command()
def sample(folder: Annotated[Path, typer.Argument(help="BEIR folder to make.")]) -> None:
    """Write the embedded collection: the docstrings of Python's standard library."""
    from gossamer.lsr.docstrings import write_docstrings

    with progress("reading sources") as update:
        stats = write_docstrings(folder, progress=update)
    rows = [
        ("documents", stats.n_documents),
        *((f"{split} queries", n) for split, n in stats.n_queries.items()),
        *((f"pairs ({kind})", n) for kind, n in stats.n_pairs.items()),
        ("fingerprint", stats.fingerprint[:16]),
    ]
    table(str(folder), ("", ""), rows)
