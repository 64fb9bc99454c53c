"""What images and units are made of says the same as the code; the images themselves are not built here."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from gossamer.serving import ServeSettings, create_app

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = ServeSettings.read(ROOT / "deploy" / "service.toml")
OPEN = SETTINGS.model_copy(update={"keys": None, "host": "127.0.0.1"})  # keys are on the machine that serves
IMAGES = ("Dockerfile", "Dockerfile.gpu")
RUNS = ["serve", "--config", "/etc/gossamer/service.toml"]


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_serves_its_file_where_its_health_is_asked_for(name: str) -> None:
    image = text(name)
    assert f"EXPOSE {SETTINGS.port}\n" in image
    asked = re.search(
        r"HTTPConnection\('127\.0\.0\.1', (\d+), timeout=\d\); c\.request\('GET', '(\S+)'\)", image
    )
    assert asked is not None
    assert int(asked[1]) == SETTINGS.port
    assert asked[2] in create_app(OPEN).openapi()["paths"]
    assert f"CMD {RUNS!r}".replace("'", '"') in image
    assert str(SETTINGS.collections).startswith(re.findall(r"^VOLUME (\S+)", image, re.MULTILINE)[0])


def test_an_image_is_made_of_all_that_is_installed() -> None:
    built = tomllib.loads(text("pyproject.toml"))["tool"]["hatch"]["build"]["targets"]["wheel"][
        "only-include"
    ]
    kept = [line[1:] for line in text(".dockerignore").splitlines() if line.startswith("!")]
    assert set(built) < set(kept)
    for name in kept:
        assert (ROOT / name).exists()


def test_what_runs_it_runs_that_file() -> None:
    assert " ".join(RUNS) in text("deploy/gossamer.service")
    compose = text("deploy/compose.yaml")
    assert f"127.0.0.1:{SETTINGS.port}:{SETTINGS.port}" in compose
    assert f"./service.toml:{RUNS[-1]}:ro" in compose
