"""The HTTP application: one error shape, limits, readiness, metrics, headers, OpenAPI."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx2
import pytest
from pydantic import ValidationError
from starlette.testclient import TestClient

from gossamer.kernels.errors import CorruptError, MismatchError, NotReadyError
from gossamer.serving import Client, Engine, Limits, RunningService, SearchStage, ServeSettings, create_app
from gossamer.serving.access import add_key
from gossamer.serving.collections import Collections
from gossamer.serving.pipeline import Pipeline
from gossamer.serving.retrieval import Retriever
from gossamer.serving.schemas import ErrorBody, ErrorDetail, HealthResponse, SearchRequest
from tests.serving.conftest import LIMITS, eventually

DEFAULT = "/collections/default"


@pytest.fixture(scope="module")
def http(tiny_engine: Engine) -> Iterator[TestClient]:
    with TestClient(create_app(tiny_engine), raise_server_exceptions=False) as client:
        yield client


def refused(response: httpx2.Response) -> ErrorDetail:
    """The error of an answer, which must have exactly the one shape."""
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"type", "message"}
    return ErrorBody.model_validate(body).error


# -- errors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "kind", "names"),
    [
        ("GET", "/nowhere", None, 404, "not_found", "/nowhere"),
        ("GET", "/static/nothing.js", None, 404, "not_found", "nothing.js"),
        ("GET", "/static/../app.py", None, 404, "not_found", "app.py"),
        ("GET", "/static/%2e%2e/app.py", None, 404, "not_found", "app.py"),
        ("GET", f"{DEFAULT}/search", None, 405, "validation", "GET"),
        ("DELETE", f"{DEFAULT}/recommend", None, 405, "validation", "DELETE"),
        ("POST", f"{DEFAULT}/search", "", 422, "validation", "Field required"),
        ("POST", f"{DEFAULT}/search", "{", 422, "validation", "JSON"),
        ("POST", f"{DEFAULT}/search", "[]", 422, "validation", "dictionary"),
        ("POST", f"{DEFAULT}/search", "null", 422, "validation", ""),
        ("POST", f"{DEFAULT}/search", "[" * 9_000, 400, "validation", "parsing"),
        ("POST", f"{DEFAULT}/search", b"\xff\xfe", 422, "validation", "JSON"),
        ("POST", f"{DEFAULT}/search", "{}", 422, "validation", "query: Field required"),
        ("POST", f"{DEFAULT}/search", '{"query": 1}', 422, "validation", "query"),
        ("POST", f"{DEFAULT}/search", '{"query": "a", "k": NaN}', 422, "validation", "k"),
        ("POST", f"{DEFAULT}/search", '{"query": "a", "k": 1e3}', 422, "validation", "k"),
        (
            "POST",
            f"{DEFAULT}/search",
            '{"query": "a", "k": ' + "9" * 4_000 + "}",
            422,
            "validation",
            "k",
        ),
        (
            "POST",
            f"{DEFAULT}/search",
            '{"query": "a", "filters": {"since": Infinity}}',
            422,
            "validation",
            "filters: 'since'",
        ),
        (
            "POST",
            f"{DEFAULT}/search",
            '{"query": "a", "filters": {"\\ud800": 1}}',
            422,
            "validation",
            "filters",
        ),
        (
            "POST",
            f"{DEFAULT}/search",
            '{"query": "a", "filters": [{}]}',
            422,
            "validation",
            "filters: ",
        ),
        (
            "POST",
            f"{DEFAULT}/search",
            '{"query": "a", "filters": ' + '{"not": ' * 99 + "{}" + "}" * 99 + "}",
            422,
            "validation",
            "more than 8 deep",
        ),
        ("POST", f"{DEFAULT}/search", '{"query": "\\ud800"}', 422, "validation", "query"),
        (
            "POST",
            f"{DEFAULT}/search",
            '{"query": "a", "fitlers": {}}',
            422,
            "validation",
            "did you mean filters?",
        ),
        (
            "POST",
            f"{DEFAULT}/search",
            '{"query": "a", "\\ud800": {}}',
            422,
            "validation",
            "no such parameter",
        ),
        ("POST", f"{DEFAULT}/search", '{"query": "a", "k": 51}', 413, "too_large", "max_k"),
        (
            "POST",
            f"{DEFAULT}/search/batch",
            '{"queries": ["a", null]}',
            422,
            "validation",
            "queries.1",
        ),
        (
            "POST",
            f"{DEFAULT}/search/batch",
            '{"queries": ["a", "a", "a", "a", "a"]}',
            413,
            "too_large",
            "max_batch",
        ),
        ("POST", f"{DEFAULT}/recommend", "{}", 422, "validation", "exactly one"),
        (
            "POST",
            f"{DEFAULT}/recommend",
            '{"user": "reader", "history": []}',
            422,
            "validation",
            "exactly one",
        ),
    ],
)
def test_every_refusal_has_the_one_shape(
    http: TestClient, method: str, path: str, body: Any, status: int, kind: str, names: str
) -> None:
    headers = {"content-type": "application/json"}
    response = http.request(method, path, content=body, headers=headers if body is not None else {})
    error = refused(response)
    assert (response.status_code, error.type) == (status, kind)
    assert names in error.message
    assert len(error.message) < 500


def test_a_form_is_no_json(http: TestClient) -> None:
    response = http.post(
        f"{DEFAULT}/search", content='{"query": "list"}', headers={"content-type": "text/plain"}
    )
    assert (response.status_code, refused(response).type) == (422, "validation")


def test_what_fails_inside_stays_inside(tiny_engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Engine):
        def answer_search(self, *_: Any, **__: Any) -> Any:
            raise CorruptError("/secret/path/impacts.npy is damaged")

        def answer_recommend(self, *_: Any, **__: Any) -> Any:
            raise ZeroDivisionError("secret number")

    with TestClient(create_app(Broken(None, None)), raise_server_exceptions=False) as client:
        for path, body in [
            (f"{DEFAULT}/search", {"query": "list"}),
            (f"{DEFAULT}/recommend", {"user": "reader"}),
        ]:
            response = client.post(path, json=body)
            error = refused(response)
            assert (response.status_code, error.type) == (500, "internal")
            assert "secret" not in response.text
            assert "content-security-policy" in response.headers
        metrics = client.get("/metrics").text
    assert "secret number" in caplog.text  # the log has it
    assert (
        'gossamer_http_requests_total{route="/collections/{collection}/recommend",status="500"} 1.0'
        in metrics
    )


# -- limits ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extra", [0, 1])
def test_the_body_may_have_just_so_many_bytes(http: TestClient, extra: int) -> None:
    body = json.dumps({"query": "list"})
    body += " " * (LIMITS.max_body_bytes - len(body) + extra)
    response = http.post(f"{DEFAULT}/search", content=body, headers={"content-type": "application/json"})
    if extra:
        error = refused(response)
        assert (response.status_code, error.type) == (413, "too_large")
        assert "max_body_bytes" in error.message
    else:
        assert response.status_code == 200


def test_a_body_in_chunks_is_limited_as_it_comes(service: RunningService) -> None:
    sent = 0

    def chunks() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(100_000):
            sent += 1_000
            yield b" " * 1_000

    with httpx2.Client() as client:
        response = client.post(f"{service.url}/search", content=chunks())
    assert "content-length" not in response.request.headers
    assert (response.status_code, refused(response).type) == (413, "too_large")
    assert sent < 100_000_000  # it was not waited for


def test_a_body_declared_too_long_is_refused_unread() -> None:
    import asyncio

    app = create_app(Engine(None, None, limits=LIMITS))

    async def body() -> AsyncIterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    async def post() -> httpx2.Response:
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://service.test") as client:
            return await client.post(f"{DEFAULT}/search", content=body(), headers={"content-length": "20001"})

    response = asyncio.run(post())
    assert (response.status_code, refused(response).type) == (413, "too_large")


def test_the_apps_own_limit_on_bodies_may_be_given(tiny_engine: Engine) -> None:
    with TestClient(create_app(tiny_engine, limits=Limits(max_body_bytes=10))) as client:
        assert client.post(f"{DEFAULT}/search", json={"query": "list"}).status_code == 413


# -- loading -----------------------------------------------------------------------------------------

SETTINGS = ServeSettings(index=Path("index"), encoder=Path("encoder"), limits=LIMITS)


def wait_for(client: TestClient, path: str, text: str) -> httpx2.Response:
    eventually(lambda: text in client.get(path).text)
    return client.get(path)


@pytest.fixture
def settings(index_folder: Path, encoder_folder: Path) -> ServeSettings:
    return ServeSettings(index=index_folder, encoder=encoder_folder)


@pytest.fixture
def go(monkeypatch: pytest.MonkeyPatch) -> Event:
    """Until it is set, nothing is opened."""
    go, opened = Event(), Collections.open

    def slowly(settings: ServeSettings) -> Collections:
        assert go.wait(10)
        return opened(settings)

    monkeypatch.setattr(Collections, "open", slowly)
    return go


def test_says_that_it_is_loading_until_it_is_ready(go: Event, settings: ServeSettings) -> None:
    with TestClient(create_app(settings)) as client:
        for response in (
            client.get("/readyz"),
            client.post(f"{DEFAULT}/search", json={"query": "list"}),
        ):
            assert (response.status_code, refused(response).type) == (503, "not_ready")
            assert response.headers["retry-after"] == "1"
        assert HealthResponse.model_validate(client.get("/healthz").json()).status == "loading"
        assert client.get("/").status_code == 200
        assert "gossamer_ready 0.0" in client.get("/metrics").text
        go.set()
        assert wait_for(client, "/readyz", '"ready"').json()["search"]["n_documents"] == 8
        assert client.get("/healthz").json()["status"] == "ready"
        assert client.post(f"{DEFAULT}/search", json={"query": "list"}).status_code == 200
        assert "gossamer_ready 1.0" in client.get("/metrics").text


@pytest.mark.parametrize(
    ("failure", "says"),
    [(MismatchError("other encoder"), "other encoder"), (OSError("secret"), "log says why")],
)
def test_says_why_it_cannot_load(
    monkeypatch: pytest.MonkeyPatch, failure: Exception, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(settings: ServeSettings) -> Collections:
        raise failure

    failed = Event()
    monkeypatch.setattr(Collections, "open", failing)
    app = create_app(SETTINGS, on_failure=failed.set)
    with TestClient(app) as client:
        assert failed.wait(5)
        for path in ("/readyz", "/healthz"):
            response = client.get(path)
            assert (response.status_code, refused(response).type) == (503, "not_ready")
            assert says in response.text
            assert "secret" not in response.text
    assert app.state.loading.error is failure
    assert "could not load" in caplog.text


def test_a_loading_service_tells_its_clients(go: Event, settings: ServeSettings) -> None:
    with RunningService(settings) as running, Client(running.url, retries=0) as client:
        assert client.health().status == "loading"
        with pytest.raises(NotReadyError, match="still loading"):
            client.search("list")
        go.set()


# -- metrics -----------------------------------------------------------------------------------------


def sample(text: str, name: str) -> float:
    (found,) = re.findall(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    return float(found)


def test_metrics_count_routes_statuses_sources_and_times(tiny_engine: Engine) -> None:
    with TestClient(create_app(tiny_engine)) as client:
        for query in ("list", "path"):
            client.post(f"{DEFAULT}/search", json={"query": query})
        client.post(f"{DEFAULT}/search/batch", json={"queries": ["list", "path", "item"]})
        client.post(f"{DEFAULT}/search", json={"query": "list", "k": 0})
        client.post(f"{DEFAULT}/recommend", json={"user": "nobody"})
        client.get("/some/secret/path")
        answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    text = answer.text
    assert (
        sample(text, 'gossamer_http_requests_total{route="/collections/{collection}/search",status="200"}')
        == 2
    )
    assert (
        sample(text, 'gossamer_http_requests_total{route="/collections/{collection}/search",status="422"}')
        == 1
    )
    assert sample(text, 'gossamer_http_requests_total{route="other",status="404"}') == 1
    assert sample(text, 'gossamer_recommendations_total{source="popularity"}') == 1
    assert sample(text, 'gossamer_refusals_total{type="validation"}') == 1
    assert sample(text, 'gossamer_refusals_total{type="not_found"}') == 1
    assert sample(text, 'gossamer_waiting{what="queries"}') == 0
    assert sample(text, 'gossamer_engine_seconds_count{operation="search"}') == 2
    assert sample(text, 'gossamer_stage_seconds_count{stage="search"}') == 3  # a batch counts once
    engine_s = sample(text, 'gossamer_engine_seconds_sum{operation="search"}')
    request_s = sample(text, 'gossamer_http_request_seconds_sum{route="/collections/{collection}/search"}')
    assert 0 < engine_s < request_s
    assert sample(text, "gossamer_http_requests_in_flight") == 1  # this one
    assert "secret" not in text


def test_metrics_have_what_waits(stage: SearchStage) -> None:
    reached, go = Event(), Event()

    class Slow(SearchStage):
        def find(self, asks: Any) -> Any:
            reached.set()
            assert go.wait(10)
            return super().find(asks)

    pipeline = Pipeline({"a": Retriever(Slow(stage.index, stage.encoder))}, batch_wait_s=0.0, max_batch=2)
    engine = Engine(pipeline)
    asking = [Thread(target=engine.search, args=["list"]) for _ in range(3)]
    with TestClient(create_app(engine)) as client:
        asking[0].start()
        assert reached.wait(10)
        for one in asking[1:]:
            one.start()
        wait_for(client, "/metrics", 'gossamer_waiting{what="queries"} 2.0')
        assert 'gossamer_waiting{what="documents"} 0.0' in client.get("/metrics").text
        go.set()
        for one in asking:
            one.join(10)
        assert 'gossamer_waiting{what="queries"} 0.0' in client.get("/metrics").text
    engine.close()


def test_two_apps_count_apart(tiny_engine: Engine) -> None:
    with TestClient(create_app(tiny_engine)) as first, TestClient(create_app(tiny_engine)) as second:
        first.post(f"{DEFAULT}/search", json={"query": "list"})
        assert 'route="/collections/{collection}/search"' not in second.get("/metrics").text


# -- the rest ----------------------------------------------------------------------------------------


def test_headers_keep_the_page_to_itself(http: TestClient) -> None:
    for path in ("/", "/healthz", "/nowhere", "/static/app.js"):
        headers = http.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert "access-control-allow-origin" not in headers


def test_the_page_needs_nobody_else(http: TestClient) -> None:
    for path in ("/", "/static/app.js", "/static/style.css", "/static/icon.svg"):
        response = http.get(path)
        assert response.status_code == 200
        others = [url for url in re.findall(r"https?://[^\s\"'<>]+", response.text) if "w3.org" not in url]
        assert others == []
        assert "innerHTML" not in response.text
        assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|\sstyle=", response.text) or path.endswith(
            ".js"
        )


def test_openapi_names_every_route_its_errors_and_examples(http: TestClient) -> None:
    document = http.get("/openapi.json").json()
    asked = ("search", "search/batch", "recommend", "similar", "facets", "documents/list")
    told = ("reload", "interactions", "documents", "documents/bulk", "documents/delete", "documents/{id}")
    assert set(document["paths"]) == {
        *("/healthz", "/readyz", "/metrics", "/collections", "/collections/{collection}"),
        *(f"/collections/{{collection}}/{path}" for path in (*asked, *told)),
    }
    for path in ("search", "search/batch", "recommend"):
        responses = document["paths"][f"/collections/{{collection}}/{path}"]["post"]["responses"]
        for status in ("404", "409", "413", "422", "500", "503"):
            schema = responses[status]["content"]["application/json"]["schema"]
            assert schema == {"$ref": "#/components/schemas/ErrorBody"}
    schemas = document["components"]["schemas"]
    for name in ("SearchRequest", "SearchBatchRequest", "RecommendRequest", "ListRequest"):
        assert schemas[name]["examples"]
        assert schemas[name]["additionalProperties"] is False
    assert "HTTPValidationError" not in schemas


@pytest.mark.parametrize("path", ["search", "search/batch", "recommend", "documents/list"])
def test_the_examples_in_openapi_work(http: TestClient, path: str) -> None:
    document = http.get("/openapi.json").json()
    body = document["paths"][f"/collections/{{collection}}/{path}"]["post"]["requestBody"]["content"][
        "application/json"
    ]["schema"]
    for example in document["components"]["schemas"][body["$ref"].rpartition("/")[2]]["examples"]:
        assert http.post(f"/collections/default/{path}", json=example).status_code == 200


def test_openapi_describes_filters_as_they_are_read(http: TestClient) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schemas = http.get("/openapi.json").json()["components"]["schemas"]
    schema = schemas["SearchRequest"]["properties"]["filters"]
    assert schema["description"].startswith("Which documents may be hits")
    good: list[Any] = [
        *schema["examples"],
        None,
        {},
        {"and": [], "or": [{}], "not": {}},
        {"year": []},
        {"a": True},
    ]
    bad: list[Any] = [
        [],
        "a",
        {"year": None},
        {"year": {}},
        {"year": {"=>": 1}},
        {"year": {"in": 1}},
        {"not": [{}]},
    ]
    bad += [{"year": {"<": [1]}}, {"and": {}}, {"or": "a"}, {"year": [[1]]}]
    for filters in good + bad:
        described = jsonschema.Draft202012Validator(schema).is_valid(filters)
        try:
            SearchRequest.model_validate({"query": "a", "filters": filters})
        except ValidationError:
            read = False
        else:
            read = True
        assert (described, read) == (filters in good, filters in good), filters


# -- names -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("listens", "allowed", "called", "answers"),
    [
        ("127.0.0.1", None, "127.0.0.1:8080", True),
        ("127.0.0.1", None, "LOCALHOST:8080", True),
        ("127.0.0.1", None, "[::1]:8080", True),
        ("127.0.0.1", None, "evil.example:8080", False),
        ("localhost", None, "127.0.0.1.evil.example", False),
        ("::1", None, "evil.example", False),
        ("0.0.0.0", None, "my.example", True),
        ("0.0.0.0", ("my.example",), "my.example:80", True),
        ("0.0.0.0", ("my.example",), "evil.example", False),
        ("127.0.0.1", ("*",), "my.example", True),
    ],
)
def test_a_service_answers_to_its_own_names(
    listens: str, allowed: tuple[str, ...] | None, called: str, answers: bool, tmp_path: Path
) -> None:
    add_key(tmp_path / "keys.json", "ada", "read")
    settings = ServeSettings(
        recommender=Path("nowhere"), host=listens, allowed_hosts=allowed, keys=tmp_path / "keys.json"
    )
    response = TestClient(create_app(settings)).get("/healthz", headers={"host": called})
    if answers:
        assert response.status_code == 200
        return
    assert response.status_code == 400
    error = refused(response)
    assert error.type == "validation"
    assert "allowed_hosts" in error.message
    assert response.headers["x-frame-options"] == "DENY"


def test_a_service_beside_other_code_answers_to_its_own_names(service: RunningService) -> None:
    response = httpx2.get(f"{service.url}/healthz", headers={"host": "evil.example"}, trust_env=False)
    assert (response.status_code, refused(response).type) == (400, "validation")
