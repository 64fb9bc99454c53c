"""Calls that are answered together."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from threading import Event, get_ident

import pytest

from gossamer.kernels.errors import DeadlineError, InputError, NotReadyError, OverloadedError, ServiceError
from gossamer.serving.batching import Batcher


class Recording:
    """Doubles numbers, when it is let; refuses odd ones."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.may_go, self.has_begun = Event(), Event()
        self.may_go.set()

    def __call__(self, items: Sequence[int]) -> list[int | Exception]:
        self.batches.append(list(items))
        self.has_begun.set()
        assert self.may_go.wait(10)
        return [InputError(f"{item} is odd") if item % 2 else 2 * item for item in items]


def held(batcher: Batcher[int, int], work: Recording, pool: ThreadPoolExecutor) -> None:
    """Keep the batcher busy with a 0 until `work.may_go`."""
    work.may_go.clear()
    pool.submit(batcher.call, 0)
    assert work.has_begun.wait(10)


def wait_until(batcher: Batcher[int, int], n_waiting: int) -> None:
    while batcher.n_waiting != n_waiting:
        time.sleep(0.001)


def test_each_call_gets_its_own_answer_or_error() -> None:
    work = Recording()
    with Batcher(work, name="doubling") as batcher, ThreadPoolExecutor(16) as pool:
        answers = [pool.submit(batcher.call, number) for number in range(100)]
        for number, answer in enumerate(answers):
            if number % 2:
                with pytest.raises(InputError, match=f"{number} is odd"):
                    answer.result(10)
            else:
                assert answer.result(10) == 2 * number
    assert sorted(chain(*work.batches)) == list(range(100))


def test_what_waits_meanwhile_is_one_batch_of_at_most_its_size() -> None:
    work = Recording()
    with Batcher(work, name="doubling", max_size=4) as batcher, ThreadPoolExecutor(16) as pool:
        held(batcher, work, pool)
        answers = [pool.submit(batcher.call, 2 * number) for number in range(1, 7)]
        wait_until(batcher, 6)
        work.may_go.set()
        assert sorted(answer.result(10) for answer in answers) == [4, 8, 12, 16, 20, 24]
    assert [len(batch) for batch in work.batches] == [1, 4, 2]


def test_a_large_item_goes_alone() -> None:
    work = Recording()
    with Batcher(work, name="doubling", max_size=4) as batcher, ThreadPoolExecutor(16) as pool:
        held(batcher, work, pool)
        answers = [batcher.submit(2, size=3), batcher.submit(4, size=9), batcher.submit(6)]
        work.may_go.set()
        assert [answer.result(10) for answer in answers] == [4, 8, 12]
    assert work.batches == [[0], [2], [4], [6]]


def test_a_batch_that_may_grow_waits_for_more() -> None:
    work = Recording()
    with Batcher(work, name="doubling", max_size=2, wait_s=30) as batcher, ThreadPoolExecutor(2) as pool:
        assert list(pool.map(batcher.call, [2, 4])) == [4, 8]  # full before 30 s are over
    assert len(work.batches) == 1


def test_more_than_may_wait_is_refused() -> None:
    work = Recording()
    with Batcher(work, name="doubling", max_waiting=2) as batcher, ThreadPoolExecutor(4) as pool:
        held(batcher, work, pool)
        waiting = batcher.submit(2), batcher.submit(4)
        with pytest.raises(OverloadedError, match="2 wait for the doubling, and 2 may"):
            batcher.call(6)
        work.may_go.set()
        assert [future.result(10) for future in waiting] == [4, 8]


def test_a_deadline_that_passes_in_the_queue_spares_the_work() -> None:
    work = Recording()
    with Batcher(work, name="doubling") as batcher, ThreadPoolExecutor(4) as pool:
        held(batcher, work, pool)
        with pytest.raises(DeadlineError, match="doubling"):
            batcher.call(2, deadline=time.monotonic() + 0.01)
        work.may_go.set()
        assert batcher.call(4, deadline=time.monotonic() + 10) == 8
    assert list(chain(*work.batches)) == [0, 4]


def test_work_that_fails_fails_its_batch_only() -> None:
    def work(items: Sequence[int]) -> list[int | Exception]:
        return [1 // item for item in items]

    with Batcher(work, name="dividing") as batcher:
        with pytest.raises(ZeroDivisionError):
            batcher.call(0)
        assert batcher.call(1) == 1


def test_closing_answers_what_was_taken_and_takes_no_more() -> None:
    work = Recording()
    batcher = Batcher(work, name="doubling", max_size=1)
    with ThreadPoolExecutor(4) as pool:
        held(batcher, work, pool)
        waiting = batcher.submit(2), batcher.submit(4)
        closing = pool.submit(batcher.close)
        work.may_go.set()
        closing.result(10)
        assert [future.result(0) for future in waiting] == [4, 8]
    with pytest.raises(NotReadyError, match="stopping"):
        batcher.call(6)


@pytest.mark.parametrize("failure", [SystemExit("panic"), None])
@pytest.mark.parametrize("alone", [False, True])
def test_what_should_never_happen_fails_its_batch_and_not_the_thread(
    failure: BaseException | None, alone: bool
) -> None:
    def work(items: Sequence[int]) -> list[int | Exception]:
        if items[0] == 0:
            if failure is not None:
                raise failure
            return []
        return list(items)

    with Batcher(work, name="doubling") as batcher:
        deadline = None if alone else time.monotonic() + 10
        with pytest.raises(ServiceError, match=r"the doubling (failed|gave 0 answers to 1)"):
            batcher.call(0, deadline=deadline)
        assert batcher.call(1, deadline=deadline) == 1


def test_a_lone_call_is_answered_in_the_thread_that_asks() -> None:
    threads = []

    def work(items: Sequence[int]) -> list[int | Exception]:
        threads.append(get_ident())
        if items[0] == 0:
            raise KeyboardInterrupt
        return list(items)

    with Batcher(work, name="asking") as batcher:
        assert batcher.call(1) == 1
        with pytest.raises(KeyboardInterrupt):  # this thread's own, unlike a panic
            batcher.call(0)
        assert batcher.call(2, deadline=time.monotonic() + 10) == 2
    assert threads[:2] == [get_ident()] * 2
    assert threads[2] != get_ident()
