"""Shards as one index: what any index that changes does, and hits that are those of one unsharded index."""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from gossamer.index.disk import using
from gossamer.index.fusion import fuse
from gossamer.index.inverted import BuildConfig, InvertedIndex
from gossamer.index.open import open_index
from gossamer.index.sharded import ShardedIndex
from gossamer.index.vectors import SparseVectors
from gossamer.kernels.errors import (
    ConfigError,
    CorruptError,
    ExistsError,
    FormatError,
    InputError,
    MismatchError,
    NotFoundError,
    RecordError,
    StorageError,
)
from tests.contracts.index_life import ChangesContract, Unflushed
from tests.index.test_life import Weights

N_TERMS = 30
HOWS: list[dict[str, Any]] = [
    {},
    {"rescore": "float"},
    {"recall": 0.9},
    {"filters": {"year": {">=": 2003}}},
    {"filters": {"or": [{"id": ["d1", "d3", "d30"]}, {"not": {"year": 2001}}]}, "rescore": "float"},
]


class TestSharded(Weights, ChangesContract):
    n_folders = 3

    def create(self, path: Path, vectors: Any, **options: Any) -> ShardedIndex:
        config = BuildConfig(impacts=self.kind, forward=self.forward)
        return ShardedIndex.build(path, vectors, n_shards=self.n_folders, config=config, **options)

    def open(self, path: Path) -> ShardedIndex:
        return ShardedIndex.open(path)

    def kind_of_folders(self, index: Any) -> type:
        return InvertedIndex


class Signed(Weights):
    kind = "int8"


class Floats(Weights):
    kind = "float32"


DATA = Weights()


@pytest.fixture(autouse=True)
def _unflushed() -> Iterator[None]:
    with using(Unflushed()):
        yield


def texts(names: list[str]) -> pa.Table:
    return pa.table(
        {
            "id": names,
            "text": [f"text of {name}" for name in names],
            "year": [2000 + zlib.crc32(name.encode()) % 7 for name in names],
        }
    )


def pair(
    tmp_path: Path, n_shards: int, names: list[str], data: Weights = DATA
) -> tuple[ShardedIndex, InvertedIndex]:
    """The same documents in shards and in one index."""
    vectors, documents, config = data.vectors(names), texts(names), BuildConfig(impacts=data.kind)
    one = InvertedIndex.build(tmp_path / "one", vectors, documents=documents, config=config)
    many = ShardedIndex.build(
        tmp_path / "many", vectors, n_shards=n_shards, documents=documents, config=config
    )
    return many, one


def assert_same(many: Any, one: InvertedIndex, k: int = 9) -> None:
    queries = DATA.queries()
    for how in HOWS:
        expected, hits = one.search(queries, k, **how), many.search(queries, k, **how)
        assert hits.ids.to_pylist() == expected.ids.to_pylist(), how
        assert hits.scores.tobytes() == expected.scores.tobytes(), how
        assert ((hits.rows < 0) == (expected.rows < 0)).all()
        rows, same = hits.rows[hits.rows >= 0], expected.rows[expected.rows >= 0]
        assert many.documents.take(rows).to_pylist() == one.documents.take(same).to_pylist()
    assert many.explain_rows(queries[:1], rows.tolist()) == one.explain_rows(queries[:1], same.tolist())


@pytest.mark.parametrize("n_shards", [1, 2, 5, 40])
def test_hits_are_those_of_one_index(tmp_path: Path, n_shards: int) -> None:
    """Scores bit for bit, ties too; with 40 shards for 30 documents most are empty."""
    names = [f"d{number}" for number in range(30)]
    many, one = pair(tmp_path, n_shards, names)
    assert_same(many, one)
    assert_same(ShardedIndex.open(many.path), one, k=50)
    assert many.n_shards == n_shards
    assert (min(shard.n_documents for shard in many.shards) == 0) == (n_shards == 40)
    rows = many.documents.rows_of(names)
    assert many.insertion_numbers(rows).tolist() == list(range(30))
    assert many.insertion_numbers(np.array([[-1, rows[3]]])).tolist() == [[-1, 3]]


