"""Recall and nDCG with full ranking: every item that the user has not seen competes, none is sampled away.

Measures are spelled and computed as ir-measures does (`R@10`, `nDCG@10`), here on arrays of rows. The sparse model is
measured through its index, with the rounding of stored impacts; dense models by a matrix product in float32.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, PositiveInt

from gossamer.kernels.errors import InputError
from gossamer.recsys.interactions import Interactions
from gossamer.recsys.model import Factors, stored_bytes
from gossamer.recsys.popularity import Popularity
from gossamer.recsys.recommender import Recommender

Rank = Callable[[NDArray[np.int64]], NDArray[np.int64]]
"""From user rows `[Q]` to their ranked item rows `[Q, k]`, seen items left out, −1 past the end."""

_CHUNK = 512


class CompareConfig(BaseModel):
    """What a recommender is measured by.

    Attributes:
        k: depth of the measures.
        n_timed: how many single answers to time.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    k: PositiveInt = 10
    n_timed: PositiveInt = 200


@dataclass(frozen=True)
class Row:
    """One line of the comparison.

    Attributes:
        model: its name.
        measures: such as `{"R@10": .5, "nDCG@10": .3}`, means over users with something held out.
        bytes: size of users and items as stored, indices counted; 0 for popularity.
        p50_us: median time of an answer to one user, one thread, in this process, in microseconds.
        p99_us: the time that one answer in a hundred exceeds.
    """

    model: str
    measures: dict[str, float]
    bytes: int
    p50_us: float
    p99_us: float


def measure(rank: Rank, held_out: Interactions, *, k: int = 10) -> dict[str, float]:
    """Mean `R@k` and `nDCG@k` over the users with held-out items, each of which is equally relevant.

    Args:
        rank: the model.
        held_out: what the model should have ranked high.
        k: depth.

    Raises:
        InputError: if nothing is held out.
    """
    if not len(held_out):
        raise InputError("nothing is held out; split the log so that some users have a test item.")
    wanted = held_out.matrix()
    users = np.flatnonzero(np.diff(wanted.indptr))
    pairs = held_out.users.astype(np.int64) * held_out.n_items + held_out.items
    discounts = 1 / np.log2(np.arange(k) + 2)
    recall = gain = 0.0
    for start in range(0, users.size, _CHUNK):
        some = users[start : start + _CHUNK]
        ranked = rank(some)[:, :k]
        relevant = (ranked >= 0) & np.isin(some[:, None] * held_out.n_items + ranked, pairs)
        n_wanted = np.diff(wanted.indptr)[some]
        best = np.cumsum(discounts)[np.minimum(n_wanted, k) - 1]
        recall += float((relevant.sum(1) / n_wanted).sum())
        gain += float((relevant @ discounts[: ranked.shape[1]] / best).sum())
    return {f"R@{k}": recall / users.size, f"nDCG@{k}": gain / users.size}


def compare(
    recommender: Recommender,
    log: Interactions,
    held_out: Interactions,
    *,
    dense: Mapping[str, Factors] | None = None,
    group: str | None = None,
    k: int = 10,
    n_timed: int = 200,
) -> list[Row]:
    """The table: both popularities, dense models, and the recommender through its index.

    Args:
        recommender: built on `log`.
        log: what all models were trained on; its items are left out of a user's ranking.
        held_out: the test (or validation) part, over the same rows.
        dense: further models by name.
        group: feature of users for popularity within a group.
        k: depth of the measures.
        n_timed: how many single answers to time.
    """
    popularity = Popularity.count(log, group=group)
    ranks: dict[str, tuple[Rank, int]] = {"popularity": (popularity_rank(popularity, log, k=k), 0)}
    if group is not None:
        ranks[f"popularity in {group}"] = popularity_rank(popularity, log, k=k, group=group), 0
    for name, factors in (dense or {}).items():
        n_bytes = stored_bytes(factors.users) + stored_bytes(factors.items)
        ranks[name] = dense_rank(factors, log, k=k), n_bytes
    ranks["sparse, through the index"] = partial(_through_index, recommender, k), recommender.stored_bytes
    users = np.flatnonzero(np.diff(held_out.matrix().indptr))
    timed = np.random.default_rng(0).permutation(users)[:n_timed]
    rows = []
    for name, (rank, n_bytes) in ranks.items():
        p50, p99 = np.percentile(_times_us(rank, timed), [50, 99])
        rows.append(Row(name, measure(rank, held_out, k=k), n_bytes, float(p50), float(p99)))
    return rows


def popularity_rank(popularity: Popularity, log: Interactions, *, k: int, group: str | None = None) -> Rank:
    """Ranks items by their number of users, or by that within the user's group."""
    seen = log.matrix()
    groups = log.user_feature(group).to_pylist() if group is not None else None

    def rank(users: NDArray[np.int64]) -> NDArray[np.int64]:
        ranked = np.full((users.size, k), -1, dtype=np.int64)
        for at, user in enumerate(users):
            without = seen.indices[seen.indptr[user] : seen.indptr[user + 1]]
            found = popularity.rank(k, group=None if groups is None else groups[user], without=without)
            ranked[at, : found.size] = found
        return ranked

    return rank


def dense_rank(factors: Factors, log: Interactions, *, k: int) -> Rank:
    """Ranks items by dot product, all of them, in float32; smaller row first among equals."""
    seen = log.matrix()

    def rank(users: NDArray[np.int64]) -> NDArray[np.int64]:
        scores = factors.users[users] @ factors.items.T
        owner = np.repeat(np.arange(users.size), np.diff(seen.indptr)[users])
        scores[owner, seen[users].indices] = -np.inf
        top = np.sort(np.argpartition(-scores, min(k, scores.shape[1] - 1), axis=1)[:, :k], axis=1)
        order = np.argsort(-np.take_along_axis(scores, top, 1), axis=1, kind="stable")
        ranked: NDArray[np.int64] = np.take_along_axis(top, order, 1)
        ranked[np.isneginf(np.take_along_axis(scores, ranked, 1))] = -1
        return ranked

    return rank


def _through_index(recommender: Recommender, k: int, users: NDArray[np.int64]) -> NDArray[np.int64]:
    return recommender.rank(users, k=k)[0]


def _times_us(rank: Rank, users: NDArray[np.int64]) -> list[float]:
    times = []
    for user in users:
        start = time.perf_counter()
        rank(np.array([user]))
        times.append((time.perf_counter() - start) * 1e6)
    return times
