"""An inverted index on a GPU: copied there once, as it lies on the disk, and kept for as long as it lives.

A vectorised load wants an address that is a multiple of 16 bytes, and a run of postings may start anywhere. Runs are
not padded for that, which would cost some 7 postings a run: instead a program starts reading at the multiple of 16
postings at or below the start of its run and ignores what is not its own. That is at most a sector of 32 bytes more to
read, and nothing more to store.
"""

import weakref
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gossamer.kernels.sparse_dot import Postings

CACHE_BYTES = 24 * 2**20  # for sums: half the second-level cache of an H100, and less than that of an A100
GROWTH = 4  # the k best are cut from the candidates after 1, 4, 16, … windows
ALIGNMENT = 16  # postings: 32 bytes of `local`, a sector, and 16 bytes of `impacts`


class OnDevice(NamedTuple):
    """The arrays of `Postings` and its bounds on a device, and what the host has to know of them."""

    bases: Tensor
    offsets: Tensor
    local: Tensor
    """uint16 [nnz, rounded up to a multiple of 16]."""
    impacts: Tensor
    """uint8 or int8, as many."""
    rows: Tensor
    window_max: Tensor | None
    dense: Tensor | None
    block_max: Tensor | None
    dense_rows: npt.NDArray[np.int32]
    """int32 [V] on the host: the number of a dense term's row of bytes, -1 for the others."""
    longest: npt.NDArray[np.int64]
    """int64 [V] on the host: postings in the longest run of a term."""
    above_zero: bool
    """Whether every impact is above zero, so that with weights above zero a sum of zero means: no posting."""

    @property
    def n_bytes(self) -> int:
        """Bytes on the device."""
        return sum(x.numel() * x.element_size() for x in self if isinstance(x, Tensor))


def bytes_a_posting(postings: Postings) -> float:
    """What a posting takes on the GPU, all told: `3 + (12 V + 4 V W + 4 D + bounds) / nnz`, for W windows.

    The 3 are `local` and `impacts`; `bases` take 8 V, `offsets` 4 V (W + 1), `rows` 4 D, and of the bounds `window_max`
    V W, the dense rows a byte a document and their `block_max` a 32nd of that.
    """
    arrays = (postings.bases, postings.offsets, postings.rows, postings.local, postings.impacts)
    bounds = postings.bounds
    more = () if bounds is None else (bounds.window_max, bounds.dense, bounds.block_max)
    n_bytes: int = sum(array.nbytes for array in (*arrays, *more))
    return n_bytes / max(1, len(postings.local))


_UPLOADS: dict[tuple[object, ...], OnDevice] = {}


def uploaded(postings: Postings, device: torch.device) -> OnDevice:
    """The postings on the device: copied at their first use, and kept there for as long as their arrays live."""
    told_by = [postings.offsets, postings.impacts, postings.rows]  # with bounds and without are two copies
    if postings.bounds is not None:
        told_by += [postings.bounds.window_max, postings.bounds.dense]
    key = (device, *(id(array) for array in told_by))
    if key not in _UPLOADS:
        _UPLOADS[key] = _upload_all(postings, device)
        for array in told_by:  # another one could be given the number of one that is gone
            weakref.finalize(array, _UPLOADS.pop, key, None)
    return _UPLOADS[key]


def _upload_all(postings: Postings, device: torch.device) -> OnDevice:
    size = -(-len(postings.local) // ALIGNMENT) * ALIGNMENT
    bounds = postings.bounds
    dense_rows = np.full(postings.n_terms, -1, np.int32)
    if bounds is not None:
        dense_rows[bounds.dense_terms] = np.arange(len(bounds.dense_terms))
    longest = np.zeros(postings.n_terms, np.int64)
    for window in range(postings.n_windows):  # one at a time, so that no second copy of the offsets is made
        lengths = postings.offsets[:, window + 1] - postings.offsets[:, window]
        np.maximum(longest, lengths, out=longest)
    return OnDevice(
        upload(postings.bases, device),
        upload(postings.offsets, device),
        upload(postings.local, device, size),
        upload(postings.impacts, device, size),
        upload(postings.rows, device),
        None if bounds is None else upload(bounds.window_max, device),
        None if bounds is None else upload(bounds.dense, device),
        None if bounds is None else upload(bounds.block_max, device),
        dense_rows,
        longest,
        bool(postings.impacts.min(initial=1) > 0),
    )


def upload(array: npt.NDArray[Any], device: torch.device, size: int | None = None) -> Tensor:
    """Copy an array, which may be a read-only map of a file, to the device; a flat one may be filled up with zeros."""
    shape = array.shape if size is None else (size,)
    tensor = torch.empty(shape, dtype=getattr(torch, array.dtype.name))
    host = tensor.numpy()
    if size is None:
        host[...] = array
    else:
        host[: len(array)] = array
        host[len(array) :] = 0
    return tensor.to(device)
