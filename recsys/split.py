"""Splits of a log into training, validation and test parts that share one numbering of users and items."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gossamer.kernels.errors import InputError
from gossamer.recsys.interactions import Interactions, concat


class Split(NamedTuple):
    """Three parts of one log; a row of users or items means the same in all of them.

    Settings are chosen on `validation` with models that saw `train` only. The model that is measured on `test`
    learns from `fit`, which is both.
    """

    train: Interactions
    validation: Interactions
    test: Interactions

    @property
    def fit(self) -> Interactions:
        """Training and validation part together: everything but the test."""
        return concat([self.train, self.validation])


def leave_one_out(log: Interactions, *, seed: int = 0) -> Split:
    """Holds out one interaction of each user for test and one for validation, at random by the seed.

    Users with fewer than three interactions keep all of them for training.
    """
    chance = np.random.default_rng(seed).random(len(log))
    return _last_two(log, chance)


def leave_last_out(log: Interactions) -> Split:
    """Holds out each user's last interaction for test and the one before it for validation.

    Raises:
        InputError: if the log has no times.
    """
    if log.times is None:
        raise InputError("the log has no times; name their column (time=...), or use leave_one_out().")
    return _last_two(log, log.times)


def _last_two(log: Interactions, order: NDArray[Any]) -> Split:
    rank = _rank_from_end(log.users, order)
    enough = np.bincount(log.users, minlength=log.n_users)[log.users] >= 3
    test, validation = (rank == 0) & enough, (rank == 1) & enough
    return Split(log.take(~(test | validation)), log.take(validation), log.take(test))


def _rank_from_end(users: NDArray[np.int32], order: NDArray[Any]) -> NDArray[np.int64]:
    """For each interaction, how many of the same user come after it in the given order (later rows win ties)."""
    by_user = np.lexsort((order, users))
    ends = np.cumsum(np.bincount(users[by_user]))[users[by_user]] if users.size else np.zeros(0, np.int64)
    rank = np.empty(users.size, dtype=np.int64)
    rank[by_user] = ends - 1 - np.arange(users.size)
    return rank
