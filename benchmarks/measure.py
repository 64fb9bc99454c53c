"""The cell of `engines.py`: one engine's index of one collection, and all its operating points, in one process."""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from cells import RESULTS, peak_mb
from collection import Collection
from numpy.typing import NDArray
from peers import Asker, engines

DATA = RESULTS / "data"
K = 10
WARM_UPS = {"Lucene": 3}
"""Passes before the clock starts; a JVM compiles meanwhile."""


def sweep(
    collection: str, real: str, engine: str, build: dict[str, Any], points: list[dict[str, Any]]
) -> dict[str, Any]:
    """Build, time every point, then judge.

    Returns:
        Of the build its seconds and bytes, and `rows`, a dictionary a point.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    documents = Collection.find(collection, Path(real), DATA)
    with tempfile.TemporaryDirectory(dir=DATA) as name, _muted():
        folder = Path(name)
        made = engines()[engine](documents, folder)
        wall, cpu = time.perf_counter(), time.process_time()
        made.build(**build)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        result = {"build s CPU": cpu, "build s wall": wall, "index MB": _size(folder) / 1e6}
        rows, found = [], []
        for point in points:
            asker = made.asker(documents.queries, K, **point["search"])
            row, answers = _timed(asker, documents.queries.n_rows, WARM_UPS.get(engine, 1))
            rows.append({**_described(point), **row})
            found.append(_padded([hits for answer in answers for hits in made.rows(answer)]))
        result["peak MB"] = peak_mb()
    for row, hits in zip(rows, found, strict=True):
        row["recall"] = documents.recall(hits)
    return {**result, "rows": rows}


@contextmanager
def _muted() -> Iterator[None]:
    """Without what native code prints: an engine's progress would tear the tables."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def _size(folder: Path) -> int:
    """Bytes of the index, which is a file or a folder whose name begins so."""
    files = [file for path in folder.glob("index*") for file in (path, *path.rglob("*"))]
    return sum(file.stat().st_size for file in files if file.is_file())


def _timed(asker: Asker, n_queries: int, warm_ups: int) -> tuple[dict[str, Any], list[Any]]:
    for _ in range(warm_ups):
        began = time.perf_counter()
        answers = asker()
    took_s = time.perf_counter() - began
    runs = 5 if took_s < 0.2 else 3 if took_s < 10 else 1
    times = []
    for _ in range(runs):
        wall, cpu = time.perf_counter(), time.process_time()
        answers = asker()
        times.append((time.process_time() - cpu, time.perf_counter() - wall))
    cpu, wall = (statistics.median(column) / n_queries * 1e6 for column in zip(*times, strict=True))
    return {"µs CPU": cpu, "µs wall": wall, "runs": runs}, answers


def _described(point: dict[str, Any]) -> dict[str, Any]:
    search = {name: value for name, value in point["search"].items() if name != "batch"}
    batch = point["search"].get("batch", 1)
    return {
        "point": ", ".join(f"{name} {value}" for name, value in search.items()),
        "a call": "all" if batch >= 1_000_000 else str(batch),
        "exact": point["exact"],
    }


def _padded(hits: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    found = np.full((len(hits), K), -1, dtype=np.int64)
    for row, rows in enumerate(hits):
        found[row, : rows.size] = rows[:K]
    return found
