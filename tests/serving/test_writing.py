"""Documents that are written, in this process and over HTTP, the same."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias

import httpx2
import pytest

from gossamer.index import InvertedIndex, SparseVectors
from gossamer.kernels.errors import (
    InputError,
    MismatchError,
    NotFoundError,
    NotReadyError,
    StorageError,
    TooLargeError,
)
from gossamer.lsr import Bm25Encoder
from gossamer.serving import Client, Engine, RunningService, SearchStage
from gossamer.serving.bulk import write_lines
from gossamer.serving.records import Document
from gossamer.serving.settings import Limits
from tests.contracts.disks import Failing
from tests.serving.conftest import DOCUMENTS, WAYS, reached

Writing: TypeAlias = Engine | Client


@pytest.fixture
def engine(stage: SearchStage) -> Iterator[Engine]:
    engine = Engine(stage, limits=Limits(max_documents=64, max_body_bytes=20_000))
    yield engine
    engine.close()


@pytest.fixture(params=WAYS)
def writing(engine: Engine, request: pytest.FixtureRequest) -> Iterator[Writing]:
    with reached(engine, request.param) as writing:
        yield writing


def ids(writing: Writing, query: str, **options: Any) -> list[str]:
    return [hit.id for hit in writing.search(query, **options).hits]


def test_what_was_written_is_found_got_replaced_and_deleted(writing: Writing) -> None:
    written = writing.put(
        [{"id": "a/b ü", "title": "ascending", "text": "segment", "metadata": {"kind": "new", "since": 7}}]
    )
    assert (written.n_added, written.n_replaced) == (1, 0)
    assert ids(writing, "ascending segment")[0] == "a/b ü"
    assert ids(writing, "ascending", filters={"since": {">=": 7}}) == ["a/b ü"]
    stored = writing.get("a/b ü")
    assert (stored.title, stored.text) == ("ascending", "segment")
    assert stored.metadata == {"kind": "new", "since": 7, "public": None, "share": None}
    written = writing.put([{"id": "a/b ü", "text": "document"}, {"id": "other", "text": "document"}])
    assert (written.n_added, written.n_replaced) == (1, 1)
    assert "a/b ü" not in ids(writing, "ascending")
    deleted = writing.delete(["a/b ü", "nobody"])
    assert deleted.n_deleted == 1
    assert "a/b ü" not in ids(writing, "document")
    with pytest.raises(NotFoundError, match="a/b ü"):
        writing.get("a/b ü")


def test_all_that_a_filter_leaves_are_deleted_in_parts(writing: Writing, engine: Engine) -> None:
    before = writing.documents(k=20).total
    for start in (0, 60, 120):
        writing.put([{"id": f"d{n}", "metadata": {"since": n}} for n in range(start, start + 60)])
    written = writing.delete(filters={"since": {">=": 100}, "id": {">": "d"}})
    assert written.n_deleted == 80  # more than one write may take
    assert writing.documents(k=1, filters={"since": {">=": 100}}).total == 0
    assert writing.documents(k=1).total == before + 100
    assert writing.delete(filters={"since": 5_000}).n_deleted == 0
    wrongs: list[dict[str, Any]] = [{}, {"ids": ["d1"], "filters": {"since": 1}}, {"filters": {}}]
    for wrong in wrongs:
        with pytest.raises(InputError, match="ids, filters: give exactly one"):
            writing.delete(**wrong)
    with pytest.raises(InputError, match="sinc"):
        writing.delete(filters={"sinc": 1})
    assert writing.documents(k=1).total == before + 100


def test_it_is_on_the_disk(writing: Writing, stage: SearchStage) -> None:
    writing.put([{"id": "new", "text": "ascending"}])
    again = InvertedIndex.open(stage.index.path)
    assert again.documents.rows_of(["new"])[0] >= 0
    again.verify()


def test_a_reader_can_ask_for_a_write(writing: Writing, stage: SearchStage) -> None:
    version = writing.put([{"id": "new", "text": "ascending"}]).version
    answer = writing.search("ascending", min_version=version)
    assert answer.version == version
    uid, _, generation = version.partition(".")
    with pytest.raises(NotReadyError, match="not arrived"):
        writing.search("ascending", min_version=f"{uid}.{int(generation) + 1}")
    with pytest.raises(MismatchError, match="replaced"):
        writing.search("ascending", min_version=f"0000.{generation}")
    with pytest.raises(InputError, match="min_version"):
        writing.search("ascending", min_version="yesterday")
    other = InvertedIndex.open(stage.index.path)  # another process
    other.delete(["new"])
    assert "new" not in ids(writing, "ascending", min_version=f"{uid}.{int(generation) + 1}")


@pytest.mark.parametrize(
    ("documents", "error", "says"),
    [
        ([], InputError, "documents"),
        ([{"id": ""}], InputError, "id"),
        ([{"id": "x" * 513}], InputError, "id"),
        ([{"id": "x", "txet": ""}], InputError, "did you mean text"),
        ([{"id": "x"}, {"id": "x"}], InputError, "'x' is there twice"),
        ([{"id": "x", "metadata": {"kind": 1}}], InputError, "metadata.kind is a int, and the column is string"),
        ([{"id": "x", "metadata": {"since": 1.5}}], InputError, "metadata.since"),
        ([{"id": "x", "metadata": {"since": 2**70}}], InputError, "since"),
        ([{"id": "x", "metadata": {"new": 1}}, {"id": "y", "metadata": {"new": "a"}}], InputError, "metadata.new"),
        ([{"id": "x", "metadata": {"title": "a"}}], InputError, "metadata.title"),
        ([{"id": "x", "metadata": {"kind": ["a"]}}], InputError, "metadata.kind"),
        ([{"id": "x", "vectors": {"search": {"terms": [10**6], "weights": [1.0]}}}], InputError, "beyond"),
        ([{"id": "x", "vectors": {"search": {"terms": [1, 1], "weights": [1.0, 1.0]}}}], InputError, "once"),
        ([{"id": "x", "vectors": {"search": [1.0]}}], InputError, "sparse"),
        ([{"id": "x", "vectors": {"serach": [1.0]}}], InputError, "vectors.serach: there is no such retriever"),
        ([{"id": "."}], InputError, "another id"),
        ([{"id": ".."}], InputError, "another id"),
        ([{"id": "x", "metadata": {f"c{n}": n for n in range(300)}}], TooLargeError, "max_columns"),
        ([{"id": str(number)} for number in range(65)], TooLargeError, "max_documents"),
    ],
)  # fmt: skip
def test_what_does_not_suit_is_refused_and_nothing_is_written(
    writing: Writing, documents: list[dict[str, Any]], error: type[Exception], says: str
) -> None:
    before = writing.search("list").version
    with pytest.raises(error, match=says):
        writing.put(documents)
    assert writing.search("list").version == before


def test_vectors_may_be_given(writing: Writing) -> None:
    vector = {"terms": [0, 3], "weights": [2.0, 1.0]}
    writing.put([{"id": "given", "vectors": {"search": vector}}, {"id": "encoded", "text": "segments"}])
    found = writing.search(vectors={"search": vector})  # type: ignore[dict-item]
    assert found.hits[0].id == "given"
    assert found.hits[0].score == pytest.approx(5, rel=0.01)
    assert "encoded" in ids(writing, "segments")
    with pytest.raises(InputError, match=r"vectors\.other"):
        writing.search(vectors={"other": vector})  # type: ignore[dict-item]


def test_writers_side_by_side_share_changes_and_each_gets_its_own_answer(engine: Engine) -> None:
    generation = int(engine.search("list").version.partition(".")[2])

    def put(number: int) -> int | str:
        metadata = {"since": "three"} if number % 10 == 3 else {"since": 3}
        try:
            return engine.put([{"id": f"d{number}", "text": "ascending", "metadata": metadata}]).n_added
        except InputError as error:
            return str(error)

    with ThreadPoolExecutor(16) as pool:
        added = list(pool.map(put, range(60)))
    for number, answer in enumerate(added):
        assert answer == 1 if number % 10 != 3 else f"'d{number}'" in str(answer)
    found = set(ids(engine, "ascending", k=100))
    assert {f"d{number}" for number in range(60) if number % 10 != 3} <= found
    assert not any(f"d{number}" in found for number in range(3, 60, 10))
    assert int(engine.search("list").version.partition(".")[2]) - generation < 40  # shared


def test_a_disk_that_fails_fails_the_write_alone(engine: Engine) -> None:
    from gossamer.index.disk import using

    before = engine.search("list")
    with using(Failing(3)), pytest.raises((StorageError, OSError)):
        engine.put([{"id": "new", "text": "list"}])
    assert engine.search("list").hits == before.hits
    assert engine.put([{"id": "new", "text": "list"}]).n_added == 1


def test_closing_writes_what_was_taken(stage: SearchStage) -> None:
    engine = Engine(stage)
    with ThreadPoolExecutor(8) as pool:
        writes = [pool.submit(engine.put, [{"id": f"d{number}"}]) for number in range(8)]
        acknowledged = [write.result(10).n_added for write in writes]
    engine.close()
    assert sum(acknowledged) == 8
    assert len(InvertedIndex.open(stage.index.path)) == len(DOCUMENTS) + 8
    with pytest.raises(NotReadyError, match="stopping"):
        engine.put([{"id": "late"}])


# -- many lines --------------------------------------------------------------------------------------


def post_lines(engine: Engine, body: Any) -> dict[str, Any]:
    with RunningService(engine) as service:
        response = httpx2.post(f"{service.url}/collections/default/documents/bulk", content=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def test_lines_are_written_and_bad_ones_are_named(engine: Engine) -> None:
    lines = [
        json.dumps({"id": "one", "text": "ascending"}),
        "{",
        "",
        json.dumps({"id": "two", "txet": "ascending"}),
        json.dumps({"id": "three", "metadata": {"since": "x"}}),
        json.dumps({"id": "four", "text": "x" * 30_000}),
        json.dumps({"id": "one", "text": "again"}),
        json.dumps({"id": "five", "text": "ascending"}),
    ]
    answer = post_lines(engine, "\n".join(lines))
    assert (answer["n_lines"], answer["n_added"], answer["n_replaced"], answer["n_refused"]) == (7, 2, 1, 4)
    said = {one["line"]: one["message"] for one in answer["refused"]}
    assert list(said) == [2, 4, 5, 6]
    assert "JSON" in said[2]
    assert "did you mean text" in said[4]
    assert "metadata.since" in said[5]
    assert "20,000 bytes" in said[6]
    assert engine.get("one").text == "again"
    assert ids(engine, "ascending", min_version=answer["version"]).count("five") == 1


def test_a_body_of_any_length_in_any_chunks(engine: Engine) -> None:
    whole = b"".join(
        json.dumps({"id": f"d{number}", "text": "ascending"}).encode() + b"\n" for number in range(500)
    )
    chunks = (whole[start : start + 77] for start in range(0, len(whole), 77))
    answer = post_lines(engine, chunks)
    assert (answer["n_lines"], answer["n_added"], answer["refused"]) == (500, 500, [])
    assert post_lines(engine, b"")["n_lines"] == 0


def test_the_client_sends_many_and_shows_how_far_it_is(writing: Writing) -> None:
    if isinstance(writing, Engine):
        pytest.skip("of clients only")
    seen: list[int] = []
    documents = ({"id": f"d{number}", "text": "ascending"} for number in range(2_300))
    report = writing.put_many(
        [*documents, Document(id="last", metadata={"since": "x"})], on_progress=seen.append
    )
    assert (report.n_lines, report.n_added, report.n_refused) == (2_301, 2_300, 1)
    assert seen == [1_000, 2_000, 2_300]
    assert [(one.line, one.id) for one in report.refused] == [(2_301, "last")]


def test_an_index_of_a_kind_that_does_not_change_says_so(stage: SearchStage) -> None:
    class Fixed:
        def __init__(self, index: InvertedIndex) -> None:
            self._index = index

        def __getattr__(self, name: str) -> Any:
            if name in ("update", "delete"):
                raise AttributeError(name)
            return getattr(self._index, name)

    stage.index = Fixed(stage.index)
    engine = Engine(stage)
    health = engine.health().search
    assert health is not None
    assert not health.writable
    with pytest.raises(InputError, match="does not change"):
        engine.put([{"id": "new"}])


def test_vectors_of_many_rows_keep_their_documents(encoder_folder: Path, tmp_path: Path) -> None:
    """Given and encoded vectors come in any order."""
    encoder = Bm25Encoder.load(encoder_folder)
    index = InvertedIndex.build(
        tmp_path / "index", SparseVectors.from_dicts([], encoder.n_terms, ids=[]), encoder=encoder.info
    )
    engine = Engine(SearchStage(index, encoder))
    texts = ["list", "path", "order", "json", "segment"]
    vectors = encoder.encode_documents(texts).to_dicts()
    engine.put(
        [
            {"id": text}
            | (
                {
                    "vectors": {
                        "search": {"terms": list(vectors[place]), "weights": list(vectors[place].values())}
                    }
                }
                if place % 2
                else {"text": text}
            )
            for place, text in enumerate(texts)
        ]
    )
    for text in texts:
        assert ids(engine, text) == [text]


@pytest.mark.parametrize("path", ["documents/bulk", "documents/x/documents/bulk", "documents/x"])
def test_a_document_of_any_id_has_the_bodys_limit(engine: Engine, path: str) -> None:
    with RunningService(engine) as service:
        url = f"{service.url}/collections/default/{path}"
        assert httpx2.put(url, json={"text": "x" * 30_000}).status_code == 413
        assert httpx2.put(url, json={"text": "x"}).status_code == 200


def test_weights_that_add_up_to_infinity_are_refused(writing: Writing) -> None:
    vector = {"terms": [0, 1], "weights": [3e38, 3e38]}
    with pytest.raises(InputError, match="less than or equal"):
        writing.put([{"id": "x", "vectors": {"search": vector}}])
    with pytest.raises(InputError, match="less than or equal"):
        writing.search(vectors={"search": vector})  # type: ignore[dict-item]


def test_of_many_faults_the_first_are_told(writing: Writing) -> None:
    with pytest.raises(InputError, match=r"and 4,990 more faults") as refused:
        writing.search_batch([1] * 5_000)  # type: ignore[list-item]
    assert len(str(refused.value)) < 2_000


def test_bodies_that_do_not_come_are_not_waited_for(stage: SearchStage) -> None:
    engine = Engine(stage, limits=Limits(body_timeout_s=0.1))
    with RunningService(engine) as service:
        for path, sent in (("search", b"{"), ("documents/bulk", b'{"id": "there"}\n{"id"')):
            url = httpx2.URL(service.url)
            with socket.create_connection((url.host, url.port or 80), timeout=10) as asking:
                head = (
                    f"POST /collections/default/{path} HTTP/1.1\r\nhost: {url.host}\r\ncontent-length: 99\r\n"
                )
                asking.sendall(head.encode() + b"content-type: application/json\r\n\r\n" + sent)
                answer = asking.recv(4096).decode()
            assert " 504 " in answer.splitlines()[0]
            assert "0.1 s" in answer
    engine.close()


def test_a_service_that_stops_ends_bulk_writes_with_what_is_written(engine: Engine) -> None:
    async def lines() -> AsyncIterator[bytes]:
        for number in range(10**9):
            yield json.dumps({"id": f"d{number}"}).encode() + b"\n"

    stops = iter([False, True])
    with pytest.raises(NotReadyError, match=r"is stopping; of 128 lines 128 are written and 0 were refused"):
        asyncio.run(write_lines(lines(), engine, lambda: next(stops)))
    assert engine.get("d127").id == "d127"
