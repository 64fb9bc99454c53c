"""Popularity, over all users and within a group of them: the baselines, and the answer for whom nothing is known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gossamer.index.vectors import SparseVectors
from gossamer.recsys.interactions import Interactions


@dataclass(frozen=True, eq=False)
class Popularity:
    """How many users took each item.

    Attributes:
        counts: one row, the counts over all users; then one row for each group, named by its id.
    """

    counts: SparseVectors

    @classmethod
    def count(cls, interactions: Interactions, *, group: str | None = None) -> Popularity:
        """Counts a log.

        Args:
            interactions: the log.
            group: feature column by which users are grouped; None counts over all users only.
        """
        from scipy import sparse

        matrix = interactions.matrix()
        rows, ids = [sparse.csr_array(matrix.sum(axis=0).reshape(1, -1))], [""]
        if group is not None:
            coded = interactions.user_feature(group).dictionary_encode()
            members = np.flatnonzero(coded.is_valid().to_numpy(zero_copy_only=False))
            codes = coded.indices.drop_null().to_numpy()
            ones = np.ones(members.size, dtype=np.float32)
            shape = (len(coded.dictionary), interactions.n_users)
            rows.append(sparse.csr_array((ones, (codes, members)), shape=shape) @ matrix)
            ids += coded.dictionary.to_pylist()
        return cls(SparseVectors.from_scipy(sparse.vstack(rows), ids=ids))

    def groups(self) -> list[str]:
        """Names of the groups."""
        return self.counts.ids[1:].to_pylist() if self.counts.ids is not None else []

    def scores(self, group: str | None = None) -> NDArray[np.float64]:
        """`[n_items]`: users in the group that took each item; among equals, and for an unknown group, users in all."""
        everyone = self._dense(0)
        at = -1 if group is None or self.counts.ids is None else self.counts.ids.index(group).as_py()
        if at < 1:
            return everyone
        within: NDArray[np.float64] = self._dense(at) + everyone / (everyone.sum() + 1)
        return within

    def _dense(self, row: int) -> NDArray[np.float64]:
        items, counts = self.counts.row(row)
        dense = np.zeros(self.counts.n_cols)
        dense[items] = counts
        return dense

    def rank(
        self, k: int, *, group: str | None = None, without: NDArray[np.int64] | None = None
    ) -> NDArray[np.int64]:
        """The k most popular item rows, most popular first, smaller row first among equals.

        Args:
            k: how many; fewer come back where there are no more.
            group: count within this group first.
            without: item rows to leave out.
        """
        scores = self.scores(group)
        if without is not None:
            scores[without] = -1
        order = np.argsort(-scores, kind="stable")[:k]
        return order[scores[order] >= 0]

    def write(self, path: Path) -> None:
        """Writes the counts as Parquet."""
        self.counts.write_parquet(path)

    @classmethod
    def read(cls, path: Path) -> Popularity:
        """Reads what `write` wrote."""
        return cls(SparseVectors.read_parquet(path))
