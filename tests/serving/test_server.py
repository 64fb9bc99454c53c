"""Running the service: ports, stopping, and a process of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from threading import Event, Thread, Timer

import pytest

from gossamer.kernels.errors import ConfigError, MismatchError, NotReadyError, UnavailableError
from gossamer.lsr import Bm25Encoder
from gossamer.serving import Client, Engine, RunningService, SearchStage, ServeSettings, serve
from gossamer.serving.schemas import SearchRequest, SearchResponse
from gossamer.serving.server import _listen

SERVE = """
import sys
from gossamer.serving import ServeSettings, serve

serve(ServeSettings(index=sys.argv[1], encoder=sys.argv[2], port=0), on_start=lambda url: print(url, flush=True))
"""


def test_stopping_finishes_what_was_asked(index_folder: Path, encoder_folder: Path) -> None:
    arrived, go = Event(), Event()

    class Slow(Engine):
        def answer_search(self, request: SearchRequest) -> SearchResponse:
            arrived.set()
            assert go.wait(10)
            return super().answer_search(request)

    engine = Slow(SearchStage.open(index_folder, encoder_folder), None)
    answers = []
    with RunningService(engine) as service:

        def ask() -> None:
            with Client(service.url) as client:
                answers.append(client.search("list"))

        asking = Thread(target=ask)
        asking.start()
        assert arrived.wait(10)
        Timer(0.2, go.set).start()
    asking.join(10)
    assert [answer.hits[0].id for answer in answers]
    with Client(service.url) as client, pytest.raises(UnavailableError):
        client.health()


def test_a_service_that_was_not_started_cannot_be_waited_for(empty_engine: Engine) -> None:
    with pytest.raises(NotReadyError, match="with"):
        RunningService(empty_engine).wait()


def test_a_taken_port_is_refused_with_the_remedy(empty_engine: Engine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"127\.0\.0\.1:{port} cannot be listened on"):
            RunningService(empty_engine, port=port).__enter__()


def test_answers_do_not_wait_for_acknowledgements() -> None:
    with _listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_serve_stops_and_raises_when_the_folders_do_not_match(index_folder: Path, tmp_path: Path) -> None:
    Bm25Encoder.fit(["some other words entirely"]).save(tmp_path / "other")
    urls: list[str] = []
    settings = ServeSettings(index=index_folder, encoder=tmp_path / "other", port=0)
    with pytest.raises(MismatchError, match="build the index again"):
        serve(settings, on_start=urls.append)
    assert urls[0].startswith("http://127.0.0.1:")


def test_a_process_of_its_own_serves_and_stops_when_told(index_folder: Path, encoder_folder: Path) -> None:
    command = [sys.executable, "-c", SERVE, str(index_folder), str(encoder_folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        try:
            assert process.stdout is not None
            with Client(process.stdout.readline().strip(), timeout_s=30) as client:
                for _ in range(600):
                    if client.health().status == "ready":
                        break
                    time.sleep(0.05)
                assert client.search("join path segments").hits[0].id == "os.path.join"
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) in (0, -signal.SIGTERM)
        finally:
            process.kill()
