"""`Batcher`: calls from many threads, answered together by one.

What waits while a batch is worked on is the next batch, so batches grow with the load; `wait_s` lets a batch that could
be larger wait for more. As Clipper (Crankshaw et al., 2017) and Triton's dynamic batcher do. A lone call waits for
nobody, and is answered in the thread that asks: it takes two threads long to hand each other a question and its answer.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from threading import Condition, Thread
from types import TracebackType
from typing import Generic, NamedTuple, Self, TypeVar

from gossamer.kernels.errors import DeadlineError, NotReadyError, OverloadedError, ServiceError

T = TypeVar("T")
R = TypeVar("R")


class _Waiting(NamedTuple, Generic[T, R]):
    item: T
    size: int
    deadline: float | None
    future: Future[R]


class Batcher(Generic[T, R]):
    """Gathers items and hands them to a function in batches; safe to call from several threads.

    Args:
        work: answers a batch, an answer or an exception an item; called by one thread at a time.
        name: what is batched, for messages and the thread.
        max_size: the largest batch, in the items' sizes; a larger item goes alone.
        max_waiting: how much may wait at once, in the items' sizes.
        wait_s: how long a batch waits for more, from its first item on.
    """

    def __init__(
        self,
        work: Callable[[Sequence[T]], Sequence[R | Exception]],
        *,
        name: str,
        max_size: int = 64,
        max_waiting: int = 1024,
        wait_s: float = 0.0,
    ) -> None:
        self._work, self._name = work, name
        self._max_size, self._max_waiting, self._wait_s = max_size, max_waiting, wait_s
        self._queue: deque[_Waiting[T, R]] = deque()
        self._n_waiting = 0
        self._changed = Condition()
        self._is_closed = self._is_working = False
        self._thread = Thread(target=self._run, name=f"gossamer-{name}", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def n_waiting(self) -> int:
        """How much waits now, in the items' sizes."""
        return self._n_waiting

    def call(self, item: T, *, size: int = 1, deadline: float | None = None) -> R:
        """Have an item answered, and wait for that; see `submit` and `wait`."""
        if deadline is not None or not self._takes_turn():  # what is done here cannot be given up half-way
            return self.wait(self.submit(item, size=size, deadline=deadline), deadline)
        try:
            (answer,) = self._answers([item])
        finally:
            self._end_turn()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def submit(self, item: T, *, size: int = 1, deadline: float | None = None) -> Future[R]:
        """Have an item answered.

        Args:
            item: what to answer.
            size: how much of a batch it takes.
            deadline: `time.monotonic()` beyond which nobody wants the answer.

        Raises:
            OverloadedError: more waits than may.
            NotReadyError: it was closed.
        """
        future: Future[R] = Future()
        with self._changed:
            if self._is_closed:
                raise NotReadyError(f"the {self._name} is stopping: ask another replica, or later")
            if self._n_waiting and self._n_waiting + size > self._max_waiting:
                raise OverloadedError(
                    f"{self._n_waiting:,} wait for the {self._name}, and {self._max_waiting:,} may: ask again later"
                )
            self._queue.append(_Waiting(item, size, deadline, future))
            self._n_waiting += size
            self._changed.notify_all()
        return future

    def wait(self, future: Future[R], deadline: float | None = None) -> R:
        """The answer to what was submitted.

        Raises:
            DeadlineError: it did not come in time; it is given up, unless it is being worked on.
        """
        if deadline is None:
            return future.result()
        try:
            return future.result(max(0.0, deadline - time.monotonic()))
        except (TimeoutError, CancelledError):
            if (
                future.done() and not future.cancelled()
            ):  # the work's own error, or an answer of this very moment
                return future.result()
            future.cancel()
            raise DeadlineError(f"the {self._name} did not answer in time: allow more, or ask less") from None

    def close(self) -> None:
        """Take nothing more, answer what waits, and end."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        while batch := self._next():
            due = [waiting for waiting in batch if _is_wanted(waiting)]
            if not due:
                self._end_turn()
                continue
            answers = self._answers([waiting.item for waiting in due])
            self._end_turn()
            for waiting, answer in zip(due, answers, strict=True):
                if isinstance(answer, Exception):
                    waiting.future.set_exception(answer)
                else:
                    waiting.future.set_result(answer)

    def _answers(self, items: Sequence[T]) -> Sequence[R | Exception]:
        """One for each item, whatever happens."""
        try:
            answers = self._work(items)
        except Exception as error:
            return [error] * len(items)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # such as a panic of compiled code: this thread must go on
            return [ServiceError(f"the {self._name} failed: {error!r}")] * len(items)
        if len(answers) != len(items):
            lost = f"the {self._name} gave {len(answers)} answers to {len(items)} questions"
            return [ServiceError(lost)] * len(items)
        return answers

    def _takes_turn(self) -> bool:
        """Begin to work in this thread, if nobody works or waits, and no batch is to grow."""
        with self._changed:
            if self._is_closed or self._is_working or self._queue or self._wait_s:
                return False
            self._is_working = True
            return True

    def _end_turn(self) -> None:
        with self._changed:
            self._is_working = False
            if self._queue or self._is_closed:
                self._changed.notify_all()

    def _next(self) -> list[_Waiting[T, R]]:
        """The next batch, of at least one item, whose turn has begun; empty at the end."""
        with self._changed:
            self._changed.wait_for(lambda: not self._is_working and (self._queue or self._is_closed))
            if self._wait_s and not self._is_closed:
                self._changed.wait_for(
                    lambda: self._n_waiting >= self._max_size or self._is_closed, timeout=self._wait_s
                )
            batch: list[_Waiting[T, R]] = []
            size = 0
            while self._queue and (not batch or size + self._queue[0].size <= self._max_size):
                batch.append(self._queue.popleft())
                size += batch[-1].size
            self._n_waiting -= size
            self._is_working = bool(batch)
            return batch


def _is_wanted(waiting: _Waiting[T, R]) -> bool:
    """Whether somebody still waits for it; from here on nobody can give it up."""
    if waiting.deadline is not None and waiting.deadline < time.monotonic():
        waiting.future.cancel()
    return waiting.future.set_running_or_notify_cancel()
