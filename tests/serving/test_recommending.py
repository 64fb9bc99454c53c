"""Recommendations with clicks, filters, caps, reasons and queries: in this process and over HTTP, the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pytest

from gossamer.index import SparseVectors
from gossamer.kernels.errors import (
    ConfigError,
    InputError,
    NotFoundError,
    NotReadyError,
    TooLargeError,
    UnavailableError,
)
from gossamer.recsys import FoldInConfig, Interactions, LiveInteractions, Recommender
from gossamer.serving import Client, Engine, Limits, RunningService, ServeSettings
from tests.serving.conftest import TAKEN, WAYS, reached

Answering: TypeAlias = Engine | Client
ITEMS = ["os", "sys", "math", "random", "re", "statistics", "json"]
KINDS = ["system", "system", "number", "number", "text", "number", "text"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `recommender_folder`, with metadata of the items."""
    log = Interactions.from_table(
        pa.table(dict(zip(("user", "item"), zip(*TAKEN, strict=True), strict=True)))
    )
    users = np.array([[1, 0], [0, 1], [1, 1]], np.float32)
    items = np.array(
        [[1, 0], [0.95, -0.2], [0, 1], [-0.2, 0.95], [0.9, 0.1], [0.1, 0.9], [0.5, 0.5]], np.float32
    )
    folder = tmp_path_factory.mktemp("recommending") / "recommender"
    Recommender.build(
        folder,
        users=SparseVectors.from_dense(users),
        items=SparseVectors.from_dense(items, signed=True),
        interactions=log,
        fold_in=FoldInConfig(nnz=2),
        item_documents=pa.table(
            {"id": ITEMS, "title": [f"the module {item}" for item in ITEMS], "kind": KINDS}
        ),
    )
    return folder


@pytest.fixture
def engine(folder: Path, tmp_path: Path) -> Iterator[Engine]:
    settings = ServeSettings(
        recommender=folder, clicks=tmp_path / "clicks", limits=Limits(max_documents=4, max_depth=20, max_k=10)
    )
    engine = Engine.open(settings)
    yield engine
    engine.close()


@pytest.fixture(params=WAYS)
def answering(engine: Engine, request: pytest.FixtureRequest) -> Iterator[Answering]:
    with reached(engine, request.param) as answering:
        yield answering


def ids(answering: Answering, **options: Any) -> list[str]:
    return [item.id for item in answering.recommend(**options).items]


def test_clicks_change_the_next_answer(answering: Answering) -> None:
    before = answering.recommend(user="new")
    assert (before.source, before.unknown) == ("popularity", ["new"])
    written = answering.interact(
        [{"user": "new", "item": "math"}, {"user": "new", "item": "random", "time": 7.0}]
    )
    assert written.n_added == 2
    after = answering.recommend(user="new", k=2, min_version=written.version)
    assert after.source == "history"
    assert [item.id for item in after.items] == ["statistics", "json"]
    assert after.version == written.version
    assert "re" in ids(answering, user="reader")
    answering.interact([{"user": "reader", "item": "re"}])
    assert "re" not in ids(answering, user="reader")
    assert "re" in ids(answering, user="reader", include_seen=True)
    with pytest.raises(NotReadyError, match="not arrived"):
        answering.recommend(user="new", min_version="99")
    with pytest.raises(InputError, match="min_version"):
        answering.recommend(user="new", min_version="soon")


def test_clicks_outlive_the_service(
    answering: Answering, engine: Engine, folder: Path, tmp_path: Path
) -> None:
    answering.interact([{"user": "new", "item": "math"}])
    assert LiveInteractions.open(tmp_path / "clicks").items_of("new") == ["math"]
    engine.close()
    again = Engine.open(ServeSettings(recommender=folder, clicks=tmp_path / "clicks"))
    assert again.recommend(user="new").source == "history"
    again.close()


def test_a_recommender_is_swapped_and_its_clicks_stay(folder: Path, tmp_path: Path) -> None:
    from gossamer.serving.collections import Collections

    collections = Collections.open(ServeSettings(recommender=folder, clicks=tmp_path / "clicks"))
    collections["default"].interact([{"user": "new", "item": "math"}])
    collections.reload("default")
    assert collections["default"].recommend(user="new").source == "history"
    collections["default"].interact([{"user": "new", "item": "random"}])
    health = collections["default"].health().recommend
    assert health is not None
    assert health.n_interactions == 2
    collections.close()


def test_filters_caps_and_pages(answering: Answering) -> None:
    everything = ids(answering, history=["os"], k=6)
    assert len(everything) == 6
    kinds = dict(zip(ITEMS, KINDS, strict=True))
    numbers = [item for item in everything if kinds[item] == "number"]
    assert ids(answering, history=["os"], filters={"kind": "number"}) == numbers
    capped = ids(answering, history=["os"], most_per={"column": "kind", "at_most": 1})
    assert capped == [item for place, item in enumerate(everything) if kinds[item] not in
                      [kinds[other] for other in everything[:place]]]  # fmt: skip
    pages = [ids(answering, history=["os"], k=2, offset=offset) for offset in (0, 2, 4)]
    assert sum(pages, []) == everything  # noqa: RUF017
    assert ids(answering, user="nobody", filters={"kind": "text"}) == ["re", "json"]


