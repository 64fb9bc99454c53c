"""A service as a process of its own, and clients that load it, for `serving.py`.

A client is a connection that asks, waits for the answer, and asks again: sixty lines over a plain socket, because an
HTTP library takes longer for a request than the service does. Clients share a process; the service has a core to
itself and they the other, where there are two.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
from cells import ROOT

from gossamer.serving.server import free_port

_STARTED_WITHIN_S = 180


@dataclass
class Load:
    """What clients saw.

    Attributes:
        seconds: for how long they asked.
        times_s: of each answer.
        statuses: how many answers had which status; 0 where the connection broke.
        degraded: answers that had to do without a stage.
    """

    seconds: float = 0.0
    times_s: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """As a row of a table."""
        p50, p95, p99 = np.percentile(self.times_s or [float("nan")], [50, 95, 99]) * 1e3
        failed = sum(count for status, count in self.statuses.items() if status != 200)
        return {
            "answers a second": len(self.times_s) / self.seconds,
            "p50 ms": float(p50),
            "p95 ms": float(p95),
            "p99 ms": float(p99),
            "errors": failed,
        }


def load(url: str, path: str, bodies: Sequence[bytes], *, clients: int, seconds: float) -> Load:
    """Ask as fast as answers come, by so many clients, each from another place in the list of bodies."""
    return asyncio.run(_load(url, path, bodies, clients=clients, seconds=seconds))


async def _load(url: str, path: str, bodies: Sequence[bytes], *, clients: int, seconds: float) -> Load:
    parsed = httpx2.URL(url)
    head = f"POST {path} HTTP/1.1\r\nhost: {parsed.host}:{parsed.port}\r\ncontent-type: application/json\r\n"
    requests = [f"{head}content-length: {len(body)}\r\n\r\n".encode() + body for body in bodies]
    seen = Load()
    began = time.perf_counter()

    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection(parsed.host, parsed.port)
        at = number * len(requests) // clients
        while time.perf_counter() - began < seconds:
            asked = time.perf_counter()
            writer.write(requests[at % len(requests)])
            status = await _answer(reader)
            seen.times_s.append(time.perf_counter() - asked)
            seen.statuses[status] = seen.statuses.get(status, 0) + 1
            if not status:
                return
            at += 1
        writer.close()

    await asyncio.gather(*(client(number) for number in range(clients)))
    seen.seconds = time.perf_counter() - began
    return seen


async def _answer(reader: asyncio.StreamReader) -> int:
    """The status of an answer that was read to its end; 0 if the connection broke."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        _, _, rest = head.partition(b"content-length:")
        await reader.readexactly(int(rest.partition(b"\r\n")[0]))
        return int(head.split(b" ", 2)[1])
    except (asyncio.IncompleteReadError, ConnectionError):
        return 0


@contextmanager
def served(
    command: Callable[[dict[str, Any], int], list[str]], settings: dict[str, Any]
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A service in a process of its own, ready; it is told to stop at the end.

    Args:
        command: that starts it, from its settings and a port.
        settings: of the service.

    Raises:
        RuntimeError: it does not become ready.
    """
    port = free_port("127.0.0.1")
    environment = {**os.environ, "PYTHONPATH": str(ROOT / ".editable")}
    process = subprocess.Popen(command(settings, port), env=environment)
    _pin(process.pid, 0)
    _pin(os.getpid(), 1)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_ready(url, process)
        yield url, process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def ours(settings: dict[str, Any], port: int) -> list[str]:
    """The command of `gossamer serve`."""
    words = [sys.executable, "-m", "gossamer.serving", "serve"]
    for name, value in {**settings, "port": port}.items():
        words += ["--set", f"{name}={json.dumps(value)}"]
    return words


def theirs(settings: dict[str, Any], port: int) -> list[str]:
    """The command of the server on bm25s."""
    script = str(Path(__file__).with_name("bm25s_server.py"))
    return [sys.executable, script, settings["corpus"], str(port)]


def wait_ready(url: str, process: subprocess.Popen[bytes]) -> float:
    """Seconds until `/readyz` says that it is."""
    began = time.perf_counter()
    while time.perf_counter() - began < _STARTED_WITHIN_S:
        try:
            if httpx2.get(f"{url}/readyz", timeout=5, trust_env=False).status_code == 200:
                return time.perf_counter() - began
        except httpx2.RequestError:
            pass
        if process.poll() is not None:
            break
        time.sleep(0.02)
    raise RuntimeError("the service did not become ready")


def resident_mb(pid: int) -> float:
    """Memory of a process that is no file's, in MB; NaN where the system does not tell."""
    path = Path(f"/proc/{pid}/status")
    if not path.exists():
        return float("nan")
    (line,) = [line for line in path.read_text().splitlines() if line.startswith("RssAnon")]
    return int(line.split()[1]) / 1e3


def _pin(pid: int, core: int) -> None:
    if hasattr(os, "sched_getaffinity"):
        cores = sorted(os.sched_getaffinity(0) if pid == os.getpid() else os.sched_getaffinity(pid))
        if len(cores) > 1:
            os.sched_setaffinity(pid, {cores[core]})
