"""From rows of impacts to the arrays of `Postings` and `Bounds`, window by window, into arrays that may be files."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from gossamer.kernels.lanes import BLOCK
from gossamer.kernels.sparse_dot import Bounds, Postings


class Impacts(NamedTuple):
    """The rows of an index, by row; arrays may be read-only maps of files."""

    indptr: npt.NDArray[np.int64]
    """int64 [N + 1]."""
    terms: npt.NDArray[np.uint16 | np.int32]
    """uint16 or int32 [nnz]."""
    impacts: npt.NDArray[np.uint8 | np.int8 | np.float32]
    """uint8, int8 or float32 [nnz]; zeros are left out of the postings."""


def count_window(
    rows: Impacts, order: npt.NDArray[np.int64], window: int, offsets: npt.NDArray[np.uint32], number: int
) -> None:
    """Count the postings of each term in a window; summed up over windows, that is the `offsets` of `Postings`.

    Args:
        rows: the documents.
        order: [N]; which row stands at each position.
        window: documents in a window.
        offsets: uint32 [n_terms, n_windows + 1], of zeros; column `number + 1` is written to.
        number: of the window.
    """
    counts = np.zeros(len(offsets), np.uint32)  # not the column: threads would share its cache lines
    _count(tuple(rows), order[number * window : (number + 1) * window], counts)
    offsets[:, number + 1] = counts


def fill_window(rows: Impacts, postings: Postings, window: int) -> None:
    """Write the postings of a window, and their largest impacts where there are bounds; in any order of windows.

    Args:
        rows: the documents.
        postings: `bases`, `offsets` and `rows` are complete; `local`, `impacts` and `bounds.window_max` are written to.
        window: its number.
    """
    largest = np.zeros(postings.n_terms, np.uint8)
    first = window * postings.window
    positions = postings.rows[first : first + postings.window]
    next_TV = np.zeros(postings.n_terms, np.int64)
    next_TV[slice(None) if postings.terms is None else postings.terms] = (
        postings.bases[:-1] + postings.offsets[:, window]
    )
    _fill(tuple(rows), positions, next_TV, postings.local, postings.impacts, largest)
    if postings.bounds is not None:
        postings.bounds.window_max[:, window] = largest if postings.terms is None else largest[postings.terms]


def fill_dense(postings: Postings, bounds: Bounds, number: int) -> None:
    """Write the row of a dense term, which is all zeros, and the maxima of its blocks; `number` counts dense terms."""
    stride = -(-postings.window // BLOCK) * BLOCK
    in_list = int(bounds.dense_terms[number])
    term = in_list if postings.terms is None else int(postings.terms[in_list])
    row = bounds.dense[number]
    for window in range(postings.n_windows):
        run = postings.run(term, window)
        row[window * stride + postings.local[run].astype(np.int64)] = postings.impacts[run]
    bounds.block_max[number] = row.reshape(-1, BLOCK).max(axis=1, initial=0)


def rows_of(postings: Postings) -> Impacts:
    """The rows that postings were made from, without impacts of zero; in memory, 3 to 8 bytes a posting."""
    lengths = np.zeros(postings.n_documents + 1, np.int64)
    arrays = postings.offsets, postings.bases, postings.local, postings.rows
    _lengths(*arrays, postings.window, lengths)
    indptr = np.cumsum(lengths)
    nnz = int(indptr[-1])
    wide: type[np.uint16 | np.int32] = np.uint16 if postings.n_terms <= 65_536 else np.int32
    terms = np.empty(nnz, wide)
    impacts = np.empty(nnz, postings.impacts.dtype)
    names = np.arange(postings.n_terms, dtype=np.int32) if postings.terms is None else postings.terms
    _scatter(*arrays, postings.window, names, postings.impacts, indptr[:-1].copy(), terms, impacts)
    return Impacts(indptr, terms, impacts)


@njit(nogil=True, cache=True)
def _lengths(offsets, bases, local, rows, window, lengths):  # type: ignore[no-untyped-def]  # noqa: PLR0917
    """Count each row's postings, one place further on."""
    for term in range(len(offsets)):
        for number in range(offsets.shape[1] - 1):
            for at in range(bases[term] + offsets[term, number], bases[term] + offsets[term, number + 1]):
                lengths[rows[number * window + local[at]] + 1] += 1


@njit(nogil=True, cache=True)
def _scatter(offsets, bases, local, rows, window, names, impacts, next_N, row_terms, row_impacts):  # type: ignore[no-untyped-def]  # noqa: PLR0917
    """Put every posting behind those of its row; terms ascend, as they come in this order."""
    for place in range(len(offsets)):
        for number in range(offsets.shape[1] - 1):
            for at in range(bases[place] + offsets[place, number], bases[place] + offsets[place, number + 1]):
                row = rows[number * window + local[at]]
                row_terms[next_N[row]], row_impacts[next_N[row]] = names[place], impacts[at]
                next_N[row] += 1


def dense_terms_of(
    postings_a_term: npt.NDArray[np.int64], n_documents: int, row_bytes: int, share: float
) -> npt.NDArray[np.int32]:
    """The terms that get a row of bytes: the most frequent ones, as long as all rows take a share of the postings.

    Args:
        postings_a_term: [n_terms].
        n_documents: number of documents.
        row_bytes: what a row takes, which is filled up to whole windows.
        share: bytes of all rows over the number of postings, at most. Terms that fewer than a 16th of the documents
            have get none: their postings are added in less time than such a row.
    """
    if n_documents == 0:
        return np.zeros(0, np.int32)
    n_dense = int(share * postings_a_term.sum() / row_bytes)
    chosen = np.argsort(-postings_a_term, kind="stable")[:n_dense]
    return np.sort(chosen[postings_a_term[chosen] * 16 >= n_documents]).astype(np.int32)


@njit(nogil=True, cache=True)
def _count(rows, chosen, counts):  # type: ignore[no-untyped-def]
    indptr, terms, impacts = rows
    for row in chosen:
        for entry in range(np.uint64(indptr[row]), np.uint64(indptr[row + 1])):
            if impacts[entry] != 0:
                counts[np.uint64(terms[entry])] += np.uint32(1)


@njit(nogil=True, cache=True)
def _fill(rows, positions, next_TV, local, impacts, largest):  # type: ignore[no-untyped-def]  # noqa: PLR0917
    indptr, terms, values = rows
    for position in range(len(positions)):
        row = np.int64(positions[position])
        for entry in range(np.uint64(indptr[row]), np.uint64(indptr[row + 1])):
            value = values[entry]
            if value == 0:
                continue
            term = np.uint64(terms[entry])
            at = np.uint64(next_TV[term])
            next_TV[term] += 1
            local[at] = position
            impacts[at] = value
            if value > largest[term]:
                largest[term] = np.uint8(value)
