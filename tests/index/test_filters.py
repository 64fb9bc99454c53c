"""Filters: a mask is what a plain reading of the filter says row by row, and what is no filter is refused as ours."""

from __future__ import annotations

import json
import math
import operator
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.index import document_files, documents
from gossamer.index.document_files import write_documents
from gossamer.index.documents import Documents
from gossamer.index.filters import MAX_DEPTH, MAX_PARTS, And, Compare, Not, Or, parse
from gossamer.kernels.errors import ConfigError, InputError

laws = settings(deadline=None, max_examples=150)
ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge
}  # fmt: skip
TYPES = {"name": pa.string(), "year": pa.int64(), "share": pa.float64(), "open": pa.bool_()}
POOLS: dict[str, list[Any]] = {  # few values, so that comparisons meet them
    "id": ["", "a", "b", "é", "z", "\uffff", "\U0001f600"],
    "name": ["", "a", "aa", "b", "é", "\uffff", "\U0001f600"],
    "year": [-(2**63), -1, 0, 1, 2000, 2**53 + 1, 2**63 - 1],
    "share": [-1e300, -0.0, 0.0, 0.1, 1.0, 2.5],
    "open": [True, False],
}
STORED = {**POOLS, "share": [*POOLS["share"], math.nan, math.inf, -math.inf]}
WANTED = {**POOLS, "share": [*POOLS["share"], 0, 1, -3]}  # integers suit a column of floats


@pytest.fixture(scope="module", autouse=True)
def small_batches() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for module in (documents, document_files):
            patch.setattr(module, "BATCH_ROWS", 4)
        yield


Row = dict[str, Any]


@st.composite
def rows(draw: st.DrawFn) -> list[Row]:
    ids = draw(st.permutations(POOLS["id"]))[: draw(st.integers(0, len(POOLS["id"])))]
    columns = {name: st.none() | st.sampled_from(STORED[name]) for name in TYPES}
    return [{"id": id_, **draw(st.fixed_dictionaries(columns))} for id_ in ids]


@st.composite
def entries(draw: st.DrawFn) -> dict[str, Any]:
    """Some columns, each with a value, values, or comparisons."""
    filters = {}
    for column in draw(st.lists(st.sampled_from(list(WANTED)), unique=True, max_size=2)):
        one = st.sampled_from(WANTED[column])
        several = st.lists(one, max_size=3)
        orders = list(ORDERS) if column != "open" else ["=="]
        comparisons = dict.fromkeys(draw(st.lists(st.sampled_from(orders), unique=True)), one)
        if not comparisons or draw(st.booleans()):
            comparisons["in"] = several
        filters[column] = draw(one | several | st.fixed_dictionaries(comparisons))
    return filters


