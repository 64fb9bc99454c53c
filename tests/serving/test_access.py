"""Keys and roles, through the real application; other sites; TLS."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import httpx2
import pytest
from pydantic import ValidationError
from starlette.testclient import TestClient
from typer.testing import CliRunner

from gossamer.kernels.errors import (
    ConfigError,
    ExistsError,
    ForbiddenError,
    NotFoundError,
    UnauthenticatedError,
)
from gossamer.serving import (
    AsyncClient,
    Client,
    Engine,
    HttpSettings,
    RunningService,
    ServeSettings,
    create_app,
)
from gossamer.serving import keys as module
from gossamer.serving.cli import app as cli
from gossamer.serving.keys import Keys, Role, add_key, read_keys, revoke_key

DEFAULT = "/collections/default"
PUBLIC = {"/", "/healthz", "/readyz"}


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of keys that is looked at with each request."""
    monkeypatch.setattr(module, "_LOOK_EVERY_S", 0.0)
    return tmp_path / "keys.json"


@pytest.fixture
def keys(file: Path) -> dict[Role, str]:
    return {role: add_key(file, f"{role}er", role) for role in module.ROLES}


@pytest.fixture
def http(tiny_engine: Engine, file: Path, keys: dict[Role, str]) -> Iterator[TestClient]:
    with TestClient(create_app(tiny_engine, http=HttpSettings(keys=file))) as client:
        yield client


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


# -- the file ----------------------------------------------------------------------------------------


def test_a_file_has_hashes_and_is_its_owners(file: Path) -> None:
    key = add_key(file, "ann", "write")
    assert key.startswith("gsm_")
    assert len(key) == 47  # 32 bytes in base64
    assert key not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    (kept,) = read_keys(file)
    assert (kept.name, kept.role, kept.may("write"), kept.may("admin")) == ("ann", "write", True, False)
    assert datetime.now(UTC) - kept.created < timedelta(minutes=1)


def test_names_are_given_once_and_revoked_once(file: Path) -> None:
    add_key(file, "ann", "read")
    add_key(file, "bob", "admin")
    with pytest.raises(ExistsError, match="'ann' already"):
        add_key(file, "ann", "admin")
    with pytest.raises(ConfigError, match="Ann"):
        add_key(file, "Ann?", "read")
    revoke_key(file, "ann")
    with pytest.raises(NotFoundError, match=r"'ann'; it has \['bob'\]"):
        revoke_key(file, "ann")
    assert file.stat().st_mode & 0o777 == 0o600
    with pytest.raises(ConfigError, match="a folder that is there"):
        add_key(file.parent / "nowhere" / "keys.json", "ann", "read")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "Invalid JSON"),
        ("{", "Invalid JSON"),
        ("[]", "object"),
        ('{"keyz": []}', "keyz"),
        ('{"keys": [{"name": "a"}]}', r"keys\.0\.role"),
        (
            '{"keys": [{"name": "a", "role": "boss", "sha256": "x", "created": "2026-01-01T00:00:00Z"}]}',
            "role",
        ),
    ],
)
def test_a_bad_file_is_refused_with_the_remedy(file: Path, text: str, says: str) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError, match=f"{says}.*gossamer keys add"):
        Keys(file)
    with pytest.raises(ConfigError, match=says):
        add_key(file, "ann", "read")
    assert file.read_text() == text


