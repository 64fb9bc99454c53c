"""`gossamer index search|calibrate|verify`; other commands of the group are in the modules beside."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from gossamer.index.filters import Filters
from gossamer.kernels.sparse_dot import Backend
from gossamer.serving.cli.index_build import build, plan, watch
from gossamer.serving.cli.index_changes import add, delete, merge
from gossamer.serving.cli.index_info import info, show_info
from gossamer.serving.cli.opening import open_changing, open_sparse
from gossamer.serving.cli.show import console, out, table

app = typer.Typer(help="Build, search and inspect inverted indexes.", no_args_is_help=True)

Index = Annotated[Path, typer.Argument(help="Folder of the index.")]


@app.command()
def search(
    path: Index,
    query: Annotated[str | None, typer.Argument(help="A query in words; needs --encoder.")] = None,
    encoder: Annotated[Path | None, typer.Option(help="Folder of the index's encoder.")] = None,
    vectors: Annotated[Path | None, typer.Option(help="File of query vectors, instead of a query.")] = None,
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
    from gossamer.index.exchange.files import read_vectors
    from gossamer.index.measures import write_run
    from gossamer.kernels.errors import ConfigError

    index = open_sparse(path)
    if (query is None) == (vectors is None):
        raise ConfigError("give either a query in words or --vectors, not both and not neither.")
    filters = None if filter_ is None else _read_filter(filter_)
    if query is not None:
        if encoder is None:
            raise ConfigError(
                "a query in words needs --encoder, the folder of the encoder that made the index."
            )
        from gossamer.lsr.formats import load_encoder
        from gossamer.serving.stage import SearchStage

        made_by = load_encoder(encoder)
        SearchStage(index, made_by)  # which refuses an index of another encoder
        queries = made_by.encode_queries([query])
    else:
        assert vectors is not None
        queries = read_vectors(vectors).read()
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
        Path | None, typer.Option(help="File of query vectors such as will be asked; else some documents.")
    ] = None,
) -> None:
    """Measure what approximate searches find and take; `search --recall` chooses from that."""
    from gossamer.index.exchange.files import read_vectors

    index: Any  # of any kind that can be calibrated; only one of sparse vectors by those of a file
    index = open_changing(path) if queries is None else open_sparse(path)
    index.calibrate(None if queries is None else read_vectors(queries).read())
    show_info(index)


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


app.command()(build)
app.command()(plan)
app.command()(watch)
app.command()(info)
app.command()(add)
app.command()(delete)
app.command()(merge)
