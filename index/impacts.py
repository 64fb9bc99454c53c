"""The one arithmetic: weights become one-byte impacts, queries int16, and a score is an int32 sum times one unit.

A document weight `w` is stored as `rint(w / step)`, with one `step` for the whole index; a query weight as
`rint(q / its query's own step)`. The kernel adds products as int32, and the score is

    float32( float64(sum) * unit ),    unit = float32(query step * index step)

so it does not depend on order, window, thread, batch or backend. The unit has 24 significant bits and a product of
weight and impact at most 23, so every single contribution is exact in float64 too: they add up to the score.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gossamer.index.vectors import SparseVectors
from gossamer.kernels.errors import ConfigError
from gossamer.kernels.rounding import LARGEST_SUM, round_queries, scores_of
from gossamer.kernels.sparse_dot import Queries, TopK

Kind = Literal["uint8", "int8", "float32"]

_AT_ONCE = 1 << 16  # weights that are rounded together: their float64 forms stay in the cache
_LEVELS: dict[Kind, int] = {"uint8": 255, "int8": 127, "float32": 0}


@dataclass(frozen=True)
class ImpactScale:
    """How the weights of one index are stored.

    Attributes:
        kind: the impacts' type; float32 stores weights as they are.
        step: the weight that one level stands for; a float32 number, 1 for float32 impacts.
    """

    kind: Kind
    step: float

    @classmethod
    def choose(cls, kind: Literal["auto"] | Kind, *, largest: float, negative: bool) -> ImpactScale:
        """The scale for weights of at most this magnitude.

        Args:
            kind: `"auto"` takes int8 if any weight is negative, else uint8.
            largest: the largest magnitude among the weights, 0 if there are none.
            negative: whether any weight is below 0.

        Raises:
            ConfigError: if uint8 is asked for, but there are negative weights.
        """
        if kind == "auto":
            kind = "int8" if negative else "uint8"
        if kind == "uint8" and negative:
            raise ConfigError(
                "impacts='uint8' cannot store negative weights, and there are some; use 'int8' or 'auto'."
            )
        if kind == "float32" or largest == 0:
            return cls(kind, 1.0)
        tiniest = float(np.finfo(np.float32).tiny)  # below it, float32 loses digits and then everything
        return cls(kind, float(np.float32(max(largest / _LEVELS[kind], tiniest))))

    @property
    def levels(self) -> int:
        """The largest magnitude of a stored impact; 0 for float32, which has no levels."""
        return _LEVELS[self.kind]

    def quantise(self, weights: NDArray[np.float32]) -> tuple[NDArray[Any], float]:
        """Impacts `[nnz]` (those that round to zero included) and the largest error made."""
        if self.kind == "float32":
            return weights, 0.0
        impacts, error = np.empty(len(weights), self.kind), 0.0
        for first in range(0, len(weights), _AT_ONCE):
            some = slice(first, first + _AT_ONCE)
            exact = weights[some].astype(np.float64)
            rounded = np.clip(np.rint(exact / self.step), -self.levels, self.levels)
            error = max(error, float(np.abs(exact - rounded * self.step).max(initial=0.0)))
            impacts[some] = rounded
        return impacts, error

    def restore(self, impacts: NDArray[Any]) -> NDArray[np.float32]:
        """The weights that stored impacts stand for, float32."""
        return impacts.astype(np.float32) * np.float32(self.step)


class ScaledQueries(NamedTuple):
    """Queries as the kernel takes them, and what turns its sums into scores."""

    queries: Queries
    """int16 weights (no zeros), or float32 for float32 impacts."""
    steps: NDArray[np.float64]
    """float64 `[Q]`; the weight that one level of a query stands for."""
    step: float
    """The weight that one level of an impact stands for."""

    @property
    def units(self) -> NDArray[np.float32]:
        """float32 `[Q]`; the score that a sum of 1 stands for."""
        return np.minimum(self.steps * self.step, np.finfo(np.float32).max).astype(np.float32)

    def wide_scores(self, top: TopK) -> NDArray[np.float64]:
        """`scores` before they are rounded to float32."""
        wide = top.scores.astype(np.float64) * np.where(
            top.scores.dtype == np.float32, 1.0, self.units[:, None]
        )
        wide[top.rows < 0] = -np.inf
        return wide

    def scores(self, top: TopK) -> NDArray[np.float32]:
        """Scores `[Q, k]` of what the kernel found; past the last hit -inf."""
        if top.scores.dtype == np.float32:
            return top.scores.astype(np.float32, copy=False)
        scores: NDArray[np.float32] = scores_of(top.scores, top.rows, self.steps, self.step)
        return scores


def quantise_queries(
    vectors: SparseVectors,
    scale: ImpactScale,
    *,
    largest_sum: int = LARGEST_SUM,
    longest: int | None = None,
    share: float = 1.0,
) -> ScaledQueries:
    """Round each query to int16 with its own step, coarse enough that no sum can leave the int32 range.

    Sums are bounded by the rounded weights' total magnitude times the largest impact, in integers. Weights that
    round to zero are dropped, so that a document which only has such a term is no hit.

    Args:
        vectors: the queries.
        scale: of the index.
        largest_sum: the magnitude that no sum may pass; a smaller one makes rounding coarser.
        longest: the terms of a query that `largest_sum` is meant for; None is any number.
        share: of each query's total magnitude that is enough; its smallest weights beyond that are dropped.

    Raises:
        InputError: if a query has so many terms (over eight million) that even single steps could overflow.
    """
    queries = Queries(vectors.indptr, vectors.indices, vectors.values)
    if scale.kind == "float32":
        queries = queries._replace(terms=vectors.indices.astype(np.int32))
        return ScaledQueries(queries, np.ones(vectors.n_rows), 1.0)
    rounded, steps = round_queries(queries, scale.levels, largest_sum, share=share, longest=longest)
    return ScaledQueries(rounded, steps, scale.step)
