"""The obvious windowed scan, in the fewest lines that are right: what our kernel is measured against."""

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from gossamer.kernels.sparse_dot import Postings, Queries


@njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]  # numba ships no types
def _scan(  # noqa: PLR0917  # so Numba gets them
    indptr: Any,
    terms: Any,
    weights: Any,
    bases: Any,
    offsets: Any,
    local: Any,
    impacts: Any,
    row_of: Any,
    n_documents: int,
    window: int,
    rows: Any,
    scores: Any,
) -> None:
    k = rows.shape[1]
    sums = np.zeros(window, np.int32)
    for query in range(len(indptr) - 1):
        best_rows, best_scores = rows[query], scores[query]
        for w in range(offsets.shape[1] - 1):
            sums[:] = 0
            for entry in range(indptr[query], indptr[query + 1]):
                weight = np.int32(weights[entry])
                start = bases[terms[entry]] + offsets[terms[entry], w]
                stop = bases[terms[entry]] + offsets[terms[entry], w + 1]
                for document, impact in zip(local[start:stop], impacts[start:stop]):  # noqa: B905  # not in Numba
                    sums[document] += weight * impact
            for i in range(min(window, n_documents - w * window)):
                if sums[i] > best_scores[k - 1]:  # into a sorted list; an equal score stays behind
                    at = k - 1
                    while at > 0 and best_scores[at - 1] < sums[i]:
                        best_rows[at], best_scores[at] = best_rows[at - 1], best_scores[at - 1]
                        at -= 1
                    best_rows[at], best_scores[at] = row_of[w * window + i], sums[i]


def plain_scan(queries: Queries, postings: Postings, k: int) -> npt.NDArray[np.int64]:
    """Rows `[Q, k]` of the documents with the largest positive sums; past the last one -1."""
    n_queries = len(queries.indptr) - 1
    rows, scores = np.full((n_queries, k), -1, np.int64), np.zeros((n_queries, k), np.int32)
    _scan(*queries, *postings[3:8], postings.n_documents, postings.window, rows, scores)
    return rows
