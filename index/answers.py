"""What a search is asked and answers, whatever the kind of index: which rows may be hits, and the best of segments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gossamer.index.document_set import DocumentSet
from gossamer.index.filters import Filters
from gossamer.index.format import EncoderInfo
from gossamer.index.segment import Found
from gossamer.index.vectors import SparseVectors
from gossamer.kernels.errors import InputError, MismatchError
from gossamer.kernels.sparse_dot_keys import merge_ranked


def check_size(k: int, n_threads: int) -> None:
    """Raises: InputError: one of them is not at least 1."""
    if k < 1:
        raise InputError(f"k is {k}; ask for at least 1 hit")
    if n_threads < 1:
        raise InputError(f"n_threads is {n_threads}; give at least 1")


def check_vocabulary(queries: SparseVectors, n_terms: int, encoder: EncoderInfo | None) -> None:
    """Raises: MismatchError: the queries are over another vocabulary than that of an index."""
    if queries.n_cols != n_terms:
        made_by = f" of {encoder.name}" if encoder else ""
        raise MismatchError(
            f"the queries are over {queries.n_cols:,} terms, and this index over {n_terms:,}; encode queries with the "
            f"encoder{made_by} that made the index."
        )


def mask_of(
    documents: DocumentSet,
    filters: Filters | None,
    allowed: NDArray[np.bool_] | Sequence[bool] | None,
) -> NDArray[np.bool_] | None:
    """Which rows a filter and a mask leave, bool `[n_rows]`; None for all.

    Raises:
        InputError: the mask is of another type or shape.
        ConfigError, InputError: the filter cannot be read.
    """
    mask = None if allowed is None else checked_mask(allowed, len(documents))
    return with_filters(documents, filters, mask)


def checked_mask(allowed: NDArray[np.bool_] | Sequence[bool], n_rows: int) -> NDArray[np.bool_]:
    """Raises: InputError: a mask is of another type than bool, or not one a row."""
    mask = np.asarray(allowed)
    if mask.dtype != np.bool_ or mask.shape != (n_rows,):
        raise InputError(f"allowed is {mask.dtype} of {mask.shape}; expected bool of ({n_rows},), one a row.")
    return mask


def with_filters(
    documents: DocumentSet,
    filters: Filters | None,
    mask: NDArray[np.bool_] | None,
    kinds: Mapping[str, pa.DataType] | None = None,
) -> NDArray[np.bool_] | None:
    """A mask, and what a filter leaves of it; `kinds` as for `DocumentSet.mask`."""
    if filters is None or filters == {}:
        return mask
    passing = documents.mask(filters, kinds)
    return passing if mask is None else passing & mask


def best_of_segments(found: Sequence[Found], starts: NDArray[np.int64], n_queries: int, k: int) -> Found:
    """The best hits over all segments: score descending, then row ascending, which is the order of segments, too.

    Scores are as wide as those that were found; `rounded` is what a caller is told.
    """
    if len(found) == 1:
        return found[0]
    rows = np.empty((len(found), n_queries, k), np.int64)
    scores = np.empty(rows.shape)  # float64, in which stored scores are told apart
    for place, (some_rows, some_scores) in enumerate(found):
        rows[place], scores[place] = some_rows, some_scores
    best: Found = merge_ranked(rows, scores, starts)
    return best


def rounded(scores: NDArray[np.float32 | np.float64]) -> NDArray[np.float32]:
    """Scores as float32."""
    with np.errstate(over="ignore"):  # a score beyond float32 is infinite, and that is its best rounding
        return scores.astype(np.float32, copy=False)


def best_of(rows: NDArray[np.int64], scores: NDArray[np.float32 | np.float64], k: int) -> Found:
    """The k best of candidates `[Q, n]`, those of equal scores in the order they have; -1 is none, and pads."""
    rows = np.hstack([rows, np.full((len(rows), k), -1)])
    scores = np.hstack([scores, np.full((len(rows), k), -np.inf, np.float32)])
    best = np.argsort(np.where(rows >= 0, -scores, np.nan), axis=1, kind="stable")[:, :k]  # NaN comes last
    return np.take_along_axis(rows, best, 1), np.take_along_axis(scores, best, 1)
