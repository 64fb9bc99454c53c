"""Documents that are split into passages, and found as one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.index import InvertedIndex, SparseVectors
from gossamer.index.disk import using
from gossamer.kernels.errors import ConfigError, InputError, NotFoundError, StorageError
from gossamer.lsr import Bm25Encoder, Passages
from gossamer.serving import Client, Engine, RunningService, SearchStage, ServeSettings
from gossamer.serving.collection_config import CollectionConfig
from gossamer.serving.opening import open_parts
from gossamer.serving.passages import best_of_each, document_of, of_documents, row_id
from gossamer.serving.pipeline import Pipeline
from gossamer.serving.retrieval import Retriever
from tests.contracts.disks import Failing
from tests.serving.conftest import WAYS, reached

Answering: TypeAlias = Engine | Client
LETTERS = ["ab", "cd", "ef", "gh"]
FOUR = Passages(max_words=4)


def stage_at(folder: Path) -> SearchStage:
    encoder = Bm25Encoder.fit([*LETTERS, "ab cd ef gh title"])
    nothing = SparseVectors.from_dicts([], encoder.n_terms, ids=[])
    index = InvertedIndex.build(folder, nothing, encoder=encoder.info)
    return SearchStage(index, encoder)


@pytest.fixture
def stage(tmp_path: Path) -> SearchStage:
    return stage_at(tmp_path / "index")


@pytest.fixture
def engine(stage: SearchStage) -> Iterator[Engine]:
    engine = Engine(Pipeline({"words": Retriever(stage)}, passages=FOUR))
    yield engine
    engine.close()


@pytest.fixture(params=WAYS)
def answering(engine: Engine, request: pytest.FixtureRequest) -> Iterator[Answering]:
    with reached(engine, request.param) as answering:
        yield answering


def rows(stage: SearchStage) -> list[str]:
    found = InvertedIndex.open(stage.index.path).documents
    names: list[str] = found.take(np.flatnonzero(found.live))["id"].to_pylist()
    return sorted(names)


LONG = "ab cd x y. ef ef x y. \n gh ab ab x. cd"


def test_a_long_document_is_one_hit_by_its_best_passage(answering: Answering, stage: SearchStage) -> None:
    written = answering.put(
        [
            {"id": "long", "title": "title", "text": LONG, "metadata": {"kind": "a"}},
            {"id": "short", "text": "ef gh gh gh"},
            {"id": "empty"},
        ]
    )
    assert (written.n_added, written.n_replaced) == (3, 0)
    assert rows(stage) == ["empty#0", "long#0", "long#1", "long#2", "long#3", "short#0"]
    (hit, other) = answering.search("ef", snippet_chars=40).hits
    assert (hit.id, hit.passage, hit.text, hit.title) == ("long", 1, "ef ef x y. \n ", "title")
    assert hit.metadata == {"kind": "a"}
    assert hit.snippet is not None
    assert hit.snippet.marks == [(0, 2), (3, 5)]
    assert [match.term for match in hit.matches] == ["ef"]
    assert (other.id, other.passage) == ("short", 0)
    assert [hit.passage for hit in answering.search("title").hits] == [3]  # all have it, the last is shortest
    assert answering.get("long").text == LONG
    assert answering.get("long").metadata == {"kind": "a"}
    assert answering.get("empty").text == ""
    with pytest.raises(NotFoundError):
        answering.get("long#0")


def test_replacing_and_deleting_leave_no_passage_behind(answering: Answering, stage: SearchStage) -> None:
    answering.put([{"id": "long", "text": "ab " * 100}, {"id": "long#1", "text": "cd " * 5}])
    assert len(rows(stage)) == 27
    before = int(answering.search("ab").version.partition(".")[2])
    written = answering.put([{"id": "long", "text": "ab cd ef gh. ab"}])
    assert (written.n_added, written.n_replaced) == (0, 1)
    assert int(written.version.partition(".")[2]) == before + 1  # one change
    assert rows(stage) == ["long#0", "long#1", "long#1#0", "long#1#1"]
    assert answering.get("long#1").text == "cd " * 5
    assert answering.delete(["long", "nobody"]).n_deleted == 1
    assert rows(stage) == ["long#1#0", "long#1#1"]
    assert [hit.id for hit in answering.search("cd").hits] == ["long#1"]


def test_a_write_that_fails_leaves_the_document_as_it_was(engine: Engine, stage: SearchStage) -> None:
    engine.put([{"id": "long", "text": "ab " * 12}])
    for n_calls in range(12):
        with using(Failing(n_calls)), pytest.raises((StorageError, OSError)):
            engine.put([{"id": "long", "text": "cd cd cd cd ef"}])
        assert engine.get("long").text == "ab " * 12
        assert rows(stage) == ["long#0", "long#1", "long#2"]


@pytest.mark.parametrize("name", ["document", "passage", "passage_start"])
def test_what_passages_bring_themselves_is_refused(answering: Answering, name: str) -> None:
    with pytest.raises(InputError, match=f"'x': metadata.{name}"):
        answering.put([{"id": "x", "metadata": {name: "y"}}])
    with pytest.raises(InputError, match="'x': vectors"):
        answering.put([{"id": "x", "vectors": {"words": {"terms": [1], "weights": [1.0]}}}])


def test_listed_and_deleted_by_a_filter_they_are_whole(answering: Answering, stage: SearchStage) -> None:
    assert answering.documents().documents == []
    texts = {"a": LONG, "a#0": "ab", "b": "ab cd ef gh. " * 3, "c": ""}
    answering.put([{"id": id_, "text": text, "metadata": {"n": len(text)}} for id_, text in texts.items()])
    page = answering.documents(k=3)
    assert page.total == 4
    rest = answering.documents(after=page.next)
    listed = [*page.documents, *rest.documents]
    assert {one.id: one.text for one in listed} == texts
    assert answering.documents(filters={"id": "b"}).documents == [answering.get("b")]
    written = answering.delete(filters={"n": {">": 2}})
    assert written.n_deleted == 2
    assert rows(stage) == ["a#0#0", "c#0"]
    assert answering.search("ab", min_version=written.version).hits[0].id == "a#0"


def test_filters_and_facets_are_of_documents(answering: Answering) -> None:
    assert answering.search("ab", filters={}).hits == []
    answering.put(
        [{"id": f"d{n}", "text": "ab cd ef gh. ab", "metadata": {"odd": n % 2 == 1}} for n in range(4)]
    )
    found = answering.search("ab", filters={"or": [{"id": ["d0", "d3"]}, {"not": {"id": {"<": "d3"}}}]}).hits
    assert {hit.id for hit in found} == {"d0", "d3"}
    (facet,) = answering.facets().facets
    assert {value.value: value.count for value in facet.values} == {True: 2, False: 2}
    assert of_documents({"not": {"and": [{"id": "a"}, {"b": 1}]}}) == {
        "not": {"and": [{"document": "a"}, {"b": 1}]}
    }


def test_pages_are_exact_though_one_document_fills_the_list(engine: Engine) -> None:
    engine.put([{"id": "flood", "text": "ab ab ab ab. " * 300}])
    engine.put([{"id": f"d{n}", "text": "ab cd. " + "ef gh. " * n} for n in range(5)])
    whole = engine.search("ab", k=20).hits
    assert [hit.id for hit in whole] == ["flood", "d0", "d1", "d2", "d3", "d4"]
    assert [engine.search("ab", k=1, offset=n).hits for n in range(7)] == [[hit] for hit in whole] + [[]]
    batch = engine.search_batch(["ab", "zz", "gh"], k=3).results
    assert [[hit.id for hit in one.hits] for one in batch] == [
        ["flood", "d0", "d1"],
        [],
        [hit.id for hit in engine.search("gh", k=3).hits],
    ]


def test_several_retrievers_change_and_answer_together(tmp_path: Path) -> None:
    stages = [stage_at(tmp_path / name) for name in ("one", "two")]
    engine = Engine(
        Pipeline(
            {name: Retriever(stage) for name, stage in zip(("one", "two"), stages, strict=True)},
            n_candidates=3,
            passages=FOUR,
        )
    )
    engine.put([{"id": "flood", "text": "ab ab ab ab. " * 40}, {"id": "other", "text": "ab"}])
    engine.put([{"id": "last", "text": "ab cd ef gh. ab cd"}])
    assert [hit.id for hit in engine.search("ab", k=3).hits] == ["flood", "other", "last"]
    engine.put([{"id": "flood", "text": "cd"}])
    for stage in stages:
        assert rows(stage) == ["flood#0", "last#0", "last#1", "other#0"]
    assert [hit.id for hit in engine.search("ab", k=3).hits] == ["other", "last"]
    engine.close()


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.sampled_from(["a", "b#1", "b", "#", ""]), st.integers(0, 3)), max_size=20))
def test_the_best_of_each_is_what_brute_force_says(passages: list[tuple[str, int]]) -> None:
    ids = [row_id(*passage) for passage in passages]
    assert [document_of(id_) for id_ in ids] == [document for document, _ in passages]
    score = {place: -place for place in range(len(ids))}
    best = {
        max((place for place in score if passages[place][0] == document), key=score.__getitem__)
        for document, _ in passages
    }
    assert best_of_each(ids).tolist() == sorted(best)


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_search_by_documents_is_brute_force_over_passages(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    texts = data.draw(
        st.lists(st.lists(st.sampled_from([*LETTERS, "x", "."]), max_size=24).map(" ".join), max_size=6)
    )
    stage = stage_at(tmp_path_factory.mktemp("law") / "index")
    engine = Engine(Pipeline({"words": Retriever(stage)}, passages=Passages(max_words=3, overlap_words=1)))
    if texts:
        engine.put([{"id": f"d{n}", "text": text} for n, text in enumerate(texts)])
    assert stage.encoder is not None
    hits = stage.index.search(stage.encoder.encode_queries(["ab ef"]), max(1, len(stage.index.documents)))
    best: dict[str, float] = {}
    for name, score in hits.of(0):
        best[document_of(name)] = max(score, best.get(document_of(name), score))
    k, offset = data.draw(st.integers(1, 4)), data.draw(st.integers(0, 3))
    found = engine.search("ab ef", k=k, offset=offset).hits
    assert [(hit.id, hit.score) for hit in found] == list(best.items())[offset : offset + k]
    for n, text in enumerate(texts):
        assert engine.get(f"d{n}").text == text
    engine.close()


# -- collections


def test_a_collection_is_made_with_passages_and_outlives_a_restart(
    tmp_path: Path, encoder_folder: Path
) -> None:
    settings = ServeSettings(collections=tmp_path / "collections", encoders={"bm25": encoder_folder})
    for start in range(2):
        with (
            RunningService(settings) as service,
            Client(service.url, collection="notes", retries=20) as notes,
        ):
            if start == 0:
                notes.create("notes", {"words": "bm25"}, passages=FOUR)
                notes.put([{"id": "long", "text": "list order. " * 20}])
            (hit,) = notes.search("list").hits
            assert (hit.id, hit.text) == ("long", "list order. list order. ")
    assert CollectionConfig.read(tmp_path / "collections" / "notes").passages == FOUR


def test_documents_that_were_not_split_are_refused(index_folder: Path, encoder_folder: Path) -> None:
    config: dict[str, Any] = {"retrievers": {"words": {"index": index_folder, "encoder": encoder_folder}}}
    with pytest.raises(ConfigError, match="retriever words were not split"):
        open_parts(CollectionConfig(**config, passages=FOUR), ServeSettings(index=index_folder))
    with pytest.raises(ValueError, match="no retrievers"):
        CollectionConfig(recommender=index_folder, passages=FOUR)


def test_shards_are_read_and_not_written(tmp_path: Path) -> None:
    from gossamer.index import ShardedIndex

    encoder = Bm25Encoder.fit(LETTERS)
    nothing = SparseVectors.from_dicts([], encoder.n_terms, ids=[])
    index = ShardedIndex.build(tmp_path / "index", nothing, n_shards=2, encoder=encoder.info)
    engine = Engine(Pipeline({"words": Retriever(SearchStage(index, encoder))}, passages=FOUR))
    assert engine.search("ab").hits == []
    with pytest.raises(InputError, match="does not change"):
        engine.put([{"id": "x", "text": "ab"}])
    engine.close()
