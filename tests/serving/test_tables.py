"""Arrow and pandas, in and out of the clients."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from gossamer.index import InvertedIndex, SparseVectors
from gossamer.kernels.errors import InputError
from gossamer.lsr import Bm25Encoder
from gossamer.serving import AsyncClient, Client, Engine, RunningService, ServeSettings
from gossamer.serving.records import BulkWritten
from gossamer.serving.schemas import SearchBatchResponse, SearchHit, SearchResponse, SearchResult, Snippet
from gossamer.serving.tables import documents_of
from tests.serving.conftest import COLUMNS, DOCUMENTS, documents_table

SORTS = {"sorted", "list.sort", "list"}


def frame() -> pd.DataFrame:
    """With `since` as whole numbers, which pandas makes floats of where one is missing."""
    return pd.DataFrame(DOCUMENTS, columns=list(COLUMNS)).astype({"since": "Int64"})


# -- in ----------------------------------------------------------------------------------------------


@pytest.fixture
def service(encoder_folder: Path, tmp_path: Path) -> Iterator[RunningService]:
    """An index without documents, behind HTTP."""
    encoder = Bm25Encoder.load(encoder_folder)
    nothing = SparseVectors.from_dicts([], encoder.n_terms, ids=[])
    InvertedIndex.build(tmp_path / "index", nothing, encoder=encoder.info)
    settings = ServeSettings(index=tmp_path / "index", encoder=encoder_folder)
    with RunningService(Engine.open(settings)) as running:
        yield running


def put_async(url: str, table: Any) -> BulkWritten:
    async def put() -> BulkWritten:
        async with AsyncClient(url) as client:
            return await client.put_many(table)

    return asyncio.run(put())


def test_both_clients_take_tables_streams_and_frames(service: RunningService) -> None:
    table = documents_table()
    with Client(service.url) as client:
        assert client.put_many(table).n_added == len(DOCUMENTS)
        found = client.search("sort a list", k=3)
        assert {hit.id for hit in found.hits} == SORTS
        assert client.get("list").metadata == {"kind": "class", "since": None, "public": True, "share": 0.75}
        assert client.get("list.sort").metadata["share"] is None
        for again, n_rows in (
            (table.to_reader(), 8),
            (table.to_batches()[0], 8),
            (table[2:4], 2),
            (frame(), 8),
        ):
            report = client.put_many(again)
            assert (report.n_added, report.n_replaced, report.n_refused) == (0, n_rows, 0)
        assert client.search("sort a list", k=3).hits == found.hits
    assert put_async(service.url, frame()).n_replaced == len(DOCUMENTS)
    assert put_async(service.url, table.to_reader()).n_replaced == len(DOCUMENTS)


def test_a_stream_is_read_as_it_is_written(service: RunningService) -> None:
    pulled: list[int] = []

    def batches() -> Iterator[pa.RecordBatch]:
        for number in range(3):
            pulled.append(number)
            yield pa.record_batch({"id": [f"{number}-{row}" for row in range(1_000)]})

    reader = pa.RecordBatchReader.from_batches(pa.schema([("id", pa.string())]), batches())
    told: list[tuple[int, int]] = []
    with Client(service.url) as client:
        report = client.put_many(reader, on_progress=lambda n: told.append((n, len(pulled))))
    assert report.n_added == 3_000
    assert told == [(1_000, 1), (2_000, 2), (3_000, 3)]


def rows(table: Any) -> list[dict[str, Any]]:
    return [document.model_dump(exclude_unset=True) for document in documents_of(table)]


def test_missing_values_are_left_out() -> None:
    table = pa.table(
        {
            "id": ["a", "b"],
            "title": pa.array([None, "T"], pa.large_string()),
            "text": pa.array([None, None]),
            "x": [math.nan, 1.5],
            "kind": pa.array(["k", None]).dictionary_encode(),
            "half": pa.array([0.5, None], pa.float16()),
        }
    )
    expected = [
        {"id": "a", "metadata": {"kind": "k", "half": 0.5}},
        {"id": "b", "title": "T", "metadata": {"x": 1.5}},
    ]
    assert rows(table) == expected
    with_nothing = pd.DataFrame({"id": ["a"], "x": pd.array([pd.NA], "Int64"), "y": [None], "z": [pd.NA]})
    assert rows(with_nothing) == [{"id": "a", "metadata": {}}]


def test_the_index_of_a_frame_is_no_column() -> None:
    some = frame()[frame()["kind"] == "method"].set_index("since")
    assert [row["id"] for row in rows(some)] == ["list.sort", "list.append"]
    assert all(set(row["metadata"]) <= {"kind", "public", "share"} for row in rows(some))
    assert rows(pd.DataFrame({"id": pd.Categorical(["b", "a"]), "n": [1, 2]})) == [
        {"id": "b", "metadata": {"n": 1}},
        {"id": "a", "metadata": {"n": 2}},
    ]


@pytest.mark.parametrize("n_rows", [0, 1, 999, 1_000, 1_001, 2_500])
def test_parts_are_the_whole(n_rows: int) -> None:
    ids = [str(number) for number in range(n_rows)]
    table = pa.table({"id": pa.array(ids, pa.string())})
    for given in (table, table.to_pandas(), pa.table({"id": table["id"].combine_chunks()}).to_reader()):
        assert [document.id for document in documents_of(given)] == ids


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"ID": ["a"]}, r"no column 'id', only 'ID'"),
        ({"id": [1]}, r"'id' is int64: documents have strings there"),
        ({"id": ["a"], "title": [b"t"]}, r"'title' is binary"),
        (
            {"id": ["a"], "when": [pd.Timestamp("2020-01-01")]},
            r"'when' is timestamp\[.*\]: metadata are strings",
        ),
        ({"id": ["a"], "tags": [["x"]]}, r"'tags' is list<.*>: .* cast it, or leave it out"),
        ({"id": ["a", None]}, r"row 2: id: Field required"),
        ({"id": ["a", ""]}, r"row 2: id: Value should have at least 1 item"),
        ({"id": ["a"], "x": [math.inf]}, r"row 1: metadata\.x.*finite"),
    ],
)
def test_what_is_no_document_is_named(columns: dict[str, Any], message: str) -> None:
    for table in (pa.table(columns), pd.DataFrame(columns)):
        with pytest.raises(InputError, match=message):
            list(documents_of(table))


def test_a_name_that_is_there_twice_is_refused() -> None:
    table = pa.table([pa.array(["a"]), pa.array([1]), pa.array([2])], names=["id", "x", "x"])
    with pytest.raises(InputError, match="'x' is there twice"):
        list(documents_of(table))
    with pytest.raises(InputError, match=r"no table of documents: Duplicate column names"):
        list(documents_of(pd.DataFrame([["a", 1, 2]], columns=["id", "x", "x"])))
    with pytest.raises(InputError, match="no table of documents"):
        list(documents_of(pd.DataFrame({"id": ["a", "b"], "x": [1, "two"]})))


# -- out ---------------------------------------------------------------------------------------------


def test_hits_become_a_table(tiny_engine: Engine) -> None:
    response = tiny_engine.search("sort a list", k=3)
    table = response.to_arrow()
    assert table.column_names == ["id", "score", "title", "text", "kind", "since", "public", "share"]
    assert table["id"].to_pylist() == [hit.id for hit in response.hits]
    assert table["score"].to_pylist() == [hit.score for hit in response.hits]
    assert table["since"].to_pylist() == [hit.metadata["since"] for hit in response.hits]
    assert table["since"].type == pa.int64()
    assert table["share"].null_count == 1
    found = response.to_pandas()
    assert found["id"].tolist() == table["id"].to_pylist()


def test_those_of_several_queries_say_which(tiny_engine: Engine) -> None:
    response = tiny_engine.search_batch(["sort a list", "qqq", "join path"], k=2)
    table = response.to_arrow()
    assert table.column_names[:3] == ["query", "id", "score"]
    assert table["query"].to_pylist() == [0, 0, 2, 2]
    assert response.to_pandas()["query"].tolist() == [0, 0, 2, 2]


def test_no_hits_are_a_table_with_columns() -> None:
    none = SearchResult(hits=[], expansion=[])
    texts = {"id": "string", "score": "double", "title": "string", "text": "string"}
    one = SearchResponse(**dict(none), took_ms=1).to_arrow()
    assert {field.name: str(field.type) for field in one.schema} == texts
    several = SearchBatchResponse(results=[none], took_ms=1).to_arrow()
    assert {field.name: str(field.type) for field in several.schema} == {"query": "int64", **texts}


def test_metadata_that_is_called_as_a_part_of_a_hit_is_kept_apart() -> None:
    hits = [
        SearchHit(id="a", score=1, title="", text="", metadata={"score": 5, "x": 1}, matches=[]),
        SearchHit(
            id="b", score=0.5, title="", text="", metadata={"query": "q", "x": 0.5}, matches=[],
            snippet=Snippet(text="s", marks=[]),
        ),
    ]  # fmt: skip
    (first, second) = SearchResponse(hits=hits, expansion=[], took_ms=1).to_arrow().to_pylist()
    assert first["score"] == 1
    assert (first["metadata.score"], second["metadata.score"]) == (5, None)
    assert (first["snippet"], second["snippet"]) == (None, "s")
    assert (first["x"], second["x"]) == (1.0, 0.5)
    assert second["metadata.query"] == "q"
