"""Request ids, the access log, slow queries, stages: what those who run a service see of it."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Barrier, Event, Thread
from typing import Any

import httpx2
import pytest
from starlette.testclient import TestClient

from gossamer.serving import Client, Engine, HttpSettings, SearchStage, create_app
from gossamer.serving.batching import Batcher
from gossamer.serving.keys import add_key
from gossamer.serving.logs import REQUEST_ID, JsonLines, TextLines
from gossamer.serving.pipeline import Pipeline, Retriever
from gossamer.serving.stages import Listener, listeners, timed, told

DEFAULT = "/collections/default"
Open = Callable[..., TestClient]


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """What our loggers have written since, as JSON."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(JsonLines())
    logger = logging.getLogger("gossamer")
    monkeypatch.setattr(logger, "level", logging.INFO)
    logger.manager._clear_cache()  # type: ignore[attr-defined] # of what is enabled
    logger.addHandler(handler)
    yield lambda: [json.loads(line) for line in written.getvalue().splitlines()]
    logger.removeHandler(handler)
    logger.manager._clear_cache()  # type: ignore[attr-defined]


def ask(client: TestClient, **options: Any) -> httpx2.Response:
    return client.post(f"{DEFAULT}/search", json={"query": "list"}, **options)


def sample(text: str, name: str) -> float:
    (found,) = re.findall(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    return float(found)


# -- request ids -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "is_taken"),
    [
        ("abc-1_2.Z", True),
        ("x" * 64, True),
        ("x" * 65, False),
        ("a b", False),
        ("a\n", False),
        ("<b>", False),
        ("", False),
    ],
)
def test_an_id_is_taken_if_it_is_plain_and_else_made(tiny_engine: Engine, given: str, is_taken: bool) -> None:
    with TestClient(create_app(tiny_engine)) as client:
        for path in ("/healthz", "/nowhere"):
            kept = client.get(path, headers={"x-request-id": given}).headers["x-request-id"]
            assert (kept == given) == is_taken
            assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", kept)
        assert ask(client).headers["x-request-id"] != ask(client).headers["x-request-id"]
    assert REQUEST_ID.get() is None


def test_a_failure_is_logged_with_the_requests_id(lines: Callable[[], list[dict[str, Any]]]) -> None:
    class Broken(Engine):
        def answer_search(self, *_: Any, **__: Any) -> Any:
            raise ZeroDivisionError("inside")

    with TestClient(create_app(Broken(None, None)), raise_server_exceptions=False) as client:
        assert ask(client, headers={"x-request-id": "mine"}).status_code == 500
    (line,) = lines()
    assert (line["level"], line["message"], line["id"]) == ("error", "request failed", "mine")
    assert line["path"] == f"{DEFAULT}/search"
    assert "ZeroDivisionError: inside" in line["exception"]


# -- a line a request --------------------------------------------------------------------------------


def test_each_request_has_a_line_without_its_secrets(
    tiny_engine: Engine, tmp_path: Path, lines: Callable[[], list[dict[str, Any]]]
) -> None:
    key = add_key(tmp_path / "keys.json", "ann", "read")
    settings = HttpSettings(keys=tmp_path / "keys.json", log="json")
    with TestClient(create_app(tiny_engine, http=settings)) as client:
        answer = ask(client, headers={"authorization": f"Bearer {key}", "x-request-id": "one"})
        ask(client)
        client.get("/some/secret", headers={"authorization": f"Bearer {key}"})
    search, refused, nowhere = lines()
    assert {name: search[name] for name in ("level", "message", "id", "key", "method", "route", "status", "bytes")} == {
        "level": "info", "message": "request", "id": "one", "key": "ann", "method": "POST",
        "route": "/collections/{collection}/search", "status": 200, "bytes": len(answer.content),
    }  # fmt: skip
    assert search["ms"] >= answer.json()["took_ms"]
    assert "error" not in search
    assert (refused["key"], refused["status"], refused["error"]) == (None, 401, "unauthenticated")
    assert (nowhere["route"], nowhere["error"]) == ("other", "not_found")
    shown = json.dumps(lines())
    assert key not in shown
    assert "secret" not in shown


def test_nothing_is_logged_unless_asked(
    tiny_engine: Engine, lines: Callable[[], list[dict[str, Any]]]
) -> None:
    with TestClient(create_app(tiny_engine)) as client:
        ask(client)
    assert lines() == []


def test_text_is_one_line_whatever_is_in_it() -> None:
    from gossamer.serving.logs import Event as Logged

    event = Logged("request", {"id": "a1", "key": None, "path": 'x\n2026 INFO "forged"', "ms": 1.5})
    record = logging.LogRecord("gossamer.requests", logging.INFO, "", 0, event, None, None)
    line = TextLines().format(record)
    assert line.endswith(r'INFO request id=a1 key=- path="x\n2026 INFO \"forged\"" ms=1.5')
    assert "\n" not in line
    assert json.loads(JsonLines().format(record))["path"].startswith("x\n2026")
    record = logging.LogRecord("gossamer", logging.WARNING, "", 0, "failed: %s", ("a\nb",), None)
    assert TextLines().format(record).endswith(r"WARNING failed: a\nb")


