"""Queries made of an index's own documents, for where there are none such as will be asked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gossamer.index.vectors import SparseVectors
from gossamer.kernels.refine import Forward

_SHORT = 5, 8  # terms, the fewest and the most


@dataclass(frozen=True)
class Asked:
    """Queries of one kind.

    Attributes:
        queries: Q queries.
        own: rows `[Q]` of the documents that they were made of, which are no hits; None if of none.
    """

    queries: SparseVectors
    own: NDArray[np.int64] | None = None

    def __getitem__(self, chosen: NDArray[np.int64]) -> Asked:
        return Asked(self.queries[chosen], None if self.own is None else self.own[chosen])


def pseudo_queries(forward: Forward, n_terms: int, n_queries: int) -> list[Asked]:
    """Three kinds of queries: a few terms and half of the terms drawn by weight, and a few that are drawn evenly.

    Queries have fewer terms than documents, and rather the important ones, but not the most important ones alone.
    A draw by weight is the n largest `log(u) / weight` (Efraimidis and Spirakis, 2006).

    Args:
        forward: the documents.
        n_terms: size of the vocabulary.
        n_queries: of each kind; fewer where there are fewer documents that are not empty.
    """
    rng = np.random.default_rng(0)
    filled = np.flatnonzero(np.diff(forward.indptr) > 0)
    kinds = []
    for short, by_weight in ((True, True), (True, False), (False, True)):
        own = rng.choice(filled, min(n_queries, len(filled)), replace=False)
        rows = []
        for row in own:
            terms, weights = _row(forward, int(row))
            count = rng.integers(*_SHORT, endpoint=True) if short else -(-len(terms) // 2)
            keys = np.log(rng.random(len(terms))) / (weights if by_weight else 1.0)
            drawn = np.argsort(-keys, kind="stable")[:count]
            rows.append(dict(zip(terms[drawn].tolist(), weights[drawn].tolist(), strict=True)))
        kinds.append(Asked(SparseVectors.from_dicts(rows, n_terms), own))
    return kinds


def _row(forward: Forward, row: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Terms and weights of a document."""
    entries = slice(forward.indptr[row], forward.indptr[row + 1])
    values = forward.values[entries]
    weights = values.view(np.float16) if values.dtype == np.uint16 else values
    return forward.terms[entries].astype(np.int64), weights.astype(np.float64)
