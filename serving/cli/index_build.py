"""`gossamer index build|plan|watch`: make an index, say beforehand what that takes, and follow a folder that grows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gossamer.serving.cli.index_info import show_info
from gossamer.serving.cli.show import Overrides, Preset, Replace, bytes_, console, out, progress, table
from gossamer.serving.cli.vectors import KINDS, Ids, NTerms, Signed, Vocabulary

if TYPE_CHECKING:
    from gossamer.index.format import EncoderInfo
    from gossamer.index.sharded import ShardedIndex

Budget = Annotated[
    int | None,
    typer.Option("--budget-mb", min=1, help="Memory that a process may use beyond what it starts with."),
]
Encoder = Annotated[
    Path | None, typer.Option(help="Folder of the encoder that made the vectors; its fingerprint is kept.")
]


def build(
    vectors: Annotated[str, typer.Argument(help=f"Sparse vectors: {KINDS}; or a URI of Parquet files.")],
    path: Annotated[Path, typer.Argument(help="Folder to make.")],
    documents: Annotated[
        Path | None, typer.Option(help="Corpus with titles, texts and metadata, in the vectors' order.")
    ] = None,
    encoder: Encoder = None,
    shards: Annotated[
        int | None, typer.Option(min=1, help="Shards that are searched in parallel; one index if not given.")
    ] = None,
    preset: Preset = None,
    overrides: Overrides = None,
    replace: Replace = False,
    vocabulary: Vocabulary = None,
    n_terms: NTerms = None,
    ids: Ids = None,
    signed: Signed = False,
    workers: Annotated[
        int, typer.Option(min=0, help="Ray tasks at a time; with any, a build that was killed goes on.")
    ] = 0,
    segments: Annotated[
        int,
        typer.Option(min=1, help="Segments to leave; --workers make more than one at the same time."),
    ] = 1,
    budget: Budget = None,
    address: Annotated[
        str | None,
        typer.Option(
            "--ray-address",
            envvar="RAY_ADDRESS",
            help="Ray cluster; without one, a local session is started.",
        ),
    ] = None,
    follow: Annotated[
        bool,
        typer.Option("--watch", help="Go on with files that come to the folder; as `gossamer index watch`."),
    ] = False,
) -> None:
    """Build an index from vectors, in this process or, with --workers, in Ray tasks."""
    from gossamer.index.exchange.files import read_vectors
    from gossamer.index.inverted import BuildConfig, InvertedIndex
    from gossamer.index.presets import load_preset
    from gossamer.kernels.errors import ConfigError

    if follow:
        if (
            documents
            or shards
            or replace
            or vocabulary
            or n_terms
            or ids
            or signed
            or workers
            or segments > 1
            or budget
        ):
            raise ConfigError(
                "--watch goes with --encoder, --preset and --set only: files are taken in one by one."
            )
        watch(vectors, path, encoder, preset, overrides)
        return
    config = load_preset(preset, BuildConfig, section="index", overrides=overrides or [])
    in_steps = workers > 0 or segments > 1 or "://" in vectors
    if shards is not None and (in_steps or budget is not None):
        raise ConfigError(
            "--shards goes with none of --workers, --segments, --budget-mb and URIs: shards are written one after the "
            "other in this process. Leave those out, or leave out --shards."
        )
    if in_steps:
        _refuse_odd(vocabulary=vocabulary, n_terms=n_terms, ids=ids, signed=signed or None)
    else:
        source = read_vectors(vectors, vocabulary=vocabulary, n_cols=n_terms, ids=ids, signed=signed)
    texts = None
    if documents is not None:
        from gossamer.lsr.data import read_corpus

        texts = read_corpus(documents)
    options: dict[str, Any] = {
        "documents": texts,
        "config": config,
        "encoder": _info_of(encoder),
        "replace": replace,
    }
    if shards is None:
        options |= {"budget_bytes": _bytes_of(budget)}
    built: InvertedIndex | ShardedIndex
    with progress("building") as update:
        if in_steps:
            options |= {"n_segments": segments, "on_step": _with_notes(update)}
        if workers:
            from gossamer.index.jobs import build_job

            built = build_job(path, vectors, n_workers=workers, address=address, **options)
        elif in_steps:
            from gossamer.index.spread_build import build_spread

            built = build_spread(path, vectors, **options)
        elif shards is not None:
            from gossamer.index.sharded import ShardedIndex

            built = ShardedIndex.build(path, source, n_shards=shards, on_rows=update, **options)
        else:
            built = InvertedIndex.build(path, source, on_rows=update, **options)
    show_info(built)


def plan(
    vectors: Annotated[
        str,
        typer.Argument(help="Parquet file or folder of sparse vectors, or a URI such as s3://bucket/folder."),
    ],
    documents: Annotated[
        Path | None,
        typer.Option(help="Corpus with titles, texts and metadata; counted as large as its files."),
    ] = None,
    preset: Preset = None,
    overrides: Overrides = None,
    workers: Annotated[int, typer.Option(min=1, help="Ray tasks at a time.")] = 1,
    budget: Budget = None,
) -> None:
    """Predict what a build will take: disk, memory and time; reads little of the vectors."""
    from gossamer.index.inverted import BuildConfig
    from gossamer.index.plan import plan_build
    from gossamer.index.presets import load_preset

    config = load_preset(preset, BuildConfig, section="index", overrides=overrides or [])
    planned = plan_build(
        vectors,
        config=config,
        documents_bytes=0 if documents is None else _size_of(documents),
        budget_bytes=_bytes_of(budget),
        n_workers=workers,
    )
    rows: list[tuple[str, object]] = [
        ("documents", planned.n_documents),
        ("terms", planned.n_terms),
        ("weights", planned.nnz),
        ("input, uncompressed", bytes_(planned.input_bytes)),
        *((f"{part} on disk", bytes_(size)) for part, size in planned.bytes.items()),
        ("all on disk", bytes_(sum(planned.bytes.values()))),
        ("beside it while it is built in steps", bytes_(planned.work_bytes)),
        ("memory at its peak", bytes_(planned.peak_bytes)),
        ("minutes", planned.seconds / 60),
    ]
    table(f"an index of {vectors}", ("", ""), rows)


def watch(
    vectors: Annotated[str, typer.Argument(help="Folder, or URI of one, that Parquet files are put into.")],
    path: Annotated[Path, typer.Argument(help="Folder of the index; made if it is not there.")],
    encoder: Encoder = None,
    preset: Preset = None,
    overrides: Overrides = None,
    every: Annotated[float, typer.Option(min=0.01, help="Seconds between two looks at the folder.")] = 5.0,
    once: Annotated[bool, typer.Option("--once", help="Take in what is there, and end.")] = False,
) -> None:
    """Keep an index up to date with a folder: each new or changed file is one change, by the ids in it."""
    from gossamer.index.inverted import BuildConfig
    from gossamer.index.presets import load_preset
    from gossamer.index.watching import Seen, Watch, until_stopped

    config = load_preset(preset, BuildConfig, section="index", overrides=overrides or [])
    followed = Watch(path, vectors, config=config, encoder=_info_of(encoder))

    def tell(seen: Seen) -> None:
        console.print(f"{seen.name}: {seen}")

    n_refused = 0
    for seen in until_stopped(followed, every_s=every, once=once):
        tell(seen)
        n_refused += seen.error is not None
    out.print(f"{followed.n_documents:,} documents in {path}", markup=False)
    if once and n_refused:
        raise typer.Exit(1)


def _info_of(encoder: Path | None) -> EncoderInfo | None:
    if encoder is None:
        return None
    from gossamer.lsr.formats import load_encoder

    return load_encoder(encoder).info


def _bytes_of(budget_mb: int | None) -> int | None:
    return None if budget_mb is None else budget_mb * 1_000_000


def _refuse_odd(**given: object) -> None:
    from gossamer.kernels.errors import ConfigError

    odd = [name for name, value in given.items() if value is not None]
    if odd:
        raise ConfigError(
            f"--{odd[0].replace('_', '-')} has no meaning for Parquet files; with --workers, --segments or a URI only "
            "these are read: `gossamer vectors convert` makes them."
        )


def _size_of(path: Path) -> int:
    from gossamer.kernels.errors import NotFoundError

    if not path.exists():
        raise NotFoundError(f"there are no documents at {path}; give the corpus that the index will have.")
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())


def _with_notes(update: Callable[..., None]) -> Callable[[str, int, int], None]:
    """A bar for each step of a build."""

    def on_step(name: str, done: int, total: int) -> None:
        update(done, total, note=name)

    return on_step
