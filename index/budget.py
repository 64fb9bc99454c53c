"""How much memory a build may use, and what it does at once so that it keeps to that.

Counted is what a process allocates beyond what it has when its modules are loaded and its kernels compiled; pages of
mapped files, which the system takes back when it needs them, are not. Some of it cannot be chosen: the ids, which are
sorted to find repeats, and the order of the rows. The rest is chosen by the budget: rows that are read at once, and
the centres that alike rows are found by.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from gossamer.index.exchange.files import VectorFile, read_vectors
from gossamer.index.input_shards import InputShard, find_shards
from gossamer.index.vectors import SparseVectors
from gossamer.kernels.clustering import MAX_CENTRES, ROWS_A_CENTRE
from gossamer.kernels.errors import ConfigError

ROWS_AT_ONCE = 8_192  # more are slower to read: their arrays leave the cache
BASE_BYTES = 4_000_000
READER_BYTES = 12_000_000  # pages of files
THREAD_BYTES = 16_000_000  # of each thread that decodes them: what its allocators keep
BYTES_A_WEIGHT = 160  # of rows being read, checked and rounded; three quarters are what allocators keep
BYTES_A_ROW = 36  # the order of ids; or the nearest centre, its region, and the order of both
BYTES_A_TERM = 40  # where its next posting goes, and what centres sum up to
BYTES_A_CENTRE = 96 * 48  # its terms and weights, by row and by term
_COLUMNS = 3  # of a file, each decoded by one thread
_PARTS_A_RETURN = 8
_FEWEST_ROWS = 16
_FEWEST_CENTRES = 64


@dataclass(frozen=True)
class InputSize:
    """What is known of vectors before they are read.

    Attributes:
        n_rows: rows.
        nnz: weights; of a file, by its footer, in which a row without any counts for one.
        longest: weights a row, in the part of the input where rows have most of them.
        n_terms: size of the vocabulary.
        id_bytes: of all ids; 0 if there are none.
    """

    n_rows: int
    nnz: int
    longest: float
    n_terms: int
    id_bytes: int

    @property
    def bytes(self) -> int:
        """Of terms (int32), weights (float32) and ids, uncompressed."""
        return 8 * self.nnz + self.id_bytes

    @classmethod
    def of(cls, vectors: SparseVectors | VectorFile | str | Path) -> InputSize:
        """Of vectors in memory, or of Parquet files, whose footers are read.

        Raises:
            ConfigError: they are files of another format, which do not say how large they are.
            NotFoundError, FormatError: as `find_shards`.
        """
        if not isinstance(vectors, SparseVectors):
            file = vectors if isinstance(vectors, VectorFile) else read_vectors(vectors)
            if file.format != "parquet":
                raise ConfigError(
                    f"{file.path} is {file.format}, and a budget wants Parquet, whose footers say how large it is; "
                    "convert it with `gossamer vectors convert`, or leave budget_bytes out."
                )
            return cls.of_shards(find_shards(file.path))
        ids = vectors.ids
        return cls(
            vectors.n_rows,
            vectors.nnz,
            vectors.nnz / max(vectors.n_rows, 1),
            vectors.n_cols,
            0 if ids is None else int(ids.nbytes),
        )

    @classmethod
    def of_shards(cls, shards: Sequence[InputShard]) -> InputSize:
        """Of shards, as their footers say."""
        return cls(
            sum(shard.n_rows for shard in shards),
            sum(shard.nnz for shard in shards),
            max(shard.longest for shard in shards),
            max(shard.n_cols or 1 for shard in shards),
            sum(shard.id_bytes for shard in shards),
        )


@dataclass(frozen=True)
class Budget:
    """What a build does at once.

    Attributes:
        rows_at_once: rows that are read together.
        max_centres: centres that alike rows are found by, at most.
        is_limited: whether there is a budget at all.
    """

    rows_at_once: int = ROWS_AT_ONCE
    max_centres: int = MAX_CENTRES
    is_limited: bool = False

    @classmethod
    def of(cls, budget_bytes: int | None, size: InputSize) -> Budget:
        """Divide a budget, or None for no limit.

        Raises:
            ConfigError: it does not hold what must be in memory; the message says how much that is.
        """
        if budget_bytes is None:
            return cls()
        least = cls.least_bytes(size)
        if budget_bytes < least:
            raise ConfigError(
                f"budget_bytes is {budget_bytes:,}, and {size.n_rows:,} rows of "
                f"{size.nnz / max(size.n_rows, 1):.0f} weights over {size.n_terms:,} terms need {least:,}: ids and the "
                "order of rows are held in memory. Give that, or build several indexes."
            )
        return cls(
            rows_at_once=min(ROWS_AT_ONCE, int((budget_bytes - _reading(size)) / _a_row(size))),
            max_centres=min(MAX_CENTRES, (budget_bytes - _ordering(size)) // BYTES_A_CENTRE),
            is_limited=True,
        )

    @staticmethod
    def least_bytes(size: InputSize) -> int:
        """The smallest budget that a build of this input can keep to."""
        return max(
            _reading(size) + int(_FEWEST_ROWS * _a_row(size)),
            _ordering(size) + _FEWEST_CENTRES * BYTES_A_CENTRE,
        )

    def passing(self, parts: Iterable[SparseVectors]) -> Iterator[SparseVectors]:
        """Parts that are read one after another; where there is a budget, what was freed is given back meanwhile.

        Ids that are kept lie between what is freed, so allocators would keep all of it.
        """
        for number, part in enumerate(parts):
            yield part
            if self.is_limited and number % _PARTS_A_RETURN == 0:
                del part
                return_unused()

    def peak_bytes(self, size: InputSize) -> int:
        """The most that a build is expected to allocate."""
        rows = min(self.rows_at_once, size.n_rows)
        centres = min(self.max_centres, size.n_rows // ROWS_A_CENTRE)
        return max(
            _reading(size) + int(rows * _a_row(size)),
            _ordering(size) + centres * BYTES_A_CENTRE,
        )


def _a_row(size: InputSize) -> float:
    """What a row takes while it is read."""
    return BYTES_A_WEIGHT * max(size.longest, 1)


def _reading(size: InputSize) -> int:
    """What is held while rows are read, beside them."""
    n_threads: int = min(pa.cpu_count(), _COLUMNS)
    return READER_BYTES + n_threads * THREAD_BYTES + 2 * size.id_bytes


def _ordering(size: InputSize) -> int:
    """What is held while ids or rows are put in order, beside the centres."""
    return BASE_BYTES + 2 * size.id_bytes + size.n_rows * BYTES_A_ROW + size.n_terms * BYTES_A_TERM


def return_unused() -> None:
    """Let allocators give back what was freed; a step of a build would else start with the memory of the one before."""
    pa.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)
