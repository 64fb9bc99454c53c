"""`gossamer index build|search|calibrate|info|verify`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gossamer.index.filters import Filters
from gossamer.kernels.sparse_dot import Backend
from gossamer.serving.cli.show import Overrides, Preset, Replace, bytes_, console, out, progress, table

if TYPE_CHECKING:
    from gossamer.index.format import Effort
    from gossamer.index.info import IndexInfo
    from gossamer.index.inverted import InvertedIndex
    from gossamer.index.sharded import ShardedIndex

app = typer.Typer(help="Build, search and inspect inverted indexes.", no_args_is_help=True)

Index = Annotated[Path, typer.Argument(help="Folder of the index.")]


@app.command()
def build(
    vectors: Annotated[Path, typer.Argument(help="Parquet file or folder of sparse vectors.")],
    path: Annotated[Path, typer.Argument(help="Folder to make.")],
    documents: Annotated[
        Path | None, typer.Option(help="Corpus with titles, texts and metadata, in the vectors' order.")
    ] = None,
    encoder: Annotated[
        Path | None,
        typer.Option(help="Folder of the encoder that made the vectors; its fingerprint is kept."),
    ] = None,
    shards: Annotated[
        int | None, typer.Option(min=1, help="Shards that are searched in parallel; one index if not given.")
    ] = None,
    preset: Preset = None,
    overrides: Overrides = None,
    replace: Replace = False,
) -> None:
    """Build an index from vectors."""
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
    make: Callable[..., InvertedIndex | ShardedIndex] = InvertedIndex.build
    if shards is not None:
        from gossamer.index.sharded import ShardedIndex

        make = partial(ShardedIndex.build, n_shards=shards)
    with progress("building") as update:
        built = make(
            path, vectors, documents=texts, config=config, encoder=info, replace=replace, on_rows=update
        )
    _show_info(built)


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
    threads: Annotated[int, typer.Option(min=1, help="Threads that share the queries, or the shards.")] = 1,
) -> None:
    """Search with one query in words, or with a file of query vectors."""
    from gossamer.index.measures import write_run
    from gossamer.index.vectors import SparseVectors
    from gossamer.kernels.errors import ConfigError

    index = _open(path)
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
    from gossamer.index.vectors import SparseVectors

    index = _open(path)
    index.calibrate(None if queries is None else SparseVectors.read_parquet(str(queries)))
    _show_info(index)


@app.command()
def info(path: Index) -> None:
    """Show what an index holds and how large it is."""
    _show_info(_open(path))


@app.command()
def verify(path: Index) -> None:
    """Read every byte of an index and compare it with its checksums."""
    from gossamer.index.open import open_index

    open_index(path).verify()
    out.print(f"{path}: every byte is as it was written", markup=False)


def _read_filter(text: str) -> Filters:
    from gossamer.kernels.errors import ConfigError

    try:
        filters: Filters = json.loads(text)  # checked when it is used
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f'--filter {text[:40]!r} is no JSON ({error}); give it in quotes, such as \'{{"kind": "function"}}\'.'
        ) from error
    return filters


def _open(path: Path) -> InvertedIndex | ShardedIndex:
    from gossamer.index.inverted import InvertedIndex
    from gossamer.index.open import open_index
    from gossamer.index.sharded import ShardedIndex
    from gossamer.kernels.errors import MismatchError

    index = open_index(path)
    if not isinstance(index, InvertedIndex | ShardedIndex):
        raise MismatchError(f"{path} is of the kind {index.kind!r}, which this command does not take.")
    return index


def _show_info(index: InvertedIndex | ShardedIndex) -> None:
    from gossamer.index.info import ShardedInfo

    info = index.info()
    if not isinstance(info, ShardedInfo):
        _show_one(info)
        return
    rows: list[tuple[str, object]] = [
        ("documents", info.n_documents),
        (
            "shards",
            f"{len(info.shards)}, of {min(s.n_documents for s in info.shards):,} to "
            f"{max(s.n_documents for s in info.shards):,} documents",
        ),
        *((f"{part} on disk", bytes_(size)) for part, size in info.bytes.items()),
    ]
    table(str(info.path), ("", ""), rows)
    _show_one(max(info.shards, key=lambda shard: shard.n_documents))


def _show_one(info: IndexInfo) -> None:
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
