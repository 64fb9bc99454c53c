"""Keys: who may do what, and what those see who have none."""

from __future__ import annotations

import json
import logging
import ssl
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.testclient import TestClient

from gossamer.kernels.errors import (
    ConfigError,
    ExistsError,
    ForbiddenError,
    NotFoundError,
    UnauthenticatedError,
)
from gossamer.serving import (
    Client,
    Engine,
    RunningService,
    SearchStage,
    ServeSettings,
    access,
    create_app,
    serve,
)
from gossamer.serving.access import Keys, Role, add_key, read_keys, revoke_key
from tests.serving.conftest import eventually


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


@pytest.fixture
def keys(file: Path) -> dict[str, str]:
    roles: list[Role] = ["read", "write", "admin"]
    return {role: add_key(file, role, role) for role in roles}


@pytest.fixture
def http(
    stage: SearchStage, encoder_folder: Path, file: Path, keys: dict[str, str], tmp_path: Path
) -> Iterator[TestClient]:
    settings = ServeSettings(
        index=stage.index.path,
        encoder=encoder_folder,
        collections=tmp_path / "collections",
        encoders={"bm25": encoder_folder},
        keys=file,
        cors_origins=("https://app.example",),
    )
    with TestClient(create_app(settings)) as client:
        eventually(lambda: client.get("/readyz").status_code == 200)
        yield client


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


# -- the file ----------------------------------------------------------------------------------------


def test_the_file_holds_no_key_and_is_its_owners_alone(file: Path) -> None:
    key = add_key(file, "ada", "write")
    assert key.startswith("gsm_")
    assert len(key) > 40
    assert key not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    (known,) = read_keys(file)
    assert (known.name, known.role) == ("ada", "write")
    assert key != add_key(file, "bob", "read")
    with pytest.raises(ExistsError, match="'ada'"):
        add_key(file, "ada", "read")
    revoke_key(file, "ada")
    assert [key.name for key in read_keys(file)] == ["bob"]
    with pytest.raises(NotFoundError, match=r"'ada'.*\['bob'\]"):
        revoke_key(file, "ada")
    with pytest.raises(ConfigError, match="name"):
        add_key(file, "Ada!", "read")


WRONG_ROLE = '{"keys": [{"name": "a", "role": "root", "sha256": "", "created": ""}]}'


@pytest.mark.parametrize("text", ["", "{", "[]", '{"keys": [{"name": "a"}]}', '{"kyes": []}', WRONG_ROLE])
def test_another_file_is_refused(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"no file of keys"):
        Keys(file)


def test_no_file_is_refused(file: Path) -> None:
    with pytest.raises(ConfigError, match="gossamer keys add"):
        create_app(ServeSettings(recommender=Path("r"), keys=file))


