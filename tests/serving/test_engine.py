"""The engine in this process."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from gossamer.index import EncoderInfo, InvertedIndex
from gossamer.kernels.errors import ConfigError, MismatchError, NotFoundError, TooLargeError
from gossamer.lsr import (
    BackboneConfig,
    Bm25Encoder,
    EncoderConfig,
    SparseEncoder,
    lexical_start,
    train_tokenizer,
)
from gossamer.serving import Engine, Limits, SearchStage, ServeSettings
from tests.contracts.engine import Answering, EngineContract, untimed
from tests.serving.conftest import DOCUMENTS, documents_table


class TestEngine(EngineContract):
    @pytest.fixture
    def answering(self, tiny_engine: Engine) -> Answering:
        return tiny_engine

    @pytest.fixture
    def answering_nothing(self, empty_engine: Engine) -> Answering:
        return empty_engine


def test_opens_what_the_settings_name(index_folder: Path, encoder_folder: Path, tiny_engine: Engine) -> None:
    engine = Engine.open(ServeSettings(index=index_folder, encoder=encoder_folder))
    assert untimed(engine.search("list")) == untimed(tiny_engine.search("list"))
    assert engine.health().recommend is None


def test_refuses_an_index_of_another_encoder_naming_both_and_the_remedy(
    index_folder: Path, encoder_folder: Path, tmp_path: Path
) -> None:
    other = Bm25Encoder.fit(["some other words entirely"])
    other.save(tmp_path / "other")
    with pytest.raises(MismatchError) as refusal:
        Engine.open(ServeSettings(index=index_folder, encoder=tmp_path / "other"))
    message = str(refusal.value)
    assert Bm25Encoder.load(encoder_folder).info.fingerprint in message
    assert other.info.fingerprint in message
    assert "build the index again" in message


def test_refuses_another_tokenizer_under_the_same_weights(encoder_folder: Path, tmp_path: Path) -> None:
    encoder = Bm25Encoder.load(encoder_folder)
    retokenized = EncoderInfo(encoder.info.name, encoder.info.fingerprint, "another tokenizer")
    index = InvertedIndex.build(tmp_path / "index", encoder.encode_documents(["a list"]), encoder=retokenized)
    with pytest.raises(MismatchError, match="tokenizers differ"):
        SearchStage(index, encoder)


def test_refuses_an_index_that_names_no_encoder(encoder_folder: Path, tmp_path: Path) -> None:
    encoder = Bm25Encoder.load(encoder_folder)
    index = InvertedIndex.build(tmp_path / "index", encoder.encode_documents(["a list"]))
    with pytest.raises(MismatchError, match="does not say which encoder"):
        SearchStage(index, encoder)


@pytest.mark.parametrize("missing", ["index", "encoder"])
def test_a_missing_folder_is_named_and_never_looked_up_elsewhere(
    index_folder: Path, encoder_folder: Path, missing: str
) -> None:
    folders: dict[str, Any] = {"index": index_folder, "encoder": encoder_folder, missing: Path("some/where")}
    with pytest.raises(NotFoundError, match="some/where"):
        Engine.open(ServeSettings(**folders))


def test_documents_without_texts_are_found_by_id(encoder_folder: Path, tmp_path: Path) -> None:
    encoder = Bm25Encoder.load(encoder_folder)
    vectors = encoder.encode_documents(["a list", "a path"])
    index = InvertedIndex.build(tmp_path / "index", vectors, encoder=encoder.info)
    engine = Engine(SearchStage(index, encoder))
    result = engine.search("path", k=5, explain=False)
    assert [(hit.id, hit.title, hit.text, hit.metadata) for hit in result.hits] == [("1", "", "", {})]
    assert engine.facets().facets == []
    with pytest.raises(ConfigError):
        engine.search("path", filters={"kind": "class"})


def test_a_column_of_many_values_or_of_one_is_no_facet(encoder_folder: Path, tmp_path: Path) -> None:
    encoder = Bm25Encoder.load(encoder_folder)
    n = 30
    documents = pa.table(
        {
            "id": [f"d{row}" for row in range(n)],
            "many": [f"v{row}" for row in range(n)],
            "one": ["same"] * n,
            "few": [None if row == 0 else "ab"[row % 3 == 0] for row in range(n)],
        }
    )
    index = InvertedIndex.build(
        tmp_path / "index",
        encoder.encode_documents(["a list"] * n),
        documents=documents,
        encoder=encoder.info,
    )
    (facet,) = Engine(SearchStage(index, encoder)).facets().facets
    assert facet.column == "few"
    assert [(value.value, value.count) for value in facet.values] == [("a", 20), ("b", 9)]


def test_many_threads_get_the_same_answers(tiny_engine: Engine) -> None:
    queries = ["join path segments", "list", "ascending order", "json document"] * 25
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(tiny_engine.search, queries))
    assert [untimed(answer) for answer in answers] == [
        untimed(tiny_engine.search(query)) for query in queries
    ]


def test_a_learned_encoder_serves_many_threads_as_one(tmp_path: Path) -> None:
    texts = [f"{title} {text}" for _, title, text, *_ in DOCUMENTS]
    tokenizer = train_tokenizer(texts, vocabulary_size=200)
    model = lexical_start(BackboneConfig(layers=1, width=32, heads=1, mlp_width=32), tokenizer)
    encoder = SparseEncoder(model, tokenizer, EncoderConfig(query="mlm"))
    encoder.save(tmp_path / "encoder")
    vectors = encoder.encode_documents(texts)
    InvertedIndex.build(tmp_path / "index", vectors, documents=documents_table(), encoder=encoder.info)
    engine = Engine.open(ServeSettings(index=tmp_path / "index", encoder=tmp_path / "encoder"))
    queries = [text for _, _, text, *_ in DOCUMENTS] * 3
    alone = [engine.search(query, k=3) for query in queries[: len(DOCUMENTS)]]
    assert all(answer.hits and answer.expansion for answer in alone)
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda query: engine.search(query, k=3), queries))
    for answer, expected in zip(together, alone * 3, strict=True):
        assert [hit.id for hit in answer.hits] == [hit.id for hit in expected.hits]
        # queries that are encoded together are padded, which moves the last digits
        assert [hit.score for hit in answer.hits] == pytest.approx(
            [hit.score for hit in expected.hits], rel=1e-4
        )


def test_says_how_long_it_took(tiny_engine: Engine) -> None:
    started = time.perf_counter()
    took_ms = tiny_engine.search("list").took_ms
    assert 0 < took_ms <= (time.perf_counter() - started) * 1e3


def test_queries_and_k_are_limited_together(index_folder: Path, encoder_folder: Path) -> None:
    stage = SearchStage.open(index_folder, encoder_folder)
    engine = Engine(stage, None, limits=Limits(max_k=10, max_batch=10, max_hits=20))
    assert len(engine.search_batch(["list"] * 4, k=5).results) == 4
    with pytest.raises(TooLargeError, match=r"number of queries times k is 21, .* limits\.max_hits"):
        engine.search_batch(["list"] * 3, k=7)
