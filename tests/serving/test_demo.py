"""The demo's own parts; CI runs the whole of it."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from gossamer.kernels.errors import ExistsError, UnavailableError
from gossamer.serving import ServeSettings
from gossamer.serving.client import Client
from gossamer.serving.demo.latency import measure_latency, running_service
from gossamer.serving.demo.stages import Stages


def test_finished_stages_are_not_run_again(tmp_path: Path) -> None:
    calls = []

    def make() -> dict[str, int]:
        calls.append(1)
        return {"n": 3}

    first = Stages.start(tmp_path / "demo", key="a")
    assert first.once("count", make) == {"n": 3}
    again = Stages.start(tmp_path / "demo", key="a")
    assert again.once("count", make) == {"n": 3}
    assert len(calls) == 1
    assert again.seconds.keys() == {"count"}


def test_a_failed_stage_is_run_again(tmp_path: Path) -> None:
    def fail() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Stages.start(tmp_path / "demo", key="a").once("train", fail)
    assert Stages.start(tmp_path / "demo", key="a").once("train", lambda: 7) == 7


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    Stages.start(tmp_path / "demo", key="a")
    with pytest.raises(ExistsError, match="another version"):
        Stages.start(tmp_path / "demo", key="b")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(ExistsError, match="holds no demo"):
        Stages.start(tmp_path / "mine", key="a")


def test_the_service_is_a_process_that_answers_and_stops(
    index_folder: Path, encoder_folder: Path, recommender_folder: Path
) -> None:
    settings = ServeSettings(
        index=index_folder, encoder=encoder_folder, recommender=recommender_folder, port=0
    )
    with running_service(settings) as (url, process):
        found = measure_latency(url, queries=["sort a list"], users=["reader"], n_requests=5)
        assert [call.n_requests for call in found] == [5, 5, 5]
        assert all(0 < call.p50_ms <= call.p99_ms for call in found)
    assert process.returncode in (
        0,
        -signal.SIGTERM,
    )  # uvicorn finishes what it took, then dies of the signal
    with pytest.raises(UnavailableError), Client(url) as client:
        client.health()


def test_a_service_that_cannot_start_says_why(tmp_path: Path) -> None:
    settings = ServeSettings(index=tmp_path / "absent", encoder=tmp_path / "absent", port=0)
    with pytest.raises(UnavailableError, match="did not start"), running_service(settings):
        pass
