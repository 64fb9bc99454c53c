"""`sparse_dot_topk` for integer kinds on a GPU: windowed accumulation with integer atomics, in Triton.

A batch of queries is as large as lets its sums of one window stay in the GPU's second-level cache, where atomic adds
are fast. For each window one kernel adds every run of every query, and a second one turns the sums into keys and
clears them. A key holds the score in its upper half and the row, inverted, in its lower half, so that one `topk` over
plain integers obeys the tie rule. Integer sums do not depend on the order of the adds, so the answer is the CPU's.

With the environment variable `TRITON_INTERPRET=1`, set before Triton is imported, the same kernels run on the CPU.
"""

import weakref
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import triton
import triton.language as tl
from torch import Tensor

from gossamer.kernels.errors import BackendError
from gossamer.kernels.sparse_dot import NO_KEY, Postings, Queries, TopK, read_keys

CACHE_BYTES = 24 * 2**20  # half the second-level cache of an H100, and less than that of an A100
BLOCK = 256
SPLITS = 8  # programs that share a run, so that a long one does not hold up the rest


def sparse_dot_topk_triton(
    queries: Queries, postings: Postings, k: int, allowed: npt.NDArray[np.bool_] | None
) -> TopK:
    """Answer queries that `sparse_dot_topk` has checked.

    Raises:
        BackendError: There is no GPU, and kernels are not interpreted.
    """
    device = _device()
    arrays = _uploaded(postings, device)
    allowed_D = (
        torch.ones(1, dtype=torch.bool, device=device) if allowed is None else _upload(allowed, device)
    )
    n_queries, bases = len(queries.indptr) - 1, postings.bases.tolist()
    batch = max(1, CACHE_BYTES // (5 * postings.window))
    found_QK = np.full((n_queries, k), NO_KEY, np.int64)
    for begin in range(0, n_queries, batch):
        chosen = queries._replace(indptr=queries.indptr[begin : begin + batch + 1])
        part = _Batch(chosen, postings.window, k, device)
        for window, base in enumerate(bases[:-1] if part.n_entries else []):
            part.add(arrays["offsets"][window], arrays["local"][base:], arrays["impacts"][base:])
            first_row = window * postings.window
            n_sums = min(postings.window, postings.n_documents - first_row)
            part.keep_best(n_sums, first_row, None if allowed is None else allowed_D)
        found_QK[begin : begin + batch] = part.best_QK.cpu().numpy()
    return read_keys(found_QK, k, postings.impacts)


class _Batch:
    """Queries that are answered together: their entries, the sums of one window, and the best keys so far."""

    def __init__(self, queries: Queries, window: int, k: int, device: torch.device) -> None:
        n_queries = len(queries.indptr) - 1
        entries = slice(queries.indptr[0], queries.indptr[-1])
        slots = np.repeat(np.arange(n_queries, dtype=np.int32), np.diff(queries.indptr))
        self.slots = _upload(slots, device)
        self.terms = _upload(queries.terms[entries], device)
        self.weights = _upload(queries.weights[entries], device)
        self.n_entries = len(self.terms)
        self.sums_QW = torch.zeros(n_queries, window, dtype=torch.int32, device=device)
        self.touched_QW = torch.zeros(n_queries, window, dtype=torch.uint8, device=device)
        self.keys_QW = torch.empty(n_queries, window, dtype=torch.int64, device=device)
        self.best_QK = torch.full((n_queries, k), NO_KEY, dtype=torch.int64, device=device)

    def add(self, offsets: Tensor, local: Tensor, impacts: Tensor) -> None:
        """Add the runs of one window, whose postings start where `local` and `impacts` do."""
        add_runs[(self.n_entries, 1 if _is_interpreted() else SPLITS)](
            self.sums_QW,
            self.touched_QW,
            self.slots,
            self.terms,
            self.weights,
            offsets,
            local,
            impacts,
            self.sums_QW.shape[1],
            BLOCK=BLOCK,
        )

    def keep_best(self, n_sums: int, first_row: int, allowed: Tensor | None) -> None:
        """Merge the window's hits into the best so far, and clear its sums."""
        n_queries, window = self.sums_QW.shape
        take_keys[(n_queries, triton.cdiv(n_sums, 4 * BLOCK))](
            self.sums_QW,
            self.touched_QW,
            self.touched_QW if allowed is None else allowed[first_row:],
            self.keys_QW,
            first_row,
            n_sums,
            window,
            MASKED=allowed is not None,
            BLOCK=4 * BLOCK,
        )
        candidates = torch.cat([self.best_QK, self.keys_QW[:, :n_sums]], dim=1)
        self.best_QK = candidates.topk(self.best_QK.shape[1], dim=1).values


@triton.jit
def add_runs(sums, touched, slots, terms, weights, offsets, local, impacts, window, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: PLR0917
    """Program (e, s) adds every s-th block of the run of entry e."""
    entry = tl.program_id(0)
    row = tl.load(slots + entry).to(tl.int64) * window
    term = tl.load(terms + entry)
    weight = tl.load(weights + entry).to(tl.int32)
    start = tl.load(offsets + term).to(tl.int64)
    stop = tl.load(offsets + term + 1).to(tl.int64)
    for first in range(start + tl.program_id(1) * BLOCK, stop, BLOCK * tl.num_programs(1)):
        at = first + tl.arange(0, BLOCK)
        inside = at < stop
        document = row + tl.load(local + at, mask=inside, other=0).to(tl.int64)
        impact = tl.load(impacts + at, mask=inside, other=0).to(tl.int32)
        tl.atomic_add(sums + document, weight * impact, mask=inside, sem="relaxed")
        tl.store(touched + document, 1, mask=inside)  # a sum may be zero


@triton.jit
def take_keys(  # type: ignore[no-untyped-def]  # noqa: PLR0917
    sums, touched, allowed, keys, first_row, n_sums, window, MASKED: tl.constexpr, BLOCK: tl.constexpr
):
    """Program (q, b) writes the keys of the b-th block of query q, and clears what it has read."""
    local = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = local < n_sums
    at = tl.program_id(0).to(tl.int64) * window + local
    score = tl.load(sums + at, mask=inside, other=0).to(tl.int64)
    hit = tl.load(touched + at, mask=inside, other=0) != 0
    if MASKED:
        hit = hit & (tl.load(allowed + local, mask=inside, other=0) != 0)
    key = (score << 32) | (4294967295 - (first_row + local.to(tl.int64)))
    tl.store(keys + at, tl.where(hit, key, -9223372036854775808), mask=inside)
    tl.store(sums + at, 0, mask=inside)
    tl.store(touched + at, 0, mask=inside)


def _is_interpreted() -> bool:
    return not isinstance(add_runs, triton.runtime.JITFunction)


def _device() -> torch.device:
    if _is_interpreted():
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda")
    raise BackendError(
        "backend 'triton' needs a CUDA GPU, and PyTorch sees none; choose backend 'numba', or set TRITON_INTERPRET=1 "
        "before Python starts to run the kernels, slowly, on the CPU"
    )


_UPLOADS: dict[tuple[int, torch.device], dict[str, Tensor]] = {}


def _uploaded(postings: Postings, device: torch.device) -> dict[str, Tensor]:
    """The postings on the device: copied at their first use, and kept there for as long as their impacts live."""
    key = (id(postings.impacts), device)
    if key not in _UPLOADS:
        names = ("offsets", "local", "impacts")
        _UPLOADS[key] = {name: _upload(getattr(postings, name), device) for name in names}
        weakref.finalize(postings.impacts, _UPLOADS.pop, key, None)
    return _UPLOADS[key]


def _upload(array: npt.NDArray[Any], device: torch.device) -> Tensor:
    """Copy an array, which may be a read-only map of a file, to the device."""
    tensor = torch.empty(array.shape, dtype=getattr(torch, array.dtype.name))
    tensor.numpy()[...] = array
    return tensor.to(device)
