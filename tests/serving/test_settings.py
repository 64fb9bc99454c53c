"""Settings: what can be served, and the limits."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from gossamer.kernels.errors import ConfigError, TooLargeError
from gossamer.serving import Client, Limits, RunningService, ServeSettings


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "nothing to serve"),
        ({"encoder": "e", "recommender": "r"}, "index is not"),
        ({"recommender": "r", "port": 70_000}, "port"),
        ({"recommender": "r", "prot": 80}, "prot"),
        ({"recommender": "r", "limits": {"max_k": 0}}, "max_k"),
        ({"recommender": "r", "limits": {"max_kk": 1}}, "max_kk"),
    ],
)
def test_what_cannot_be_served_is_refused(given: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        ServeSettings.model_validate(given)


def test_settings_are_plain_values_and_frozen() -> None:
    settings = ServeSettings(recommender=Path("r"), limits=Limits(max_k=5))
    assert ServeSettings.model_validate(settings.model_dump(mode="json")) == settings
    assert settings.host == "127.0.0.1"
    with pytest.raises(ValidationError, match="frozen"):
        settings.port = 1


def test_a_limit_lets_through_what_it_allows_and_names_itself() -> None:
    limits = Limits(max_k=5)
    limits.check("max_k", 5, "k")
    with pytest.raises(TooLargeError, match=r"k is 6, and this service allows 5: .* limits\.max_k"):
        limits.check("max_k", 6, "k")


# -- a service's file --------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path, index_folder: Path, encoder_folder: Path) -> Path:
    """A service with one collection, all of it by relative paths."""
    shutil.copytree(index_folder, tmp_path / "data" / "collections" / "docs" / "words")
    shutil.copytree(encoder_folder, tmp_path / "data" / "encoder")
    (tmp_path / "data/collections/docs/collection.toml").write_text(
        '[retrievers.words]\nindex = "words"\nencoder = "../../encoder"\n'
    )
    path = tmp_path / "service.toml"
    path.write_text(
        'port = 0\ncollections = "data/collections"\n[encoders]\nbm25 = "data/encoder"\n[limits]\nmax_k = 3\n'
    )
    return path


def test_a_file_is_served_from_anywhere(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    settings = ServeSettings.read(file, overrides=["limits.max_batch=2"])
    assert settings.limits == Limits(max_k=3, max_batch=2)
    with RunningService(settings) as running, Client(running.url, collection="docs", retries=20) as client:
        assert client.search("join path segments", k=3).hits[0].id == "os.path.join"
        client.create("notes", {"words": "bm25"})
        with pytest.raises(TooLargeError, match=r"limits\.max_k"):
            client.search("join", k=4)


def test_the_command_serves_a_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gossamer.serving.cli import app

    told: list[ServeSettings] = []
    monkeypatch.setattr("gossamer.serving.server.serve", lambda settings, on_start: told.append(settings))
    words = ["serve", "--config", str(file), "--port", "5", "--set", "limits.max_k=7"]
    assert CliRunner().invoke(app, words).exit_code == 0
    (settings,) = told
    assert (settings.port, settings.limits.max_k) == (5, 7)
    assert settings.encoders == {"bm25": file.parent / "data/encoder"}


@pytest.mark.parametrize(
    ("text", "words", "message"),
    [
        ("colections = 'x'", [], r"service\.toml: unknown key 'colections': did you mean 'collections'\?"),
        ("[limits]\nmax_kk = 1", [], r"unknown key 'limits\.max_kk': did you mean 'max_k'\?"),
        ("host = 'localhost'", [], "nothing to serve"),
        ("index = 'x'", ["--preset", "docstrings"], "--config and --preset"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, text: str, words: list[str], message: str) -> None:
    from gossamer.serving.cli import app

    path = tmp_path / "service.toml"
    path.write_text(text)
    result = CliRunner().invoke(app, ["serve", "--config", str(path), *words])
    assert isinstance(result.exception, ConfigError)
    assert re.search(message, str(result.exception))