def test_two_keys_of_one_name_and_a_file_that_is_not_there_are_refused(file: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        create_app(Engine(None), http=HttpSettings(keys=file))
    add_key(file, "ann", "read")
    twice = json.loads(file.read_text())["keys"] * 2
    file.write_text(json.dumps({"keys": twice}))
    with pytest.raises(ConfigError, match="one name"):
        Keys(file)


def test_a_changed_file_counts_and_a_broken_one_does_not(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ann = add_key(file, "ann", "read")
    keys = Keys(file)
    bob = add_key(file, "bob", "read")
    assert [getattr(keys.find(key), "name", None) for key in (ann, bob, "gsm_x", "")] == [
        "ann",
        "bob",
        None,
        None,
    ]
    revoke_key(file, "ann")
    assert keys.find(ann) is None
    file.write_text("{")
    assert [keys.find(bob) is not None for _ in range(3)] == [True] * 3
    file.unlink()
    assert keys.find(bob) is not None
    assert caplog.text.count("stay as they were") == 2  # once a change


def test_a_file_is_not_looked_at_more_than_once_a_second(tmp_path: Path) -> None:
    ann = add_key(tmp_path / "keys.json", "ann", "read")
    keys = Keys(tmp_path / "keys.json")
    revoke_key(tmp_path / "keys.json", "ann")
    assert keys.find(ann) is not None


def test_the_commands_make_show_and_revoke(file: Path) -> None:
    run = CliRunner().invoke
    key = run(cli, ["keys", "add", str(file), "ann", "--role", "admin"]).stdout.strip()
    found = Keys(file).find(key)
    assert found is not None
    assert found.role == "admin"
    shown = run(cli, ["keys", "list", str(file)]).stdout
    assert shown.split()[:2] == ["ann", "admin"]
    assert found.sha256 not in shown
    assert run(cli, ["keys", "add", str(file), "bob", "--role", "boss"]).exit_code == 2
    assert run(cli, ["keys", "revoke", str(file), "ann"]).exit_code == 0
    assert read_keys(file) == ()


# -- who may what ------------------------------------------------------------------------------------


def routes(http: TestClient) -> list[tuple[str, str]]:
    paths: dict[str, dict[str, object]] = http.get("/openapi.json").json()["paths"]
    found = [(method.upper(), path) for path, methods in paths.items() for method in methods]
    assert len(found) > 15
    return [(method, path.replace("{collection}", "default")) for method, path in found]


def test_every_route_needs_a_key_or_is_public(http: TestClient) -> None:
    for method, path in routes(http):
        response = http.request(method, path)
        assert (response.status_code == 401) == (path not in PUBLIC), path
        if response.status_code == 401:
            assert response.headers["www-authenticate"] == "Bearer"
            assert response.json()["error"]["type"] == "unauthenticated"


NEEDS: list[tuple[str, str, object, Role]] = [
    ("POST", f"{DEFAULT}/search", {"query": "list"}, "read"),
    ("POST", f"{DEFAULT}/search/batch", {"queries": ["list"]}, "read"),
    ("POST", f"{DEFAULT}/recommend", {"user": "reader"}, "read"),
    ("POST", f"{DEFAULT}/similar", {"item": "os"}, "read"),
    ("GET", f"{DEFAULT}/facets", None, "read"),
    ("GET", DEFAULT, None, "read"),
    ("GET", "/collections", None, "read"),
    ("GET", f"{DEFAULT}/documents/list", None, "read"),
    ("GET", "/metrics", None, "read"),
    ("POST", f"{DEFAULT}/documents", {"documents": []}, "write"),
    ("POST", f"{DEFAULT}/documents/bulk", None, "write"),
    ("POST", f"{DEFAULT}/documents/delete", {"ids": []}, "write"),
    ("PUT", f"{DEFAULT}/documents/x", {"text": 1}, "write"),
    ("DELETE", f"{DEFAULT}/documents/nowhere", None, "write"),
    ("POST", f"{DEFAULT}/interactions", {"interactions": []}, "write"),
    ("POST", "/collections", {"name": "x"}, "admin"),
    ("DELETE", DEFAULT, None, "admin"),
    ("POST", f"{DEFAULT}/reload", None, "admin"),
]


@pytest.mark.parametrize(("method", "path", "body", "needed"), NEEDS, ids=lambda value: str(value)[:40])
def test_a_role_may_what_those_below_it_may(
    http: TestClient, keys: dict[Role, str], method: str, path: str, body: object, needed: Role
) -> None:
    for role in module.ROLES:
        response = http.request(method, path, json=body, headers=bearer(keys[role]))
        may = module.ROLES.index(role) >= module.ROLES.index(needed)
        assert (response.status_code == 403) == (not may), response.text
        assert response.status_code != 401
        if not may:
            assert response.json()["error"]["type"] == "forbidden"
            assert needed in response.json()["error"]["message"]


def test_the_routes_of_the_table_are_all(http: TestClient) -> None:
    known = {(method, path) for method, path, _, _ in NEEDS}
    for method, path in routes(http):
        prefix = path.partition("{id")[0]
        found = any(method == one and of.startswith(prefix) for one, of in known)
        assert found or path in PUBLIC, (method, path)


@pytest.mark.parametrize(
    "given",
    [
        "Bearer gsm_wrong",
        "Bearer",
        "Bearer ",
        "Basic YTpi",
        "gsm_x",
        "Bearer \xff\xfe",
        "Bearer " + "x" * 5_000,
    ],
)
@pytest.mark.parametrize("path", ["/healthz", "/metrics"])
def test_what_is_no_key_is_refused_everywhere(http: TestClient, given: str, path: str) -> None:
    response = http.get(path, headers={b"authorization": given.encode("latin-1")})
    assert response.status_code == 401
    assert "revoked" in response.json()["error"]["message"]


def test_nobody_without_a_key_learns_what_there_is(http: TestClient, keys: dict[Role, str]) -> None:
    for path in ("/healthz", "/readyz"):
        assert http.get(path).json() | {"version": ""} == {
            "status": "ready", "version": "", "search": None, "recommend": None,
        }  # fmt: skip
        assert http.get(path, headers=bearer(keys["read"])).json()["search"]["n_documents"] == 8
    assert [http.get(path).status_code for path in ("/", "/static/app.js", "/openapi.json")] == [200] * 3
    for path in ("/nowhere", "/static/../metrics", "/static/%2e%2e/metrics", "/staticx", "/docs"):
        assert http.get(path).status_code in (401, 404)
        assert "gossamer_" not in http.get(path).text


def test_nobody_without_a_key_learns_why_it_does_not_load(file: Path, keys: dict[Role, str]) -> None:
    settings = ServeSettings(recommender=Path("/secret/place"), keys=file)
    app = create_app(settings)
    app.state.loading.error = NotFoundError("there is no recommender at /secret/place")
    client = TestClient(app)
    for path in ("/healthz", "/readyz"):
        response = client.get(path)
        assert response.status_code == 503
        assert "secret" not in response.text
        assert "secret" in client.get(path, headers=bearer(keys["read"])).text


def test_a_body_without_a_key_is_not_read(http: TestClient) -> None:
    response = http.post(f"{DEFAULT}/search", content=b" " * 30_000)
    assert response.status_code == 401  # not 413


def test_a_revoked_key_stops_working(http: TestClient, file: Path, keys: dict[Role, str]) -> None:
    assert http.get(DEFAULT, headers=bearer(keys["read"])).status_code == 200
    revoke_key(file, "reader")
    assert http.get(DEFAULT, headers=bearer(keys["read"])).status_code == 401


def test_openapi_says_that_keys_are_asked_for(http: TestClient) -> None:
    document = http.get("/openapi.json").json()
    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    assert document["paths"]["/metrics"]["get"]["security"] == [{"key": []}]
    assert "security" not in document["paths"]["/healthz"]["get"]


# -- clients -----------------------------------------------------------------------------------------


def test_clients_send_their_key(
    tiny_engine: Engine, file: Path, keys: dict[Role, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import asyncio

    monkeypatch.delenv("GOSSAMER_KEY", raising=False)
    with RunningService(tiny_engine, http=HttpSettings(keys=file)) as service:

        async def count(key: str | None) -> int:
            async with AsyncClient(service.url, key=key) as client:
                return len((await client.search("list")).hits)

        with Client(service.url, key=keys["read"]) as client:
            assert len(client.search("list").hits) == asyncio.run(count(keys["read"]))
            assert keys["read"] not in repr(client) + repr(vars(client))
            with pytest.raises(ForbiddenError, match="'reader' has the role 'read'") as refused:
                client.put([{"id": "x", "text": "x"}])
            assert keys["read"] not in str(refused.value)
        with Client(service.url) as client, pytest.raises(UnauthenticatedError, match="no key was given"):
            client.search("list")
        with (
            Client(service.url, key="gsm_other") as client,
            pytest.raises(UnauthenticatedError, match="revoked"),
        ):
            client.search("list")
        monkeypatch.setenv("GOSSAMER_KEY", keys["read"])
        with Client(service.url) as client:
            assert client.search("list").hits


def test_a_key_that_is_none_is_not_shown() -> None:
    for key in ("gsm_secret\n", "gsm_secret\u00e9", "gsm secret"):
        with pytest.raises(ConfigError) as refused:
            Client("http://127.0.0.1:1", key=key)
        assert "secret" not in str(refused.value)


# -- without keys ------------------------------------------------------------------------------------


def test_without_keys_only_this_machine_may_ask(empty_engine: Engine) -> None:
    settings = ServeSettings(recommender=Path("nowhere"), host="0.0.0.0")
    for make in (
        lambda: create_app(settings),
        lambda: create_app(empty_engine, host="192.0.2.1"),
        lambda: RunningService(empty_engine, host="::"),
    ):
        with pytest.raises(ConfigError, match="gossamer keys add"):
            make()


@pytest.mark.parametrize(
    ("site", "origin", "status"),
    [
        ("cross-site", "https://evil.example", 403),
        ("same-site", "http://localhost:3000", 403),
        ("cross-site", "null", 403),
        ("cross-site", "https://shop.example", 200),
        ("same-origin", "http://127.0.0.1:8080", 200),
        (None, None, 200),
        (None, "https://evil.example", 403),
        (None, "http://[", 403),
        (None, "http://testserver", 200),
    ],
)
def test_without_keys_pages_of_other_sites_may_not_write(
    tiny_engine: Engine, site: str | None, origin: str | None, status: int
) -> None:
    app = create_app(tiny_engine, http=HttpSettings(cors_origins=("https://shop.example",)))
    given = {"sec-fetch-site": site, "origin": origin, "content-type": "text/plain"}
    headers = {name: value for name, value in given.items() if value is not None}
    with TestClient(app) as client:
        response = client.post(f"{DEFAULT}/documents/bulk", content=b"", headers=headers)
        assert response.status_code == status
        assert client.get("/", headers=headers).status_code == 200


# -- other sites, TLS --------------------------------------------------------------------------------


def test_pages_of_sites_that_are_named_may_ask(
    tiny_engine: Engine, file: Path, keys: dict[Role, str]
) -> None:
    settings = HttpSettings(keys=file, cors_origins=("https://shop.example",))
    preflight = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    with TestClient(create_app(tiny_engine, http=settings)) as client:
        for origin, may in (("https://shop.example", True), ("https://evil.example", False)):
            asked = client.options(f"{DEFAULT}/search", headers={"origin": origin, **preflight})
            assert (asked.status_code == 200) == may
            answer = client.post(
                f"{DEFAULT}/search", headers={"origin": origin, **bearer(keys["read"])}, json={}
            )
            for response in (asked, answer, client.get("/metrics", headers={"origin": origin})):
                given = response.headers.get("access-control-allow-origin")
                assert given == (origin if may else None)
                assert "access-control-allow-credentials" not in response.headers


@pytest.mark.parametrize(
    "given",
    [
        {"cors_origins": ["*"]},
        {"cors_origins": ["https://shop.example/page"], "keys": "k"},
        {"cors_origins": ["shop.example"], "keys": "k"},
        {"cors_origins": ["https://*.example"], "keys": "k"},
        {"tls_certificate": "c"},
        {"tls_key": "k"},
    ],
)
def test_settings_that_open_a_door_are_refused(given: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=r"cors_origins|tls_key"):
        HttpSettings.model_validate(given)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (tmp_path / "certificate.pem").write_bytes(certificate.public_bytes(pem))
    (tmp_path / "key.pem").write_bytes(key.private_bytes(pem, *plain))
    return tmp_path / "certificate.pem", tmp_path / "key.pem"


def test_speaks_tls(tiny_engine: Engine, pair: tuple[Path, Path]) -> None:
    http = HttpSettings(tls_certificate=pair[0], tls_key=pair[1])
    with RunningService(tiny_engine, http=http) as service:
        assert service.url.startswith("https://127.0.0.1:")
        trusted = ssl.create_default_context(cafile=str(pair[0]))
        response = httpx2.get(f"{service.url}/readyz", verify=trusted, trust_env=False)
        assert response.json()["status"] == "ready"
        assert "strict-transport-security" not in response.headers  # of this machine


def test_only_a_service_for_others_under_tls_says_so(file: Path, keys: dict[Role, str]) -> None:
    plain = ServeSettings(recommender=Path("nowhere"), host="0.0.0.0", keys=file)
    tls = plain.model_copy(update={"tls_certificate": Path("c"), "tls_key": Path("k")})
    sent = [
        "strict-transport-security" in TestClient(create_app(settings)).get("/healthz").headers
        for settings in (plain, tls, tls.model_copy(update={"host": "127.0.0.1"}))
    ]
    assert sent == [False, True, False]


def test_a_bad_pair_is_refused(empty_engine: Engine, pair: tuple[Path, Path]) -> None:
    for given in (pair[::-1], (pair[0], pair[0]), (pair[0], pair[1].parent / "nowhere")):
        with pytest.raises(ConfigError, match="PEM files of one pair"):
            RunningService(empty_engine, http=HttpSettings(tls_certificate=given[0], tls_key=given[1]))


# -- the end -----------------------------------------------------------------------------------------


def test_a_service_that_stops_says_so(tiny_engine: Engine) -> None:
    app = create_app(tiny_engine)
    with TestClient(app) as client:
        assert client.get("/readyz").json()["status"] == "ready"
        app.state.loading.close()
        assert client.get("/readyz").status_code == 503
        assert client.post(f"{DEFAULT}/search", json={"query": "list"}).status_code == 503
        assert client.get("/healthz").json()["status"] == "stopping"
    with TestClient(app) as client:
        assert client.get("/readyz").status_code == 200
