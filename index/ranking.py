"""From scored entries of documents to the k best documents of each query: arrays in, arrays out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def best_sums(
    rows: NDArray[np.int64], worth: NDArray[np.float64], ranks: NDArray[np.int64], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Add up the entries of each document, and order documents by that.

    Args:
        rows: the document of each entry `[Q, K]`, K at least k; −1 is none.
        worth: what each entry adds to its document.
        ranks: where its list has it.
        k: documents a query.

    Returns:
        Rows and sums `[Q, k]`: sum (as float32) descending, then least rank, then row; padded with −1 and −inf. Sums do
        not depend on the order of the entries.
    """
    order = stable_argsort(rows + 1)  # those of a document are neighbours now; its first takes their sum
    rows, ranks = np.take_along_axis(rows, order, axis=1), np.take_along_axis(ranks, order, axis=1)
    worth = np.take_along_axis(worth, order, axis=1)
    first = np.ones(rows.shape, dtype=np.bool_)
    first[:, 1:] = rows[:, 1:] != rows[:, :-1]
    if (~first[:, 1:-1] & ~first[:, 2:] & (rows[:, 2:] >= 0)).any():
        worth = _sorted_within(worth, first)  # the sum of three depends on which two come first
    at = np.flatnonzero(first)
    sums = np.full(rows.shape, -np.inf, dtype=np.float32)
    sums.ravel()[at] = np.add.reduceat(worth.ravel(), at)
    ranks.ravel()[at] = np.minimum.reduceat(ranks.ravel(), at)
    rows[~first] = -1
    sums[rows < 0] = -np.inf
    order = stable_argsort(np.maximum(ranks, 0))
    by_sum = stable_argsort(_descending(np.take_along_axis(sums, order, axis=1)))
    order = np.take_along_axis(order, by_sum, axis=1)[:, :k]
    return np.take_along_axis(rows, order, axis=1), np.take_along_axis(sums, order, axis=1)


def stable_argsort(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """The order of each row of keys, which are not negative and have some 40 bits at most.

    NumPy sorts plain integers several times faster than their places, stably, so each key takes its place along.
    """
    n_bits = keys.shape[1].bit_length()
    places: NDArray[np.int64] = (keys << n_bits) | np.arange(keys.shape[1], dtype=np.int64)
    places.sort(axis=1)
    places &= (1 << n_bits) - 1
    return places


def _sorted_within(worth: NDArray[np.float64], first: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The entries of each document in ascending order."""
    order = np.argsort(worth, axis=1)
    document: NDArray[np.int64] = np.cumsum(first, axis=1, dtype=np.int64)
    by_document = stable_argsort(np.take_along_axis(document, order, axis=1))
    return np.take_along_axis(worth, np.take_along_axis(order, by_document, axis=1), axis=1)


def _descending(scores: NDArray[np.float32]) -> NDArray[np.int64]:
    """Integers of 32 bits, not negative, in the opposite order of the scores."""
    bits = (scores + np.float32(0)).view(np.int32).astype(np.int64)  # adding 0 makes −0 the 0 that it equals
    return 0x7FFFFFFF - np.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
