"""What SparseVectors refuses, and that the message names the row; the laws stand in tests/laws."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gossamer.index.vectors import SparseVectors
from gossamer.kernels.errors import FormatError, NotFoundError, VectorError

GOOD: dict[str, Any] = {"indptr": [0, 2, 2, 3], "indices": [1, 4, 0], "values": [1.0, 2.0, 3.0], "n_cols": 5}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values": [1.0, np.nan, 3.0]}, r"row 0: the weight nan"),
        ({"values": [1.0, np.inf, 3.0]}, r"row 0: the weight inf"),
        ({"values": [1.0, 2.0, 0.0]}, r"row 2: the weight of term 0 is 0"),
        ({"values": [1.0, 2.0, -3.0]}, r"row 2: the weight -3.0 is negative; pass signed=True"),
        ({"indices": [4, 1, 0]}, r"row 0: term 1 repeats or is out of order"),
        ({"indices": [1, 1, 0]}, r"row 0: term 1 repeats"),
        ({"indices": [1, 4, 5]}, r"row 2: term 5 is outside 0..4"),
        ({"indices": [1, 4, -1]}, r"row 2: term -1 is outside"),
        ({"indices": [1.0, 4.0, 0.0]}, r"expected integers"),
        ({"indptr": [0, 2, 1, 3]}, r"indptr must start at 0"),
        ({"indptr": [1, 2, 2, 3]}, r"indptr must start at 0"),
        ({"indptr": [0, 2, 2, 4]}, r"indptr ends at 4, but there are 3 indices"),
        ({"n_cols": 0}, r"n_cols is 0"),
        ({"ids": ["a", "b"]}, r"2 ids for 3 rows"),
        ({"ids": ["a", None, "c"]}, r"row 1 has no id"),
        ({"ids": ["a", "b", 3]}, r"ids must be strings"),
        ({"values": [1.0, 2.0, np.nan], "ids": ["a", "b", "c"]}, r"row 2 \(id 'c'\)"),
    ],
)
def test_refuses_what_is_no_sparse_vector(change: dict[str, Any], message: str) -> None:
    with pytest.raises(VectorError, match=message):
        SparseVectors(**(GOOD | change))


def test_index_type_follows_the_vocabulary() -> None:
    assert SparseVectors(**GOOD).indices.dtype == np.uint16
    wide = SparseVectors.from_dicts([{70_000: 1.0}], 70_001)
    assert wide.indices.dtype == np.int32
    assert wide.to_dicts() == [{70_000: 1.0}]


def test_first_entry_of_a_row_may_be_smaller_than_the_last_of_the_row_before() -> None:
    vectors = SparseVectors([0, 1, 1, 2], [4, 0], [1.0, 1.0], 5)  # type: ignore[arg-type]
    assert vectors.to_dicts() == [{4: 1.0}, {}, {0: 1.0}]


def test_is_frozen() -> None:
    with pytest.raises(AttributeError):
        SparseVectors(**GOOD).n_cols = 9  # type: ignore[misc]


def test_top_keeps_the_largest_magnitudes_and_the_smaller_term_among_equals() -> None:
    vectors = SparseVectors.from_dicts([{0: 1.0, 1: -3.0, 2: 1.0, 3: 2.0}], 4, signed=True)
    assert vectors.top(3).to_dicts() == [{0: 1.0, 1: -3.0, 3: 2.0}]
    with pytest.raises(VectorError, match="at least 1"):
        vectors.top(0)


def test_concat_wants_one_vocabulary_and_ids_for_all_or_none() -> None:
    one, named = SparseVectors(**GOOD), SparseVectors(**GOOD, ids=["a", "b", "c"])
    with pytest.raises(VectorError, match="different vocabularies"):
        SparseVectors.concat([one, SparseVectors.from_dicts([{}], 6)])
    with pytest.raises(VectorError, match="some parts have ids"):
        SparseVectors.concat([one, named])
    both = SparseVectors.concat([named, named])
    assert both.ids is not None
    assert both.ids.to_pylist() == ["a", "b", "c"] * 2


def test_parquet_of_others_is_read_by_naming_the_vocabulary() -> None:
    table = pa.table({"id": ["x"], "indices": [[3, 7]], "values": [[0.5, 1.5]]})
    with pytest.raises(FormatError, match="pass n_cols"):
        SparseVectors.from_arrow(table)
    vectors = SparseVectors.from_arrow(table, n_cols=10)
    assert vectors.to_dicts() == [{3: 0.5, 7: 1.5}]
    assert vectors.ids == pa.array(["x"])


@pytest.mark.parametrize(
    ("table", "error", "message"),
    [
        ({"indices": [[1]]}, FormatError, "'values' is missing"),
        ({"indices": [1], "values": [[1.0]]}, FormatError, "expected a list"),
        ({"indices": [[1, 2]], "values": [[1.0]]}, VectorError, "row 0 has 2 indices but 1 values"),
        ({"indices": [[1], None], "values": [[1.0], [2.0]]}, VectorError, "row 1 has no indices"),
    ],
)
def test_tables_that_are_no_vectors(table: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        SparseVectors.from_arrow(pa.table(table), n_cols=5)


def test_parquet_folder_streams_in_name_order_and_names_the_bad_file(tmp_path: Any) -> None:
    vectors = SparseVectors(**GOOD, ids=["a", "b", "c"])
    vectors[0:2].write_parquet(tmp_path / "part-0.parquet")
    vectors[2:3].write_parquet(tmp_path / "part-1.parquet")
    assert SparseVectors.read_parquet(tmp_path).equals(vectors)
    assert [part.n_rows for part in SparseVectors.stream_parquet(tmp_path, batch_rows=1)] == [1, 1, 1]
    bad = (
        vectors.to_arrow()
        .slice(0, 1)
        .set_column(2, "values", pa.array([[1.0, -1.0]], pa.list_(pa.float32())))
    )
    pq.write_table(bad, tmp_path / "part-2.parquet")
    with pytest.raises(VectorError, match=r"part-2\.parquet, counting from row 0: row 0 \(id 'a'\)"):
        SparseVectors.read_parquet(tmp_path)
    (tmp_path / "part-2.parquet").write_bytes(b"no parquet")
    with pytest.raises(FormatError, match=r"part-2\.parquet"):
        SparseVectors.read_parquet(tmp_path)
    with pytest.raises(NotFoundError, match="no Parquet file"):
        SparseVectors.read_parquet(tmp_path / "absent.parquet")


def test_a_failed_write_leaves_nothing(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(OSError, match="no space"):
        SparseVectors(**GOOD).write_parquet(tmp_path / "x.parquet")
    assert list(tmp_path.iterdir()) == []


def test_no_rows_may_be_selected() -> None:
    vectors = SparseVectors.from_dicts([{0: 1.0}], 2, ids=["a"])
    for none in ([], np.array([], dtype=np.int64), slice(0, 0), [False]):
        assert vectors[none].shape == (0, 2)


def test_a_shard_without_rows_has_no_say_in_ids(tmp_path: Path) -> None:
    one = SparseVectors.from_dicts([{0: 1.0}], 2, ids=["a"])
    for number, part in enumerate((one[:0], one, one[:0])):
        part.write_parquet(tmp_path / f"{number}.parquet")
    assert SparseVectors.read_parquet(tmp_path).equals(one)
    unnamed = SparseVectors.from_dicts([{1: 2.0}], 2)
    with pytest.raises(VectorError, match="some parts have ids"):
        SparseVectors.concat([one, unnamed])


def test_what_was_checked_cannot_be_changed() -> None:
    given = np.array([1.0], dtype=np.float32)
    vectors = SparseVectors(np.array([0, 1]), np.array([0], dtype=np.uint16), given, 2)
    for array in (vectors.indptr, vectors.indices, vectors.values, vectors.row(0)[1]):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    assert np.shares_memory(vectors.values, given)
    matrix = vectors.to_scipy()
    matrix.data[0] = 5
    assert vectors.values.tolist() == [1.0]


def test_an_id_of_half_a_character_is_refused() -> None:
    with pytest.raises(VectorError, match=r"the id 'b\\ud800' is no valid Unicode"):
        SparseVectors.from_dicts([{0: 1.0}] * 2, 2, ids=["a", "b\ud800"])