def test_says_why_and_what_it_is(answering: Answering) -> None:
    (first, *_) = answering.recommend(history=["math", "os"], k=3).items
    assert first.because is not None
    assert first.because.kind == "history"
    assert set(first.because.items) <= {"math", "os"}
    assert first.title == f"the module {first.id}"
    assert first.metadata["kind"] in KINDS
    (first, *_) = answering.recommend(user="reader").items
    assert first.because is not None
    assert first.because.kind == "similar"
    (first, *_) = answering.recommend(user="nobody").items
    assert first.because is not None
    assert first.because.kind == "popularity"
    assert answering.recommend(user="reader", explain=False).items[0].because is None


def test_similar_items(answering: Answering) -> None:
    found = answering.similar("os", k=2)
    assert [item.id for item in found.items] == ["re", "sys"]
    assert [item.id for item in answering.similar("os", filters={"kind": "text"}).items] == ["re", "json"]
    with pytest.raises(NotFoundError, match="nothing"):
        answering.similar("nothing")


@pytest.mark.parametrize(
    ("ask", "error", "says"),
    [
        (lambda one: one.recommend(user="reader", filters={"knid": 1}), InputError, "kind"),
        (
            lambda one: one.recommend(user="reader", most_per={"column": "knid", "at_most": 1}),
            ConfigError,
            "knid",
        ),
        (lambda one: one.recommend(user="reader", most_per={"column": "kind"}), InputError, "at_most"),
        (lambda one: one.recommend(user="reader", offset=15), TooLargeError, "max_depth"),
        (lambda one: one.recommend(user="reader", query="list"), InputError, "no index"),
        (lambda one: one.interact([]), InputError, "interactions"),
        (lambda one: one.interact([{"user": "a"}]), InputError, "item"),
        (lambda one: one.interact([{"user": "a", "item": "b", "when": 1}]), InputError, "when"),
        (lambda one: one.interact([{"user": "a", "item": "b"}] * 5), TooLargeError, "max_documents"),
        (lambda one: one.similar("os", k=0), InputError, "k"),
    ],
)
def test_what_cannot_be_answered_is_refused(
    answering: Answering, ask: Any, error: type[Exception], says: str
) -> None:
    if error is ConfigError and isinstance(answering, Client):
        error = InputError  # which it is, and all that HTTP says
    with pytest.raises(error, match=says):
        ask(answering)


def test_without_a_folder_none_are_kept(folder: Path) -> None:
    engine = Engine.open(ServeSettings(recommender=folder))
    with pytest.raises(InputError, match="set `clicks`"):
        engine.interact([{"user": "a", "item": "os"}])


def test_another_writer_is_waited_for_elsewhere(engine: Engine, tmp_path: Path) -> None:
    engine.interact([{"user": "a", "item": "os"}])
    with RunningService(engine) as service, Client(service.url, retries=0) as client:
        assert client.interact([{"user": "a", "item": "sys"}]).version == "2"
    engine.close()
    with pytest.raises(UnavailableError), Client(service.url, retries=0) as client:
        client.interact([{"user": "a", "item": "sys"}])


def test_for_this_user_about_this_query(index_folder: Path, encoder_folder: Path, tmp_path: Path) -> None:
    """Documents that are items, too: those of the taste come first, and only those that the query finds."""
    from tests.serving.conftest import DOCUMENTS

    names = [document[0] for document in DOCUMENTS]
    log = Interactions.from_table(pa.table({"user": ["lister"] * 8, "item": names}))
    taste = np.array([[1.0 if "list" in name else 0.1] for name in names], np.float32)
    Recommender.build(
        tmp_path / "recommender",
        users=SparseVectors.from_dense(np.ones((1, 1), np.float32)),
        items=SparseVectors.from_dense(taste),
        interactions=log,
        fold_in=FoldInConfig(nnz=1),
    )
    engine = Engine.open(
        ServeSettings(index=index_folder, encoder=encoder_folder, recommender=tmp_path / "recommender")
    )
    found = [hit.id for hit in engine.search("ascending order").hits]
    assert found == ["list.sort", "sorted"]
    answer = engine.recommend(user="lister", query="ascending order", include_seen=True)
    assert answer.source == "user"
    assert sorted(item.id for item in answer.items) == sorted(found)
    assert engine.recommend(user="lister", query="ascending order").items == []
    assert engine.recommend(user="lister", query="zzz", include_seen=True).items == []
    stranger = engine.recommend(user="nobody", query="ascending order")
    assert (stranger.source, [item.id for item in stranger.items]) == ("query", found)
    engine.close()
