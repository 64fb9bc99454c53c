"""Documents: what is written comes back, is found by id and metadata, and what cannot be stored is refused."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gossamer.index import document_files, documents
from gossamer.index.document_files import Source, write_documents
from gossamer.index.documents import Documents
from gossamer.kernels.errors import ConfigError, InputError, NotFoundError, RecordError


@pytest.fixture(autouse=True, params=[4, 8_192])
def batch_rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Many batches, and one."""
    for module in (documents, document_files):
        monkeypatch.setattr(module, "BATCH_ROWS", request.param)
    return int(request.param)


def table(n_rows: int = 11) -> pa.Table:
    rows = range(n_rows)
    return pa.table(
        {
            "year": pa.array([None if row == 3 else 2000 + row % 3 for row in rows], pa.int32()),
            "text": [f"text {row}" for row in rows],
            "id": [f"d{row}" for row in rows],
            "title": [None if row == 2 else f"title {row}" for row in rows],
            "lang": ["en" if row % 2 else "dé" for row in rows],
            "price": pa.array([row / 2 for row in rows], pa.float32()),
            "open": [row < 5 for row in rows],
        }
    )


def write(folder: Path, source: Source | None, ids: list[str] | None = None, n: int = 11) -> Documents:
    write_documents(folder / "docs", source, None if ids is None else pa.array(ids, pa.string()), n)
    return Documents(folder / "docs", n)


@pytest.fixture
def stored(tmp_path: Path) -> Documents:
    return write(tmp_path, table())


def test_take_returns_rows_in_the_order_asked(stored: Documents) -> None:
    rows = [10, 0, 3, 3, 2]
    taken = stored.take(rows)
    assert taken.column_names == ["id", "title", "text", "year", "lang", "price", "open"]
    expected = table().select(taken.column_names).take(rows)
    assert taken.to_pylist() == expected.to_pylist()
    assert taken.schema == stored.schema
    assert stored.take([]).num_rows == 0
    assert stored.take(np.array([1])).to_pylist()[0]["id"] == "d1"


@pytest.mark.parametrize("row", [-1, 11])
def test_a_row_out_of_range_is_refused(stored: Documents, row: int) -> None:
    with pytest.raises(InputError, match=f"row {row} is outside"):
        stored.take([0, row])


def test_ids_are_found_and_unknown_ones_are_minus_one(tmp_path: Path) -> None:
    ids = ["b", "", "a", "é", "z" * 50, "B", "\U0001f600", "￿", "aa", "10", "9"]
    stored = write(tmp_path, None, ids)
    assert stored.rows_of(ids).tolist() == list(range(11))
    assert stored.rows_of(["c", "zz", "\U0001f601"]).tolist() == [-1, -1, -1]
    assert stored.rows_of([]).tolist() == []
    assert stored.ids.to_pylist() == ids


def test_only_ids(tmp_path: Path) -> None:
    for number, source in enumerate([None, pa.table({"id": [f"d{row}" for row in range(11)]})]):
        stored = write(tmp_path / str(number), source, [f"d{row}" for row in range(11)])
        assert stored.take([1]).to_pylist() == [{"id": "d1", "title": "", "text": ""}]
        assert stored.metadata == []
        with pytest.raises(ConfigError, match="has no metadata columns"):
            stored.mask({"year": 1})


def test_no_documents_at_all(tmp_path: Path) -> None:
    stored = write(tmp_path, table(0), n=0)
    assert len(stored) == 0
    assert stored.rows_of(["a"]).tolist() == [-1]
    assert stored.mask({}).shape == (0,)
    assert stored.take([]).num_rows == 0


@pytest.mark.parametrize(
    ("filters", "rows"),
    [
        ({"year": 2001}, [1, 4, 7, 10]),
        ({"year": [2001, 2002]}, [1, 2, 4, 5, 7, 8, 10]),
        ({"year": 2001, "lang": "dé"}, [4, 10]),
        ({"lang": []}, []),
        ({"open": True}, [0, 1, 2, 3, 4]),
        ({"price": 1}, [2]),
        ({"price": [0.5, 5.0]}, [1, 10]),
        ({"year": {">=": 2001, "<": 2002}}, [1, 4, 7, 10]),
        ({"not": {"year": {">=": 2000}}}, [3]),
        ({"lang": {"<": "en"}}, [0, 2, 4, 6, 8, 10]),
        ({"id": ["d7", "none", "d1"], "lang": {"in": ["en"]}}, [1, 7]),
        ({"or": [{"price": {"<": 1}}, {"open": False, "not": {"year": 2001}}]}, [0, 1, 5, 6, 8, 9]),
        ({}, list(range(11))),
    ],
)
def test_filters(stored: Documents, filters: dict[str, Any], rows: list[int]) -> None:
    mask = stored.mask(filters)
    assert mask.dtype == np.bool_
    assert np.flatnonzero(mask).tolist() == rows


def test_an_unknown_column_names_the_nearest(stored: Documents) -> None:
    with pytest.raises(ConfigError, match=r"'yaer' to filter by; did you mean 'year'"):
        stored.mask({"yaer": 2000})
    with pytest.raises(ConfigError, match="'text'"):
        stored.mask({"text": "text 1"})


