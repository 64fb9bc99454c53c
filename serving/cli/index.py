"""`gossamer index build|plan|search|calibrate|info|verify`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gossamer.index.filters import Filters
from gossamer.kernels.sparse_dot import Backend
from gossamer.serving.cli.show import Overrides, Preset, Replace, bytes_, console, out, progress, table

if TYPE_CHECKING:
    from gossamer.index.format import Effort

app = typer.Typer(help="Build, search and inspect inverted indexes.", no_args_is_help=True)

Vectors = Annotated[
    str, typer.Argument(help="Parquet file or folder of sparse vectors, or a URI such as s3://bucket/folder.")
]
Budget = Annotated[
    int | None,
    typer.Option("--budget-mb", min=1, help="Memory that a process may use beyond what it starts with."),
]
Index = Annotated[Path, typer.Argument(help="Folder of the index.")]


@app.command()
def build(
    vectors: Vectors,
    path: Annotated[Path, typer.Argument(help="Folder to make.")],
    documents: Annotated[
        Path | None, typer.Option(help="Corpus with titles, texts and metadata, in the vectors' order.")
    ] = None,
    encoder: Annotated[
        Path | None,
        typer.Option(help="Folder of the encoder that made the vectors; its fingerprint is kept."),
    ] = None,
    preset: Preset = None,
    overrides: Overrides = None,
    replace: Replace = False,
    workers: Annotated[
        int, typer.Option(min=0, help="Ray tasks at a time; with any, a build that was killed goes on.")
    ] = 0,
    segments: Annotated[
        int,
        typer.Option(min=1, help="Segments to leave; more than one are made at the same time by --workers."),
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
) -> None:
    """Build an index from vectors, in this process or, with --workers, in Ray tasks."""
    from gossamer.index.inverted import BuildConfig, InvertedIndex
    from gossamer.index.presets import load_preset

    config = load_preset(preset, BuildConfig, section="index", overrides=overrides or [])
    info = None
    if encoder is not None:
        from gossamer.lsr.formats import load_encoder

        info = load_encoder(encoder).info
    texts = None
    if documents is not None:
        from gossamer.lsr.data import read_corpus

        texts = read_corpus(documents)
    options: dict[str, Any] = {
        "documents": texts,
        "config": config,
        "encoder": info,
        "replace": replace,
        "budget_bytes": None if budget is None else budget * 1_000_000,
    }
    with progress("building") as update:
        if workers or segments > 1 or "://" in vectors:
            options |= {"n_segments": segments, "on_step": _note_step(update)}
            if workers:
                from gossamer.index.jobs import build_job

                built = build_job(path, vectors, n_workers=workers, address=address, **options)
            else:
                from gossamer.index.sharded_build import build_sharded

                built = build_sharded(path, vectors, **options)
        else:
            built = InvertedIndex.build(path, vectors, on_rows=update, **options)
    _show_info(built)


@app.command()
def plan(
    vectors: Vectors,
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
        budget_bytes=None if budget is None else budget * 1_000_000,
        n_workers=workers,
    )
    rows: list[tuple[str, object]] = [
        ("documents", planned.n_documents),
        ("terms", planned.n_terms),
        ("weights", planned.nnz),
        ("input, uncompressed", bytes_(planned.input_bytes)),
        *((f"{part} on disk", bytes_(size)) for part, size in planned.bytes.items()),
        ("all on disk", bytes_(sum(planned.bytes.values()))),
        ("beside it while shards are built", bytes_(planned.work_bytes)),
        ("memory at its peak", bytes_(planned.peak_bytes)),
        ("minutes", planned.seconds / 60),
    ]
    table(f"an index of {vectors}", ("", ""), rows)


def _size_of(path: Path) -> int:
    from gossamer.kernels.errors import NotFoundError

    if not path.exists():
        raise NotFoundError(f"there are no documents at {path}; give the corpus that the index will have.")
    return sum(
        file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file()
    )


@app.command()
def search(
    path: Index,
    query: Annotated[str | None, typer.Argument(help="A query in words; needs --encoder.")] = None,
    encoder: Annotated[Path | None, typer.Option(help="Folder of the index's encoder.")] = None,
    vectors: Annotated[
        Path | None, typer.Option(help="Parquet of query vectors, instead of a query.")
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Hits a query.")] = 10,
    filter_: Annotated[
        str | None,
        typer.Option("--filter", help="""JSON of which documents may be hits: '{"year": {">=": 2000}}'."""),
    ] = None,
    recall: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Share of the exact hits that is enough, such as 0.99; exact if not given."
        ),
    ] = None,
    rescore: Annotated[
        bool, typer.Option("--rescore", help="Score by the weights as given, not by the stored impacts.")
    ] = False,
    run: Annotated[Path | None, typer.Option(help="Write the hits as a TREC run here.")] = None,
    backend: Annotated[
        Backend, typer.Option(help="A kernel backend; one that is named runs or fails.")
    ] = "auto",
    threads: Annotated[int, typer.Option(min=1, help="Threads that share the queries.")] = 1,
) -> None:
    """Search with one query in words, or with a file of query vectors."""
    from gossamer.index.inverted import InvertedIndex
    from gossamer.index.measures import write_run
    from gossamer.index.vectors import SparseVectors
    from gossamer.kernels.errors import ConfigError

    index = InvertedIndex.open(path)
    if (query is None) == (vectors is None):
        raise ConfigError("give either a query in words or --vectors, not both and not neither.")
    filters = None if filter_ is None else _read_filter(filter_)
    if query is not None:
        if encoder is None:
            raise ConfigError(
                "a query in words needs --encoder, the folder of the encoder that made the index."
            )
        from gossamer.serving.stage import SearchStage

        queries = SearchStage.open(path, encoder).encoder.encode_queries([query])
    else:
        queries = SparseVectors.read_parquet(str(vectors))
    start = time.perf_counter()
    hits = index.search(
        queries,
        k,
        recall=recall,
        rescore="float" if rescore else None,
        filters=filters,
        backend=backend,
        n_threads=threads,
    )
    seconds = time.perf_counter() - start
    names = [str(row) for row in range(len(hits))] if queries.ids is None else queries.ids.to_pylist()
    if run is not None:
        write_run(hits.to_run(names), run)
        console.print(f"{len(names):,} queries in {seconds:.2f} s; run written to {run}")
        return
    for row, name in enumerate(names):
        found = index.documents.take(hits.rows[row][hits.rows[row] >= 0]).to_pylist()
        rows = [
            (score, document["id"], document.get("title") or "", (document.get("text") or "")[:70])
            for document, (_, score) in zip(found, hits.of(row), strict=True)
        ]
        table(query or str(name), ("score", "id", "title", "text"), rows)


@app.command()
def calibrate(
    path: Index,
    queries: Annotated[
        Path | None, typer.Option(help="Parquet of query vectors such as will be asked; else some documents.")
    ] = None,
) -> None:
    """Measure what approximate searches find and take; `search --recall` chooses from that."""
    from gossamer.index.inverted import InvertedIndex
    from gossamer.index.vectors import SparseVectors

    index = InvertedIndex.open(path)
    index.calibrate(None if queries is None else SparseVectors.read_parquet(str(queries)))
    _show_info(index)


@app.command()
def info(path: Index) -> None:
    """Show what an index holds and how large it is."""
    from gossamer.index.inverted import InvertedIndex

    _show_info(InvertedIndex.open(path))


@app.command()
def verify(path: Index) -> None:
    """Read every byte of an index and compare it with its checksums."""
    from gossamer.index.inverted import InvertedIndex

    InvertedIndex.open(path).verify()
    out.print(f"{path}: every byte is as it was written", markup=False)


def _note_step(update: Callable[..., None]) -> Callable[[str, int, int], None]:
    def on_step(name: str, done: int, total: int) -> None:
        update(done, total, note=name)

    return on_step


def _read_filter(text: str) -> Filters:
    from gossamer.kernels.errors import ConfigError

    try:
        filters: Filters = json.loads(text)  # checked when it is used
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f'--filter {text[:40]!r} is no JSON ({error}); give it in quotes, such as \'{{"kind": "function"}}\'.'
        ) from error
    return filters


def _show_info(index: object) -> None:
    from gossamer.index.inverted import InvertedIndex

    assert isinstance(index, InvertedIndex)
    info = index.info()
    rows: list[tuple[str, object]] = [
        ("documents", info.n_documents),
        ("terms", info.n_terms),
        ("postings", info.nnz),
        ("non-zeros a document", info.nnz / max(info.n_documents, 1)),
        ("bytes a posting", f"{info.bytes_per_posting:.3f}"),
        *((f"{part} on disk", bytes_(size)) for part, size in info.bytes.items()),
        ("impacts", info.impacts),
        ("weight of one level", f"{info.step:.6g}"),
        ("largest rounding error", f"{info.largest_error:.6g}"),
        ("documents a window", info.window),
        ("dense terms", info.n_dense),
        *(
            (f"recall {point.recall:.4f}", f"{point.query_us:,.0f} µs a query, {_effort(point.effort)}")
            for point in info.curve or ()
        ),
        (
            "encoder",
            "–" if info.encoder is None else f"{info.encoder.name} ({info.encoder.fingerprint[:12]})",
        ),
        ("created", f"{info.created} by {info.created_by}"),
    ]
    table(str(info.path), ("", ""), rows)


def _effort(effort: Effort | None) -> str:
    if effort is None:
        return "exact"
    windows = "all windows" if effort.max_windows is None else f"{effort.max_windows:,} windows"
    return f"{effort.query_share:g} of the query, {effort.candidates_a_hit:g} candidates a hit, {windows}"