@pytest.mark.parametrize("data", [Weights(), Signed(), Floats()])
def test_hits_are_those_of_one_index_after_any_history(tmp_path: Path, data: Weights) -> None:
    rng = np.random.default_rng(5)
    many, one = pair(tmp_path, 3, ["anchor", "d1", "d2", "d3"], data)
    for _ in range(8):
        some = [f"d{number}" for number in rng.choice(40, 5, replace=False)]
        match rng.integers(3):
            case 0:
                receipts = [i.update(data.vectors(some), documents=texts(some)) for i in (many, one)]
            case 1:
                receipts = [i.delete(some, missing=True) for i in (many, one)]
            case _:
                many.merge(int(rng.integers(1, 3)))
                receipts = []
        assert len({(receipt.n_added, receipt.n_deleted) for receipt in receipts}) <= 1
        assert_same(many, one)
    assert_same(ShardedIndex.open(many.path), one)
    many.verify()


def test_shards_that_began_empty_have_the_scale_of_the_others(tmp_path: Path) -> None:
    """And a weight that is larger than all before gives all of what comes with it a coarser one."""
    many, one = pair(tmp_path, 5, ["d1"])
    small = SparseVectors.from_dicts([{0: 0.3, 1: 0.7}] * 20, N_TERMS, ids=[f"s{n}" for n in range(20)])
    large = SparseVectors.from_dicts(
        [{0: 0.3 + n / 7, 1: 0.7} for n in range(20)], N_TERMS, ids=[f"l{n}" for n in range(20)]
    )
    later = SparseVectors.from_dicts([{0: 0.31, 1: 0.77}] * 9, N_TERMS, ids=[f"x{n}" for n in range(9)])
    for vectors in (small, large, large.top(1).with_ids([f"m{n}" for n in range(20)]), later):
        for index in (many, one):
            index.add(vectors, documents=texts(vectors.ids.to_pylist()))  # type: ignore[union-attr]
        assert_same(many, one, k=60)


def test_many_vectors_go_through_files_for_each_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gossamer.index.inverted_files.ROWS_AT_ONCE", 7)
    names = [f"d{number}" for number in range(30)]
    vectors = DATA.vectors(names)
    vectors.write_parquet(tmp_path / "vectors.parquet")
    _, one = pair(tmp_path, 2, names)
    told: list[tuple[int, int]] = []
    many = ShardedIndex.build(
        tmp_path / "streamed",
        tmp_path / "vectors.parquet",
        n_shards=3,
        documents=iter(texts(names).to_batches(max_chunksize=4)),
        on_rows=lambda done, whole: told.append((done, whole)),
    )
    assert_same(many, one)
    assert told[-1] == (30, 30)
    assert [*many.path.glob("spool*")] == [*tmp_path.glob(".*")] == []


def test_vectors_without_names_are_numbered(tmp_path: Path) -> None:
    vectors = DATA.vectors(["a", "b", "c"])
    nameless = SparseVectors(vectors.indptr, vectors.indices, vectors.values, vectors.n_cols)
    many = ShardedIndex.build(tmp_path / "i", nameless, n_shards=2)
    assert sorted(many.documents.ids.to_pylist()) == ["0", "1", "2"]
    with pytest.raises(RecordError, match="have no ids"):
        many.add(nameless)


def test_threads_and_allowed_do_not_change_the_answer(tmp_path: Path) -> None:
    many, one = pair(tmp_path, 3, [f"d{number}" for number in range(30)])
    queries = DATA.queries()
    expected = one.search(queries, 9, filters={"year": {">=": 2003}})
    allowed = many.documents.mask({"year": {">=": 2003}})
    for n_threads in (None, 1, 2, 7):
        hits = many.search(queries, 9, allowed=allowed, n_threads=n_threads)
        assert hits.ids.to_pylist() == expected.ids.to_pylist()
    both = many.search(queries, 9, allowed=allowed, filters={"id": "d3"})
    assert {name for number in range(4) for name, _ in both.of(number)} <= {"d3"}


