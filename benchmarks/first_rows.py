"""The first documents of a collection, and folders for what is made of them."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cells import RESULTS
from collection import Collection, Csr

from gossamer.index.vectors import SparseVectors

DATA = RESULTS / "data"


@dataclass(frozen=True)
class FirstRows(Collection):
    """The first documents of a collection, as one."""

    count: int

    @classmethod
    def of(cls, whole: Collection, count: int) -> "FirstRows":
        """So many of a collection's documents."""
        return cls(whole.name, whole.folder, whole.data, count)

    @cached_property
    def _shards(self) -> list[Csr]:
        parts, left = [], self.count
        for indptr, indices, values in super()._shards:
            kept = indptr[: left + 1]
            parts.append((kept, indices[: kept[-1]], values[: kept[-1]]))
            left -= kept.size - 1
            if left == 0:
                break
        return parts


def first_vectors(found: Collection, n_documents: int) -> SparseVectors:
    """The vectors of the first documents, named by their rows."""
    rows = SparseVectors.concat(list(FirstRows.of(found, n_documents).shards()))
    return rows.with_ids([str(row) for row in range(rows.n_rows)])


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder that is gone afterwards, on the disk that keeps the results."""
    DATA.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=DATA) as name:
        yield Path(name)
