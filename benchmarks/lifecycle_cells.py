"""The cells of `lifecycle.py`: what changing and building an index costs, and what it costs searches meanwhile."""

import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from cells import ROOT
from collection import Collection
from first_rows import DATA, FirstRows, first_vectors, scratch
from growing import GROWING
from measure import _muted
from ray_sessions import own_ray
from watching import anonymous_bytes_of, descendants, peak_of_anonymous

from gossamer.index.inverted import BuildConfig, InvertedIndex
from gossamer.index.memory import anonymous_bytes
from gossamer.index.merging import BackgroundMerger
from gossamer.index.vectors import SparseVectors

K = 10
_WARM_UPS = 30
"""Documents that are added, one by one, to an index of no account: a JVM and Numba compile meanwhile."""


def ingest(collection: str, real: str, n_documents: int, batch: int, engine: str) -> dict[str, Any]:
    """Add documents in batches, each acknowledged on the disk, with the merges that come due; see `growing.py`.

    Returns:
        Documents a second, ms until a batch is acknowledged, segments in the end, and bytes written over the bytes
        of an index of one segment.
    """
    documents = first_vectors(Collection.find(collection, Path(real), DATA), n_documents)
    with scratch() as folder:
        warm = GROWING[engine](folder / "warm", documents)
        for row in range(_WARM_UPS):
            warm.add(row, row + 1)
        warm.close()
        index = GROWING[engine](folder / "grown", documents)
        before, times = _bytes_written(), []
        began = time.perf_counter()
        for start in range(0, documents.n_rows, batch):
            at = time.perf_counter()
            index.add(start, min(start + batch, documents.n_rows))
            times.append(time.perf_counter() - at)
        index.close()
        took_s = time.perf_counter() - began
        written = _bytes_written() - before
        return {
            "documents": documents.n_rows,
            "documents a second": documents.n_rows / took_s,
            "ms p50": statistics.median(times) * 1e3,
            "ms max": max(times) * 1e3,
            "segments": index.n_segments(),
            "written / size": written / _size(index.merge()) if written else None,
        }


def segments(collection: str, real: str, n_documents: int, counts: list[int], runs: int) -> dict[str, Any]:
    """Ask one query a call of the same documents in so many segments, in turn.

    Returns:
        `rows`: µs a query for each count, exact and at recall .99, and over those of one segment.
    """
    found = Collection.find(collection, Path(real), DATA)
    documents, queries = first_vectors(found, n_documents), found.queries
    asked = [queries[row : row + 1] for row in range(min(queries.n_rows, 300))]
    with scratch() as folder:
        indexes = {}
        for count in counts:
            bounds = np.linspace(0, documents.n_rows, count + 1).astype(int)
            index = InvertedIndex.build(folder / str(count), documents[: bounds[1]])
            index.merges_itself = False
            for first, last in pairwise(bounds[1:]):
                index.add(documents[first:last])
            indexes[count] = index
        ways: dict[str, dict[str, Any]] = {"exact": {}, "recall .99": {"recall": 0.99}}
        times: dict[tuple[int, str], list[float]] = {}
        for _ in range(runs + 1):  # the first warms up
            for count, index in indexes.items():
                for way, options in ways.items():
                    began = time.process_time()
                    for query in asked:
                        index.search(query, K, **options)
                    us = (time.process_time() - began) / len(asked) * 1e6
                    times.setdefault((count, way), []).append(us)
        medians = {key: statistics.median(several[1:]) for key, several in times.items()}
    rows = []
    for count in counts:
        row: dict[str, Any] = {"segments": count}
        for way in ways:
            row |= {f"{way} µs": medians[count, way], f"{way} / one": medians[count, way] / medians[1, way]}
        rows.append(row)
    return {"documents": documents.n_rows, "rows": rows}


def meanwhile(collection: str, real: str, n_documents: int, seconds: float) -> dict[str, Any]:
    """Ask one query after the other, alone, while another thread adds batches of 100, and while it merges all.

    Returns:
        `rows`: for each of these wall ms a query at p50, p95 and p99, and what the other thread got done.
    """
    found = Collection.find(collection, Path(real), DATA)
    documents, queries = first_vectors(found, n_documents), found.queries
    asked = [queries[row : row + 1] for row in range(min(queries.n_rows, 300))]
    half = documents.n_rows // 2
    with scratch() as folder:
        index = InvertedIndex.build(folder / "i", documents[:half], config=BuildConfig(calibrate=False))
        added = 0

        def add() -> None:
            nonlocal added
            part = documents[half + added : half + added + 100]
            if part.n_rows:
                index.add(part)
                added += part.n_rows
            else:
                time.sleep(0.01)

        rows = [{"meanwhile": "nothing", **_asked(index, asked, seconds, None)}]
        with BackgroundMerger(index) as merger:
            rows.append(
                {"meanwhile": "adding, and merging what is due", **_asked(index, asked, seconds, add)}
            )
        rows[-1] |= {"documents added a second": added / seconds, "merges": merger.n_merges}

        def merge() -> None:
            index.add(documents[half + added : half + added + 1])
            index.merge(1)

        rows.append({"meanwhile": "merging all", **_asked(index, asked, seconds, merge)})
    return {"documents": documents.n_rows, "rows": rows}


