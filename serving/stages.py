"""How long the stages of an answer take, told to whoever listens to a request: metrics, the slow-query log, traces.

Listeners are in a context variable, so threads that work for one request have them by themselves; a batcher takes along
those of every request in its batch. When nobody listens, a stage costs a fifth of a microsecond.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Final, Literal, TypeAlias, get_args

Stage = Literal["encode", "search", "fuse", "rerank", "explain", "write"]
STAGES: Final[tuple[Stage, ...]] = get_args(Stage)
Listener: TypeAlias = Callable[[Stage, float], None]
"""Is told a stage and its seconds, in whichever thread did the work."""
_listeners: Final[ContextVar[frozenset[Listener]]] = ContextVar("listeners", default=frozenset())


def listeners() -> frozenset[Listener]:
    """Who listens here."""
    return _listeners.get()


@contextmanager
def told(more: Iterable[Listener]) -> Iterator[None]:
    """Have these listen, too, to what is done within; each is told once, however often it is given."""
    token = _listeners.set(_listeners.get().union(more))
    try:
        yield
    finally:
        _listeners.reset(token)


class timed:  # noqa: N801 # reads as a verb: `with timed("encode"):`
    """Tell those who listen how long the block took, also if it failed."""

    __slots__ = ("_listeners", "_stage", "_started")

    def __init__(self, stage: Stage) -> None:
        self._stage: Stage = stage

    def __enter__(self) -> None:
        self._listeners = _listeners.get()
        if self._listeners:
            self._started = time.perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._listeners:
            seconds = time.perf_counter() - self._started
            for listener in self._listeners:
                listener(self._stage, seconds)
