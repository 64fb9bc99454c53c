"""From rows of impacts to a segment on the disk, one window of documents at a time, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gossamer.index.arrays import ArrayWriter, map_array, map_vector, new_array
from gossamer.index.disk import disk
from gossamer.index.format import PostingsRecord
from gossamer.index.impacts import ImpactScale, Kind
from gossamer.index.vectors import SparseVectors
from gossamer.kernels.errors import FormatError, VectorError
from gossamer.kernels.inversion import Impacts, count_window, dense_terms_of, fill_dense, fill_window, rows_of
from gossamer.kernels.lanes import BLOCK
from gossamer.kernels.sparse_dot import MAX_WINDOW, Bounds, Postings

DENSE_SHARE = 0.6  # bytes a posting that the rows of dense terms may take
_OFFSET_BYTES = 0.2  # bytes a posting that offsets may take, as far as the window's size can see to it
_SMALLEST_WINDOW = 4_096


@dataclass(frozen=True)
class Survey:
    """What the first pass over the vectors finds out.

    Attributes:
        n_rows, n_cols, nnz: size of the whole.
        largest: largest magnitude of a weight, 0 if there are none.
        negative: whether any weight is below 0.
        halves: whether float16 holds every weight as it is.
        ids: the ids of all rows, or None.
    """

    n_rows: int
    n_cols: int
    nnz: int
    largest: float
    negative: bool
    halves: bool
    ids: pa.StringArray | None

    @classmethod
    def of(cls, parts: Iterable[SparseVectors]) -> Survey:
        """Look at every part; only the ids are kept.

        Raises:
            VectorError: parts differ in vocabulary, or some have ids and some not.
        """
        n_rows, nnz, n_cols, largest, smallest, halves = 0, 0, 0, 0.0, 0.0, True
        ids: list[Any] = []
        for part in parts:
            if n_cols not in (0, part.n_cols):
                raise VectorError(
                    f"from row {n_rows} on there are {part.n_cols} terms, and {n_cols} before; use one vocabulary."
                )
            if part.n_rows and n_rows and (part.ids is None) == bool(ids):
                raise VectorError(f"some rows before and after row {n_rows} have ids and some have none.")
            if part.n_rows and part.ids is not None:
                ids.append(part.ids)
            n_cols, n_rows, nnz = part.n_cols, n_rows + part.n_rows, nnz + part.nnz
            largest = max(largest, float(np.abs(part.values).max(initial=0)))
            smallest = min(smallest, float(part.values.min(initial=0)))
            halves = halves and fit_halves(part.values)
        return cls(n_rows, n_cols, nnz, largest, smallest < 0, halves, pa.concat_arrays(ids) if ids else None)

    @classmethod
    def joined(cls, surveys: Sequence[Survey], names: Sequence[str]) -> Survey:
        """Of the whole from its parts; an id that repeats is found later, by `write_documents`.

        Raises:
            VectorError: parts differ in vocabulary, or some have ids and some not; the message has their names.
        """
        first, first_name = surveys[0], names[0]
        for survey, name in zip(surveys, names, strict=True):
            if survey.n_cols != first.n_cols:
                raise VectorError(
                    f"{name} has {survey.n_cols} terms, and {first_name} {first.n_cols}; use one vocabulary."
                )
        filled = [(survey, name) for survey, name in zip(surveys, names, strict=True) if survey.n_rows]
        for survey, name in filled:
            if (survey.ids is None) != (filled[0][0].ids is None):
                raise VectorError(
                    f"of {name} and {filled[0][1]} one has ids and one has none; give ids to all or to none."
                )
        ids = [survey.ids for survey, _ in filled if survey.ids is not None]
        return cls(
            sum(survey.n_rows for survey in surveys),
            first.n_cols,
            sum(survey.nnz for survey in surveys),
            max(survey.largest for survey in surveys),
            any(survey.negative for survey in surveys),
            all(survey.halves for survey in surveys),
            pa.concat_arrays(ids) if ids else None,
        )


def fit_halves(values: NDArray[np.float32]) -> bool:
    """Whether float16 holds every number as it is. Looks at a few first, as nearly all inputs are told by these."""
    with np.errstate(over="ignore"):
        return all(
            np.array_equal(some.astype(np.float16).astype(np.float32), some)
            for some in (values[:256], values)
        )


def window_for(n_terms: int, n_rows: int, nnz: int) -> int:
    """A power of two: the smallest whose offsets take at most 0.2 bytes a posting, between 4,096 and 65,536.

    Smaller windows have tighter bounds, and sums that the first-level cache holds. But none is larger than it takes to
    hold all rows, as a window costs room and time in its whole length.
    """
    wanted = max(4 * n_terms * n_rows / (_OFFSET_BYTES * max(nnz, 1)), _SMALLEST_WINDOW)
    window = BLOCK
    while window < min(wanted, n_rows, MAX_WINDOW):
        window *= 2
    return window


class Written(NamedTuple):
    """What `write_postings` found out on its way."""

    nnz: int
    n_dense: int


def write_postings(
    folder: Path,
    rows: Impacts,
    kind: Kind,
    *,
    n_terms: int,
    window: int,
    order: NDArray[np.int64] | None,
    n_threads: int = 1,
    on_rows: Callable[[int], None],
) -> Written:
    """Write the arrays of a segment, mapped while they are written; memory holds the offsets.

    Args:
        folder: where the arrays go, a file for each of `Postings` and `Bounds`.
        rows: the documents in the order of their rows.
        kind: type of an impact; uint8 gets bounds.
        n_terms: size of the vocabulary.
        window: documents in a window.
        order: int64 `[n_rows]`, which row stands at each position; None leaves them as they came.
        n_threads: threads that share the windows; nothing depends on how many.
        on_rows: called with the number of rows done so far.
    """
    disk().mkdir(folder, parents=True)
    n_rows = len(rows.indptr) - 1
    order = np.arange(n_rows) if order is None else order
    counted = new_array(folder / "counted.npy", np.uint32, (n_terms, -(-n_rows // window) + 1))
    windows = range(counted.shape[1] - 1)
    with ThreadPoolExecutor(n_threads) as pool:
        list(pool.map(partial(count_window, rows, order, window, counted), windows))
    np.cumsum(counted, axis=1, dtype=np.uint32, out=counted)
    terms = np.flatnonzero(counted[:, -1]).astype(np.int32)
    has_all = 2 * len(terms) > n_terms  # or nearly: the terms that have lists would be written for little
    if not has_all:
        with ArrayWriter(folder / "terms.npy", np.int32) as array:  # which makes a file even of no terms
            array.append(terms)
    n_lists = n_terms if has_all else len(terms)
    offsets = new_array(folder / "offsets.npy", np.uint32, (n_lists, counted.shape[1]))
    offsets[:] = counted if has_all else counted[terms]
    del counted
    disk().remove(folder / "counted.npy")
    lengths = offsets[:, -1].astype(np.int64)
    bases = new_array(folder / "bases.npy", np.int64, (len(lengths) + 1,))
    np.cumsum(lengths, out=bases[1:])
    nnz = int(bases[-1])
    postings = Postings(
        n_rows,
        n_terms,
        window,
        bases,
        offsets,
        new_array(folder / "local.npy", np.uint16, (nnz,)),
        new_array(folder / "impacts.npy", kind, (nnz,)),
        new_array(folder / "rows.npy", np.uint32, (n_rows,)),
        terms=None if has_all else terms,
    )
    postings.rows[:] = order
    if kind == "uint8":
        dense = dense_terms_of(lengths, n_rows, BLOCK * _n_blocks(postings), DENSE_SHARE)
        bounds = Bounds(
            *(new_array(folder / f"{name}.npy", *of) for name, of in _bounds(postings, len(dense)))
        )
        bounds.dense_terms[:] = dense
        postings = postings._replace(bounds=bounds)
    with ThreadPoolExecutor(n_threads) as pool:
        for number, _ in enumerate(pool.map(partial(fill_window, rows, postings), windows)):
            on_rows(min((number + 1) * window, n_rows))
        if postings.bounds is None:
            return Written(nnz, 0)
        n_dense = len(postings.bounds.dense_terms)
        list(pool.map(partial(fill_dense, postings, postings.bounds), range(n_dense)))
    return Written(nnz, n_dense)


def _bounds(postings: Postings, n_dense: int) -> list[tuple[str, tuple[Any, tuple[int, ...]]]]:
    """Name, type and shape of each array of `Bounds`."""
    blocks = _n_blocks(postings)
    return [
        ("window_max", (np.uint8, (postings.n_lists, postings.n_windows))),
        ("dense_terms", (np.int32, (n_dense,))),
        ("dense", (np.uint8, (n_dense, blocks * BLOCK))),
        ("block_max", (np.uint8, (n_dense, blocks))),
    ]


def _n_blocks(postings: Postings) -> int:
    return postings.n_windows * -(-postings.window // BLOCK)


def map_postings(folder: Path, record: PostingsRecord, n_rows: int, n_terms: int, kind: Kind) -> Postings:
    """Map the arrays of a segment of `n_rows` documents.

    Raises:
        FormatError: an array is not what the manifest says, or the arrays do not fit together.
    """
    window, nnz = record.window, record.nnz
    terms = map_vector(folder / "terms.npy", np.int32) if (folder / "terms.npy").exists() else None
    n_lists = n_terms if terms is None else len(terms)
    postings = Postings(
        n_rows,
        n_terms,
        window,
        map_array(folder / "bases.npy", np.int64, (n_lists + 1,)),
        map_array(folder / "offsets.npy", np.uint32, (n_lists, -(-n_rows // window) + 1)),
        map_array(folder / "local.npy", np.uint16, (nnz,)),
        map_array(folder / "impacts.npy", kind, (nnz,)),
        map_array(folder / "rows.npy", np.uint32, (n_rows,)),
        terms=terms,
    )
    if postings.bases[0] != 0 or postings.bases[-1] != nnz:
        raise FormatError(f"{folder}: bases.npy does not fit the manifest; build the index anew.")
    if kind != "uint8":
        return postings
    arrays = (map_array(folder / f"{name}.npy", *of) for name, of in _bounds(postings, record.n_dense))
    return postings._replace(bounds=Bounds(*arrays))


def unpack(postings: Postings, scale: ImpactScale) -> SparseVectors:
    """The stored rows again, with the weights that their impacts stand for."""
    rows = rows_of(postings)
    weights = scale.restore(rows.impacts)
    return SparseVectors(rows.indptr, rows.terms, weights, postings.n_terms, signed=True)