def _asked(
    index: InvertedIndex, asked: list[SparseVectors], seconds: float, work: Callable[[], None] | None
) -> dict[str, Any]:
    """Time searches while another thread works."""
    stopped = threading.Event()

    def go_on() -> None:
        while not stopped.is_set():
            if work is not None:
                work()

    other = threading.Thread(target=go_on)
    if work is not None:
        other.start()
    times: list[float] = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        began = time.perf_counter()
        index.search(asked[len(times) % len(asked)], K)
        times.append(time.perf_counter() - began)
    stopped.set()
    if work is not None:
        other.join()
    p50, p95, p99 = np.percentile(times, [50, 95, 99]) * 1e3
    return {"ms p50": p50, "ms p95": p95, "ms p99": p99, "queries": len(times)}


def recovery(kills: int) -> dict[str, Any]:
    """Kill writers at random moments; see `killing.py`."""
    from killing import kill_writers

    with scratch() as folder:
        return kill_writers(folder / "index", kills, seed=0)


def faults() -> dict[str, Any]:
    """Run the tests of power cuts and of failing disks, and count what they tried."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-s",
        "tests/index/test_crashes.py",
        "-k",
        "power or disk",
    ]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)
    counts = {"power cuts": 0, "failing steps": 0}
    for line in done.stdout.splitlines():
        for name in counts:
            if line.strip(". ").startswith(f"{name}: "):
                counts[name] += int(line.rpartition(": ")[2])
    return {**counts, "lost": "none" if done.returncode == 0 else done.stdout[-500:]}


def build(
    collection: str, real: str, n_documents: int, engine: str, parameters: dict[str, Any]
) -> dict[str, Any]:
    """Build an index on one core: ours from Parquet files, as an encoder would leave them, others as `peers.py` does.

    Returns:
        Seconds of CPU and wall, by how much anonymous memory grew at most, and the bytes of the index.
    """
    found = FirstRows.of(Collection.find(collection, Path(real), DATA), n_documents)
    with scratch() as folder, _muted():
        if engine == "ours":
            make: Callable[[], object] = _from_parquet(found, folder, parameters)
        else:
            from peers import engines

            make = partial(engines()[engine](found, folder).build, **parameters)
        del found
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        before = anonymous_bytes() or 0
        with peak_of_anonymous() as peak:
            wall, cpu = time.perf_counter(), time.process_time()
            make()
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        size = sum(_size(path) for path in folder.glob("index*"))
        return {
            "documents": n_documents,
            "s CPU": cpu,
            "s wall": wall,
            "anonymous MB": (peak[0] - before) / 1e6,
            "index MB": size / 1e6,
        }


def planned(
    *, collection: str, real: str, n_documents: int, budget_mb: int | str | None, calibrate: bool, runs: int
) -> dict[str, Any]:
    """Build from Parquet files some times, and plan it; the budget "least" is the smallest that the input allows.

    Returns:
        The input, uncompressed; and of disk, memory (growth of what is no file's, at most) and time (median) what was
        planned, and what it took.
    """
    from gossamer.index.budget import Budget, InputSize
    from gossamer.index.plan import plan_build

    found = FirstRows.of(Collection.find(collection, Path(real), DATA), n_documents)
    with scratch() as folder:
        vectors = _written(found, folder)
        config = BuildConfig(calibrate=calibrate)
        least = Budget.least_bytes(InputSize.of(vectors))
        budget = least if budget_mb == "least" else None if budget_mb is None else int(budget_mb) * 1_000_000
        (folder / "few").mkdir()
        few = _written(FirstRows.of(found, 1_000), folder / "few")
        InvertedIndex.build(folder / "warm", few, config=config)  # loads modules, compiles kernels
        wall, cpu = [], []
        before = anonymous_bytes() or 0
        with peak_of_anonymous() as peak:
            for _ in range(runs):
                wall_began, cpu_began = time.perf_counter(), time.process_time()
                index = InvertedIndex.build(
                    folder / "index", vectors, config=config, budget_bytes=budget, replace=True
                )
                wall.append(time.perf_counter() - wall_began)
                cpu.append(time.process_time() - cpu_began)
        took_bytes = peak[0] - before
        plan = plan_build(vectors, config=config, budget_bytes=budget)  # now, as it leaves memory behind
        of_budget = {
            "budget": budget / 1e6,
            "input / budget": plan.input_bytes / budget,
            "MB / budget": took_bytes / budget,
        } if budget else {}  # fmt: skip
        return {
            "documents": index.n_documents,
            "input MB": plan.input_bytes / 1e6,
            **of_budget,
            "MB": took_bytes / 1e6,
            "planned MB": plan.peak_bytes / 1e6,
            "disk MB": sum(index.info().bytes.values()) / 1e6,
            "planned disk MB": sum(plan.bytes.values()) / 1e6,
            "s wall": statistics.median(wall),
            "s CPU": statistics.median(cpu),
            "planned s": plan.seconds,
        }


def workers(collection: str, real: str, n_documents: int, counts: list[int], runs: int) -> dict[str, Any]:
    """Build from Parquet files by Ray tasks, with so many workers in turn, in one session that is warm.

    A worker is a process with the limit of memory that this one has. Ray's files go into a folder that is gone at the
    end, and so are its processes.

    Returns:
        `rows`: wall seconds, the fastest; how many times as fast as the first; and by how much the memory that is no
        file's grew at most, in this process, the workers and the rest of Ray together.
    """
    from gossamer.index.jobs import build_job

    config = BuildConfig(calibrate=False)
    found = Collection.find(collection, Path(real), DATA)
    fastest, grew = dict.fromkeys(counts, float("inf")), dict.fromkeys(counts, 0)
    with scratch() as folder:
        sources = []
        for name, count in (("few", 1_000), ("all", n_documents)):
            (folder / name).mkdir()
            sources.append(_written(FirstRows.of(found, count), folder / name, n_files=2 * max(counts)))
        del found

        def make(source: Path, n_workers: int) -> None:
            build_job(folder / "index", source, n_workers=n_workers, config=config, replace=True)

        with own_ray(max(counts)):
            make(sources[0], max(counts))  # starts the workers
            processes = [os.getpid(), *descendants(os.getpid())]
            before = anonymous_bytes_of(processes)
            for _ in range(runs):
                for count in counts:
                    with peak_of_anonymous(processes) as peak:
                        began = time.perf_counter()
                        make(sources[1], count)
                        fastest[count] = min(fastest[count], time.perf_counter() - began)
                    grew[count] = max(grew[count], peak[0] - before)
    rows = [
        {
            "workers": count,
            "s wall": fastest[count],
            "times as fast": fastest[counts[0]] / fastest[count],
            "anonymous MB": grew[count] / 1e6,
        }
        for count in counts
    ]
    return {"documents": n_documents, "rows": rows}


def _written(found: Collection, folder: Path, n_files: int = 1) -> Path:
    """A folder with the documents as so many Parquet files or more, written by a process whose memory goes with it."""
    vectors = folder / "vectors"
    vectors.mkdir()
    child = os.fork()
    if child == 0:
        try:
            _write(found, vectors, n_files)
            os._exit(0)
        except Exception as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        finally:
            os._exit(1)
    if os.waitpid(child, 0)[1]:
        raise RuntimeError(f"{vectors} could not be written")
    return vectors


def _write(found: Collection, vectors: Path, n_files: int) -> None:
    rows_a_file = -(-found.n_documents // n_files)
    parts = (
        shard[first : first + rows_a_file]
        for shard in found.shards()
        for first in range(0, shard.n_rows, rows_a_file)
    )
    row = 0
    for number, part in enumerate(parts):
        names = [f"d{name}" for name in range(row, row + part.n_rows)]
        part.with_ids(names).write_parquet(vectors / f"{number:04d}.parquet")
        row += part.n_rows


def _from_parquet(found: Collection, folder: Path, parameters: dict[str, Any]) -> Callable[[], object]:
    vectors = _written(found, folder)
    config = BuildConfig(calibrate=False, **parameters)
    return lambda: InvertedIndex.build(folder / "index", vectors, config=config)


def _size(path: Path) -> int:
    """Bytes of a file, or of all files of a folder."""
    return sum(file.stat().st_size for file in (path, *path.rglob("*")) if file.is_file())


def _bytes_written() -> int:
    """What this process has had written to the disk; 0 where the system does not tell."""
    path = Path(f"/proc/{os.getpid()}/io")
    if not path.exists():
        return 0
    return next(
        int(line.split()[1]) for line in path.read_text().splitlines() if line.startswith("write_bytes")
    )