def test_what_shards_cannot_use_is_refused(tmp_path: Path) -> None:
    many, _ = pair(tmp_path, 2, ["d1", "d2"])
    queries = DATA.queries()
    with pytest.raises(InputError, match=r"allowed is bool of \(3,\); expected bool of \(2,\)"):
        many.search(queries, allowed=[True] * 3)
    with pytest.raises(InputError, match="n_threads is 0"):
        many.search(queries, n_threads=0)
    with pytest.raises(InputError, match="k is 0"):
        many.search(queries, 0)
    with pytest.raises(TypeError, match="recal"):
        many.search(queries, recal=0.9)
    with pytest.raises(MismatchError, match="over 31 terms"):
        many.search(SparseVectors.from_dicts([{0: 1.0}], 31))
    with pytest.raises(ConfigError, match="no metadata column 'yeer' to filter by; did you mean 'year'"):
        many.search(queries, filters={"yeer": 2000})
    with pytest.raises(InputError, match=r"row 2 is outside 0\.\.1"):
        many.explain(queries[:1], 2)
    with pytest.raises(InputError, match="one query, not 4"):
        many.explain_rows(queries, [1])
    for n_shards in (0, 1_001):
        with pytest.raises(ConfigError, match=f"n_shards is {n_shards}"):
            ShardedIndex.build(tmp_path / "x", queries, n_shards=n_shards)
    with pytest.raises(ConfigError, match="no kind of index 'invested'; there are"):
        ShardedIndex.build(tmp_path / "x", queries, n_shards=2, kind="invested")
    other = pa.table({"id": ["a", "b"]})
    with pytest.raises(RecordError, match="row 1 is 'b' among the documents, but 'c' among the vectors"):
        ShardedIndex.build(tmp_path / "x", DATA.vectors(["a", "c"]), n_shards=2, documents=other)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["many", "one"], "nothing was left"


def test_one_kind_of_index_may_replace_another(tmp_path: Path) -> None:
    many, one = pair(tmp_path, 2, ["d1", "d2"])
    with pytest.raises(ExistsError, match="replace=True"):
        ShardedIndex.build(many.path, DATA.vectors(["d3"]), n_shards=4)
    ShardedIndex.build(one.path, DATA.vectors(["d3"]), n_shards=2, replace=True)
    InvertedIndex.build(many.path, DATA.vectors(["d4"]), replace=True)
    assert open_index(one.path).documents.ids.to_pylist() == ["d3"]
    assert open_index(many.path).documents.ids.to_pylist() == ["d4"]


def test_a_replacement_with_another_number_of_shards_is_seen(tmp_path: Path) -> None:
    many, one = pair(tmp_path, 2, ["d1", "d2"])
    reader = ShardedIndex.open(many.path)
    ShardedIndex.build(many.path, one.vectors(), n_shards=5, replace=True)
    with pytest.raises(StorageError, match="was replaced by another index meanwhile; look at it"):
        many.add(DATA.vectors(["e0"]))
    many.add(DATA.vectors(["e0"]))
    assert (many.n_shards, many.n_documents) == (5, 3)
    assert reader.n_shards == 2
    assert reader.refresh()
    assert (reader.n_shards, reader.n_documents) == (5, 3)
    assert not reader.refresh()
    ShardedIndex.build(many.path, one.vectors(), n_shards=5, replace=True)
    for change in (reader.merge, reader.calibrate, lambda: many.delete(["d1"])):
        with pytest.raises(StorageError, match="was replaced by another index meanwhile"):
            change()
        reader = ShardedIndex.open(many.path)
        ShardedIndex.build(many.path, one.vectors(), n_shards=5, replace=True)


