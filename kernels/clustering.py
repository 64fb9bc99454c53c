"""An order of sparse rows that puts alike rows beside each other, in one pass and without iterations.

Rows drawn at random serve as centres; each row goes to the centre with the largest cosine, judged by its own few
largest entries, through an inverted index of the centres (the way in which Seismic, SIGIR 2024, groups the documents of
a list). Centres are grouped in the same way, by fewer of them, so that neighbouring groups are alike too.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from gossamer.kernels.inversion import Impacts
from gossamer.kernels.lanes import BLOCK, block_max

ROWS_A_CENTRE = 256
MAX_CENTRES = 16_384
_LARGEST = 15  # entries of a row that it is judged by


def alike_order(rows: Impacts, n_terms: int, *, seed: int = 0) -> npt.NDArray[np.int64]:
    """The order, as row numbers `[N]`; a pure function of the rows and the seed.

    Args:
        rows: N rows of uint8 impacts.
        n_terms: number of columns.
        seed: of the draw of centres.
    """
    n_rows = len(rows.indptr) - 1
    n_centres = min(n_rows // ROWS_A_CENTRE, MAX_CENTRES)
    if n_centres < 2:
        return np.arange(n_rows)
    random = np.random.default_rng(seed)
    centres = np.sort(random.choice(n_rows, n_centres, replace=False))
    few = np.sort(random.choice(n_centres, int(np.sqrt(n_centres)), replace=False))
    group = _nearest(rows, np.arange(n_rows), centres, n_terms)
    region = _nearest(rows, centres, centres[few], n_terms)[group]
    return np.lexsort((group, region))


def _nearest(
    rows: Impacts, chosen: npt.NDArray[np.int64], centres: npt.NDArray[np.int64], n_terms: int
) -> npt.NDArray[np.int32]:
    """The number of the centre that each chosen row is most alike to."""
    columns = _columns(rows, centres, n_terms)
    sums = np.zeros(-(-len(centres) // BLOCK) * BLOCK, np.int32)
    nearest = np.empty(len(chosen), np.int32)
    _assign(tuple(rows), chosen, columns, sums, nearest)
    return nearest


def _columns(rows: Impacts, centres: npt.NDArray[np.int64], n_terms: int) -> tuple[Any, Any, Any]:
    """The centres by term, each scaled to the length 4,096."""
    from scipy import sparse

    lengths = rows.indptr[centres + 1] - rows.indptr[centres]
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    entries = np.repeat(rows.indptr[centres] - indptr[:-1], lengths) + np.arange(indptr[-1])
    values = rows.impacts[entries].astype(np.float64)
    norms = np.sqrt(np.bincount(np.repeat(np.arange(len(centres)), lengths), values**2, len(centres)))
    values *= np.repeat(4096 / np.maximum(norms, 1), lengths)
    shape = (len(centres), n_terms)
    matrix = sparse.csr_array(
        (values.astype(np.int32), rows.terms[entries].astype(np.int64), indptr), shape=shape
    )
    matrix = matrix.tocsc()
    return matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32), matrix.data


@njit(nogil=True, cache=True)
def _assign(rows, chosen, columns, sums, nearest):  # type: ignore[no-untyped-def]
    indptr, terms, impacts = rows
    starts, centres, values = columns
    largest = np.empty(_LARGEST, np.int64)
    for number in range(len(chosen)):
        row = chosen[number]
        n_largest = _largest_entries(impacts, indptr[row], indptr[row + 1], largest)
        for rank in range(n_largest):
            entry = np.uint64(largest[rank])
            term, impact = np.uint64(terms[entry]), np.int32(impacts[entry])
            for i in range(np.uint64(starts[term]), np.uint64(starts[term + np.uint64(1)])):
                sums[np.uint64(centres[i])] += impact * values[i]
        nearest[number] = _argmax(sums)
        for i in range(np.uint64(len(sums))):
            sums[i] = 0


@njit(nogil=True, cache=True)
def _largest_entries(impacts, begin, end, largest):  # type: ignore[no-untyped-def]
    """Write the places of the largest impacts, the first of equal ones; returns how many."""
    size = 0
    for entry in range(begin, end):
        if size == _LARGEST and impacts[entry] <= impacts[largest[size - 1]]:
            continue
        size = min(size + 1, _LARGEST)
        at = size - 1
        while at > 0 and impacts[largest[at - 1]] < impacts[entry]:
            largest[at] = largest[at - 1]
            at -= 1
        largest[at] = entry
    return size


@njit(nogil=True, cache=True)
def _argmax(sums):  # type: ignore[no-untyped-def]
    best, at = np.int32(-1), 0
    for first in range(0, len(sums), BLOCK):
        largest = block_max(sums, first)
        if largest > best:
            best, at = largest, first
    while sums[at] != best:
        at += 1
    return at
