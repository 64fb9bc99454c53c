from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.kernels.errors import NotFoundError, RecordError
from gossamer.recsys import Interactions, read_interactions

CSV = "who,what,when,stars\nann,tea,3,5\nbob,tea,1,2\nann,milk,2,4\nann,tea,9,1\n"


def pairs(log: Interactions) -> list[tuple[str, str]]:
    return list(zip(log.table["user"].to_pylist(), log.table["item"].to_pylist(), strict=True))


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    path = tmp_path / "log.csv"
    path.write_text(CSV)
    return path


def test_named_columns_of_a_csv(csv: Path) -> None:
    log = read_interactions(csv, user="who", item="what", time="when", label="stars")
    assert pairs(log) == [("ann", "tea"), ("bob", "tea"), ("ann", "milk"), ("ann", "tea")]
    assert log.table["time"].to_pylist() == [3, 1, 2, 9]
    assert log.table["label"].to_pylist() == [5, 2, 4, 1]
    assert (log.n_users, log.n_items, len(log)) == (2, 2, 4)
    assert pairs(log.filter_labels(4)) == [("ann", "tea"), ("ann", "milk")]


def test_tsv_and_parquet_hold_the_same(csv: Path, tmp_path: Path) -> None:
    read = partial(read_interactions, user="who", item="what", time="when")
    expected = read(csv)
    tsv = tmp_path / "log.inter"
    tsv.write_text(CSV.replace(",", "\t"))
    assert read(tsv).table.equals(expected.table)
    table = pa.table({"what": expected.table["item"], "when": [3, 1, 2, 9], "who": expected.table["user"]})
    pq.write_table(table, tmp_path / "log.parquet", row_group_size=3)
    assert read(tmp_path / "log.parquet").table.equals(expected.table)


def test_headers_with_types_as_recbole_writes_them(tmp_path: Path) -> None:
    path = tmp_path / "u.inter"
    path.write_text("user_id:token\titem_id:token\trating:float\n1\t10\t3.5\n2\t10\t4\n")
    for user, item, label in (
        ("user_id", "item_id", "rating"),
        ("user_id:token", "item_id:token", "rating:float"),
    ):
        log = read_interactions(path, user=user, item=item, label=label)
        assert pairs(log) == [("1", "10"), ("2", "10")]
        assert log.table["label"].to_pylist() == [3.5, 4]


def test_lists_of_items(tmp_path: Path) -> None:
    path = tmp_path / "train.txt"
    path.write_text("0 5 6 7\n1 5\n2\n3 7 5\n")
    assert pairs(read_interactions(path)) == [
        ("0", "5"), ("0", "6"), ("0", "7"), ("1", "5"), ("3", "7"), ("3", "5"),
    ]  # fmt: skip


def test_many_batches_keep_one_numbering(tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    path.write_text("".join(f"u{i % 700} {i % 13}\n" for i in range(9_000)))
    log = read_interactions(path, format="lists")
    assert (len(log), log.n_users, log.n_items) == (9_000, 700, 13)
    assert log.user_ids[log.users[-1]].as_py() == f"u{8_999 % 700}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("who,what\nann,tea\nbob\n", r"line 3: 1 columns, expected 2: 'bob'. Correct or delete"),
        ("who,what\nann,tea\n,tea\n", r"row 2: no user; expected an id"),
        ("who,what\nann,\n", r"row 1: no item; expected an id"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(RecordError, match=message):
        read_interactions(path, user="who", item="what")


def test_a_bad_number_a_wrong_column_and_a_missing_file_are_named(csv: Path, tmp_path: Path) -> None:
    csv.write_text(CSV.replace("bob,tea,1", "bob,tea,soon"))
    with pytest.raises(RecordError, match=r"log.csv, row 2: the time 'soon' is no number"):
        read_interactions(csv, user="who", item="what", time="when")
    with pytest.raises(NotFoundError, match="no column 'whom'; did you mean 'who'"):
        read_interactions(csv, user="whom", item="what")
    with pytest.raises(NotFoundError, match="no log at"):
        read_interactions(tmp_path / "none.csv")
    (tmp_path / "log.xyz").write_text(CSV)
    with pytest.raises(RecordError, match="pass format="):
        read_interactions(tmp_path / "log.xyz")


def in_parquet(path: Path, times: pa.Array) -> Interactions:
    pq.write_table(pa.table({"user": ["a"] * len(times), "item": list("xyz"), "at": times}), path)
    return read_interactions(path, time="at")


@pytest.mark.parametrize(
    "kind",
    [
        pa.date32(),
        pa.date64(),
        pa.timestamp("s"),
        pa.timestamp("us", "UTC"),
        pa.time32("ms"),
        pa.duration("ms"),
    ],
)
def test_dates_and_times_of_parquet_keep_their_order(tmp_path: Path, kind: pa.DataType) -> None:
    plain = np.array([20_000, 3, 20_001])
    codes = pa.array(plain.astype(np.int32) if kind.bit_width == 32 else plain * 86_400_000)
    times = codes.cast(kind)
    found = in_parquet(tmp_path / "log.parquet", times).times
    assert found is not None
    assert np.argsort(found).tolist() == [1, 0, 2]


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (pa.array([1, None, 3]), "row 2: the time None is no number"),
        (pa.array([1.0, 2.0, float("nan")]), "row 3: the time nan is no number"),
        (pa.array([None, None, None], pa.date32()), "row 1: the time None is no number"),
        (pa.array(["1", "2_000", "3"]), "row 2: the time '2_000' is no number"),
        (pa.array([[1], [2], [3]]), r"row 1: the time \[1\] is no number"),
    ],
)
def test_what_is_no_time_in_parquet_is_named(tmp_path: Path, times: pa.Array, message: str) -> None:
    with pytest.raises(RecordError, match=message):
        in_parquet(tmp_path / "log.parquet", times)