def test_a_shard_of_another_index_is_refused(tmp_path: Path) -> None:
    many, _ = pair(tmp_path, 2, ["d0", "d1", "d2", "d3"])
    other = ShardedIndex.build(tmp_path / "other", DATA.vectors(["d5", "d6", "d7"]), n_shards=2)
    shutil.rmtree(many.path / "shard-001")
    shutil.copytree(other.path / "shard-001", many.path / "shard-001")
    for failing in (
        many.refresh,
        many.verify,
        lambda: many.add(DATA.vectors(["e0"])),
        lambda: ShardedIndex.open(many.path),
    ):
        with pytest.raises(CorruptError, match="shard-001 is of another index than the other shards"):
            failing()


def test_scores_that_are_equal_as_float32_keep_their_order(tmp_path: Path) -> None:
    """Sums above 2^24 that differ by one: as in one index, the larger comes first, in whatever shard it is."""
    rng = np.random.default_rng(0)
    array = np.full((60, 1_000), 230, np.float32)
    array[:, 0] = 255
    array[:, -1] = rng.permutation(60) % 7 + 1
    vectors = SparseVectors.from_dense(array, ids=[f"d{row}" for row in range(60)])
    weights = np.append(np.ones(999), 1.5e-4).astype(np.float32)  # the last is one level of a query
    query = SparseVectors.from_dense(weights[None])
    one = InvertedIndex.build(tmp_path / "one", vectors)
    many = ShardedIndex.build(tmp_path / "many", vectors[:30], n_shards=3)
    many.add(vectors[30:])
    expected = one.search(query, 60)
    assert len(np.unique(expected.scores)) == 1, "else nothing is tied by rounding"
    assert expected.rows[0].tolist() != list(range(60))
    hits = many.search(query, 60)
    assert hits.ids.to_pylist() == expected.ids.to_pylist()
    np.testing.assert_array_equal(hits.scores, expected.scores)


def test_shards_are_fused_with_one_index(tmp_path: Path) -> None:
    many, one = pair(tmp_path, 3, [f"d{number}" for number in range(20)])
    queries = DATA.queries()
    expected = fuse([one.search(queries, 9)] * 2, k=9)
    for hits in ([many.search(queries, 9)] * 2, [many.search(queries, 9), one.search(queries, 9)]):
        fused = fuse(hits, k=9)
        np.testing.assert_array_equal(fused.scores, expected.scores)
        assert [dict(fused.of(n)) for n in range(4)] == [dict(expected.of(n)) for n in range(4)]


def test_merges_leave_the_scale_that_shards_share(tmp_path: Path) -> None:
    """Though the largest weights are in one of them only."""
    many, one = pair(tmp_path, 3, ["anchor", *(f"d{number}" for number in range(9))])
    small = [f"s{number}" for number in range(12)]
    vectors = SparseVectors.from_dicts([{1: 0.3, 2: 0.7}] * 12, N_TERMS, ids=small)
    for index in (many, one):
        index.delete([f"d{number}" for number in range(9)])
        index.add(vectors, documents=texts(small))
        index.merge(1)
    assert_same(many, one)


