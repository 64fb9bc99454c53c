"""`warm_up`: what changing and searching an index takes is compiled before somebody waits for it.

Numba keeps what it compiled beside the code, so this takes a second; but where it has nothing yet, as after an
installation, it compiles for half a minute, and meanwhile Python does nothing else: all searches would wait for the
first merge.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Final

import numpy as np

from gossamer.index.impacts import Kind
from gossamer.index.inverted import BuildConfig, InvertedIndex
from gossamer.index.sharded import ShardedIndex
from gossamer.index.shards import shard_path
from gossamer.index.vectors import SparseVectors
from gossamer.kernels.clustering import ROWS_A_CENTRE

logger = logging.getLogger(__name__)

_FEW: Final = 64  # terms that are used
_WIDE: Final = 65_536  # terms beyond which their numbers take four bytes
_WEIGHTS: Final = ([1.0, 0.5, 0.25, 0.75], [0.1, 0.2, 0.3, 0.4])  # those that fit into two bytes, and others
_compiling = Lock()
_compiled: set[tuple[Kind, bool]] = set()


def warm_up(index: object) -> None:
    """Compile for an index, of any kind, by changing and searching a small one like it, which is then thrown away.

    Of inverted indexes, in shards too, there is something to compile. Once a process for each sort of numbers in them.
    """
    if isinstance(index, ShardedIndex) and index.kind == InvertedIndex.kind:
        index = InvertedIndex.open(shard_path(index.path, 0))
    if not isinstance(index, InvertedIndex):
        return
    with _compiling:
        kind, is_wide = index.info().impacts, index.n_terms > _WIDE
        if (kind, is_wide) in _compiled:
            return
        try:
            for weights in _WEIGHTS:
                with TemporaryDirectory() as folder:
                    _live_a_life(Path(folder) / "index", kind, 1 + is_wide * _WIDE + _FEW, weights)
        except OSError as error:  # the disk for such files is full, or nobody may write there
            logger.warning("nothing was compiled in advance: %s", error)
        _compiled.add((kind, is_wide))


def _live_a_life(path: Path, kind: Kind, n_terms: int, weights: Sequence[float]) -> None:
    """All that an index goes through, in little; it has just enough rows for an order of alike ones."""
    draw = np.random.default_rng(0)

    def rows(n: int) -> SparseVectors:
        terms = [draw.choice(_FEW, len(weights), replace=False).tolist() for _ in range(n)]
        ids = [f"{draw.integers(2**62)}" for _ in range(n)]
        return SparseVectors.from_dicts(
            [dict(zip(some, weights, strict=True)) for some in terms], n_terms, ids=ids
        )

    queries = rows(3)
    index = InvertedIndex.build(
        path, rows(2 * ROWS_A_CENTRE), config=BuildConfig(impacts=kind, calibrate=False)
    )
    index.update(rows(2))
    index.delete(index.documents.ids[:1].to_pylist())
    for batch in (queries[:1], queries):
        index.search(batch)
        index.search(batch, allowed=index.documents.live)
        if kind != "float32":
            index.search(batch, rescore="float")
    index.merge(max_segments=1)
    index.explain_rows(queries[:1], [0])
    if kind == "uint8":  # which alone is searched approximately
        index.calibrate(queries)
        index.search(queries[:1], recall=0.9)
