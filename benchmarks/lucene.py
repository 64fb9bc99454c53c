"""Lucene's impact search for `engines.py`, by what `LuceneIndex` is made of, without documents and checksums.

Anserini's convention: a weight is stored as the whole number nearest to a hundred times it, and the query is rounded
likewise; scores are exact for these.
"""
# ruff: noqa: D102  # `peers.Engine` says what the methods do

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from collection import Collection
from numpy.typing import NDArray

from gossamer.index.lucene_engine import Searcher, impacts, write_index
from gossamer.index.lucene_jvm import start_jvm
from gossamer.index.vectors import SparseVectors

SCALE = 100
HEAP_BYTES = 4 * 2**30


class Lucene:
    """An index of impacts, in one segment."""

    def __init__(self, documents: Collection, folder: Path) -> None:
        start_jvm(heap_bytes=HEAP_BYTES)
        self._path, self._input = folder / "index", folder / "input.txt"
        with self._input.open("w") as file:
            for indptr, indices, values in documents.parts():
                rounded = np.maximum(np.rint(values * SCALE), 1).astype(int)
                pairs = zip(indices.tolist(), rounded.tolist(), strict=True)
                words = [f"{term}|{impact}" for term, impact in pairs]
                file.writelines(" ".join(words[start:end]) + "\n" for start, end in pairwise(indptr.tolist()))

    def build(self) -> None:
        with self._input.open() as lines:
            write_index(self._path, lines, impacts())

    def asker(self, queries: SparseVectors, k: int, *, batch: int = 1) -> Callable[[], list[Any]]:
        strings = [
            " ".join(
                f"{term}^{round(weight * SCALE)}" for term, weight in query.items() if round(weight * SCALE)
            )
            for query in queries.to_dicts()
        ]
        asked = [strings[start : start + batch] for start in range(0, len(strings), batch)]
        search = Searcher(self._path, impacts()).search
        return lambda: [search(some, k)[0] for some in asked]

    def rows(self, answer: Any) -> list[NDArray[np.int64]]:
        return [rows[rows >= 0] for rows in answer]
