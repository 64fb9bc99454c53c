"""Scores of chosen rows of a matrix: what ends a search over dense vectors, whatever found the candidates.

A product of two float32 numbers is exact in float64. The products of a row are added in float64, in ascending order of
dimension, so a score does not depend on the batch, on threads, or on the machine, as one by BLAS would.
"""

import numpy as np
import numpy.typing as npt
from numba import njit


def dense_scores(
    queries_QD: npt.NDArray[np.float32], values_ND: npt.NDArray[np.float32], rows_QK: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Inner products of queries with chosen rows, `[Q, K]`.

    Args:
        queries_QD: float32 [Q, D], finite.
        values_ND: float32 [N, D], finite; it may be a read-only map of a file.
        rows_QK: int64 [Q, K]; where it is no row of the matrix the score is -inf.
    """
    scores_QK = np.full(rows_QK.shape, -np.inf)
    _dense_scores(queries_QD, values_ND, rows_QK, scores_QK)
    return scores_QK


def dense_scores_reference(
    queries_QD: npt.NDArray[np.float32], values_ND: npt.NDArray[np.float32]
) -> npt.NDArray[np.float64]:
    """Inner products of queries with all rows, `[Q, N]`: the same numbers, a dimension at a time."""
    scores_QN = np.zeros((len(queries_QD), len(values_ND)))
    for dimension in range(values_ND.shape[1]):
        scores_QN += np.multiply.outer(
            queries_QD[:, dimension].astype(np.float64), values_ND[:, dimension].astype(np.float64)
        )
    return scores_QN


@njit(nogil=True, cache=True)
def _dense_scores(queries_QD, values_ND, rows_QK, scores_QK):  # type: ignore[no-untyped-def]
    n_rows, n_dims = values_ND.shape
    for q in range(len(rows_QK)):
        for place in range(rows_QK.shape[1]):
            row = rows_QK[q, place]
            if 0 <= row < n_rows:
                score = 0.0
                for dimension in range(n_dims):
                    score += np.float64(queries_QD[q, dimension]) * np.float64(values_ND[row, dimension])
                scores_QK[q, place] = score
