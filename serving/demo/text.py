"""The demo's search half: docstrings, two BM25s, an encoder trained from nothing, all in the same kind of index."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gossamer.index.presets import load_preset
from gossamer.serving.cli.show import follow_metrics, progress
from gossamer.serving.demo.stages import Stages

if TYPE_CHECKING:
    from gossamer.lsr.encoder import Encoder

BM25_STEMS, BM25_PIECES = "BM25 (stems)", "BM25 (word pieces)"
UNTRAINED, TRAINED = "SPLADE, before training", "SPLADE, trained"


@dataclass(frozen=True)
class EncoderRow:
    """One encoder on the test queries: measures, sizes, and the seconds that training or counting took."""

    name: str
    measures: dict[str, float]
    document_nnz: float
    query_nnz: float
    index_bytes: int
    seconds: float


@dataclass(frozen=True)
class TextResult:
    """What the search half came to; `index` and `encoder` are what the service opens."""

    n_documents: int
    fingerprint: str
    rows: list[EncoderRow]
    queries: list[str]
    index: Path
    encoder: Path

    def claims(self) -> Iterator[tuple[str, float]]:
        """What the table should show, with the difference that decides it."""
        scores = {row.name: row.measures["nDCG@10"] for row in self.rows}
        bar = max(scores[BM25_STEMS], scores[BM25_PIECES])
        yield "trained encoder over the stronger BM25, nDCG@10", scores[TRAINED] - bar


def retrieve(stages: Stages, preset: str) -> TextResult:
    """Run the search half, or read what is left of an earlier run."""
    data = stages.folder / "docstrings"
    stats = stages.once("docstrings read", lambda: _write_collection(data))
    rows = [
        stages.once("BM25 (stems)", lambda: _bm25(data, None)),
        stages.once("tokenizer and lexical start", lambda: _start(stages.folder, data, preset)),
        stages.once("BM25 (word pieces)", lambda: _bm25(data, stages.folder / "text-start")),
    ]
    seconds = stages.once("encoder trained", lambda: _train(stages.folder, data, preset))
    stages.once("corpus encoded", lambda: _encode(stages.folder, data))
    stages.once("index built", lambda: _build(stages.folder, data))
    rows.append(stages.once("encoder evaluated", lambda: _evaluate(stages.folder, data, seconds)))
    return TextResult(
        n_documents=stats["n_documents"],
        fingerprint=stats["fingerprint"],
        rows=[EncoderRow(**row) for row in (rows[0], rows[2], rows[1], rows[3])],
        queries=_queries(data),
        index=stages.folder / "index",
        encoder=stages.folder / "encoder",
    )


def _write_collection(data: Path) -> dict[str, Any]:
    from gossamer.lsr.docstrings import write_docstrings

    shutil.rmtree(data, ignore_errors=True)  # of a run that was stopped here
    with progress("reading docstrings") as update:
        return asdict(write_docstrings(data, progress=update))


def _bm25(data: Path, pieces_of: Path | None) -> dict[str, Any]:
    from gossamer.lsr.bm25 import Bm25Config, Bm25Encoder
    from gossamer.lsr.data import corpus_texts
    from gossamer.lsr.formats import load_sparse_encoder

    started = time.perf_counter()
    config = Bm25Config(analyzer="stems" if pieces_of is None else "pieces")
    tokenizer = None if pieces_of is None else load_sparse_encoder(pieces_of).tokenizer
    with progress("counting words"):
        encoder = Bm25Encoder.fit(corpus_texts(data), config=config, tokenizer=tokenizer)
    name = BM25_STEMS if pieces_of is None else BM25_PIECES
    return _measured(encoder, data, name, seconds=time.perf_counter() - started)


def _start(folder: Path, data: Path, preset: str) -> dict[str, Any]:
    from gossamer.lsr.start import StartConfig, start_encoder

    started = time.perf_counter()
    config = load_preset(preset, StartConfig, section="start")
    with progress("learning word pieces"):
        encoder = start_encoder(config, data, name="docstrings")
        encoder.save(folder / "text-start", replace=True)
    return _measured(encoder, data, UNTRAINED, seconds=time.perf_counter() - started)


def _train(folder: Path, data: Path, preset: str) -> float:
    from gossamer.lsr.jobs import train_job
    from gossamer.lsr.train import TrainConfig

    config = load_preset(preset, TrainConfig, section="train")
    started = time.perf_counter()
    with progress("training the encoder") as update:
        follow = follow_metrics(update, config.steps)
        run = folder / "text-run"
        trained = train_job(config, data, folder / "text-start", run, resume=True, on_metrics=follow)
    shutil.copytree(trained, folder / "encoder", dirs_exist_ok=True)
    return time.perf_counter() - started


def _encode(folder: Path, data: Path) -> None:
    from gossamer.lsr.jobs import encode_job

    with progress("encoding the corpus") as update:
        encode_job(folder / "encoder", data, folder / "vectors", replace=True, progress=update)


def _build(folder: Path, data: Path) -> None:
    from gossamer.index.inverted import InvertedIndex
    from gossamer.lsr.data import read_corpus
    from gossamer.lsr.encode import read_encoder_info

    vectors = folder / "vectors"
    with progress("building the index") as update:
        InvertedIndex.build(
            folder / "index",
            vectors,
            documents=read_corpus(data),
            encoder=read_encoder_info(vectors),
            replace=True,
            on_rows=update,
        )


def _evaluate(folder: Path, data: Path, seconds: float) -> dict[str, Any]:
    from gossamer.lsr.formats import load_encoder

    return _measured(load_encoder(folder / "encoder"), data, TRAINED, seconds=seconds, index=folder / "index")


def _measured(
    encoder: Encoder, data: Path, name: str, *, seconds: float, index: Path | None = None
) -> dict[str, Any]:
    from gossamer.lsr.evaluate import evaluate_encoder

    with progress(f"evaluating {name}"[:28]) as update:
        found = evaluate_encoder(encoder, data, split="test", index=index, progress=update)
    row = EncoderRow(name, found.measures, found.document_nnz, found.query_nnz, found.index_bytes, seconds)
    return asdict(row)


def _queries(data: Path) -> list[str]:
    from gossamer.lsr.data import read_qrels, read_queries

    judged = read_qrels(data, "test")
    rows = (row for batch in read_queries(data) for row in batch.to_pylist())
    return [row["text"] for row in rows if row["id"] in judged]
