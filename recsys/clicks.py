"""`Click`, and what is accepted for one."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from gossamer.index.filters import is_text
from gossamer.kernels.errors import RecordError


class Click(NamedTuple):
    """A user took an item; time in seconds since 1970, or whatever the log of the training has."""

    user: str
    item: str
    time: float


def checked_clicks(clicks: Iterable[Sequence[str | float | None]]) -> list[Click]:
    """Clicks from `(user, item)` or `(user, item, time)`; the time is now where there is none.

    Raises:
        RecordError: if one cannot be read; the message says which.
    """
    now = time.time()
    return [_click(number, click, now) for number, click in enumerate(clicks)]


def _click(number: int, given: Any, now: float) -> Click:
    if isinstance(given, str) or not isinstance(given, Sequence) or len(given) not in (2, 3):
        raise RecordError(f"click {number} is {given!r:.100}; expected (user, item) or (user, item, time).")
    user, item, at = (*given, None)[:3]
    for role, id_ in (("user", user), ("item", item)):
        if not isinstance(id_, str) or not id_ or not is_text(id_):
            raise RecordError(
                f"click {number}: the {role} is {id_!r:.100}; expected a string of valid Unicode, not empty."
            )
    try:
        moment = now if at is None else float(at)
    except (TypeError, ValueError, OverflowError):
        moment = math.nan
    if isinstance(at, (str, bool)) or not math.isfinite(moment):
        raise RecordError(f"click {number}: the time is {at!r:.100}; expected a finite number, or none.")
    return Click(user, item, moment)
