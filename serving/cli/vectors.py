"""`gossamer vectors convert|vocabulary`, and the options by which commands read vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gossamer.serving.cli.show import Replace, out, progress

if TYPE_CHECKING:
    from gossamer.index.vectors import SparseVectors

app = typer.Typer(help="Vectors from and to the files of other systems.", no_args_is_help=True)

KINDS = ".parquet, .csr (Big-ANN), .npz (scipy), .jsonl[.gz] (Anserini), or a folder of Parquet or JSONL"
Vocabulary = Annotated[
    Path | None,
    typer.Option(
        help="JSONL: the numbers of its terms: tokenizer.json, vocab.txt or the folder of an encoder."
    ),
]
NTerms = Annotated[
    int | None,
    typer.Option(min=1, help="How many terms there are, where neither file nor vocabulary says it."),
]
Ids = Annotated[
    Path | None,
    typer.Option(help=".csr and .npz: a file with an id a line; by default NAME.csr.ids, if there."),
]
Signed = Annotated[
    bool, typer.Option("--signed", help="Allow negative weights; Parquet says by itself whether it has some.")
]


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help=f"{KINDS}; or the folder of an index.")],
    target: Annotated[Path, typer.Argument(help="File to make: .parquet, .csr, .npz, .jsonl or .jsonl.gz.")],
    vocabulary: Vocabulary = None,
    n_terms: NTerms = None,
    ids: Ids = None,
    signed: Signed = False,
    scale: Annotated[
        float | None,
        typer.Option(
            help="JSONL: its weights are this many times the vectors', in whole numbers; 100 is usual."
        ),
    ] = None,
    documents: Annotated[
        Path | None, typer.Option(help="To JSONL: corpus with titles and texts, in the vectors' order.")
    ] = None,
    replace: Replace = False,
) -> None:
    """Write vectors in another format, told by the suffix."""
    from gossamer.index.exchange.files import format_of, read_vectors, write_vectors
    from gossamer.index.manifests import MANIFEST

    of_jsonl: dict[str, Any] = {"vocabulary": vocabulary, "scale": scale}
    writes_jsonl = target.name.endswith((".jsonl", ".jsonl.gz"))
    given: dict[str, Any] = {"n_cols": n_terms, "ids": ids, "signed": signed}
    if (source / MANIFEST).exists():
        parts = _of_index(source, **given)
        reads_jsonl = False
    else:
        reads_jsonl = format_of(source) == "jsonl"
        # What only the target can use is not the source's; what neither can is refused there.
        parts = read_vectors(source, **given, **(of_jsonl if reads_jsonl or not writes_jsonl else {}))
    texts = None
    if documents is not None:
        from gossamer.lsr.data import read_corpus

        texts = read_corpus(documents)
    with progress("converting") as update:
        n_rows = write_vectors(
            _counted(parts, update),
            target,
            documents=texts,
            replace=replace,
            **(of_jsonl if writes_jsonl else {}),
        )
    out.print(f"{n_rows:,} rows written to {target}", markup=False)


@app.command()
def vocabulary(
    source: Annotated[Path, typer.Argument(help="JSONL file, or a folder of them.")],
    target: Annotated[Path, typer.Argument(help="JSON file to make.")],
    replace: Replace = False,
) -> None:
    """Collect the terms of JSONL vectors, for those whose tokenizer is not at hand."""
    from gossamer.index.exchange.anserini import collect_vocabulary
    from gossamer.index.exchange.vocabulary import write_vocabulary

    terms = collect_vocabulary(source)
    write_vocabulary(terms, target, replace=replace)
    out.print(f"{len(terms):,} terms written to {target}", markup=False)


def _of_index(path: Path, **given: object) -> Iterable[SparseVectors]:
    from gossamer.index.inverted import InvertedIndex
    from gossamer.kernels.errors import ConfigError

    if any(given.values()):
        raise ConfigError(
            f"{path} is an index, which knows its terms, ids and signs; leave those options out."
        )
    return InvertedIndex.open(path).stream()


def _counted(parts: Iterable[SparseVectors], update: Callable[..., None]) -> Iterator[SparseVectors]:
    n_rows = 0
    for part in parts:
        yield part
        n_rows += part.n_rows
        update(n_rows, None)
