"""An order of sparse rows that puts alike rows beside each other: k-means by cosine, on a sample, in two rounds.

Rows drawn at random are the first centres. Twice the rows of a sample go to the centre with the largest cosine, and a
centre becomes the mean of its rows, cut to its largest terms. Then every row goes to its nearest centre, judged by its
own largest entries, through an inverted index of the centres (as Seismic, SIGIR 2024, assigns the documents of a list).
Centres are grouped in the same way, by fewer of them, so that neighbouring groups are alike too.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

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


class Centres(NamedTuple):
    """C centres by term, and the region of each: alike centres share one."""

    starts: npt.NDArray[np.int64]
    """int64 [V + 1]."""
    numbers: npt.NDArray[np.int32]
    """int32 [nnz]; which centres have the term."""
    values: npt.NDArray[np.int32]
    """int32 [nnz]; their weights, each centre of one length."""
    regions: npt.NDArray[np.int32]
    """int32 [C]."""


def alike_order(
    rows: Impacts, n_terms: int, *, seed: int = 0, max_centres: int | None = None
) -> npt.NDArray[np.int64]:
    """The order, as row numbers `[N]`; a pure function of the rows, the seed and the number of centres.

    Args:
        rows: N rows of uint8 impacts.
        n_terms: number of columns.
        seed: of the draw of centres and sample.
        max_centres: the largest number of centres, `MAX_CENTRES` unless given.
    """
    n_rows = len(rows.indptr) - 1
    centres = centres_of(rows, n_terms, seed=seed, max_centres=max_centres)
    return np.arange(n_rows) if centres is None else order_of(nearest_of(rows, 0, n_rows, centres), centres)


def centres_of(
    rows: Impacts, n_terms: int, *, seed: int = 0, max_centres: int | None = None, n_threads: int = 1
) -> Centres | None:
    """The centres of rows, from a sample; None where there are too few rows for any.

    Args:
        rows: N rows of uint8 impacts.
        n_terms: number of columns.
        seed: of the draw of centres and sample.
        max_centres: the largest number of centres, `MAX_CENTRES` unless given.
        n_threads: threads that share the sample; nothing depends on how many.
    """
    n_rows = len(rows.indptr) - 1
    n_centres = min(n_rows // ROWS_A_CENTRE, MAX_CENTRES if max_centres is None else max_centres)
    if n_centres < 2:
        return None
    random = np.random.default_rng(seed)
    sample = np.sort(random.choice(n_rows, min(n_rows, _SAMPLE_A_CENTRE * n_centres), replace=False))
    means = _matrix(rows, np.sort(random.choice(sample, n_centres, replace=False)), n_terms)
    for _ in range(_ROUNDS):
        means = _means(rows, sample, _nearest(rows, sample, _by_term(means), n_threads), n_centres, n_terms)
    few = np.sort(random.choice(n_centres, int(np.sqrt(n_centres)), replace=False))
    regions = _nearest(_as_rows(means), np.arange(n_centres), _by_term(means[few]))
    return _by_term(means)._replace(regions=regions)


def nearest_of(rows: Impacts, first: int, last: int, centres: Centres) -> npt.NDArray[np.int32]:
    """The centre that each of rows `first` to `last` is most alike to, int32 `[last - first]`."""
    return _nearest(rows, np.arange(first, last), centres)


def order_of(nearest: npt.NDArray[np.int32], centres: Centres) -> npt.NDArray[np.int64]:
    """The order of rows whose nearest centres are known: by region, by centre, as they came."""
    return np.lexsort((nearest, centres.regions[nearest]))


def _by_term(means: Any) -> Centres:
    """Centres of a SciPy matrix; of no regions."""
    norms = np.sqrt(means.multiply(means).sum(axis=1))
    scaled = means.multiply((_LENGTH / np.maximum(norms, 1e-9))[:, None]).tocsc()
    arrays = scaled.indptr.astype(np.int64), scaled.indices.astype(np.int32), scaled.data.astype(np.int32)
    return Centres(*arrays, np.zeros(means.shape[0], np.int32))


def _nearest(
    rows: Impacts, chosen: npt.NDArray[np.int64], centres: Centres, n_threads: int = 1
) -> npt.NDArray[np.int32]:
    """The number of the centre that each chosen row is most alike to, by the largest entries of the row."""

    def of_some(some: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
        sums = np.zeros(-(-len(centres.regions) // BLOCK) * BLOCK, np.int32)
        nearest = np.empty(len(some), np.int32)
        _assign(tuple(rows), some, tuple(centres[:3]), sums, nearest)
        return nearest

    with ThreadPoolExecutor(n_threads) as pool:
        return np.concatenate(list(pool.map(of_some, np.array_split(chosen, n_threads))))


def _matrix(rows: Impacts, chosen: npt.NDArray[np.int64], n_terms: int) -> Any:
    """Some rows as a SciPy matrix of float32."""
    from scipy import sparse

    lengths = rows.indptr[chosen + 1] - rows.indptr[chosen]
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    entries = np.repeat(rows.indptr[chosen] - indptr[:-1], lengths) + np.arange(indptr[-1])
    arrays = rows.impacts[entries].astype(np.float32), rows.terms[entries].astype(np.int32), indptr
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

    members = sample[np.argsort(group, kind="stable")]
    ends = np.cumsum(np.bincount(group, minlength=n_centres))
    sums, touched = np.zeros(n_terms, np.int64), np.empty(n_terms, np.int32)
    terms, values = [], []
    for first, last in zip([0, *ends[:-1]], ends, strict=True):
        of_group = np.sort(touched[: _sum(tuple(rows), members[first:last], sums, touched)])
        largest = np.argsort(-sums[of_group], kind="stable")[:_TERMS_A_CENTRE]
        terms.append(of_group[np.sort(largest)])
        values.append(sums[terms[-1]].astype(np.float32))
        sums[of_group] = 0
    indptr = np.cumsum([0, *map(len, terms)])
    return sparse.csr_array(
        (np.concatenate(values), np.concatenate(terms), indptr), shape=(n_centres, n_terms)
    )


def _as_rows(centres: Any) -> Impacts:
    """Centres as rows that can be assigned, each with its largest entry as 255."""
    largest = np.maximum(centres.max(axis=1).toarray().ravel(), 1e-9)
    scaled = np.ceil(centres.data * np.repeat(255 / largest, np.diff(centres.indptr)))
    return Impacts(centres.indptr.astype(np.int64), centres.indices.astype(np.int32), scaled.astype(np.uint8))


@njit(nogil=True, cache=True)
def _sum(rows, members, sums, touched):  # type: ignore[no-untyped-def]
    """Add up some rows, and write which terms they have; returns how many."""
    indptr, terms, impacts = rows
    size = 0
    for row in members:
        for entry in range(indptr[row], indptr[row + 1]):
            term, impact = terms[entry], np.int64(impacts[entry])
            if impact > 0 and sums[term] == 0:
                touched[size] = term
                size += 1
            sums[term] += impact
    return size


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
