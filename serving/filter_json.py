"""`Filter`: the filter of a request. The index's own `parse` says what is one; a JSON schema describes it to others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Annotated, Any, Final

from pydantic import PlainValidator, WithJsonSchema

from gossamer.index.filters import OPERATORS, parse


def _checked(given: Any) -> dict[str, Any]:
    """The same filter in lists and dictionaries; None is a filter that leaves every document."""
    if given is None:
        return {}
    parse(given)
    return {key: _as_json(value) for key, value in given.items()}


def _as_json(given: Any) -> Any:
    if isinstance(given, Mapping):
        return {key: _as_json(value) for key, value in given.items()}
    if isinstance(given, (Sequence, AbstractSet)) and not isinstance(given, str):
        return [_as_json(value) for value in given]
    return given


_SCALAR: Final[dict[str, Any]] = {"type": ["string", "number", "boolean"]}
_SCALARS: Final[dict[str, Any]] = {"type": "array", "items": _SCALAR}
_COMPARISONS: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {operator: _SCALARS if operator == "in" else _SCALAR for operator in OPERATORS},
    "additionalProperties": False,
    "minProperties": 1,
}
_INNER: Final[dict[str, Any]] = {
    "type": "object",
    "description": "A filter, as the one that this is part of.",
}
_INNERS: Final[dict[str, Any]] = {"type": "array", "items": _INNER}
_SCHEMA: Final[dict[str, Any]] = {
    "type": ["object", "null"],
    "properties": {"and": _INNERS, "or": _INNERS, "not": _INNER},
    "additionalProperties": {"anyOf": [_SCALAR, _SCALARS, _COMPARISONS]},
    "examples": [
        {"kind": "function"},
        {"id": ["json.loads", "json.dumps"]},
        {"year": {">=": 2000, "<": 2010}, "not": {"kind": ["class", "method"]}},
        {"or": [{"kind": "class"}, {"year": {"<": 2000}}]},
    ],
}
Filter = Annotated[dict[str, Any], PlainValidator(_checked), WithJsonSchema(_SCHEMA)]
"""`Filters` that were checked, as plain JSON."""
