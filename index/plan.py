"""What a build will take, before it starts: bytes on the disk by part, memory at its peak, and time.

Sizes follow from the footers of the files (rows, weights) and from a sample of rows (which terms are dense, what rounds
to zero, how long ids are); the time from what each part took on one core of 2.0 to 3.5 GHz, as the constants here say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gossamer.index.budget import Budget, InputSize
from gossamer.index.calibration import WORTH_CALIBRATING
from gossamer.index.forward import wide_for
from gossamer.index.impacts import ImpactScale
from gossamer.index.input_shards import InputShard, find_shards
from gossamer.index.inverted import BuildConfig
from gossamer.index.postings import DENSE_SHARE, Survey, window_for
from gossamer.index.vectors import SparseVectors
from gossamer.kernels.clustering import ROWS_A_CENTRE
from gossamer.kernels.inversion import dense_terms_of
from gossamer.kernels.lanes import BLOCK

READ_NS = 20  # a weight: decoded, checked, surveyed, and written as it is
ROUND_NS = 5  # a weight
MEANS_NS = 12  # a weight: what a sample of an eighth of the rows sums up to, twice
NEAREST_NS = (
    2_400,
    0.35,
)  # a row, and a row and centre: each row looks for its centre, and those of the sample twice
FILL_NS = 19  # a posting: counted, and put into its place
BYTE_NS = 1.3  # a byte: checksums, and flushing to the disk
CALIBRATE_S = 3.0, 100e-9  # a curve, and a weight of its segment
_SAMPLED_SHARDS, _SAMPLED_ROWS = 8, 1_024


@dataclass(frozen=True)
class BuildPlan:
    """What a build will take.

    Attributes:
        n_documents: number of documents.
        n_terms: size of the vocabulary.
        nnz: number of weights.
        input_bytes: terms, weights and ids, uncompressed.
        bytes: on the disk, by the parts of `IndexInfo.bytes`.
        work_bytes: beside them while a build over shards runs.
        peak_bytes: the most that a process allocates.
        seconds: on one core for each worker.
    """

    n_documents: int
    n_terms: int
    nnz: int
    input_bytes: int
    bytes: dict[str, int]
    work_bytes: int
    peak_bytes: int
    seconds: float


def plan_build(
    source: str | Path,
    *,
    filesystem: Any = None,
    config: BuildConfig | None = None,
    documents_bytes: int = 0,
    budget_bytes: int | None = None,
    n_workers: int = 1,
) -> BuildPlan:
    """Predict a build; reads footers, and at most 8,192 rows.

    Args:
        source: Parquet file or folder, as `build_spread` takes it.
        filesystem: where it is, as `build_spread` takes it.
        config: how the weights will be stored.
        documents_bytes: titles, texts and metadata, uncompressed.
        budget_bytes: memory that a process may use.
        n_workers: how many share the work.

    Raises:
        NotFoundError, FormatError, VectorError: files cannot be read; the message names the file.
        ConfigError: the budget does not hold what must be in memory, or the impacts cannot store these weights.
    """
    config = config or BuildConfig()
    shards = find_shards(source, filesystem)
    size = InputSize.of_shards(shards)
    budget = Budget.of(budget_bytes, size)
    sample = _sample(shards)
    sizes = _sizes(size, sample, config)
    sizes["documents"] = documents_bytes
    is_read = 8 * size.n_rows + size.nnz * (wide_for(size.n_terms)().itemsize + 4) + sizes["ids"]
    return BuildPlan(
        n_documents=size.n_rows,
        n_terms=size.n_terms,
        nnz=size.nnz,
        input_bytes=size.bytes,
        bytes=sizes,
        work_bytes=is_read + 4 * size.nnz,
        peak_bytes=budget.peak_bytes(size),
        seconds=_seconds(size, sum(sizes.values()), config, budget, n_workers=n_workers),
    )


def _sample(shards: Sequence[InputShard]) -> SparseVectors:
    """The first rows of some shards, far from one another."""
    chosen = np.unique(np.linspace(0, len(shards) - 1, _SAMPLED_SHARDS).astype(int))
    return SparseVectors.concat([next(shards[number].stream(_SAMPLED_ROWS)) for number in chosen])


def _sizes(size: InputSize, sample: SparseVectors, config: BuildConfig) -> dict[str, int]:
    n_rows, n_terms, survey = size.n_rows, size.n_terms, Survey.of([sample])
    scale = ImpactScale.choose(config.impacts, largest=survey.largest, negative=survey.negative)
    rounded, _ = scale.quantise(sample.values)
    nnz = int(size.nnz * np.count_nonzero(rounded) / max(len(rounded), 1))
    window = config.window or window_for(n_terms, n_rows, size.nnz)
    n_windows = -(-n_rows // window)
    frequencies = np.bincount(sample.indices[rounded != 0], minlength=n_terms)
    n_lists = _n_lists(frequencies, n_terms)
    bounds = forward = 0
    if scale.kind == "uint8":
        blocks = n_windows * -(-window // BLOCK)
        row_bytes = blocks * BLOCK * sample.n_rows // max(n_rows, 1)
        n_dense = len(dense_terms_of(frequencies, sample.n_rows, row_bytes, DENSE_SHARE))
        bounds = n_lists * n_windows + n_dense * (4 + blocks * (BLOCK + 1))
    if config.forward and scale.kind != "float32":
        forward = 8 * n_rows + size.nnz * (wide_for(n_terms)().itemsize + (2 if survey.halves else 4))
    ids = sample.ids
    id_length = len(str(n_rows)) if ids is None else ids.nbytes / max(len(ids), 1) - 4
    return {
        "postings": nnz * (2 + np.dtype(scale.kind).itemsize),
        "offsets": (4 * (n_windows + 1) + 8) * n_lists
        + (4 * n_lists if n_lists < n_terms else 0)
        + 4 * n_rows,
        "bounds": bounds,
        "forward": forward,
        "ids": int(n_rows * (id_length + 12)),
        "documents": 0,
    }


def _n_lists(frequencies: NDArray[np.int64], n_terms: int) -> int:
    """Terms that occur anywhere, by how many occur once and twice in a sample (Chao, 1984); all if that is most."""
    once, twice = ((frequencies == count).sum() for count in (1, 2))
    n_lists = int((frequencies > 0).sum() + once * (once - 1) // (2 * (twice + 1)))
    return n_terms if 2 * n_lists > n_terms else n_lists


def _seconds(size: InputSize, n_bytes: int, config: BuildConfig, budget: Budget, *, n_workers: int) -> float:
    shared: float = size.nnz * (READ_NS + ROUND_NS + FILL_NS)
    alone: float = n_bytes * BYTE_NS
    if config.reorder:
        centres = min(size.n_rows // ROWS_A_CENTRE, budget.max_centres)
        shared += 1.25 * size.n_rows * (NEAREST_NS[0] + NEAREST_NS[1] * centres)
        alone += size.nnz * MEANS_NS
    if config.calibrate and size.n_rows >= WORTH_CALIBRATING:
        alone += 1e9 * (CALIBRATE_S[0] + CALIBRATE_S[1] * size.nnz)
    return (shared / n_workers + alone) / 1e9
