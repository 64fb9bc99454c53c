"""The closed set of error types that the service answers with, and what each is in Python.

One table serves both ways: the app turns an exception into a type and a status, the client turns a type back into the
same exception. So a caller writes one `except`, whether the engine sits in the process or behind HTTP.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, NamedTuple

from gossamer.kernels.errors import (
    DeadlineError,
    ExistsError,
    ForbiddenError,
    GossamerError,
    InputError,
    MismatchError,
    NotFoundError,
    NotReadyError,
    OverloadedError,
    ServiceError,
    TooLargeError,
    UnauthenticatedError,
    UnavailableError,
)

ErrorType = Literal[
    "validation",
    "unauthenticated",
    "forbidden",
    "not_found",
    "exists",
    "mismatch",
    "too_large",
    "overloaded",
    "deadline",
    "not_ready",
    "unavailable",
    "internal",
]


class ErrorKind(NamedTuple):
    """One type of error: its name (`type` in JSON), its HTTP status, and the exception that callers see."""

    name: ErrorType
    status: int
    raised: type[GossamerError]


_TOLD: Final = 10  # faults of one request

INTERNAL: Final = ErrorKind("internal", 500, ServiceError)
KINDS: Final = (
    ErrorKind("validation", 422, InputError),
    ErrorKind("unauthenticated", 401, UnauthenticatedError),
    ErrorKind("forbidden", 403, ForbiddenError),
    ErrorKind("not_found", 404, NotFoundError),
    ErrorKind("exists", 409, ExistsError),
    ErrorKind("mismatch", 409, MismatchError),
    ErrorKind("too_large", 413, TooLargeError),
    ErrorKind("overloaded", 429, OverloadedError),
    ErrorKind("deadline", 504, DeadlineError),
    ErrorKind("not_ready", 503, NotReadyError),
    ErrorKind("unavailable", 503, UnavailableError),
    INTERNAL,  # last: ServiceError is the base of those before it
)


def kind_of(error: BaseException) -> ErrorKind:
    """The kind that an exception is answered with; whatever a caller can do nothing about is `internal`."""
    return next((kind for kind in KINDS if isinstance(error, kind.raised)), INTERNAL)


def kind_of_status(status: int) -> ErrorKind:
    """The kind for a bare HTTP status, such as a router's 404 or 405, or a proxy's 502.

    What this service fails on itself is never bare, so a bare 500 is of a proxy that lost it, as Ray Serve's says that.
    """
    named = {
        401: "unauthenticated",
        403: "forbidden",
        404: "not_found",
        413: "too_large",
        429: "overloaded",
        500: "unavailable",
        502: "unavailable",
        503: "unavailable",
        504: "deadline",
    }
    fallback = "validation" if 400 <= status < 500 else "internal"
    return kind_named(named.get(status, fallback))


def kind_named(name: str) -> ErrorKind:
    """The kind called `name`; an unknown name, as a newer service could send, is `internal`."""
    return next((kind for kind in KINDS if kind.name == name), INTERNAL)


def describe(faults: Iterable[Mapping[str, Any]]) -> str:
    """Pydantic's list of faults as one line that names each offender: `k: Input should be …; filters.year: …`.

    The offending values are left out: they can be long, and they need not be printable.
    """
    lines, faults = [], list(faults)
    for fault in faults[:_TOLD]:
        place = ".".join(str(part) for part in fault["loc"] if part != "body")
        reason = str(fault["msg"]).removeprefix("Value error, ")
        lines.append(f"{place}: {reason}" if place else reason)
    if len(faults) > _TOLD:
        lines.append(f"and {len(faults) - _TOLD:,} more faults")
    return printable("; ".join(dict.fromkeys(lines)))


def printable(text: str) -> str:
    """The text with `?` for each half of a surrogate pair, which JSON can smuggle in and UTF-8 cannot hold."""
    return text.encode("utf-8", "replace").decode()
