"""`gossamer index add|delete|merge`: change an index that is there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gossamer.serving.cli.opening import open_changing, open_sparse
from gossamer.serving.cli.show import out
from gossamer.serving.cli.vectors import KINDS, Ids, NTerms, Signed, Vocabulary

Index = Annotated[Path, typer.Argument(help="Folder of the index.")]


def add(
    path: Index,
    vectors: Annotated[Path, typer.Argument(help=f"Sparse vectors with ids: {KINDS}.")],
    documents: Annotated[
        Path | None, typer.Option(help="Corpus with titles, texts and metadata, in the vectors' order.")
    ] = None,
    encoder: Annotated[
        Path | None, typer.Option(help="Folder of the encoder that made the vectors, to be compared.")
    ] = None,
    update: Annotated[
        bool, typer.Option("--update", help="Let them take the place of documents with their ids.")
    ] = False,
    vocabulary: Vocabulary = None,
    n_terms: NTerms = None,
    ids: Ids = None,
    signed: Signed = False,
) -> None:
    """Add documents to an index; all of them, or none."""
    from gossamer.index.exchange.files import read_vectors

    source = read_vectors(vectors, vocabulary=vocabulary, n_cols=n_terms, ids=ids, signed=signed)
    texts = info = None
    if documents is not None:
        from gossamer.lsr.data import read_corpus

        texts = read_corpus(documents)
    if encoder is not None:
        from gossamer.lsr.formats import load_encoder

        info = load_encoder(encoder).info
    index = open_sparse(path)
    receipt = (index.update if update else index.add)(source, documents=texts, encoder=info)
    out.print(
        f"{receipt.n_added:,} documents added, {receipt.n_deleted:,} of them in the place of others; "
        f"{len(index):,} in {index.n_segments} segments",
        markup=False,
    )


def delete(
    path: Index,
    ids: Annotated[list[str], typer.Argument(help="Ids of documents.")],
    missing: Annotated[bool, typer.Option("--missing", help="Some may not be there.")] = False,
) -> None:
    """Take documents out of an index; all of them, or none."""
    index = open_changing(path)
    receipt = index.delete(ids, missing=missing)
    out.print(f"{receipt.n_deleted:,} documents deleted; {len(index):,} left", markup=False)


def merge(
    path: Index,
    max_segments: Annotated[
        int | None, typer.Option(min=1, help="How many may remain; by default, merge what is due.")
    ] = None,
) -> None:
    """Make fewer segments, and leave deleted documents behind."""
    index = open_changing(path)
    count = index.merge(max_segments)
    out.print(f"{count:,} merges; {len(index):,} documents in {index.n_segments} segments", markup=False)
