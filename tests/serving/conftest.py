"""A tiny collection, an engine that serves it, and the same behind a real server."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from gossamer.index import InvertedIndex, SparseVectors
from gossamer.lsr import Bm25Encoder
from gossamer.recsys import FoldInConfig, Interactions, Recommender
from gossamer.serving import Client, Engine, Limits, RunningService, SearchStage, ServeSettings

COLUMNS = ("id", "title", "text", "kind", "since", "public", "share")
DOCUMENTS = [
    ("os.path.join", "join(a, *paths)", "Join one or more path segments, one after another.", "function", 1, True, 0.1),
    ("os.path.split", "split(path)", "Split a path into head and tail, its last segment.", "function", 1, True, 0.2),
    ("sorted", "sorted(iterable)", "Return a new list with all items in ascending order.", "function", 2, True, 0.5),
    ("list.sort", "sort(self)", "Sort the list in place, in ascending order.", "method", 1, True, math.nan),
    ("list.append", "append(self, item)", "Append an item to the end of the list.", "method", 1, True, 0.25),
    ("list", "list(iterable)", "A mutable sequence; without an argument, an empty list.", "class", None, True, 0.75),
    ("json.loads", "loads(s)", "Turn a JSON document into a Python object.", "function", 2, True, 0.3),
    ("json._scan", "scan(string)", "Find the first byte that is no white space.", "function", 2, False, 0.9),
]  # fmt: skip
TAKEN = [
    *[("reader", item) for item in ("os", "sys")],
    *[("counter", item) for item in ("math", "random")],
    *[("both", item) for item in ("os", "re", "math", "statistics", "json")],
]  # as they first appear: os, sys, math, random, re, statistics, json
LIMITS = Limits(max_k=50, max_batch=4, max_query_chars=200, max_history=8, max_body_bytes=20_000)


def eventually(holds: Callable[[], bool], *, within_s: float = 60) -> None:
    """Wait until something holds; on an empty machine the first answers wait for kernels to be compiled."""
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, f"did not come to hold within {within_s} s"
        time.sleep(0.01)


WAYS = ("in the process", "over HTTP")


@contextmanager
def reached(engine: Engine, way: str) -> Iterator[Engine | Client]:
    """An engine itself, or a client of a service that has it."""
    if way == "in the process":
        yield engine
        return
    with RunningService(engine) as service, Client(service.url, retries=0) as client:
        yield client


def documents_table() -> pa.Table:
    return pa.table(dict(zip(COLUMNS, zip(*DOCUMENTS, strict=True), strict=True)))


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("serving") / "encoder"
    Bm25Encoder.fit(f"{title} {text}" for _, title, text, *_ in DOCUMENTS).save(folder)
    return folder


@pytest.fixture(scope="session")
def index_folder(tmp_path_factory: pytest.TempPathFactory, encoder_folder: Path) -> Path:
    encoder = Bm25Encoder.load(encoder_folder)
    vectors = encoder.encode_documents([f"{title} {text}" for _, title, text, *_ in DOCUMENTS])
    folder = tmp_path_factory.mktemp("serving") / "index"
    InvertedIndex.build(folder, vectors, documents=documents_table(), encoder=encoder.info)
    return folder


@pytest.fixture
def stage(encoder_folder: Path, tmp_path: Path) -> SearchStage:
    """An index of its own, to be changed."""
    encoder = Bm25Encoder.load(encoder_folder)
    vectors = encoder.encode_documents([f"{title} {text}" for _, title, text, *_ in DOCUMENTS])
    index = InvertedIndex.build(
        tmp_path / "index", vectors, documents=documents_table(), encoder=encoder.info
    )
    return SearchStage(index, encoder)


@pytest.fixture(scope="session")
def recommender_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tastes and an item between them, as factors that anybody can check; no training."""
    log = Interactions.from_table(
        pa.table(dict(zip(("user", "item"), zip(*TAKEN, strict=True), strict=True)))
    )
    users = np.array([[1, 0], [0, 1], [1, 1]], np.float32)
    items = np.array(
        [[1, 0], [0.95, -0.2], [0, 1], [-0.2, 0.95], [0.9, 0.1], [0.1, 0.9], [0.5, 0.5]], np.float32
    )
    folder = tmp_path_factory.mktemp("serving") / "recommender"
    Recommender.build(
        folder,
        users=SparseVectors.from_dense(users),
        items=SparseVectors.from_dense(items, signed=True),
        interactions=log,
        fold_in=FoldInConfig(nnz=2),
    )
    return folder


@pytest.fixture(scope="session")
def tiny_engine(index_folder: Path, encoder_folder: Path, recommender_folder: Path) -> Engine:
    settings = ServeSettings(
        index=index_folder, encoder=encoder_folder, recommender=recommender_folder, limits=LIMITS
    )
    return Engine.open(settings)


@pytest.fixture(scope="session")
def empty_engine() -> Engine:
    return Engine(None, None)


@pytest.fixture(scope="session")
def service(tiny_engine: Engine) -> Iterator[RunningService]:
    """The engine behind HTTP, on a free port of this machine, in a thread."""
    with RunningService(tiny_engine) as running:
        yield running


@pytest.fixture(scope="session")
def empty_service(empty_engine: Engine) -> Iterator[RunningService]:
    with RunningService(empty_engine) as running:
        yield running