# -- slow queries ------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_texts", [False, True])
def test_slow_queries_are_logged_with_their_stages(
    tiny_engine: Engine, lines: Callable[[], list[dict[str, Any]]], with_texts: bool
) -> None:
    settings = HttpSettings(slow_query_ms=1e-3, log_queries=with_texts)
    with TestClient(create_app(tiny_engine, http=settings)) as client:
        ask(client, headers={"x-request-id": "one"})
        client.post(f"{DEFAULT}/recommend", json={"user": "reader", "k": 3})
        client.get("/healthz")
    search, recommend = lines()
    assert (search["message"], search["level"], search["id"]) == ("slow query", "warning", "one")
    assert (search["collection"], search["operation"], search["k"]) == ("default", "search", 10)
    assert set(search["stages_ms"]) == {"encode", "search", "explain"}
    assert 0 < sum(search["stages_ms"].values()) < search["ms"]
    assert search.get("texts") == (["list"] if with_texts else None)
    assert (recommend["operation"], recommend["k"]) == ("recommend", 3)


def test_quick_queries_are_not(tiny_engine: Engine, lines: Callable[[], list[dict[str, Any]]]) -> None:
    with TestClient(create_app(tiny_engine, http=HttpSettings(slow_query_ms=1e9))) as client:
        ask(client)
    assert lines() == []


# -- stages ------------------------------------------------------------------------------------------


def test_stages_are_told_to_those_who_listen() -> None:
    heard: list[tuple[str, float]] = []

    def hear(stage: str, seconds: float) -> None:
        heard.append((stage, seconds))

    with timed("encode"):
        pass
    with told([hear]), told([hear]), timed("search"):
        pass
    with pytest.raises(ZeroDivisionError), told([hear]), timed("fuse"):
        raise ZeroDivisionError
    assert [stage for stage, _ in heard] == ["search", "fuse"]
    assert all(0 <= seconds < 1 for _, seconds in heard)
    assert listeners() == frozenset()


def test_a_batch_is_told_to_all_who_share_it_and_once_to_each() -> None:
    started, go = Event(), Event()

    def work(items: Any) -> list[int]:
        started.set()
        assert go.wait(10)
        with timed("search"):
            return list(items)

    heard: dict[str, list[str]] = {"all": [], "0": [], "1": [], "2": []}

    def hearer(name: str) -> Listener:
        return lambda stage, _: heard[name].append(stage)

    everything = hearer("all")
    with Batcher(work, name="test") as batcher:
        futures = []
        for name in ("0", "1", "2"):
            with told([everything, hearer(name)]):
                futures.append(batcher.submit(int(name)))
            assert started.wait(10)  # the first goes alone, the others wait meanwhile
        go.set()
        assert [future.result(10) for future in futures] == [0, 1, 2]
    assert {name: len(stages) for name, stages in heard.items()} == {"all": 2, "0": 1, "1": 1, "2": 1}


def test_metrics_have_the_stages_of_batches_and_writes(stage: SearchStage) -> None:
    pipeline = Pipeline({"a": Retriever(stage), "b": Retriever(stage)}, batch_wait_s=0.0)
    engine = Engine(pipeline)
    with TestClient(create_app(engine)) as client:
        ask(client)
        client.put(f"{DEFAULT}/documents/new", json={"text": "a new one"})
        client.post(f"{DEFAULT}/search", json={"query": "list", "k": 0})
        client.get("/nowhere")
        text = client.get("/metrics").text
    engine.close()
    for name, n in {"encode": 4, "search": 2, "fuse": 1, "explain": 1, "write": 1, "rerank": 0}.items():
        assert sample(text, f'gossamer_stage_seconds_count{{stage="{name}"}}') == n, name
    assert sample(text, 'gossamer_refusals_total{type="validation"}') == 1
    assert sample(text, 'gossamer_refusals_total{type="not_found"}') == 1


def test_metrics_have_what_waits(stage: SearchStage) -> None:
    reached, go = Barrier(2), Event()

    class Slow(SearchStage):
        def find(self, asks: Any) -> Any:
            reached.wait(10)
            assert go.wait(10)
            return super().find(asks)

    engine = Engine(
        Pipeline({"a": Retriever(Slow(stage.index, stage.encoder))}, batch_wait_s=0.0, max_batch=2)
    )
    with TestClient(create_app(engine)) as client:
        asking = [Thread(target=engine.search, args=["list"]) for _ in range(3)]
        asking[0].start()
        reached.wait(10)
        for one in asking[1:]:
            one.start()
        for _ in range(1_000):
            text = client.get("/metrics").text
            if sample(text, 'gossamer_waiting{what="queries"}') == 2:
                break
        else:
            raise AssertionError(text)
        assert sample(text, 'gossamer_waiting{what="documents"}') == 0
        go.set()
        reached.wait(10)
        for one in asking:
            one.join(10)
        assert sample(client.get("/metrics").text, 'gossamer_waiting{what="queries"}') == 0
    engine.close()


# -- a process of its own ----------------------------------------------------------------------------


def test_the_command_logs_to_standard_error(recommender_folder: Path, tmp_path: Path) -> None:
    key = add_key(tmp_path / "keys.json", "ann", "admin")
    words = [
        "serve",
        "--recommender",
        str(recommender_folder),
        "--port",
        "0",
        "--keys",
        str(tmp_path / "keys.json"),
    ]
    command = [sys.executable, "-m", "gossamer.serving", *words, "--set", "log=json"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ) as process:
        try:
            assert process.stderr is not None
            url = process.stderr.readline().split()[-1]
            with Client(url, key=key, timeout_s=60, retries=20) as client:
                assert client.recommend(user="reader").items
            process.send_signal(signal.SIGTERM)
            logged = [json.loads(line) for line in process.stderr.read().splitlines()]
            assert process.wait(20) in (0, -signal.SIGTERM)
        finally:
            process.kill()
    last = logged[-1]
    assert (last["message"], last["key"], last["status"]) == ("request", "ann", 200)
    assert key not in json.dumps(logged)
