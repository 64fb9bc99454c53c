"""From rows of weights to postings on the disk, one window of documents at a time, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gossamer.index.arrays import ArrayWriter, map_array
from gossamer.index.format import Manifest, SegmentRecord
from gossamer.index.impacts import ImpactScale
from gossamer.index.vectors import SparseVectors
from gossamer.kernels.errors import FormatError, InputError, VectorError
from gossamer.kernels.sparse_dot import Postings

_MAX_WINDOW_POSTINGS = 2**32 - 1  # offsets within a window are uint32


@dataclass(frozen=True)
class Survey:
    """What the first pass over the vectors finds out.

    Attributes:
        n_rows, n_cols, nnz: size of the whole.
        largest: largest magnitude of a weight, 0 if there are none.
        negative: whether any weight is below 0.
        ids: the ids of all rows, or None.
    """

    n_rows: int
    n_cols: int
    nnz: int
    largest: float
    negative: bool
    ids: pa.StringArray | None

    @classmethod
    def of(cls, parts: Iterable[SparseVectors]) -> Survey:
        """Look at every part; only the ids are kept.

        Raises:
            VectorError: parts differ in vocabulary, or some have ids and some not.
        """
        n_rows, nnz, n_cols, largest, smallest = 0, 0, 0, 0.0, 0.0
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
        return cls(n_rows, n_cols, nnz, largest, smallest < 0, pa.concat_arrays(ids) if ids else None)


def windows_of(parts: Iterable[SparseVectors], window: int) -> Iterator[SparseVectors]:
    """Cut a stream of parts into windows of exactly `window` rows; the last may be shorter."""
    waiting: list[SparseVectors] = []
    n_waiting = 0
    for part in parts:
        start = 0
        while part.n_rows - start >= window - n_waiting:
            stop = start + window - n_waiting
            yield SparseVectors.concat([*waiting, part[start:stop]])
            waiting, n_waiting, start = [], 0, stop
        if start < part.n_rows:
            waiting.append(part[start:])
            n_waiting += part.n_rows - start
    if waiting:
        yield SparseVectors.concat(waiting)


class _Window(NamedTuple):
    offsets: NDArray[np.uint32]
    local: NDArray[np.uint16]
    impacts: NDArray[Any]
    error: float


def _invert(rows: SparseVectors, scale: ImpactScale) -> _Window:
    """The postings of one window, sorted by (term, document); impacts that round to zero are left out."""
    from scipy import sparse

    impacts, error = scale.quantise(rows.values)
    keep = impacts != 0
    indptr = np.concatenate([[0], np.cumsum(keep)])[rows.indptr]
    if indptr[-1] > _MAX_WINDOW_POSTINGS:
        raise InputError(
            f"a window of {rows.n_rows} documents has {indptr[-1]:,} postings; build with a smaller window."
        )
    terms = rows.indices[keep].astype(np.int64 if indptr[-1] > 2**31 - 1 else np.int32)
    csc = sparse.csr_array((impacts[keep], terms, indptr.astype(terms.dtype)), shape=rows.shape).tocsc()
    return _Window(csc.indptr.astype(np.uint32), csc.indices.astype(np.uint16), csc.data, error)


class Written(NamedTuple):
    """What `write_postings` found out on its way."""

    n_rows: int
    nnz: int
    largest_error: float


def write_postings(
    folder: Path,
    windows: Iterable[SparseVectors],
    scale: ImpactScale,
    n_terms: int,
    on_rows: Callable[[int], None] = lambda _: None,
) -> Written:
    """Write the arrays of a segment; holds one window at a time.

    Args:
        folder: where `bases.npy`, `offsets.npy`, `local.npy` and `impacts.npy` go.
        windows: rows, window by window.
        scale: how weights are stored.
        n_terms: size of the vocabulary.
        on_rows: called with the number of rows done so far.
    """
    folder.mkdir(parents=True)
    bases, n_rows, largest_error = [0], 0, 0.0
    with ExitStack() as stack:
        offsets = stack.enter_context(ArrayWriter(folder / "offsets.npy", np.uint32, (n_terms + 1,)))
        local = stack.enter_context(ArrayWriter(folder / "local.npy", np.uint16))
        impacts = stack.enter_context(ArrayWriter(folder / "impacts.npy", scale.kind))
        for rows in windows:
            window = _invert(rows, scale)
            offsets.append(window.offsets[None])
            local.append(window.local)
            impacts.append(window.impacts)
            bases.append(bases[-1] + window.local.size)
            n_rows += rows.n_rows
            largest_error = max(largest_error, window.error)
            on_rows(n_rows)
    with ArrayWriter(folder / "bases.npy", np.int64) as writer:
        writer.append(np.array(bases, dtype=np.int64))
    return Written(n_rows, bases[-1], largest_error)


def map_postings(folder: Path, segment: SegmentRecord, manifest: Manifest) -> Postings:
    """Map the arrays of a segment.

    Raises:
        FormatError: an array is not what the manifest says, or the arrays do not fit together.
    """
    n_windows = -(-segment.n_documents // manifest.window)
    postings = Postings(
        segment.n_documents,
        manifest.n_terms,
        manifest.window,
        map_array(folder / "bases.npy", np.int64, (n_windows + 1,)),
        map_array(folder / "offsets.npy", np.uint32, (n_windows, manifest.n_terms + 1)),
        map_array(folder / "local.npy", np.uint16, (segment.nnz,)),
        map_array(folder / "impacts.npy", manifest.impacts, (segment.nnz,)),
    )
    lengths = np.diff(postings.bases)
    fits = postings.bases[0] == 0 and postings.bases[-1] == segment.nnz
    if not fits or np.any(lengths != postings.offsets[:, -1]) or np.any(postings.offsets[:, 0] != 0):
        raise FormatError(f"{folder}: bases.npy and offsets.npy do not fit together; build the index anew.")
    return postings


def unpack(postings: Postings, scale: ImpactScale) -> SparseVectors:
    """The stored rows again, with the weights that their impacts stand for."""
    from scipy import sparse

    parts = []
    for number, base in enumerate(postings.bases[:-1]):
        stop = postings.bases[number + 1]
        n_rows = min(postings.window, postings.n_documents - number * postings.window)
        wide = np.int64 if stop - base > 2**31 - 1 else np.int32
        weights = scale.restore(postings.impacts[base:stop])
        places = postings.local[base:stop].astype(wide), postings.offsets[number].astype(wide)
        csr = sparse.csc_array((weights, *places), shape=(n_rows, postings.n_terms)).tocsr()
        parts.append(SparseVectors(csr.indptr, csr.indices, csr.data, postings.n_terms, signed=True))
    return SparseVectors.concat(parts) if parts else SparseVectors.from_dicts([], postings.n_terms)
