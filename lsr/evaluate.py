"""How well an encoder retrieves on a judged collection."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from gossamer.index.inverted import InvertedIndex
from gossamer.index.measures import MEASURES, evaluate, write_run
from gossamer.kernels.errors import InputError, MismatchError
from gossamer.lsr.data import read_qrels, read_queries
from gossamer.lsr.encode import Progress, encode_corpus
from gossamer.lsr.encoder import Encoder

_QUERIES_AT_A_TIME = 512


class EvaluateConfig(BaseModel):
    """What an encoder is measured by."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    split: str = "test"
    """Which judgements of the collection."""
    measures: tuple[str, ...] = MEASURES
    """Names as ir-measures spells them."""


@dataclass(frozen=True)
class Evaluation:
    """What an encoder came to on one split of a collection.

    Attributes:
        measures: Mean over the judged queries, by measure.
        n_documents: Documents searched.
        n_queries: Judged queries.
        document_nnz: Mean non-zeros a document.
        query_nnz: Mean non-zeros a query.
        index_bytes: Size of the postings and their offsets on the disk.
        encode_s: Seconds for encoding and indexing the corpus; 0 where an index was given.
    """

    measures: dict[str, float]
    n_documents: int
    n_queries: int
    document_nnz: float
    query_nnz: float
    index_bytes: int
    encode_s: float


def evaluate_encoder(
    encoder: Encoder,
    folder: Path | str,
    *,
    split: str = "test",
    index: Path | str | None = None,
    measures: Sequence[str] = MEASURES,
    run: Path | str | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Encodes and indexes a BEIR folder, searches its judged queries, and measures.

    Args:
        encoder: Encoder.
        folder: BEIR folder.
        split: Which of its judgements.
        index: An index of the corpus by this encoder; without one, a temporary one is built.
        measures: Names as ir-measures spells them.
        run: File to write the hits to, as a TREC run.
        progress: Called with (pieces encoded, pieces in all).

    Returns:
        Measures and sizes.

    Raises:
        MismatchError: If the index was made by another encoder.
        InputError: If nothing is judged, a judged query has no text, or a run cannot hold an id.
    """
    judged = _judged_texts(Path(folder), split)
    if index is not None:
        return _measure(
            encoder, InvertedIndex.open(index), *judged, measures=measures, encode_s=0.0, run_file=run
        )
    with tempfile.TemporaryDirectory(prefix="gossamer-") as place:
        started = time.perf_counter()
        vectors = encode_corpus(encoder, folder, Path(place) / "vectors", progress=progress)
        built = InvertedIndex.build(Path(place) / "index", vectors, encoder=encoder.info)
        encode_s = time.perf_counter() - started
        return _measure(encoder, built, *judged, measures=measures, encode_s=encode_s, run_file=run)


def _judged_texts(folder: Path, split: str) -> tuple[dict[str, dict[str, int]], dict[str, str]]:
    """Judgements of a split, and the texts of its queries."""
    qrels = read_qrels(folder, split)
    if not qrels:
        raise InputError(f"{folder / 'qrels' / split}.tsv judges nothing; expected at least one judgement")
    texts = {
        row["id"]: row["text"]
        for batch in read_queries(folder)
        for row in batch.to_pylist()
        if row["id"] in qrels
    }
    if missing := next((query for query in qrels if query not in texts), None):
        raise InputError(
            f"query {missing!r} is judged in split {split!r} of {folder}, but its text is missing"
        )
    return qrels, texts


def _measure(
    encoder: Encoder,
    index: InvertedIndex,
    qrels: dict[str, dict[str, int]],
    texts: dict[str, str],
    *,
    measures: Sequence[str],
    encode_s: float,
    run_file: Path | str | None,
) -> Evaluation:
    found = index.info()
    if found.encoder is not None and found.encoder.fingerprint != encoder.info.fingerprint:
        raise MismatchError(
            f"{index.path} was made by another encoder ({found.encoder.name}); encode and build again"
        )
    depth = max(
        [100, *(int(name.rpartition("@")[2]) for name in measures if name.rpartition("@")[2].isdigit())]
    )
    run: dict[str, dict[str, float]] = {}
    nnz = 0
    names = list(texts)
    for start in range(0, len(names), _QUERIES_AT_A_TIME):
        some = names[start : start + _QUERIES_AT_A_TIME]
        vectors = encoder.encode_queries([texts[query] for query in some])
        nnz += vectors.nnz
        run |= index.search(vectors, k=depth).to_run(some)
    if run_file is not None:
        write_run(run, run_file)
    return Evaluation(
        measures=evaluate(run, qrels, measures),
        n_documents=found.n_documents,
        n_queries=len(texts),
        document_nnz=found.nnz / max(1, found.n_documents),
        query_nnz=nnz / len(texts),
        index_bytes=found.bytes["postings"] + found.bytes["offsets"],
        encode_s=encode_s,
    )