@pytest.mark.parametrize(
    "filters",
    [
        {"year": "2001"},
        {"year": 1.5},
        {"year": True},
        {"lang": 3},
        {"open": 1},
        {"year": {">=": 2000, "<": 2001.5}},
        {"price": 2**53 + 1},
        {"id": [1]},
    ],
)
def test_a_value_of_another_type_is_refused(stored: Documents, filters: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="does not fit the column"):
        stored.mask(filters)


def test_counts_of_values(stored: Documents) -> None:
    assert stored.tally("lang", 2, None) == {"dé": 6, "en": 5}
    assert stored.tally("year", 3, None) == {2001: 4, 2000: 3, 2002: 3}  # row 3 has none
    assert stored.tally("year", 2, None) is None
    with pytest.raises(ConfigError, match="no metadata column 'text'"):
        stored.tally("text", 9, None)


def test_threads_may_share_documents(stored: Documents) -> None:
    with ThreadPoolExecutor(4) as pool:
        taken = list(pool.map(lambda row: stored.take([row % 11])["text"][0].as_py(), range(200)))
    assert taken == [f"text {row % 11}" for row in range(200)]


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ""])
def test_files_and_streams_of_any_batch_size_are_the_same(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"given{suffix}"
    if suffix == ".parquet":
        pq.write_table(table(), path, row_group_size=3)
    elif suffix == ".arrow":
        with pa.ipc.new_file(path, table().schema) as writer:
            writer.write_table(table(), max_chunksize=5)
    else:
        path.mkdir()
        pq.write_table(table().slice(0, 5), path / "0.parquet")
        pq.write_table(table().slice(5), path / "1.parquet")
    from_file = write(tmp_path / "a", path)
    one_by_one = write(tmp_path / "b", (batch for batch in table().to_batches(max_chunksize=1)))
    for name in ("ids.arrow", "order.npy"):
        assert (tmp_path / "a/docs" / name).read_bytes() == (tmp_path / "b/docs" / name).read_bytes()
    assert from_file.take(range(11)).equals(one_by_one.take(range(11)))


def test_a_missing_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="there are no documents at"):
        write(tmp_path, tmp_path / "nowhere.parquet")


def test_texts_are_mapped_not_compressed(tmp_path: Path) -> None:
    write(tmp_path, table())
    assert b"text 7" in (tmp_path / "docs" / "columns.arrow").read_bytes()


def batches(*columns: dict[str, Any]) -> list[pa.RecordBatch]:
    return [pa.record_batch(part) for part in columns]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (batches({"text": ["a"] * 3}), r"no column 'id'; there are \['text'\]"),
        (batches({"id": ["a", "b"]}), "2 documents for 3 vectors; row 2 has none"),
        (batches({"id": ["a", "b", "c", "d"]}), "row 3 is a document without a vector"),
        (batches({"id": ["a", "b"]}, {"id": ["x"]}), "row 2 is 'x' among the documents, but 'c'"),
        (batches({"id": ["a", None, "c"]}), "row 1 has no id"),
        (batches({"id": ["a", "b"]}, {"id": ["c"], "x": [1]}), r"from row 2 on.*\['x'\]"),
        (
            batches({"id": ["a", "b"], "x": [1, 2]}, {"id": ["c"], "x": ["y"]}),
            "from row 2 on, the column 'x'",
        ),
        (
            batches({"id": ["a", "b"], "x": [None, None]}, {"id": ["c"], "x": [1]}),
            "from row 2 on, the column 'x' is int64, and of strings before",
        ),
        (
            batches({"id": ["a", "b"], "x": ["y", "z"]}, {"id": ["c"], "x": [True]}),
            "from row 2 on, the column 'x' is bool, and of strings before",
        ),
        (batches({"id": ["a"] * 3, "when": [date(2020, 1, 1)] * 3}), "'when' is date32"),
        (batches({"id": ["a"] * 3, "tags": [["x"]] * 3}), "'tags' is list"),
    ],
)
def test_documents_that_do_not_fit_are_refused(
    tmp_path: Path, source: list[pa.RecordBatch], message: str
) -> None:
    with pytest.raises(RecordError, match=message):
        write(tmp_path, iter(source), ["a", "b", "c"], 3)


def test_a_repeated_id_among_the_documents_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="'a' is given to row 0 and row 2"):
        write(tmp_path, pa.table({"id": ["a", "b", "a"]}), None, 3)


def test_kinds_of_strings_and_a_column_of_nothing(tmp_path: Path) -> None:
    given = pa.table(
        {
            "id": pa.array(["a", "b"], pa.large_string()),
            "kind": pa.array(["x", "y"]).dictionary_encode(),
            "none": pa.nulls(2),
        }
    )
    stored = write(tmp_path, given, None, 2)
    assert stored.take([1]).to_pylist() == [{"id": "b", "title": "", "text": "", "kind": "y", "none": None}]
    assert stored.mask({"kind": "y"}).tolist() == [False, True]


def test_a_column_may_be_null_for_a_while(tmp_path: Path) -> None:
    parts = batches(
        *(
            {"id": [id_], "x": [x], "n": [n]}
            for id_, x, n in zip("abc", (None, "y", None), (1, None, 2), strict=True)
        )
    )
    stored = write(tmp_path, iter(parts), None, 3)
    assert stored.take([0, 1, 2]).select(["x", "n"]).to_pydict() == {
        "x": [None, "y", None],
        "n": [1, None, 2],
    }
