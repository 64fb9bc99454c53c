"""How long the running service takes to answer, as a client sees it."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Thread

import numpy as np

from gossamer.kernels.errors import UnavailableError
from gossamer.serving.client import Client
from gossamer.serving.settings import ServeSettings

_START_TIMEOUT_S = 120.0
_WARM_UP = 20


@dataclass(frozen=True)
class Latency:
    """Times of one kind of call, from the client's side."""

    name: str
    n_requests: int
    p50_ms: float
    p99_ms: float


@contextmanager
def running_service(settings: ServeSettings) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`gossamer serve` as a process of its own, ready; it is told to stop on leaving.

    Raises:
        UnavailableError: if it does not become ready.
    """
    overrides = [
        f'{name}="{value}"'
        for name, value in (
            ("index", settings.index),
            ("encoder", settings.encoder),
            ("recommender", settings.recommender),
            ("host", settings.host),
        )
    ]
    options = itertools.chain.from_iterable(("--set", text) for text in (*overrides, f"port={settings.port}"))
    command = [sys.executable, "-m", "gossamer.serving", "serve", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        reader = Thread(target=_pass_on, args=(process,), name="service-log", daemon=True)
        try:
            url = _wait_ready(process)
            reader.start()
            yield url, process
        except KeyboardInterrupt:
            pass
        finally:
            process.terminate()
            process.wait(timeout=30)
            if reader.is_alive():
                reader.join()


def _pass_on(process: subprocess.Popen[str]) -> None:
    """Repeat what the service says; a pipe that nobody reads would stop it when it is full."""
    assert process.stderr is not None
    for line in process.stderr:
        sys.stderr.write(line)


def _wait_ready(process: subprocess.Popen[str]) -> str:
    """The URL that the service prints first, once it is ready to answer there."""
    assert process.stderr is not None
    line = process.stderr.readline()
    url = line.rpartition(" ")[2].strip()
    if not url.startswith("http"):
        raise UnavailableError(f"the service did not start: {line + process.stderr.read()}")
    deadline = time.monotonic() + _START_TIMEOUT_S
    with Client(url) as client:
        while client.health().status != "ready":
            if time.monotonic() > deadline:
                raise UnavailableError(f"the service at {url} was not ready after {_START_TIMEOUT_S:.0f} s")
            time.sleep(0.1)
    return url


def measure_latency(
    url: str, *, queries: Sequence[str], users: Sequence[str], n_requests: int = 300, seed: int = 0
) -> list[Latency]:
    """Send single requests, one after the other, and take the percentiles of their times."""
    draw = random.Random(seed)
    some_queries = [draw.choice(queries) for _ in range(n_requests + _WARM_UP)]
    some_users = [draw.choice(users) for _ in range(n_requests + _WARM_UP)]
    with Client(url) as client:
        return [
            _timed("search, 10 hits explained", client.search, some_queries),
            _timed("search, 10 hits", lambda query: client.search(query, explain=False), some_queries),
            _timed("recommend, 10 items", lambda user: client.recommend(user=user), some_users),
        ]


def _timed(name: str, call: Callable[[str], object], arguments: Sequence[str]) -> Latency:
    for argument in arguments[:_WARM_UP]:
        call(argument)
    times_ms = []
    for argument in arguments[_WARM_UP:]:
        started = time.perf_counter()
        call(argument)
        times_ms.append(1e3 * (time.perf_counter() - started))
    p50, p99 = np.percentile(times_ms, [50, 99])
    return Latency(name, len(times_ms), float(p50), float(p99))
