"""Collections by name: made, listed, inspected, dropped, and swapped while queries run."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import httpx2
import pytest

from gossamer.index import InvertedIndex
from gossamer.kernels.errors import (
    ConfigError,
    ExistsError,
    InputError,
    MismatchError,
    NotFoundError,
)
from gossamer.lsr import Bm25Encoder
from gossamer.serving import Client, RunningService, ServeSettings
from gossamer.serving.collection_config import CollectionConfig
from gossamer.serving.collections import Collections
from gossamer.serving.records import CreateRequest
from tests.serving.conftest import DOCUMENTS, documents_table, eventually


@pytest.fixture
def settings(
    tmp_path: Path, index_folder: Path, encoder_folder: Path, recommender_folder: Path
) -> ServeSettings:
    films = tmp_path / "collections" / "films"
    films.mkdir(parents=True)
    shutil.copytree(index_folder, films / "v1")
    write_config(films, "v1", encoder_folder)
    return ServeSettings(
        index=index_folder,
        encoder=encoder_folder,
        recommender=recommender_folder,
        collections=tmp_path / "collections",
        encoders={"bm25": encoder_folder},
        refresh_s=0.05,
    )


def write_config(folder: Path, index: str, encoder: Path) -> None:
    (folder / "collection.toml").write_text(f'[retrievers.words]\nindex = "{index}"\nencoder = "{encoder}"\n')


@pytest.fixture
def service(settings: ServeSettings) -> Iterator[RunningService]:
    with RunningService(settings) as running:
        with Client(running.url, retries=20) as client:
            client.facets()  # ready
        yield running


def test_each_answers_from_its_own(service: RunningService) -> None:
    with Client(service.url) as default, Client(service.url, collection="films") as films:
        assert [info.name for info in default.collections().collections] == ["default", "films"]
        films.put([{"id": "new", "text": "ascending"}])
        assert films.get("new").text == "ascending"
        with pytest.raises(NotFoundError, match="'new'"):
            default.get("new")
        assert default.recommend(user="reader").source == "user"
        with pytest.raises(NotFoundError, match="no recommender"):
            films.recommend(user="reader")
    with (
        Client(service.url, collection="nothing") as nothing,
        pytest.raises(NotFoundError, match="'nothing'"),
    ):
        nothing.search("list")


def test_one_is_made_filled_and_dropped_and_outlives_a_restart(settings: ServeSettings) -> None:
    def started() -> RunningService:
        return RunningService(settings)

    with started() as service, Client(service.url, collection="notes", retries=20) as notes:
        made = notes.create("notes", {"words": "bm25", "more": "bm25"})
        assert made.search is not None
        assert (made.name, made.search.n_documents, list(made.search.retrievers)) == (
            "notes",
            0,
            ["words", "more"],
        )
        with pytest.raises(ExistsError, match="notes"):
            notes.create("notes", {"words": "bm25"})
        with pytest.raises(InputError, match="there is no encoder 'splade'"):
            notes.create("other", {"words": "splade"})
        notes.put([{"id": "a", "text": "list of paths"}])
        assert [hit.id for hit in notes.search("list").hits] == ["a"]
    with started() as service, Client(service.url, collection="notes", retries=20) as notes:
        notes.facets()
        assert notes.get("a").text == "list of paths"
        assert notes.drop("notes").name == "notes"
        with pytest.raises(NotFoundError):
            notes.search("list")
        with pytest.raises(InputError, match="not made here"):
            notes.drop("default")
    assert settings.collections is not None
    assert sorted(path.name for path in settings.collections.iterdir()) == ["films"]


@pytest.mark.parametrize("name", ["", "..", "a/b", "A", "%2e%2e", "x" * 65, "a.b", "-a", "é"])
def test_no_other_name_is_one(service: RunningService, settings: ServeSettings, name: str) -> None:
    with Client(service.url) as client, pytest.raises(InputError, match="name"):
        client.create(name, {"words": "bm25"})
    response = httpx2.post(
        f"{service.url}/collections", json={"name": name, "retrievers": {"words": "bm25"}}, timeout=10
    )
    assert response.status_code == 422
    assert httpx2.post(f"{service.url}/collections/{name}/search", json={"query": "a"}).status_code in (
        404,
        405,
        422,
    )
    assert settings.collections is not None
    assert sorted(path.name for path in settings.collections.iterdir()) == ["films"]


def test_dropping_never_deletes_what_lies_elsewhere(settings: ServeSettings, index_folder: Path) -> None:
    assert settings.collections is not None
    assert settings.encoders
    write_config(settings.collections / "films", str(index_folder), settings.encoders["bm25"])
    collections = Collections.open(settings)
    with pytest.raises(ConfigError, match="lies outside"):
        collections.drop("films")
    assert collections["films"].search("list").hits
    collections.close()
    InvertedIndex.open(index_folder).verify()


def build_next(folder: Path, encoder: Bm25Encoder, *, last: str) -> None:
    """A second version: other documents, by another encoder."""
    vectors = encoder.encode_documents([f"{title} {text}" for _, title, text, *_ in DOCUMENTS])
    table = documents_table()
    ids = [*table["id"].to_pylist()[:-1], last]
    InvertedIndex.build(folder, vectors, documents=table.set_column(0, "id", [ids]), encoder=encoder.info)


def test_a_new_index_and_a_new_model_are_swapped_in_while_queries_run(
    service: RunningService, settings: ServeSettings, tmp_path: Path
) -> None:
    assert settings.collections is not None
    films = settings.collections / "films"
    encoder = Bm25Encoder.fit(
        [*(f"{title} {text}" for _, title, text, *_ in DOCUMENTS), "entirely new words"]
    )
    encoder.save(tmp_path / "encoder")
    build_next(films / "v2", encoder, last="renamed")
    stop, seen = Event(), set()

    def ask() -> int:
        n = 0
        with Client(service.url, collection="films", retries=0) as client:
            while not stop.is_set():
                seen.add(client.search("first byte white space").hits[0].id)
                n += 1
        return n

    with ThreadPoolExecutor(3) as pool, Client(service.url, collection="films", retries=0) as client:
        asking = [pool.submit(ask) for _ in range(3)]
        try:
            write_config(films, "v2", settings.encoders["bm25"])
            with pytest.raises(MismatchError, match="build the index again"):
                client.reload()  # of another encoder: all stays as it was
            assert client.search("first byte white space").hits[0].id == "json._scan"
            write_config(films, "v2", tmp_path / "encoder")
            info = client.reload().search
            assert info is not None
            assert info.fingerprint == encoder.info.fingerprint
            assert client.search("first byte white space").hits[0].id == "renamed"
        finally:
            stop.set()
        assert all(one.result(10) > 0 for one in asking)
    assert seen == {"json._scan", "renamed"}


def test_what_another_process_writes_is_seen_soon(service: RunningService, settings: ServeSettings) -> None:
    assert settings.collections is not None
    InvertedIndex.open(settings.collections / "films" / "v1").delete(["sorted"])
    with Client(service.url, collection="films") as client:
        eventually(lambda: "sorted" not in [hit.id for hit in client.search("ascending").hits])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "nothing to answer from"),
        ("retrievers = 1", "retrievers"),
        ("[retrievers.words]", r"retrievers\.words\.index"),
        ('[retrievers.words]\nindex = "a"\nencodr = "b"', r"retrievers\.words\.encodr"),
        ('[retrievers."../x"]\nindex = "a"', "retrievers"),
        ('[retrievers.words]\nindex = "a"\nrecall = 2', "recall"),
        ('[retrievers.words]\nindex = "a"\n[fusion]\nkind = "best"', "fusion"),
        ("[", "no TOML"),
    ],
)
def test_a_wrong_file_is_refused_by_name(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "collection.toml").write_text(text)
    with pytest.raises(ConfigError, match=rf"collection\.toml.*{says}"):
        CollectionConfig.read(tmp_path)


def test_a_files_paths_start_at_its_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"collection\.toml cannot be read"):
        CollectionConfig.read(tmp_path)
    (tmp_path / "collection.toml").write_text(
        '[retrievers.a]\nindex = "i"\nencoder = "/e"\n[rerank]\nencoder = "r"'
    )
    config = CollectionConfig.read(tmp_path)
    assert config.retrievers["a"].index == tmp_path / "i"
    assert config.retrievers["a"].encoder == Path("/e")
    assert config.rerank is not None
    assert config.rerank.encoder == tmp_path / "r"


def test_a_folder_that_no_request_could_name_is_refused(settings: ServeSettings) -> None:
    assert settings.collections is not None
    (settings.collections / "films").rename(settings.collections / "My Films")
    with pytest.raises(ConfigError, match="rename the folder"):
        Collections.open(settings)


def test_a_service_without_a_folder_makes_none(index_folder: Path, encoder_folder: Path) -> None:
    collections = Collections.open(ServeSettings(index=index_folder, encoder=encoder_folder))
    with pytest.raises(ConfigError, match="set `collections`"):
        collections.create(CreateRequest(name="notes", retrievers={"words": "bm25"}))
    collections.close()


def test_dropping_at_the_same_time_drops_once(settings: ServeSettings) -> None:
    collections = Collections.open(settings)

    def drop(_: int) -> str:
        try:
            collections.drop("films")
        except NotFoundError:
            return "not there"
        return "dropped"

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(drop, range(4))) == ["dropped", *["not there"] * 3]
    collections.close()


def test_a_write_is_known_whatever_takes_the_place_of_what(settings: ServeSettings) -> None:
    collections = Collections.open(settings.model_copy(update={"refresh_s": 3_600.0}))
    films, stop = collections["films"], Event()

    def reload() -> int:
        n = 0
        while not stop.is_set():
            collections.reload("films")
            n += 1
        return n

    with ThreadPoolExecutor(1) as pool:
        reloading = pool.submit(reload)
        try:
            for number in range(60):
                films.put([{"id": "one", "text": f"version {number}"}])
                assert films.get("one").text == f"version {number}"
        finally:
            stop.set()
        assert reloading.result(30) > 1
    collections.close()


def test_one_called_default_is_as_others_where_the_settings_have_none(settings: ServeSettings) -> None:
    bare = settings.model_copy(update={"index": None, "encoder": None, "recommender": None})
    collections = Collections.open(bare)
    collections.create(CreateRequest(name="default", retrievers={"words": "bm25"}))
    collections["default"].put([{"id": "a", "text": "list"}])
    collections.reload("default")
    assert collections["default"].get("a").text == "list"
    collections.drop("default")
    with pytest.raises(NotFoundError):
        collections["default"]
    collections.close()


def test_one_that_cannot_be_opened_is_not_made(
    settings: ServeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    collections = Collections.open(settings)
    wanted = CreateRequest(name="notes", retrievers={"words": "bm25"})

    def failing(*_: object) -> None:
        raise MismatchError("not now")

    with monkeypatch.context() as patched:
        patched.setattr("gossamer.serving.collections.open_parts", failing)
        with pytest.raises(MismatchError, match="not now"):
            collections.create(wanted)
    assert list(collections) == ["default", "films"]
    assert collections.create(wanted).name == "notes"
    collections.close()