def test_the_file_is_read_again_when_it_changes(
    file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(access, "_LOOK_EVERY_S", 0.0)
    ada = add_key(file, "ada", "read")
    keys = Keys(file)
    bob = add_key(file, "bob", "read")
    assert keys.find(bob) is not None
    revoke_key(file, "ada")
    assert keys.find(ada) is None
    file.write_text("half edit")
    assert keys.find(bob) is not None
    assert "stay as they were" in caplog.text
    assert keys.find("") is None
    assert keys.find("gsm_é\ud800") is None


# -- over HTTP ---------------------------------------------------------------------------------------

ASKED: list[tuple[str, str, Any, str]] = [
    ("POST", "/collections/default/search", {"query": "list"}, "read"),
    ("POST", "/collections/default/search/batch", {"queries": ["list"]}, "read"),
    ("GET", "/collections/default/facets", None, "read"),
    ("GET", "/collections/default/documents/list", None, "read"),
    ("GET", "/collections", None, "read"),
    ("GET", "/collections/default", None, "read"),
    ("GET", "/metrics", None, "read"),
    ("PUT", "/collections/default/documents/new", {"text": "list"}, "write"),
    ("POST", "/collections/default/documents", {"documents": [{"id": "a"}]}, "write"),
    ("POST", "/collections/default/documents/bulk", None, "write"),
    ("POST", "/collections/default/documents/delete", {"ids": ["a"]}, "write"),
    ("DELETE", "/collections/default/documents/new", None, "write"),
    ("POST", "/collections", {"name": "notes", "retrievers": {"words": "bm25"}}, "admin"),
    ("POST", "/collections/default/reload", None, "admin"),
    ("DELETE", "/collections/notes", None, "admin"),
]


def test_each_role_may_do_its_own_and_what_is_below(http: TestClient, keys: dict[str, str]) -> None:
    for method, path, body, needed in ASKED:
        for given in (None, "gsm_wrong", "", *keys.values()):
            name = next((name for name, key in keys.items() if key == given), None)
            headers = {} if given is None else bearer(given)
            if name is not None and access.ROLES.index(name) >= access.ROLES.index(needed):
                if name != "admin":
                    continue  # done once, as some can be done but once
                response = http.request(method, path, json=body, headers=headers)
                assert response.status_code in (200, 201), (path, response.text)
            else:
                response = http.request(method, path, json=body, headers=headers)
                assert response.status_code == (401 if name is None else 403), (path, name)
                assert response.json()["error"]["type"] == (
                    "unauthenticated" if name is None else "forbidden"
                )
                if name is None:
                    assert response.headers["www-authenticate"] == "Bearer"
                assert not any(key in response.text for key in keys.values())


def test_a_lesser_role_does_what_it_may(http: TestClient, keys: dict[str, str]) -> None:
    asked = http.post("/collections/default/search", json={"query": "list"}, headers=bearer(keys["read"]))
    told = http.put("/collections/default/documents/x", json={}, headers=bearer(keys["write"]))
    assert (asked.status_code, told.status_code) == (200, 200)


def test_every_route_that_answers_asks_for_a_key(http: TestClient) -> None:
    open_to_all = {"/healthz", "/readyz"}
    for path, methods in http.get("/openapi.json").json()["paths"].items():
        for method in methods:
            where = path.replace("{collection}", "default").replace("{id}", "list")
            status = http.request(method, where, json={}).status_code
            assert status == (200 if path in open_to_all else 401), (method, path)


def test_health_tells_strangers_no_more_than_that(http: TestClient, keys: dict[str, str]) -> None:
    for path in ("/healthz", "/readyz"):
        assert http.get(path).json()["search"] is None
        assert http.get(path, headers=bearer(keys["read"])).json()["search"]["n_documents"] == 8
    assert http.get("/").status_code == 200
    assert http.get("/static/app.js").status_code == 200


def test_the_client_sends_its_key_and_shows_it_nowhere(
    stage: SearchStage,
    encoder_folder: Path,
    file: Path,
    keys: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = ServeSettings(index=stage.index.path, encoder=encoder_folder, keys=file)
    with RunningService(settings) as service:
        with Client(service.url, key=keys["read"], retries=20) as client:
            assert client.search("list").hits
            with pytest.raises(ForbiddenError, match="'read' may read, and this takes one that may write"):
                client.put([{"id": "a"}])
            assert keys["read"] not in repr(vars(client))
        with Client(service.url) as client, pytest.raises(UnauthenticatedError, match="Bearer"):
            client.search("list")
        monkeypatch.setenv("GOSSAMER_KEY", keys["write"])
        with Client(service.url) as client:
            assert client.put([{"id": "a"}]).n_added == 1
    with pytest.raises(ConfigError, match="characters"):
        Client(service.url, key="gsm_ä")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_without_keys_it_listens_on_loopback_only(host: str, empty_engine: Engine) -> None:
    with pytest.raises(ConfigError, match="there are no keys"):
        serve(ServeSettings(recommender=Path("r"), host=host))
    with pytest.raises(ConfigError, match="there are no keys"):
        RunningService(empty_engine, host=host)
    with pytest.raises(ConfigError, match="there are no keys"):
        create_app(empty_engine, host=host)


def test_nobody_without_a_key_has_a_body_read(http: TestClient, keys: dict[str, str]) -> None:
    for body in ("{", " " * 2_000_000):
        for headers in ({}, bearer("gsm_wrong")):
            assert http.post("/collections/default/search", content=body, headers=headers).status_code == 401
    told = http.post("/collections/default/search", content=" " * 2_000_000, headers=bearer(keys["read"]))
    assert told.status_code == 413


def test_nobody_without_a_key_learns_why_nothing_is_served(file: Path, keys: dict[str, str]) -> None:
    app = create_app(ServeSettings(recommender=Path("r"), keys=file))
    app.state.loading.error = NotFoundError("there is no recommender at /secret/place")
    client = TestClient(app)
    for path in ("/healthz", "/readyz"):
        response = client.get(path)
        assert response.status_code == 503
        assert "secret" not in response.text
        assert "secret" in client.get(path, headers=bearer(keys["read"])).text


@pytest.mark.parametrize(
    ("site", "origin", "status"),
    [
        ("cross-site", "https://evil.example", 403),
        ("same-site", "http://localhost:3000", 403),
        ("cross-site", "null", 403),
        ("cross-site", "https://app.example", 200),
        ("same-origin", "http://127.0.0.1:8080", 200),
        (None, "https://evil.example", 403),
        (None, "http://[", 403),
        (None, "http://testserver", 200),
        (None, None, 200),
    ],
)
def test_without_keys_pages_of_other_sites_change_nothing(
    tiny_engine: Engine, site: str | None, origin: str | None, status: int
) -> None:
    settings = ServeSettings(recommender=Path("r"), cors_origins=("https://app.example",))
    given = {"sec-fetch-site": site, "origin": origin, "content-type": "text/plain"}
    headers = {name: value for name, value in given.items() if value is not None}
    with TestClient(create_app(tiny_engine, settings=settings, host="127.0.0.1")) as client:
        bulk = client.post("/collections/default/documents/bulk", content=b"", headers=headers)
        assert bulk.status_code == status, bulk.text
        assert client.get("/", headers=headers).status_code == 200


def test_pages_of_other_origins_may_ask_if_they_are_named(http: TestClient, keys: dict[str, str]) -> None:
    asking = {"origin": "https://app.example", "access-control-request-method": "POST"}
    allowed = http.options("/collections/default/search", headers=asking)
    assert allowed.headers["access-control-allow-origin"] == "https://app.example"
    assert "access-control-allow-credentials" not in allowed.headers
    other = http.options("/collections/default/search", headers={**asking, "origin": "https://evil.example"})
    assert "access-control-allow-origin" not in other.headers
    with pytest.raises(ValueError, match="name the origins"):
        ServeSettings(recommender=Path("r"), cors_origins=("*",))


def test_it_speaks_tls(empty_engine: Engine, tmp_path: Path, recommender_folder: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "1",
        "-subj",
        "/CN=localhost",
    ]
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    try:
        subprocess.run([*command, *names], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is absent")
    given: dict[str, Any] = {"recommender": recommender_folder, "tls_certificate": certificate}
    settings = ServeSettings(**given, tls_key=key)
    with RunningService(settings) as service:
        assert service.url.startswith("https://")
        context = ssl.create_default_context(cafile=str(certificate))
        response = httpx2.get(f"{service.url}/healthz", verify=context, trust_env=False)
        assert response.status_code == 200
        assert (
            "strict-transport-security" not in response.headers
        )  # or other services here would need HTTPS too
    keys = tmp_path / "keys.json"
    add_key(keys, "someone", "read")
    away = create_app(settings.model_copy(update={"host": "192.0.2.1", "keys": keys}))
    with TestClient(away, base_url="https://192.0.2.1") as client:
        assert "max-age" in client.get("/healthz").headers["strict-transport-security"]
    with pytest.raises(ConfigError, match="no certificate with its key"):
        RunningService(ServeSettings(**given, tls_key=certificate))
    locked = tmp_path / "locked.pem"
    words = ["pkey", "-in", str(key), "-aes256", "-passout", "pass:secret", "-out", str(locked)]
    subprocess.run(["openssl", *words], check=True, capture_output=True)
    with pytest.raises(ConfigError, match=r"locked\.pem has a password"):
        RunningService(ServeSettings(**given, tls_key=locked))
    with pytest.raises(ValueError, match="both or none"):
        ServeSettings(**given)


# -- logs --------------------------------------------------------------------------------------------


def test_each_request_has_an_id_and_a_line(
    http: TestClient, keys: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="gossamer.access")
    given = {**bearer(keys["read"]), "x-request-id": "mine-1"}
    response = http.post("/collections/default/search", json={"query": "secret words"}, headers=given)
    assert response.headers["x-request-id"] == "mine-1"
    for odd in ("a b", "x" * 65, "<script>"):
        made = http.get("/healthz", headers={"x-request-id": odd}).headers["x-request-id"]
        assert made != odd
        assert len(made) == 16
    record = next(record for record in caplog.records if record.name == "gossamer.access")
    fields = record.fields  # type: ignore[attr-defined]
    assert (fields["route"], fields["status"], fields["key"]) == (
        "/collections/{collection}/search",
        200,
        "read",
    )
    assert fields["bytes"] == len(response.content)
    assert "secret" not in caplog.text
    assert keys["read"] not in caplog.text


@pytest.mark.parametrize("with_query", [False, True])
def test_slow_queries_are_logged_stage_by_stage(
    index_folder: Path, encoder_folder: Path, with_query: bool, caplog: pytest.LogCaptureFixture
) -> None:
    settings = ServeSettings(
        index=index_folder, encoder=encoder_folder, slow_query_ms=1e-6, log_queries=with_query
    )
    with TestClient(create_app(settings)) as client:
        search = {"query": "sorted list"}
        eventually(lambda: client.post("/collections/default/search", json=search).status_code == 200)
        metrics = client.get("/metrics").text
    (record, *_) = [record for record in caplog.records if record.name == "gossamer.slow"]
    fields = record.fields  # type: ignore[attr-defined]
    assert {"encode_ms", "search_ms", "show_ms", "k", "collection"} <= set(fields)
    assert fields["query"] == ("sorted list" if with_query else None)
    for stage in ("encode", "search", "show"):
        assert f'gossamer_stage_seconds_count{{stage="{stage}"}}' in metrics


def test_lines_are_json_or_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    from gossamer.serving.logs import configure

    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        configure("json")
        logging.getLogger("gossamer.access").info(
            "GET %s", "/x", extra={"fields": {"status": 200, "key": None}}
        )
        logging.getLogger("gossamer").error("failed", exc_info=ValueError("inside"))
        lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
        assert (lines[0]["message"], lines[0]["status"], lines[0]["level"]) == ("GET /x", 200, "info")
        assert "key" not in lines[0]
        assert "ValueError: inside" in lines[1]["traceback"]
        configure("text")
        logging.getLogger("gossamer.access").info("GET %s", "/x", extra={"fields": {"status": 200}})
        assert capsys.readouterr().err.endswith("info GET /x status=200\n")
        forged = {"fields": {"query": "é\n2026 info"}}
        logging.getLogger("gossamer.slow").warning("failed: %s", "a\r\u2028b", extra=forged)
        assert capsys.readouterr().err.endswith("warning failed: a\\r\\u2028b query=é\\n2026 info\n")
    finally:
        root.handlers, root.level = before
        for name in ("gossamer", "gossamer.access", "gossamer.slow"):
            logging.getLogger(name).setLevel(logging.NOTSET)