def test_a_disk_that_fails_for_one_shard_says_what_is_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many, _ = pair(tmp_path, 2, ["d0", "d1", "d2", "d3"])
    names = [f"e{number}" for number in range(6)]
    homes = many._manifest.shards_of(names)
    inside = [name for name, home in zip(names, homes, strict=True) if home == 0]
    outside = [name for name, home in zip(names, homes, strict=True) if home == 1]
    write = InvertedIndex._write

    def failing(self: InvertedIndex, *args: Any) -> Any:
        if self.path.name == "shard-001":
            raise OSError(28, "no space left on device")
        return write(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(InvertedIndex, "_write", failing)
        with pytest.raises(StorageError, match="only in part") as failure:
            many.add(DATA.vectors(names))
        first, _, second = str(failure.value).partition("but not for")
        assert all(repr(name) in first for name in inside)
        assert all(repr(name) in second for name in outside)
        assert "shard-001" in second
        assert "no space left" in second
        with pytest.raises(StorageError, match=r"could not be changed.*no space left"):
            many.add(
                DATA.vectors(["e9", "e8", "e7"])[np.flatnonzero(many._manifest.shards_of(["e9", "e8", "e7"]))]
            )
    for index in (many, ShardedIndex.open(many.path)):
        assert (index.documents.rows_of(names) >= 0).tolist() == (homes == 0).tolist()
    assert many.update(DATA.vectors(names)).n_deleted == len(inside)
    assert many.n_documents == 10
    numbers = many.insertion_numbers(many.documents.rows_of(names))
    assert numbers.tolist() == list(range(10, 16)), "numbers of what failed are not given again"
    many.verify()


def test_damage_has_a_name(tmp_path: Path) -> None:
    many, _ = pair(tmp_path, 3, [f"d{number}" for number in range(9)])
    manifest = many.path / "shards.json"
    whole = manifest.read_bytes()
    for damaged, error, message in (
        (whole.replace(b'"n_shards": 3', b'"n_shards": 2'), CorruptError, "shards.json was altered"),
        (whole[:40], FormatError, "shards.json is truncated"),
        (whole.replace(b"gossamer-shards", b"gossamer-sharks"), FormatError, "does not describe"),
        (whole.replace(b'"version": 1', b'"version": 2'), FormatError, "it is newer; upgrade"),
    ):
        manifest.write_bytes(damaged)
        with pytest.raises(error, match=message):
            ShardedIndex.open(many.path)
    manifest.write_bytes(whole)
    (many.path / "shard-001").rename(tmp_path / "aside")
    with pytest.raises(FormatError, match="shard-001 is missing; restore it"):
        open_index(many.path)
    (tmp_path / "aside").rename(many.path / "shard-001")
    (many.path / "shard-002" / "manifest.json").unlink()
    with pytest.raises(FormatError, match=r"shard-002 has no manifest\.json"):
        ShardedIndex.open(many.path)
    with pytest.raises(FormatError, match=r"has no shards\.json"):
        ShardedIndex.open(tmp_path / "one")
    with pytest.raises(NotFoundError, match="no index at"):
        ShardedIndex.open(tmp_path / "none")


def test_verify_finds_a_flipped_byte_and_a_stray(tmp_path: Path) -> None:
    many, _ = pair(tmp_path, 3, [f"d{number}" for number in range(9)])
    many.verify()
    damaged = next(many.path.glob("shard-001/segments/*/impacts.npy"))
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(CorruptError, match=r"shard-001/segments/000000/impacts\.npy was altered"):
        many.verify()
    content[-1] ^= 1
    damaged.write_bytes(content)
    stray = next(f"s{n}" for n in range(9) if many._manifest.shards_of([f"s{n}"])[0] == 0)
    InvertedIndex.open(many.path / "shard-001").add(DATA.vectors([stray]))
    with pytest.raises(CorruptError, match=f"shard-001 has the document '{stray}', which belongs to another"):
        many.verify()


def test_what_a_dead_writer_left_is_removed(tmp_path: Path) -> None:
    many, _ = pair(tmp_path, 2, ["d0", "d1"])
    (many.path / "spool-0123" / "documents").mkdir(parents=True)
    many.delete(["d0"])
    assert sorted(path.name for path in many.path.iterdir()) == [
        "merge.lock",
        "shard-000",
        "shard-001",
        "shards.json",
        "write.lock",
    ]


def test_info_adds_up(tmp_path: Path) -> None:
    many, one = pair(tmp_path, 3, [f"d{number}" for number in range(9)])
    many.delete(["d1"])
    info = many.info()
    assert (info.n_documents, info.n_deleted, info.kind) == (8, 1, "inverted")
    assert info.generation == many.generation
    assert sum(shard.nnz for shard in info.shards) == one.nnz
    assert info.bytes["postings"] == sum(shard.bytes["postings"] for shard in info.shards)
    assert repr(many).endswith("many', 8 documents, 3 inverted shards)")
