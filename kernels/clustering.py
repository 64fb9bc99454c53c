"""An order of sparse rows that puts alike rows beside each other: k-means by cosine, on a sample, in two rounds.

Rows drawn at random are the first centres. Twice the rows of a sample go to the centre with the largest cosine, and a
centre becomes the mean of its rows, cut to its largest terms. Then every row goes to its nearest centre, judged by its
own largest entries, through an inverted index of the centres (as Seismic, SIGIR 2024, assigns the documents of a list).
Centres are grouped in the same way, by fewer of them, so that neighbouring groups are alike too.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from gossamer.kernels.inversion import Impacts
from gossamer.kernels.lanes import BLOCK, block_max

ROWS_A_CENTRE = 256
MAX_CENTRES = 16_384
_ROUNDS = 2
_SAMPLE_A_CENTRE = 32
_TERMS_A_CENTRE = 96
_LARGEST = 40  # entries of a row that it is judged by
_LENGTH = 4_096  # of a centre, in integers


def alike_order(rows: Impacts, n_terms: int, *, seed: int = 0) -> npt.NDArray[np.int64]:
    """The order, as row numbers `[N]`; a pure function of the rows and the seed.

    Args:
        rows: N rows of uint8 impacts.
        n_terms: number of columns.
        seed: of the draw of centres and sample.
    """
    n_rows = len(rows.indptr) - 1
    n_centres = min(n_rows // ROWS_A_CENTRE, MAX_CENTRES)
    if n_centres < 2:
        return np.arange(n_rows)
    random = np.random.default_rng(seed)
    sample = np.sort(random.choice(n_rows, min(n_rows, _SAMPLE_A_CENTRE * n_centres), replace=False))
    centres = _matrix(rows, np.sort(random.choice(sample, n_centres, replace=False)), n_terms)
    for _ in range(_ROUNDS):
        centres = _means(rows, sample, _nearest(rows, sample, centres), n_centres, n_terms)
    group = _nearest(rows, np.arange(n_rows), centres)
    few = np.sort(random.choice(n_centres, int(np.sqrt(n_centres)), replace=False))
    region = _nearest(_as_rows(centres), np.arange(n_centres), centres[few])
    return np.lexsort((group, region[group]))


def _nearest(rows: Impacts, chosen: npt.NDArray[np.int64], centres: Any) -> npt.NDArray[np.int32]:
    """The number of the centre that each chosen row is most alike to, by the largest entries of the row."""
    norms = np.sqrt(centres.multiply(centres).sum(axis=1))
    scaled = centres.multiply((_LENGTH / np.maximum(norms, 1e-9))[:, None]).tocsc()
    columns = scaled.indptr.astype(np.int64), scaled.indices.astype(np.int32), scaled.data.astype(np.int32)
    sums = np.zeros(-(-centres.shape[0] // BLOCK) * BLOCK, np.int32)
    nearest = np.empty(len(chosen), np.int32)
    _assign(tuple(rows), chosen, columns, sums, nearest)
    return nearest


def _matrix(rows: Impacts, chosen: npt.NDArray[np.int64], n_terms: int) -> Any:
    """Some rows as a SciPy matrix of float32."""
    from scipy import sparse

    lengths = rows.indptr[chosen + 1] - rows.indptr[chosen]
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    entries = np.repeat(rows.indptr[chosen] - indptr[:-1], lengths) + np.arange(indptr[-1])
    arrays = rows.impacts[entries].astype(np.float32), rows.terms[entries].astype(np.int64), indptr
    return sparse.csr_array(arrays, shape=(len(chosen), n_terms))


def _means(
    rows: Impacts,
    sample: npt.NDArray[np.int64],
    group: npt.NDArray[np.int32],
    n_centres: int,
    n_terms: int,
) -> Any:
    """The sums of each group's rows, each cut to its largest terms; a group without rows is empty."""
    from scipy import sparse

    members = (np.ones(len(sample), np.float32), (group, np.arange(len(sample))))
    sums = sparse.csr_array(members, shape=(n_centres, len(sample))) @ _matrix(rows, sample, n_terms)
    sums.sort_indices()
    owner = np.repeat(np.arange(n_centres), np.diff(sums.indptr))
    by_size = np.lexsort((-sums.data, owner))
    rank = np.arange(sums.nnz) - np.repeat(sums.indptr[:-1], np.diff(sums.indptr))
    sums.data[by_size[rank >= _TERMS_A_CENTRE]] = 0
    sums.eliminate_zeros()
    return sums


def _as_rows(centres: Any) -> Impacts:
    """Centres as rows that can be assigned, each with its largest entry as 255."""
    largest = np.maximum(centres.max(axis=1).toarray().ravel(), 1e-9)
    scaled = np.ceil(centres.data * np.repeat(255 / largest, np.diff(centres.indptr)))
    return Impacts(centres.indptr.astype(np.int64), centres.indices.astype(np.int32), scaled.astype(np.uint8))


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
