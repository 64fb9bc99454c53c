"""Filters: which documents may be hits, as plain JSON; the same in this process, over HTTP and on the command line.

A filter is a mapping, and all of its entries must hold:

    {"kind": "function"}                              the column has this value
    {"kind": ["function", "class"]}                   one of these
    {"year": {">=": 2000, "<": 2010}}                 comparisons: ==, in, <, <=, > and >=; all must hold
    {"id": ["a", "b"]}                                the documents' ids are a column, too
    {"or": [{"kind": "class"}, {"year": 2001}]}       one of these filters, or with "and" all of them
    {"not": {"kind": "class"}}                        every document that the filter leaves out

A comparison holds for no document whose value is missing (null, or NaN), so that `not` of it holds for all of those.
Strings compare by code point. `and` of nothing, like `{}`, holds for every document; `or` of nothing and `in` of
nothing for none. The three words are taken: a column called `and`, `or` or `not` cannot be filtered by.

`parse` reads a filter into a small tree, which `Documents.mask` evaluates. Nothing here loads Arrow: the client checks
filters before it sends them.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, TypeGuard, get_args

from gossamer.kernels.errors import ConfigError, InputError

Scalar: TypeAlias = str | int | float | bool
"""What a column can be compared with."""
Filters: TypeAlias = Mapping[
    str, "Scalar | Sequence[Scalar] | AbstractSet[Scalar] | Filters | Sequence[Filters]"
]
"""A filter as a caller writes it."""
Operator = Literal["==", "in", "<", "<=", ">", ">="]
OPERATORS: Final[tuple[Operator, ...]] = get_args(Operator)
MAX_DEPTH: Final = 8
"""Filters within filters."""
MAX_PARTS: Final = 128
"""Filters and comparisons in all; each comparison reads a whole column."""


@dataclass(frozen=True, slots=True)
class Compare:
    """`column operator values`: one value, but for `in`."""

    column: str
    operator: Operator
    values: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The part does not hold."""

    part: Clause


@dataclass(frozen=True, slots=True)
class And:
    """All parts hold."""

    parts: tuple[Clause, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """At least one of the parts holds."""

    parts: tuple[Clause, ...]


Clause: TypeAlias = Compare | Not | And | Or


def parse(filters: Filters) -> Clause:
    """Read a filter, as far as it can be read without its index.

    Raises:
        ConfigError: there is no such operator.
        InputError: a part is no filter, no value, or empty where that has no sense; or there are more than
            `MAX_PARTS` parts, or more than `MAX_DEPTH` within one another.
    """
    return _Reader().mapping(filters, 1)


class _Reader:
    """Reads one filter, and counts its parts."""

    def __init__(self) -> None:
        self._n_parts = 0

    def mapping(self, given: object, depth: int) -> Clause:
        if not isinstance(given, Mapping):
            raise InputError(
                f"{shown(given)} is no filter; expected a mapping such as {{'kind': 'function'}}."
            )
        if depth > MAX_DEPTH:
            raise InputError(f"filters lie within filters more than {MAX_DEPTH} deep; write them flatter.")
        self._count()
        return And(tuple(self._entry(key, value, depth) for key, value in given.items()))

    def _entry(self, key: object, value: object, depth: int) -> Clause:
        if key == "not":
            if not isinstance(value, Mapping):
                raise InputError(f"'not' takes a filter, not {shown(value)}{_TAKEN}")
            return Not(self.mapping(value, depth + 1))
        if key in ("and", "or"):
            if not isinstance(value, Sequence) or isinstance(value, str):
                raise InputError(f"{key!r} takes a list of filters, not {shown(value)}{_TAKEN}")
            parts = tuple(self.mapping(part, depth + 1) for part in value)
            return And(parts) if key == "and" else Or(parts)
        if not isinstance(key, str) or not is_text(key):
            raise InputError(f"{shown(key)} is no name of a column; expected a string of valid Unicode.")
        if not isinstance(value, Mapping):
            return self._comparison(key, "in" if _is_several(value) else "==", value)
        if not value:
            raise InputError(f"{shown(key)} is compared with nothing; give a value, or one of {_KNOWN}.")
        return And(tuple(self._comparison(key, operator, wanted) for operator, wanted in value.items()))

    def _comparison(self, column: str, operator: object, wanted: object) -> Compare:
        self._count()
        if not _is_operator(operator):
            raise ConfigError(
                f"{shown(column)}: there is no comparison {shown(operator)}; {_remedy(operator)}."
            )
        if operator != "in":
            return Compare(column, operator, (_scalar(column, wanted),))
        if not _is_several(wanted):
            raise InputError(f"{shown(column)}: 'in' takes a list of values, not {shown(wanted)}.")
        return Compare(column, operator, tuple(_scalar(column, value) for value in wanted))

    def _count(self) -> None:
        self._n_parts += 1
        if self._n_parts > MAX_PARTS:
            raise InputError(
                f"there are more than {MAX_PARTS} filters and comparisons; ask for several values of a column by 'in'."
            )


_KNOWN: Final = ", ".join(OPERATORS)
_TAKEN: Final = "; a column of that name cannot be filtered by."


def _is_operator(given: object) -> TypeGuard[Operator]:
    return given in OPERATORS


def _remedy(wrong: object) -> str:
    return "write {'not': {column: value}}" if wrong in ("!=", "<>", "not in") else f"there are {_KNOWN}"


def _is_several(value: object) -> TypeGuard[Sequence[object] | AbstractSet[object]]:
    return isinstance(value, (Sequence, AbstractSet)) and not isinstance(value, (str, bytes))


def _scalar(column: str, value: object) -> Scalar:
    if type(value) is bool or (type(value) is int and -(2**63) <= value < 2**63):
        return value
    if type(value) is float and math.isfinite(value):
        return value
    if type(value) is str and is_text(value):
        return value
    raise InputError(
        f"{shown(column)} cannot be compared with {shown(value)}; expected a string of valid Unicode, a finite number "
        "(an integer of 64 bits), true, false, or a list of these."
    )


def is_text(value: str) -> bool:
    """Whether it can be written as UTF-8, which half of a surrogate pair cannot."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def shown(value: object) -> str:
    """The value, cut short, for a message."""
    try:
        return reprlib.repr(value)
    except ValueError:  # an integer of more digits than Python writes
        return f"such {type(value).__name__}"
