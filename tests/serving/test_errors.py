"""The table of errors: complete, and the same both ways."""

from __future__ import annotations

from typing import get_args

import pytest

from gossamer.kernels import errors
from gossamer.serving.errors import (
    INTERNAL,
    KINDS,
    ErrorKind,
    ErrorType,
    describe,
    kind_named,
    kind_of,
    kind_of_status,
)


def test_every_type_stands_once() -> None:
    assert [kind.name for kind in KINDS] == list(get_args(ErrorType))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_type_survives_the_way_there_and_back(kind: ErrorKind) -> None:
    assert kind_of(kind.raised("…")) == kind == kind_named(kind.name)


@pytest.mark.parametrize(
    "error", [ValueError("…"), OSError("…"), errors.CorruptError("…"), errors.BackendError("…")]
)
def test_what_a_caller_cannot_mend_is_internal(error: Exception) -> None:
    assert kind_of(error) is INTERNAL


def test_branches_are_answered_as_their_stem() -> None:
    assert kind_of(errors.ConfigError("…")).name == kind_of(errors.VectorError("…")).name == "validation"


@pytest.mark.parametrize(
    ("status", "name"),
    [
        (404, "not_found"),
        (413, "too_large"),
        (405, "validation"),
        (500, "unavailable"),
        (502, "unavailable"),
        (501, "internal"),
    ],
)
def test_bare_statuses(status: int, name: str) -> None:
    assert kind_of_status(status).name == name


def test_faults_are_one_printable_line() -> None:
    faults = [
        {"loc": ("body", "k"), "msg": "too small"},
        {"loc": ("body", "filters", "\ud800"), "msg": "Value error, no such thing"},
        {"loc": ("body", "k"), "msg": "too small"},
        {"loc": ("body",), "msg": "Field required"},
    ]
    assert describe(faults) == "k: too small; filters.?: no such thing; Field required"
