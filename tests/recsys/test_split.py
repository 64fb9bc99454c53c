import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.kernels.errors import InputError
from gossamer.recsys import Interactions
from gossamer.recsys.split import leave_last_out, leave_one_out


def make(lengths: list[int], seed: int = 0) -> Interactions:
    chance = np.random.default_rng(seed)
    rows = [(f"u{u}", f"i{i}", chance.random()) for u, n in enumerate(lengths) for i in range(n)]
    chance.shuffle(rows)
    columns = zip(*rows, strict=True)
    return Interactions.from_table(
        pa.table(dict(zip(("user", "item", "time"), map(list, columns), strict=True)))
    )


def rows(log: Interactions) -> list[tuple[int, int]]:
    return list(zip(log.users.tolist(), log.items.tolist(), strict=True))


lengths = st.lists(st.integers(1, 9), min_size=1, max_size=12)


@settings(deadline=None)
@given(lengths=lengths, seed=st.integers(0, 99), by_time=st.booleans())
def test_parts_are_the_whole_and_each_user_gives_one(lengths: list[int], seed: int, by_time: bool) -> None:
    log = make(lengths)
    split = leave_last_out(log) if by_time else leave_one_out(log, seed=seed)
    assert sorted(rows(split.train) + rows(split.validation) + rows(split.test)) == sorted(rows(log))
    assert sorted(rows(split.fit)) == sorted(rows(split.train) + rows(split.validation))
    for part in (split.validation, split.test):
        assert np.bincount(part.users, minlength=log.n_users).max(initial=0) <= 1
        assert len(part) == sum(n >= 3 for n in lengths)
    for part in split:
        assert part.user_ids.equals(log.user_ids)
        assert part.item_ids.equals(log.item_ids)


def test_the_seed_decides_and_alone() -> None:
    log = make([8] * 30)
    first, again, other = leave_one_out(log, seed=1), leave_one_out(log, seed=1), leave_one_out(log, seed=2)
    assert rows(first.test) == rows(again.test)
    assert rows(first.validation) == rows(again.validation)
    assert rows(first.test) != rows(other.test)


def test_the_last_is_the_test_and_the_one_before_is_for_validation() -> None:
    log = make([6] * 10)
    split = leave_last_out(log)
    assert log.times is not None
    for user in range(10):
        train, validation, test = (part.table["time"].to_numpy()[part.users == user] for part in split)
        assert train.max() < validation.item() < test.item() == log.times[log.users == user].max()


def test_without_times_the_last_is_unknown() -> None:
    log = Interactions.from_table(pa.table({"user": ["a"], "item": ["b"]}))
    with pytest.raises(InputError, match="leave_one_out"):
        leave_last_out(log)
