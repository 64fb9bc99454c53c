"""What a search is asked and answers, whatever the kind of index: which rows may be hits, and the best of segments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.index.filters import Filters
from gossamer.index.segment import Found
from gossamer.index.segmented import Snapshot
from gossamer.kernels.errors import InputError
from gossamer.kernels.refine import best_of


def check_size(k: int, n_threads: int) -> None:
    """Raises: InputError: one of them is not at least 1."""
    if k < 1:
        raise InputError(f"k is {k}; ask for at least 1 hit")
    if n_threads < 1:
        raise InputError(f"n_threads is {n_threads}; give at least 1")


def mask_of(
    snapshot: Snapshot[Any], filters: Filters | None, allowed: NDArray[np.bool_] | Sequence[bool] | None
) -> NDArray[np.bool_] | None:
    """Which rows a filter and a mask leave, bool `[n_rows]`; None for all.

    Raises:
        InputError: the mask is of another type or shape.
        ConfigError, InputError: the filter cannot be read.
    """
    mask = None if allowed is None else np.asarray(allowed)
    n_rows = len(snapshot.documents)
    if mask is not None and (mask.dtype != np.bool_ or mask.shape != (n_rows,)):
        raise InputError(f"allowed is {mask.dtype} of {mask.shape}; expected bool of ({n_rows},), one a row.")
    if filters is None or filters == {}:
        return mask
    passing = snapshot.documents.mask(filters)
    return passing if mask is None else passing & mask


def best_of_segments(found: Sequence[Found], starts: NDArray[np.int64], n_queries: int, k: int) -> Found:
    """The best hits over all segments: score descending, then row ascending."""
    if len(found) == 1:
        return found[0]
    rows = [np.where(rows >= 0, rows + start, -1) for (rows, _), start in zip(found, starts, strict=False)]
    scores = [scores.astype(np.float64) for _, scores in found]
    nothing = np.full((n_queries, 1), -1), np.full((n_queries, 1), -np.inf)
    best = best_of(np.hstack([nothing[0], *rows]), np.hstack([nothing[1], *scores]), k)
    return best[0], best[1].astype(np.float32)