def test_utf8_with_a_mark_is_read_and_other_encodings_are_refused(csv: Path, tmp_path: Path) -> None:
    csv.write_text(CSV, encoding="utf-8-sig")
    assert pairs(read_interactions(csv, user="who", item="what"))[0] == ("ann", "tea")
    lists = tmp_path / "lists.txt"
    lists.write_text("zoë tea\n", encoding="utf-8-sig")
    assert pairs(read_interactions(lists)) == [("zoë", "tea")]
    lists.write_text("ann tea\nzoë tea\n", encoding="latin-1")
    with pytest.raises(RecordError, match=r"lists.txt, line 2: not UTF-8"):
        read_interactions(lists)
    csv.write_text("who,what\nzoë,tea\n", encoding="latin-1")
    with pytest.raises(RecordError, match=r"log.csv: .*UTF8"):
        read_interactions(csv, user="who", item="what")


def test_duplicates_merge_to_the_latest(csv: Path) -> None:
    log = read_interactions(csv, user="who", item="what", time="when", label="stars").merge_duplicates()
    assert pairs(log) == [("bob", "tea"), ("ann", "milk"), ("ann", "tea")]
    assert log.table["time"].to_pylist() == [1, 2, 9]
    untimed = read_interactions(csv, user="who", item="what", label="stars").merge_duplicates()
    assert untimed.table["label"].to_pylist() == [2, 4, 1]


def test_user_features(csv: Path) -> None:
    csv.write_text("who,what,town\nbob,tea,Ulm\nann,tea,Bonn\nbob,milk,Ulm\n")
    log = read_interactions(csv, user="who", item="what", features=["town"])
    assert log.user_feature("town").to_pylist() == ["Ulm", "Bonn"]
    assert log.take(np.array([1])).user_feature("town").to_pylist() == [None, "Bonn"]
    with pytest.raises(NotFoundError, match="no feature 'city'"):
        log.user_feature("city")


def test_a_fingerprint_tells_logs_apart() -> None:
    log = make([(0, 1), (2, 3)])
    assert log.fingerprint() == make([(0, 1), (2, 3)]).fingerprint()
    others = [make([(0, 1)]), make([(0, 1), (2, 1)]), make([(4, 1), (2, 3)]), log.take(np.array([1]))]
    assert log.fingerprint() not in {other.fingerprint() for other in others}


logs = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=60)


def make(pairs_: list[tuple[int, int]]) -> Interactions:
    return Interactions.from_table(
        pa.table({"user": [f"u{u}" for u, _ in pairs_], "item": [f"i{i}" for _, i in pairs_]})
    )


@settings(deadline=None)
@given(pairs_=logs, users=st.integers(1, 3), items=st.integers(1, 3))
def test_a_core_is_the_largest_part_in_which_all_have_enough(
    pairs_: list[tuple[int, int]], users: int, items: int
) -> None:
    left = {(f"u{u}", f"i{i}") for u, i in pairs_}
    while True:  # the plain definition, one weak user or item at a time
        weak = [
            p
            for p in left
            if sum(q[0] == p[0] for q in left) < users or sum(q[1] == p[1] for q in left) < items
        ]
        if not weak:
            break
        left -= (
            {p for p in left if p[0] == weak[0][0]}
            if sum(q[0] == weak[0][0] for q in left) < users
            else {p for p in left if p[1] == weak[0][1]}
        )
    core = make(pairs_).filter_k_core(users=users, items=items)
    assert set(pairs(core)) == left
    assert len(core) == len(left)
    assert core.user_ids.to_pylist() == sorted({u for u, _ in left})
    assert core.item_ids.to_pylist() == sorted({i for _, i in left})


@given(pairs_=logs)
@settings(deadline=None)
def test_the_matrix_holds_each_pair_once(pairs_: list[tuple[int, int]]) -> None:
    log = make(pairs_)
    matrix = log.matrix()
    assert matrix.shape == (log.n_users, log.n_items)
    assert matrix.nnz == len(set(pairs_)) == matrix.sum()
    assert all(matrix[u, i] == 1 for u, i in zip(log.users, log.items, strict=True))
