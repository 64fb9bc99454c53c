"""After warming up nothing is compiled: no search waits for the first merge."""

from __future__ import annotations

import subprocess
import sys

import pytest

LIFE = """
import gc, sys
from pathlib import Path
import numpy as np
from numba.core.dispatcher import Dispatcher
from gossamer.index import InvertedIndex, ShardedIndex, SparseVectors
from gossamer.index.inverted import BuildConfig
from gossamer.index.warming import warm_up

kind, is_sharded, n_terms, folder = sys.argv[1], sys.argv[2] == "True", int(sys.argv[3]), Path(sys.argv[4])
draw = np.random.default_rng(1)

def rows(n):
    given = [dict(zip(draw.choice(90, 5, replace=False).tolist(), (0.1 + draw.random(5)).tolist())) for _ in range(n)]
    return SparseVectors.from_dicts(given, n_terms, ids=[str(draw.integers(2**62)) for _ in range(n)])

def compiled():
    found = [one for one in gc.get_objects() if isinstance(one, Dispatcher)]
    return {(one.py_func.__module__, one.py_func.__name__, str(kind)) for one in found for kind in one.overloads}

config, more = BuildConfig(impacts=kind, calibrate=False), {"n_shards": 2} if is_sharded else {}
index = (ShardedIndex if is_sharded else InvertedIndex).build(folder / "index", rows(0), config=config, **more)
warm_up(index)
before = compiled()
for _ in range(3):
    index.update(rows(900))
index.delete(index.documents.ids[:2].to_pylist())
queries = rows(40)
for batch in (queries[:1], queries):
    index.search(batch, 5)
    index.search(batch, 5, allowed=np.arange(len(index.documents)) % 3 == 0)
    if kind != "float32":
        index.search(batch, 5, rescore="float")
for part in index.shards if is_sharded else [index]:
    part.merge(max_segments=1)
    if kind == "uint8":
        part.calibrate()
if kind == "uint8":
    index.search(queries[:1], 5, recall=0.8)
print(sorted(compiled() - before))
"""


@pytest.mark.parametrize(
    ("kind", "is_sharded", "n_terms"),
    [("uint8", False, 90), ("uint8", True, 70_000), ("int8", False, 90), ("float32", False, 90)],
)
def test_nothing_is_compiled_afterwards(kind: str, is_sharded: bool, n_terms: int, tmp_path: object) -> None:
    command = [sys.executable, "-c", LIFE, kind, str(is_sharded), str(n_terms), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout == "[]\n", done.stderr