def _within(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    words = {"and": st.lists(inner, max_size=3), "or": st.lists(inner, max_size=3), "not": inner}
    beside = st.fixed_dictionaries({}, optional=words)
    return st.tuples(entries(), beside).map(lambda parts: {**parts[0], **parts[1]})


filters_ = st.recursive(entries(), _within, max_leaves=6)


def holds(row: Row, filters: dict[str, Any]) -> bool:
    """The meaning of a filter, as its documentation says it."""
    return all(_entry_holds(row, key, value) for key, value in filters.items())


def _entry_holds(row: Row, key: str, value: Any) -> bool:
    if key == "and":
        return all(holds(row, part) for part in value)
    if key == "or":
        return any(holds(row, part) for part in value)
    if key == "not":
        return not holds(row, value)
    if isinstance(value, dict):
        return all(_compares(row[key], name, wanted) for name, wanted in value.items())
    return _compares(row[key], "in" if isinstance(value, list) else "==", value)


def _compares(found: Any, name: str, wanted: Any) -> bool:
    if found is None or found != found:
        return False
    return found in wanted if name == "in" else ORDERS[name](found, wanted)


def stored(folder: str | Path, table: list[Row]) -> Documents:
    columns = {"id": pa.string(), **TYPES}
    arrays = {name: pa.array([row[name] for row in table], kind) for name, kind in columns.items()}
    write_documents(Path(folder) / "docs", pa.record_batch(arrays), None, len(table))
    return Documents(Path(folder) / "docs", len(table))


TABLE: list[Row] = [
    {"id": "a", "name": "x", "year": 2000, "share": 0.5, "open": True},
    {"id": "b", "name": "y", "year": None, "share": math.nan, "open": False},
    {"id": "c", "name": None, "year": 2010, "share": -0.0, "open": None},
]


@pytest.fixture(scope="module")
def fixed(tmp_path_factory: pytest.TempPathFactory) -> Documents:
    return stored(tmp_path_factory.mktemp("filters"), TABLE)


# -- laws


@laws
@given(rows(), st.lists(filters_, min_size=1, max_size=5))
def test_a_mask_is_what_the_filter_says_of_each_row(table: list[Row], several: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        docs = stored(folder, table)
        for filters in several:
            mask = docs.mask(filters)
            assert mask.dtype == np.bool_
            assert mask.tolist() == [holds(row, filters) for row in table], filters


@laws
@given(rows(), filters_, filters_)
def test_not_and_or_are_complement_intersection_and_union(
    table: list[Row], one: dict[str, Any], other: dict[str, Any]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        docs = stored(folder, table)
        both = [one, other]
        assert (docs.mask({"not": one}) == ~docs.mask(one)).all()
        assert (docs.mask({"and": both}) == (docs.mask(one) & docs.mask(other))).all()
        assert (docs.mask({"or": both}) == (docs.mask(one) | docs.mask(other))).all()
        negated = {"and": [{"not": one}, {"not": other}]}
        assert (docs.mask({"not": {"or": both}}) == docs.mask(negated)).all()


@laws
@given(filters_)
def test_a_filter_survives_json(filters: dict[str, Any]) -> None:
    assert parse(json.loads(json.dumps(filters))) == parse(filters)


@laws
@given(st.lists(st.sampled_from([*POOLS["id"], "none", "c"])))
def test_ids_are_found_by_search_and_by_scan_alike(wanted: list[str]) -> None:
    table: list[Row] = [{"id": id_, **dict.fromkeys(TYPES)} for id_ in POOLS["id"]]
    expected = [row["id"] in wanted for row in table]
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        docs = stored(folder, table)
        for scanned_per_found in (0, 1_024):
            patch.setattr(documents, "_IDS_SCANNED_PER_ID_FOUND", scanned_per_found)
            assert docs.mask({"id": wanted}).tolist() == expected
            assert docs.mask({"id": set(wanted)}).tolist() == expected


ODD_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([2**63, math.nan, math.inf, "\ud800", b"a", 1j, object(), range(2), np.int64(1)]),
    st.floats(),
    st.text(max_size=3),
)
ODD_KEYS = st.one_of(
    st.sampled_from([*WANTED, *ORDERS, "in", "and", "or", "not", "!=", "\ud800", None, 3, ("a",), ""]),
    st.text(max_size=3),
)  # fmt: skip
ODD = st.recursive(
    ODD_VALUES | st.dictionaries(ODD_KEYS, ODD_VALUES, max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ODD_KEYS, inner, max_size=3),
    max_leaves=12,
)


@settings(deadline=None, max_examples=600)
@given(st.dictionaries(ODD_KEYS, ODD, min_size=1, max_size=3) | ODD)
def test_whatever_is_no_filter_is_refused_as_ours(fixed: Documents, odd: Any) -> None:
    message = refusal(fixed, odd)
    if message is None:
        assert fixed.mask(odd).shape == (len(fixed),)
    else:
        message.encode()  # can be shown
        assert 0 < len(message) < 400


def test_integers_beyond_what_python_writes_are_refused_as_ours(fixed: Documents) -> None:
    huge = 10**5_000
    odds: list[Any] = [
        huge,
        {huge: 1},
        {"year": huge},
        {"year": {huge: 1}},
        {"year": {"in": huge}},
        {"and": huge},
    ]
    for odd in odds:
        assert "such int" in (refusal(fixed, odd) or "")


def refusal(fixed: Documents, odd: Any) -> str | None:
    try:
        fixed.mask(odd)
    except InputError as error:
        return str(error)
    return None


# -- examples


@pytest.mark.parametrize(
    ("filters", "ids"),
    [
        ({"year": {">=": 2000}}, "ac"),
        ({"not": {"year": {">=": 2000}}}, "b"),  # as it is missing
        ({"not": {"year": 2000}}, "bc"),
        ({"share": {"<": 9}}, "ac"),
        ({"not": {"share": {"<": 9}}}, "b"),  # NaN
        ({"share": 0}, "c"),  # -0.0
        ({"share": [0.0, 0.5]}, "ac"),
        ({"year": {"in": [2000, 2010], ">": 2000}}, "c"),
        ({"id": {">": "a"}}, "bc"),
        ({"id": "b"}, "b"),
        ({"id": ["c", "a", "c", "nobody"]}, "ac"),
        ({"open": [True, False]}, "ab"),
        ({}, "abc"),
        ({"and": []}, "abc"),
        ({"or": []}, ""),
        ({"or": [{}]}, "abc"),
        ({"id": []}, ""),
        ({"not": {}}, ""),
    ],
)
def test_what_filters_leave(fixed: Documents, filters: dict[str, Any], ids: str) -> None:
    assert [id_ for id_, holds_ in zip("abc", fixed.mask(filters), strict=True) if holds_] == list(ids)


def test_a_filter_is_read_into_a_tree() -> None:
    read = parse({"kind": "x", "or": [{"year": {"<": 1, "in": (2, 3)}}], "not": {"id": frozenset({"a"})}})
    years = And((Compare("year", "<", (1,)), Compare("year", "in", (2, 3))))
    assert read == And(
        (Compare("kind", "==", ("x",)), Or((And((years,)),)), Not(And((Compare("id", "in", ("a",)),))))
    )


@pytest.mark.parametrize(
    ("filters", "error", "message"),
    [
        ({"yaer": 1}, ConfigError, "no metadata column 'yaer' to filter by; did you mean 'year'"),
        ({"or": [{"name": "x"}, {"ide": "a"}]}, ConfigError, "'ide'.*did you mean 'id'"),
        ({"year": {"=>": 1}}, ConfigError, "'year': there is no comparison '=>'; there are ==, in, <"),
        ({"year": {"like": 1}}, ConfigError, "no comparison 'like'; there are ==, in, <, <=, >, >="),
        ({"year": {"!=": 1}}, ConfigError, r"no comparison '!='; write \{'not'"),
        ({"year": {}}, InputError, "'year' is compared with nothing"),
        ({"year": None}, InputError, "'year' cannot be compared with None"),
        ({"year": [1, [2]]}, InputError, r"'year' cannot be compared with \[2\]"),
        ({"year": {">": [1]}}, InputError, r"'year' cannot be compared with \[1\]"),
        ({"year": {"in": 1}}, InputError, "'year': 'in' takes a list of values, not 1"),
        ({"year": math.inf}, InputError, "'year' cannot be compared with inf"),
        ({"year": 2**63}, InputError, "integer of 64 bits"),
        ({"year": {"<": "x"}}, InputError, "the filter 'year' < 'x' does not fit the column, which is int64"),
        ({"share": 2**53 + 1}, InputError, "does not fit the column, which is double"),
        ({"open": {"<": True}}, InputError, "the column is bool; use '==' or 'in'"),
        ({"name": "\ud800"}, InputError, "'name' cannot be compared with"),
        ({"and": "x"}, InputError, "'and' takes a list of filters, not 'x'; a column of that name cannot be"),
        ({"or": {"name": "x"}}, InputError, "'or' takes a list of filters"),
        ({"not": [{"name": "x"}]}, InputError, "'not' takes a filter, not"),
        ({"and": ["x"]}, InputError, "'x' is no filter; expected a mapping"),
        ({3: "x"}, InputError, "3 is no name of a column"),
        (["name"], InputError, r"\['name'\] is no filter"),
    ],
)  # fmt: skip
def test_a_refusal_names_what_was_wrong(
    fixed: Documents, filters: Any, error: type[InputError], message: str
) -> None:
    with pytest.raises(error, match=message):
        fixed.mask(filters)


def nested(depth: int) -> dict[str, Any]:
    filters: dict[str, Any] = {"name": "x"}
    for _ in range(depth - 1):
        filters = {"not": filters}
    return filters


def test_depth_and_size_have_limits(fixed: Documents) -> None:
    assert fixed.mask(nested(MAX_DEPTH)).shape == (3,)
    for depth in (MAX_DEPTH + 1, 100_000):
        with pytest.raises(InputError, match=f"more than {MAX_DEPTH} deep"):
            fixed.mask(nested(depth))
    around: dict[str, Any] = {}
    around["and"] = [around] * 1_000
    with pytest.raises(InputError, match="deep"):
        fixed.mask(around)
    fixed.mask({"or": [{}] * (MAX_PARTS - 1)})
    too_many: list[Any] = [{"or": [{}] * MAX_PARTS}, {"or": [{"name": "x", "year": 1}] * 10**6}]
    for filters in too_many:
        with pytest.raises(InputError, match=f"more than {MAX_PARTS} filters and comparisons"):
            fixed.mask(filters)
    assert fixed.mask({"id": [str(number) for number in range(10_000)]}).sum() == 0


def test_a_column_named_as_a_word_is_stored_and_cannot_be_filtered_by(tmp_path: Path) -> None:
    write_documents(tmp_path / "docs", pa.table({"id": ["a"], "not": ["x"], "in": ["y"]}), None, 1)
    docs = Documents(tmp_path / "docs", 1)
    assert docs.take([0]).to_pylist()[0]["not"] == "x"
    assert docs.mask({"in": {"in": ["y"]}}).tolist() == [True]
    with pytest.raises(InputError, match="a column of that name cannot be filtered by"):
        docs.mask({"not": "x"})


def test_filters_load_no_arrow() -> None:
    import subprocess
    import sys

    code = "import sys, gossamer.index.filters; print([n for n in ('pyarrow', 'numpy') if n in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
