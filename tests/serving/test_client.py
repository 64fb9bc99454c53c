"""The clients: the engine's contract over real HTTP, and what only a network can do wrong."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest

from gossamer.kernels.errors import ConfigError, OverloadedError, ServiceError, UnavailableError
from gossamer.serving import AsyncClient, Client, RunningService
from gossamer.serving.settings import is_loopback
from tests.contracts.engine import Answering, EngineContract


class Blocking:
    """An `AsyncClient` whose methods are awaited on the spot."""

    def __init__(self, url: str) -> None:
        self._runner = asyncio.Runner()
        self._client = AsyncClient(url)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)

        async def awaited(*args: Any, **options: Any) -> Any:
            return await method(*args, **options)

        return lambda *args, **options: self._runner.run(awaited(*args, **options))

    def stop(self) -> None:
        self._runner.run(self._client.close())
        self._runner.close()


class TestClient(EngineContract):
    @pytest.fixture
    def answering(self, service: RunningService) -> Iterator[Answering]:
        with Client(service.url) as client:
            yield client

    @pytest.fixture
    def answering_nothing(self, empty_service: RunningService) -> Iterator[Answering]:
        with Client(empty_service.url) as client:
            yield client


class TestAsyncClient(EngineContract):
    @pytest.fixture
    def answering(self, service: RunningService) -> Iterator[Any]:
        client = Blocking(service.url)
        yield client
        client.stop()

    @pytest.fixture
    def answering_nothing(self, empty_service: RunningService) -> Iterator[Any]:
        client = Blocking(empty_service.url)
        yield client
        client.stop()


def test_both_clients_have_the_engines_methods() -> None:
    import inspect

    from gossamer.serving import Engine

    inside = {
        "open",
        "close",
        "replace",
        "refresh",
        "answer_search",
        "answer_batch",
        "answer_recommend",
        "answer_similar",
        "answer_documents",
        "answer_delete",
        "n_waiting",
    }
    names = {name for name in vars(Engine) if not name.startswith("_")} - inside
    of_all = {"put_many", "collections", "create", "drop", "reload", "close"}
    for client in (Client, AsyncClient):
        assert {name for name in vars(client) if not name.startswith("_")} == names | of_all
        for name in names:
            assert inspect.signature(getattr(client, name)) == inspect.signature(getattr(Engine, name))


async def many_at_once(url: str) -> list[str]:
    async with AsyncClient(url) as client:
        answers = await asyncio.gather(*(client.search(query) for query in ["list", "path"] * 10))
    return [answer.hits[0].id for answer in answers]


def test_async_requests_run_side_by_side(service: RunningService) -> None:
    with Client(service.url) as client:
        expected = [client.search(query).hits[0].id for query in ["list", "path"]]
    assert asyncio.run(many_at_once(service.url)) == expected * 10


@pytest.mark.parametrize("url", ["", "localhost:8080", "ftp://localhost", "http://", "http://[::1", 8080])
def test_an_address_that_is_none_is_refused(url: Any) -> None:
    with pytest.raises(ConfigError, match=r"URL|address"):
        Client(url)


def test_nothing_at_the_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with Client(f"http://127.0.0.1:{port}") as client, pytest.raises(UnavailableError, match=str(port)):
        client.search("list")


def test_no_answer_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with Client(url, timeout_s=0.05) as client, pytest.raises(UnavailableError, match="timeout_s"):
            client.health()


def answered(status: int, body: str) -> Client:
    transport = httpx2.MockTransport(lambda request: httpx2.Response(status, text=body, request=request))
    return Client("http://service.test", transport=transport)


@pytest.mark.parametrize(
    ("status", "body", "error", "says"),
    [
        (200, "<html>hello</html>", ServiceError, "did not answer as a gossamer service"),
        (200, '{"hits": []}', ServiceError, "did not answer as a gossamer service"),
        (502, "<html>bad gateway</html>", UnavailableError, "502"),
        (500, "", ServiceError, "500"),
        (302, "", ServiceError, "302"),
        (418, '{"error": {"type": "teapot", "message": "short and stout"}}', ServiceError, "short and stout"),
    ],
)
def test_answers_of_strangers_are_told_apart(
    status: int, body: str, error: type[Exception], says: str
) -> None:
    with answered(status, body) as client, pytest.raises(error, match=says):
        client.search("list")


def test_an_older_client_reads_a_newer_services_answer() -> None:
    body = '{"hits": [], "expansion": [], "took_ms": 1.5, "tomorrow": true}'
    with answered(200, body) as client:
        assert client.search("list").took_ms == 1.5


def test_the_client_loads_nothing_heavy() -> None:
    code = (
        "import sys, gossamer.serving.client; print(sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for heavy in (
        "torch",
        "ray",
        "numba",
        "numpy",
        "transformers",
        "tokenizers",
        "pyarrow",
        "pandas",
        "fastapi",
        "uvicorn",
    ):
        assert repr(heavy) not in loaded


def seconds_to_import(modules: str) -> float:
    """CPU time of an interpreter that does no more; the least of three, which other programs slow down least."""
    code = f"import {modules}, time; print(time.process_time())"
    command = [sys.executable, "-c", code]
    return min(
        float(subprocess.run(command, capture_output=True, text=True, check=True).stdout) for _ in range(3)
    )


def test_the_client_is_imported_about_as_fast_as_what_it_cannot_do_without() -> None:
    assert seconds_to_import("gossamer.serving.client") < 4 * seconds_to_import("httpx2, pydantic")


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_no_proxy_stands_before_this_machine(
    service: RunningService, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:1")  # where nobody listens
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    url = service.url.replace("127.0.0.1", name)
    with Client(url) as client:
        assert client.health().status == "ready"
    blocking = Blocking(url)
    assert blocking.health().status == "ready"
    blocking.stop()
    with Client("http://192.0.2.1") as client, pytest.raises(UnavailableError):
        client.health()  # by the proxy, at once: there is nothing at that address to be waited for


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.9.10", True),
        ("::1", True),
        ("LocalHost", True),
        ("128.0.0.1", False),
        ("localhost.example", False),
        ("::2", False),
        ("0.0.0.0", False),
    ],
)
def test_what_is_this_machine(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


# -- asking again ------------------------------------------------------------------------------------


class Failing(httpx2.BaseTransport):
    """Fails as told, then passes on."""

    def __init__(self, failures: list[int | Exception], to: str) -> None:
        self.failures, self.n_asked = failures, 0
        self._to = httpx2.HTTPTransport()
        self._url = httpx2.URL(to)

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        self.n_asked += 1
        failure = self.failures.pop(0) if self.failures else None
        if isinstance(failure, Exception):
            raise failure
        if failure is not None:
            kind = {429: "overloaded", 503: "not_ready", 500: "internal"}[failure]
            return httpx2.Response(failure, json={"error": {"type": kind, "message": "no"}}, request=request)
        return self._to.handle_request(request)


LOST = httpx2.ReadError("the connection was lost")


@pytest.mark.parametrize(
    ("failures", "call", "n_asked"),
    [
        ([LOST, 429, 503], lambda client: client.search("list"), 4),
        ([LOST], lambda client: client.facets(), 2),
        ([LOST] * 4, lambda client: client.search("list"), None),
        ([500], lambda client: client.search("list"), None),
        ([LOST], lambda client: client.drop("nothing"), None),
    ],
)
def test_asks_again_where_that_helps_and_does_no_harm(
    service: RunningService,
    monkeypatch: pytest.MonkeyPatch,
    failures: list[int | Exception],
    call: Any,
    n_asked: int | None,
) -> None:
    monkeypatch.setattr("gossamer.serving.client._FIRST_PAUSE_S", 0.001)
    transport = Failing(list(failures), service.url)
    with Client(service.url, transport=transport, retries=3) as client:
        if n_asked is not None:
            call(client)
            assert transport.n_asked == n_asked
        else:
            with pytest.raises(ServiceError):
                call(client)
            assert transport.n_asked == (4 if len(failures) == 4 else 1)


def test_waits_as_long_as_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    paused: list[float] = []
    monkeypatch.setattr("gossamer.serving.client.time.sleep", paused.append)
    body = {"error": {"type": "overloaded", "message": "later"}}
    transport = httpx2.MockTransport(
        lambda request: httpx2.Response(429, json=body, headers={"retry-after": "3"}, request=request)
    )
    client = Client("http://service.test", transport=transport, retries=2)
    with pytest.raises(OverloadedError, match="later"):
        client.search("list")
    assert paused == [3.0, 3.0]
