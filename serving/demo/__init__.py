"""`gossamer demo`: the whole road on data that every machine with Python has, and a table of what was measured.

Each stage keeps its result in `results.json`, so a demo that was stopped goes on at the stage where it was.
"""

from __future__ import annotations

import hashlib
import platform
import socket
import time
from contextlib import ExitStack, suppress
from importlib.metadata import distributions
from importlib.resources import files
from pathlib import Path

from gossamer.index.inverted import InvertedIndex
from gossamer.index.jobs import ray_session
from gossamer.serving.cli.show import bytes_, console, out, progress, table
from gossamer.serving.demo.latency import Latency, measure_latency, running_service
from gossamer.serving.demo.log import LogResult, recommend
from gossamer.serving.demo.stages import Stages
from gossamer.serving.demo.text import TextResult, retrieve
from gossamer.serving.settings import ServeSettings

TEXT_PRESET, LOG_PRESET = "docstrings", "imports"


def run_demo(folder: Path, *, port: int = 8080, serve_after: bool = True) -> None:
    """Train an encoder and a recommender, index what they make, serve it, measure, and print.

    Args:
        folder: where everything is kept.
        port: of the service.
        serve_after: leave the service running, until it is interrupted.

    Raises:
        ExistsError: if the folder holds something else, or a demo of another version.
    """
    started = time.perf_counter()
    stages = Stages.start(folder, key=_key())
    port = _usable(port) if serve_after else 0
    with ExitStack() as session:
        with progress("starting Ray"):
            session.enter_context(ray_session())
        text = retrieve(stages, TEXT_PRESET)
        log = recommend(stages, LOG_PRESET)
    _print_quality(text, log)
    settings = ServeSettings(index=text.index, encoder=text.encoder, recommender=log.recommender, port=port)
    with running_service(settings) as (url, process):
        with progress("measuring the service"):
            latency = measure_latency(url, queries=text.queries, users=log.users)
        _print_speed(latency, stages, total_s=time.perf_counter() - started)
        if serve_after:
            out.print(f"\nThe service is running at [bold]{url}[/] (stop it with Ctrl-C).")
            with suppress(KeyboardInterrupt):
                process.wait()


def _usable(port: int) -> int:
    """The port, or 0 (which means a free one) if something listens there: said before the work, not after."""
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        console.print(f"port {port} is taken; the service will use another one")
        return 0
    return port


def _key() -> str:
    """Changes with what the stored results depend on: our code and presets, Python, the installed packages."""
    packages = sorted(f"{found.name} {found.version}" for found in distributions())
    digest = hashlib.sha256(repr((platform.python_version(), packages)).encode())
    for folder in ("configs", "kernels", "index", "lsr", "recsys"):
        for file in sorted(files(f"gossamer.{folder}").iterdir(), key=lambda file: file.name):
            if file.name.endswith((".py", ".toml")):
                digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _print_quality(text: TextResult, log: LogResult) -> None:
    names = list(text.rows[0].measures)
    table(
        f"Search: {text.n_documents:,} docstrings of Python {platform.python_version()}, {len(text.queries):,} "
        f"held-out first sentences (fingerprint {text.fingerprint[:12]})",
        ("encoder", *names, "nnz/doc", "nnz/query", "index", "seconds"),
        [
            (
                row.name,
                *row.measures.values(),
                row.document_nnz,
                row.query_nnz,
                bytes_(row.index_bytes),
                row.seconds,
            )
            for row in text.rows
        ],
    )
    names = list(log.rows[0].measures)
    table(
        f"Recommendation: {log.n_users:,} source files, {log.n_items:,} imported names, {log.n_interactions:,} "
        f"imports, one held out a file (fingerprint {log.fingerprint[:12]})",
        ("model", *names, "stored", "seconds"),
        [(r.name, *r.measures.values(), bytes_(r.bytes) if r.bytes else None, r.seconds) for r in log.rows],
    )
    items = InvertedIndex.open(log.recommender / "items").info()
    out.print(f"The sparse items' index: {bytes_(sum(items.bytes.values()))}, impacts as {items.impacts}.")
    for claim, difference in [*text.claims(), *log.claims()]:
        out.print(
            f"{'[green]holds[/]   ' if difference > 0 else '[red]falls short[/]'} {claim}: {difference:+.4f}"
        )
    out.print(f"distance     {log.distance()}", highlight=False)


def _print_speed(latency: list[Latency], stages: Stages, *, total_s: float) -> None:
    table(
        "Service: one client over HTTP, one request after the other",
        ("call", "requests", "p50 ms", "p99 ms"),
        [(call.name, call.n_requests, f"{call.p50_ms:.2f}", f"{call.p99_ms:.2f}") for call in latency],
    )
    table("Time", ("stage", "seconds"), [*stages.seconds.items(), ("this run, in all", total_s)])
    console.print(f"curves: {', '.join(str(path) for path in stages.pictures())}")
