"""The README's code and commands, run as they stand; training is only cut short."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from gossamer.serving import Client, RunningService
from gossamer.serving.demo.latency import measure_latency, running_service
from gossamer.serving.settings import ServeSettings

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
SHORT = {"lsr train": ["--set", "steps=3"], "recsys train": ["--set", "n_epochs=1"]}


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def test_the_first_screen_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = blocks("python")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out.startswith("[('json', ")


def test_the_commands_run(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from typer.testing import CliRunner

    from gossamer.serving.cli import app

    monkeypatch.chdir(tmp_path)
    for block in blocks("toml"):
        file = Path(block.splitlines()[0].removeprefix("# "))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(block, encoding="utf-8")
    lines = [line[2:] for block in blocks("console") for line in block.splitlines() if line.startswith("$ ")]
    assert len(lines) == 25
    for line in lines:
        program, *words = shlex.split(line)
        assert program == "gossamer"
        if words[:2] == ["serve", "--config"]:
            settings = ServeSettings.read(words[2], overrides=["port=0"])
            with (
                RunningService(settings) as running,
                Client(running.url, collection="docs", retries=20) as client,
            ):
                assert client.search("push an item onto a heap").hits[0].title
                assert client.recommend(history=["json", "pathlib.Path"]).items
                assert client.create("notes", {"words": "bm25"}).name == "notes"
            continue
        if words[0] == "serve":
            options = dict(zip([word.removeprefix("--") for word in words[1::2]], words[2::2], strict=True))
            settings = ServeSettings.model_validate({**options, "port": 0})
            with running_service(settings) as (url, _):
                assert measure_latency(url, queries=["push an item onto a heap"], users=["x"], n_requests=3)
            continue
        result = CliRunner().invoke(app, words + SHORT.get(" ".join(words[:2]), []), env={"COLUMNS": "120"})
        assert result.exit_code == 0, f"{line}\n{result.output}\n{result.exception!r}"


def test_the_client_of_the_readme_is_the_client() -> None:
    (code,) = blocks("python no-run")
    compile(code, "README.md", "exec")
    assert "gossamer.serving.client" in code
