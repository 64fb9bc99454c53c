"""The cells of `serving.py` about a deployment on Ray Serve: what is lost when its replicas are killed."""

import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from first_rows import scratch
from ray_sessions import own_ray
from watching import descendants

from gossamer.index.inverted import InvertedIndex
from gossamer.index.sharded import ShardedIndex
from gossamer.index.vectors import SparseVectors
from gossamer.kernels.errors import ServiceError
from gossamer.lsr.bm25 import Bm25Encoder
from gossamer.serving.client import Client
from gossamer.serving.deploy import DeployConfig, deploy, down
from gossamer.serving.settings import ServeSettings

_SCALE = DeployConfig(
    routers=2,
    encoders=2,
    shard_groups=2,
    router_cpus=0.05,
    encoder_cpus=0.05,
    shard_cpus=0.05,
    writer_cpus=0.05,
)
_COLLECTION = '[retrievers.words]\nindex = "index"\nencoder = "../../encoder"\n'
_N_READERS, _N_WRITERS = 4, 2
_BETWEEN_S = 1.0
_BACK_WITHIN_S = 60


@dataclass
class _Seen:
    """What clients saw; each adds to lists of its own kind only."""

    times_s: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    acknowledged: list[str] = field(default_factory=list)


def replicas(n_documents: int, n_kills: int, seed: int) -> dict[str, Any]:
    """Kill replicas of each kind by SIGKILL while four clients search an index in shards, and two write to another.

    Clients ask again, as they do where nothing is done twice by it; a write that was not acknowledged may be lost.

    Returns:
        `rows`: for each kind of replica how many were killed, answers that came meanwhile, those that were not what one
        process answers, errors, and acknowledged writes that were gone afterwards.
    """
    draw = np.random.default_rng(seed)
    with scratch() as folder, own_ray(2):
        queries, expected = _made(folder, n_documents, draw)
        settings = ServeSettings(collections=folder / "collections", port=0)
        url = deploy(settings, _SCALE)
        rows = []
        try:
            for kind in ("shards-0", "encoders", "writer", "router"):
                with _loaded(url, queries, expected) as seen:
                    n_killed = sum(_kill(kind, draw) for _ in range(n_kills))
                rows.append({"killed": f"{n_killed} x {kind}", **_row(url, seen)})
        finally:
            down()
    return {"rows": rows}


def _made(folder: Path, n_documents: int, draw: np.random.Generator) -> tuple[list[str], list[list[str]]]:
    """Collections `many`, of made-up texts in two shards, and `notes`, empty; queries, and what one process finds."""
    words = [f"word{number}" for number in range(500)]
    texts = [" ".join(draw.choice(words, 20)) for _ in range(n_documents)]
    ids = [f"d{number}" for number in range(n_documents)]
    encoder = Bm25Encoder.fit(texts)
    encoder.save(folder / "encoder")
    for name in ("many", "notes"):
        (folder / "collections" / name).mkdir(parents=True)
        (folder / "collections" / name / "collection.toml").write_text(_COLLECTION)
    vectors = encoder.encode_documents(texts).with_ids(ids)
    index = ShardedIndex.build(
        folder / "collections/many/index",
        vectors,
        n_shards=2,
        documents=pa.table({"id": ids, "text": texts}),
        encoder=encoder.info,
    )
    none = SparseVectors.from_dicts([], encoder.n_terms, ids=[])
    InvertedIndex.build(folder / "collections/notes/index", none, encoder=encoder.info)
    queries = [" ".join(draw.choice(words, 3)) for _ in range(20)]
    hits = index.search(encoder.encode_queries(queries), 10)
    return queries, [[name for name, _ in hits.of(row)] for row in range(len(queries))]


@contextmanager
def _loaded(url: str, queries: Sequence[str], expected: Sequence[Sequence[str]]) -> Iterator[_Seen]:
    """Clients search and write until the block ends."""
    seen, stop = _Seen(), threading.Event()

    def read(first: int) -> None:
        with Client(url, collection="many", timeout_s=60) as client:
            number = first
            while not stop.is_set():
                at, began = number % len(queries), time.perf_counter()
                try:
                    hits = client.search(queries[at], k=10).hits
                except ServiceError as error:
                    seen.errors.append(str(error))
                    continue
                seen.times_s.append(time.perf_counter() - began)
                if [hit.id for hit in hits] != expected[at]:
                    seen.wrong.append(queries[at])
                number += 1

    def write(name: str) -> None:
        with Client(url, collection="notes", timeout_s=60) as client:
            number = 0
            while not stop.is_set():
                id_ = f"{name}-{number}"
                try:
                    client.put([{"id": id_, "text": "word1 word2"}])
                except ServiceError as error:
                    seen.errors.append(str(error))
                else:
                    seen.acknowledged.append(id_)
                number += 1

    with ThreadPoolExecutor(_N_READERS + _N_WRITERS) as pool:
        clients = [pool.submit(read, first) for first in range(_N_READERS)]
        clients += [pool.submit(write, f"{time.time_ns()}-{writer}") for writer in range(_N_WRITERS)]
        try:
            time.sleep(_BETWEEN_S)
            yield seen
            time.sleep(_BETWEEN_S)
        finally:
            stop.set()
        for client in clients:
            client.result()


def _kill(kind: str, draw: np.random.Generator) -> int:
    """Kill one replica at a random moment, and wait until there are as many again; how many were killed."""
    time.sleep(float(draw.uniform(0.0, _BETWEEN_S)))
    before = _replicas(kind)
    os.kill(int(draw.choice(before)), signal.SIGKILL)
    until = time.perf_counter() + _BACK_WITHIN_S
    while len(now := _replicas(kind)) < len(before) or set(now) == set(before):
        if time.perf_counter() > until:
            raise RuntimeError(f"no other replica took the place of a killed one of {kind}")
        time.sleep(0.1)
    return 1


def _replicas(kind: str) -> list[int]:
    """The processes of a deployment's replicas, as Ray names them."""
    found = []
    for process in descendants(os.getpid()):
        try:
            command = Path(f"/proc/{process}/cmdline").read_bytes()
        except OSError:  # it has ended
            continue
        if command.startswith(f"ray::ServeReplica:gossamer:{kind}".encode()):
            found.append(process)
    return found


def _row(url: str, seen: _Seen) -> dict[str, Any]:
    with Client(url, collection="notes", timeout_s=60) as client:
        lost = [id_ for id_ in seen.acknowledged if not _has(client, id_)]
    p50, p99 = np.percentile(seen.times_s, [50, 99]) * 1e3
    return {
        "answers": len(seen.times_s),
        "wrong": len(seen.wrong),
        "errors": len(seen.errors),
        "p50 ms": float(p50),
        "p99 ms": float(p99),
        "acknowledged": len(seen.acknowledged),
        "lost": len(lost),
    }


def _has(client: Client, id_: str) -> bool:
    from gossamer.kernels.errors import NotFoundError

    try:
        return client.get(id_).id == id_
    except NotFoundError:
        return False
