"""Kill the writer of an index at random moments, and count what is missing afterwards.

A writer adds documents, updates, deletes and merges, and says after each change what must be there from now on. It is
forked from a process that has everything loaded, killed by SIGKILL after a random time, and the index is opened: every
byte must be right, and the documents those of the last acknowledged change or of the one that was under way.

    python benchmarks/killing.py --kills 200

Prints JSON: kills, changes acknowledged, how often the change under way counted, and lost and damaged indexes (0).
"""

import argparse
import json
import os
import select
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from gossamer.index.inverted import InvertedIndex
from gossamer.index.vectors import SparseVectors
from gossamer.kernels.errors import GossamerError

_N_TERMS = 64
_LONGEST_S = 0.15
"""What a writer has at most after its first acknowledgement."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where the index goes; a temporary folder unless given")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        print(json.dumps(kill_writers(Path(folder) / "index", options.kills, options.seed)))


def kill_writers(path: Path, kills: int, seed: int) -> dict[str, Any]:
    """Kill as many writers of one index, one after another.

    Returns:
        The counts that the module's text names, and the median time to open the index afterwards in ms.
    """
    rng = np.random.default_rng(seed)
    counts = {"kills": 0, "acknowledged": 0, "under way counted": 0, "lost": 0, "damaged": 0}
    expected: list[str] = []
    opened_ms = []
    for number in range(kills):
        told, under_way = _one_killed(path, number, float(rng.random()) * _LONGEST_S)
        counts["kills"] += 1
        counts["acknowledged"] += len(told)
        expected = told[-1] if told else expected
        began = time.perf_counter()
        try:
            index = InvertedIndex.open(path)
            opened_ms.append((time.perf_counter() - began) * 1e3)
            index.verify()
        except GossamerError as error:
            print(error, file=sys.stderr)
            counts["damaged"] += 1
            continue
        found = _names(index)
        if found == expected:
            continue
        counts["under way counted"] += found == under_way
        counts["lost"] += found != under_way
        expected = found
    return {**counts, "ms to open": round(float(np.median(opened_ms)), 2)}


def _one_killed(path: Path, number: int, delay_s: float) -> tuple[list[list[str]], list[str]]:
    """Let a writer work until it is killed; the documents after each change that it told of, and after the next."""
    reading, writing = os.pipe()
    child = os.fork()
    if (
        child == 0
    ):  # the writer; it ends by the signal, or by an error that is seen as too few acknowledgements
        os.close(reading)
        try:
            _write(path, number, writing)
        finally:
            os._exit(1)
    os.close(writing)
    lines = b""
    while b"\n" not in lines.partition(b"\n")[2]:  # it has begun, and says what it will do
        select.select([reading], [], [])
        more = os.read(reading, 65_536)
        if not more:
            raise RuntimeError(f"writer {number} ended by itself")
        lines += more
    time.sleep(delay_s)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while more := os.read(reading, 65_536):
        lines += more
    os.close(reading)
    said = [json.loads(line) for line in lines.split(b"\n")[:-1]]
    told = [line["names"] for line in said if line["done"]]
    return told, said[-1]["names"]


def _write(path: Path, number: int, pipe: int) -> None:
    """Change the index for ever; before each change and after it, say which documents there are then."""
    rng = np.random.default_rng([number, 1])
    if number == 0:
        InvertedIndex.build(path, _vectors([]))
    index = InvertedIndex.open(path)
    names = _names(index)
    _say(pipe, names, done=True)
    for step in range(1_000_000):
        new = [f"{number}-{step}-{place}" for place in range(rng.integers(1, 20))]
        old = rng.choice(names, min(len(names) // 3, 10), replace=False).tolist()
        left = [name for name in names if name not in old]
        kind = rng.integers(4)
        names = [names + new, left + old + new, left, names][kind]
        _say(pipe, names, done=False)
        if kind == 0:
            index.add(_vectors(new))
        elif kind == 1:
            index.update(_vectors(old + new))
        elif kind == 2:
            index.delete(old)
        else:
            index.merge(int(rng.integers(1, 4)))
        _say(pipe, names, done=True)


def _say(pipe: int, names: list[str], *, done: bool) -> None:
    data = json.dumps({"done": done, "names": names}).encode() + b"\n"
    while data:
        data = data[os.write(pipe, data) :]


def _vectors(names: list[str]) -> SparseVectors:
    rows = [{len(name) % _N_TERMS: 1.0, hash(name) % _N_TERMS: 0.5} for name in names]
    return SparseVectors.from_dicts(rows, _N_TERMS, ids=names)


def _names(index: InvertedIndex) -> list[str]:
    return list(index.documents.take(np.flatnonzero(index.documents.live))["id"].to_pylist())


if __name__ == "__main__":
    main()
