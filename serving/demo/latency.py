"""How long the running service takes to answer, as a client sees it."""

from __future__ import annotations

import itertools
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import numpy as np

from gossamer.kernels.errors import NotReadyError, UnavailableError
from gossamer.serving.client import Client
from gossamer.serving.server import free_port
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
def running_service(settings: ServeSettings) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """`gossamer serve` as a process of its own, ready; it is told to stop on leaving.

    Raises:
        UnavailableError: if it does not become ready.
    """
    port = settings.port or free_port(settings.host)
    parts = {"index": settings.index, "encoder": settings.encoder, "recommender": settings.recommender}
    options = [f"{name}={json.dumps(str(path))}" for name, path in parts.items() if path is not None]
    options += [f"host={json.dumps(settings.host)}", f"port={port}"]
    words = itertools.chain.from_iterable(("--set", option) for option in options)
    url = f"http://{settings.host}:{port}"
    with subprocess.Popen([sys.executable, "-m", "gossamer.serving", "serve", *words]) as process:
        try:
            _wait_ready(url, process)
            yield url, process
        finally:
            process.terminate()


def _wait_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    with Client(url) as client:
        while True:
            with suppress(NotReadyError, UnavailableError):
                if client.health().status == "ready":
                    return
            if process.poll() is not None:
                raise UnavailableError("the service did not start; what it said stands above.")
            if time.monotonic() > deadline:
                raise UnavailableError(f"the service at {url} was not ready after {_START_TIMEOUT_S:.0f} s.")
            time.sleep(0.1)


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
