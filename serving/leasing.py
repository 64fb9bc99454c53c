"""`Swappable`: a thing that is replaced by another while it is in use, and closed when its last user is done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition
from typing import Generic, Protocol, TypeVar


class Closable(Protocol):
    """What holds something until it is closed."""

    def refresh(self) -> None:
        """Take over what was changed since it was opened; quick."""

    def close(self) -> None:
        """Let go of it."""


T = TypeVar("T", bound=Closable)


class Swappable(Generic[T]):
    """Holds a thing; safe to use from several threads."""

    def __init__(self, thing: T) -> None:
        self._current = thing
        self._users: dict[int, int] = {}
        self._changed = Condition()

    @contextmanager
    def use(self) -> Iterator[T]:
        """The thing as it is now; it stays open until the block ends, whatever takes its place meanwhile."""
        with self._changed:
            thing = self._current
            self._users[id(thing)] = self._users.get(id(thing), 0) + 1
        try:
            yield thing
        finally:
            with self._changed:
                self._users[id(thing)] -= 1
                if not self._users[id(thing)]:
                    del self._users[id(thing)]
                    self._changed.notify_all()

    def replace(self, thing: T) -> None:
        """Put another in its place, for all who come from now on; then wait for those who use the old, and close it.

        Nobody comes before the new one is refreshed, so it knows all that the old one had done by then.
        """
        with self._changed:
            thing.refresh()
            old, self._current = self._current, thing
        self._close(old)

    def is_current(self, thing: T) -> bool:
        """Whether nothing has taken its place."""
        with self._changed:
            return thing is self._current

    def close(self) -> None:
        """Wait for those who use it, and close it."""
        self._close(self._current)

    def _close(self, thing: T) -> None:
        with self._changed:
            self._changed.wait_for(lambda: id(thing) not in self._users)
        thing.close()
