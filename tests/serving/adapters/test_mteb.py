"""MTEB's own evaluation of an encoder and of a service, on a task that is made here: nothing is downloaded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mteb", reason="the extra mteb is not installed", exc_type=ImportError)

import mteb
from datasets import Dataset
from mteb.abstasks import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models import EncoderProtocol, SearchProtocol

from gossamer.index import InvertedIndex, SparseVectors
from gossamer.index.measures import evaluate
from gossamer.kernels.errors import InputError
from gossamer.lsr import Bm25Encoder
from gossamer.serving import Client, Engine, RunningService, ServeSettings
from gossamer.serving.adapters.mteb import EncoderSearch
from gossamer.serving.adapters.mteb_service import ServiceSearch
from tests.serving.conftest import DOCUMENTS

CORPUS = [{"id": id_, "title": title, "text": text} for id_, title, text, *_ in DOCUMENTS]
QUERIES = {"q1": "sort a list", "q2": "head and tail of a path", "q3": "qqq"}
RELEVANT = {"q1": {"sorted": 1, "list.sort": 1}, "q2": {"os.path.split": 1}, "q3": {"list": 1}}


class Task(AbsTaskRetrieval):
    """A retrieval task in memory; with `ranked`, one that ranks given documents."""

    metadata = TaskMetadata(
        name="Tiny",
        description="Functions of the standard library.",
        reference=None,
        dataset={"path": "none", "revision": "none"},
        type="Retrieval",
        category="t2t",
        modalities=["text"],
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score="ndcg_at_10",
        date=("2026-01-01", "2026-01-01"),
        domains=[],
        task_subtypes=[],
        license="apache-2.0",
        annotations_creators="derived",
        dialect=[],
        sample_creation="created",
        bibtex_citation="",
    )
    ranked: dict[str, list[str]] | None = None
    corpus_rows = CORPUS

    def load_data(self, num_proc: int | None = None, **_: Any) -> None:
        queries = [{"id": id_, "text": text} for id_, text in QUERIES.items()]
        split = {
            "corpus": Dataset.from_list(self.corpus_rows),
            "queries": Dataset.from_list(queries),
            "relevant_docs": RELEVANT,
            "top_ranked": self.ranked,
        }
        self.dataset = {"default": {"test": split}}
        self.data_loaded = True


def scores(model: Any, task: Task) -> dict[str, float]:
    result = mteb.evaluate(model, task, cache=None, show_progress_bar=False)
    (found,) = result.task_results[0].scores["test"]
    return {name: found[name] for name in ("ndcg_at_10", "recall_at_1", "mrr_at_10")}


def own(ranked: dict[str, list[str]] | None = None) -> dict[str, float]:
    """The same measures by another road: brute force over the vectors, and ir-measures."""
    encoder = Bm25Encoder.fit(f"{row['title']} {row['text']}" for row in CORPUS)
    documents = encoder.encode_documents([f"{row['title']} {row['text']}" for row in CORPUS])
    queries = encoder.encode_queries(list(QUERIES.values()))
    table = queries.to_scipy().toarray() @ documents.to_scipy().toarray().T
    run = {
        query: {
            row["id"]: float(score)
            for row, score in zip(CORPUS, line, strict=True)
            if score > 0 and (ranked is None or row["id"] in ranked[query])
        }
        for query, line in zip(QUERIES, table, strict=True)
    }
    found = evaluate(run, RELEVANT, ["nDCG@10", "R@1", "RR@10"])
    return dict(zip(("ndcg_at_10", "recall_at_1", "mrr_at_10"), found.values(), strict=True))


RANKED = {"q1": ["list", "list.sort"], "q2": ["os.path.join", "list"], "q3": []}


@pytest.mark.parametrize("ranked", [None, RANKED])
def test_an_encoder_is_evaluated(encoder_folder: Path, ranked: dict[str, list[str]] | None) -> None:
    model = EncoderSearch(Bm25Encoder.load(encoder_folder))
    assert isinstance(model, SearchProtocol)
    assert not isinstance(model, EncoderProtocol)
    task = Task()
    task.ranked = ranked
    assert scores(model, task) == pytest.approx(own(ranked), abs=1e-5)


@pytest.fixture
def client(encoder_folder: Path, tmp_path: Path) -> Iterator[Client]:
    """A collection without documents."""
    encoder = Bm25Encoder.load(encoder_folder)
    nothing = SparseVectors.from_dicts([], encoder.n_terms, ids=[])
    InvertedIndex.build(tmp_path / "index", nothing, encoder=encoder.info)
    engine = Engine.open(ServeSettings(index=tmp_path / "index", encoder=encoder_folder))
    with RunningService(engine) as running, Client(running.url) as client:
        yield client


@pytest.mark.parametrize("ranked", [None, RANKED])
def test_a_service_is_evaluated(client: Client, ranked: dict[str, list[str]] | None) -> None:
    model = ServiceSearch(client, name="tiny", revision="1")
    assert isinstance(model, SearchProtocol)
    task = Task()
    task.ranked = ranked
    assert scores(model, task) == pytest.approx(own(ranked), abs=1e-5)


def test_the_next_corpus_takes_the_place_of_the_last(client: Client, encoder_folder: Path) -> None:
    queries = Dataset.from_list([{"id": "q", "text": "list", "instruction": "path"}])
    for model in (
        ServiceSearch(client, name="tiny", revision="1"),
        EncoderSearch(Bm25Encoder.load(encoder_folder)),
    ):
        model.index(Dataset.from_list(CORPUS))
        assert "os.path.join" in model.search(queries, top_k=1_000)["q"]  # by its instruction
        model.index(Dataset.from_list([{"id": "new", "text": "another list"}]))
        assert list(model.search(queries, top_k=1_000)["q"]) == ["new"]


def test_what_cannot_be_evaluated_is_said(client: Client) -> None:
    model = ServiceSearch(client, name="tiny", revision="1")
    with pytest.raises(InputError, match="conversations"):
        model.search(Dataset.from_list([{"id": "q", "text": ["a", "b"]}]), top_k=10)
