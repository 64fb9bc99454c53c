"""What every index that changes must do: subclass `LifeContract`, and say how to build one and what it should find."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from gossamer.index import commits
from gossamer.index.commits import write_lock
from gossamer.index.disk import Disk, using
from gossamer.index.format import EncoderInfo
from gossamer.index.merging import BackgroundMerger, MergePolicy, merge_due
from gossamer.kernels.errors import (
    BusyError,
    InputError,
    MismatchError,
    NotFoundError,
    RecordError,
    StorageError,
)


class Unflushed(Disk):
    """A disk that is fast, as nobody pulls the plug."""

    def sync(self, path: Path) -> None:
        pass


class ChangesContract:
    """`vectors` are whatever the index takes; documents are named, and each name has always the same vector."""

    n_folders = 1
    """Of segments; rows are in the order of insertion in each of them."""

    # -- what a subclass says

    def vectors(self, names: list[str]) -> Any:
        """The vectors of some documents. That of "anchor" has the largest weight of all."""
        raise NotImplementedError

    def queries(self) -> Any:
        """At least three queries."""
        raise NotImplementedError

    def create(self, path: Path, vectors: Any, **options: Any) -> Any:
        raise NotImplementedError

    def open(self, path: Path) -> Any:
        raise NotImplementedError

    def best(self, names: list[str], k: int) -> list[list[tuple[str, float]]]:
        """What queries find among documents that came in this order, by brute force."""
        raise NotImplementedError

    # -- the suite

    @pytest.fixture(autouse=True)
    def _unflushed(self) -> Iterator[None]:
        with using(Unflushed()):
            yield

    @pytest.fixture
    def index(self, tmp_path: Path) -> Any:
        names = ["anchor", *(f"d{number}" for number in range(20))]
        documents = pa.table({"id": names, "text": [f"text {name}" for name in names], "year": [2000] * 21})
        return self.create(tmp_path / "index", self.vectors(names), documents=documents)

    def names_of(self, index: Any) -> list[str]:
        documents = index.documents
        live = np.flatnonzero(documents.live)
        came = live[np.argsort(index.insertion_numbers(live))]
        return list(documents.take(came)["id"].to_pylist())

    def kind_of_folders(self, index: Any) -> type:
        return type(index)

    def segments_on_disk(self, index: Any) -> int:
        return len(list(index.path.rglob("segments/*")))

    def check(self, index: Any, names: list[str], k: int = 7) -> None:
        assert self.names_of(index) == names
        assert len(index) == index.n_documents == len(names)
        hits = index.search(self.queries(), k)
        expected = self.best(names, k)
        for number, wanted in enumerate(expected):
            assert hits.of(number) == [(name, pytest.approx(score, rel=1e-6)) for name, score in wanted]

    def test_what_is_added_is_found_among_the_rest(self, index: Any) -> None:
        before = self.names_of(index)
        receipt = index.add(self.vectors(["e0", "e1", "e2"]))
        assert (receipt.n_added, receipt.n_deleted, receipt.generation) == (3, 0, index.generation)
        self.check(index, [*before, "e0", "e1", "e2"])
        self.check(self.open(index.path), [*before, "e0", "e1", "e2"])
        index.verify()

    def test_what_is_deleted_is_gone(self, index: Any) -> None:
        before = self.names_of(index)
        receipt = index.delete(["d3", "d7"])
        assert (receipt.n_added, receipt.n_deleted) == (0, 2)
        left = [name for name in before if name not in {"d3", "d7"}]
        self.check(index, left)
        gone, row = index.documents.rows_of(["d3", "d4"])
        assert gone == -1
        assert index.documents.take([row])["id"].to_pylist() == ["d4"]
        assert index.documents.mask({"year": 2000}).sum() == 19
        assert index.documents.counts("year", 5) == {2000: 19}
        self.check(self.open(index.path), left)
        index.verify()
        index.add(self.vectors(["d3"]))
        self.check(index, [*left, "d3"])

    def test_an_update_takes_the_place_of_what_has_its_id(self, index: Any) -> None:
        names = self.names_of(index)
        documents = pa.table({"id": ["d5", "new"], "text": ["another", "one"]})
        receipt = index.update(self.vectors(["d5", "new"]), documents=documents)
        assert (receipt.n_added, receipt.n_deleted) == (2, 1)
        names.remove("d5")
        self.check(index, [*names, "d5", "new"])
        rows = index.documents.rows_of(["d5", "d6"])
        assert index.documents.take(rows)["text"].to_pylist() == ["another", "text d6"]
        assert index.documents.take(rows)["year"].to_pylist() == [None, 2000]

    def test_deleting_everything_leaves_an_index_that_goes_on(self, index: Any) -> None:
        index.delete(self.names_of(index))
        self.check(index, [])
        assert index.n_segments == index.n_rows == 0
        self.check(self.open(index.path), [])
        index.add(self.vectors(["anchor", "d1"]))
        self.check(index, ["anchor", "d1"])

    def test_an_index_may_begin_empty(self, tmp_path: Path) -> None:
        index = self.create(tmp_path / "empty", self.vectors([]))
        self.check(index, [])
        index.add(self.vectors(["anchor", "d1"]))
        self.check(self.open(index.path), ["anchor", "d1"])

    @pytest.mark.parametrize("seed", range(6))
    def test_any_history_ends_as_brute_force_says(self, index: Any, seed: int) -> None:
        """Adds, updates, deletes and merges in any order: as a list of names, which each of them changes."""
        rng = np.random.default_rng(seed)
        names = self.names_of(index)
        known = [f"d{number}" for number in range(40)]
        for _ in range(12):
            some = rng.choice(known, rng.integers(1, 6), replace=False).tolist()
            there = [name for name in some if name in names]
            match rng.integers(4):
                case 0:
                    some = [name for name in some if name not in names]
                    index.add(self.vectors(some))
                    names += some
                case 1:
                    index.update(self.vectors(some))
                    names = [name for name in names if name not in some] + some
                case 2:
                    index.delete(there)
                    names = [name for name in names if name not in there]
                case _:
                    index.merge(int(rng.integers(1, 4)))
            self.check(index, names)
        live = np.flatnonzero(index.documents.live)
        numbers = np.sort(index.insertion_numbers(live))
        assert (np.diff(numbers) > 0).all()
        other = self.open(index.path)
        self.check(other, names)
        other.verify()
        other.merge(1)
        assert other.n_segments <= self.n_folders
        assert other.n_rows == len(names)
        self.check(other, names)
        merged = other.insertion_numbers(np.arange(other.n_rows))
        assert np.sort(merged).tolist() == numbers.tolist()
        index.refresh()
        self.check(index, names)

    # -- what is refused

    def test_an_id_that_is_there_is_refused_and_nothing_changes(self, index: Any) -> None:
        before, generation = self.names_of(index), index.generation
        n_segments = index.n_segments
        with pytest.raises(
            RecordError, match=r"row 1 has the id 'd3', which is in the index already; update"
        ):
            index.add(self.vectors(["new", "d3"]))
        with pytest.raises(RecordError, match="'new' is given to row 0 and row 2"):
            index.add(self.vectors(["new", "newer", "new"]))
        self.check(index, before)
        assert index.generation == self.open(index.path).generation == generation
        assert self.segments_on_disk(index) == n_segments

    def test_a_document_that_is_not_there_cannot_be_deleted(self, index: Any) -> None:
        before = self.names_of(index)
        with pytest.raises(NotFoundError, match="no document 'nobody', so none was deleted"):
            index.delete(["d1", "nobody"])
        with pytest.raises(InputError, match="list of ids"):
            index.delete("d1")
        self.check(index, before)
        assert index.delete(["d1", "nobody", "d1"], missing=True).n_deleted == 1
        assert index.delete([]).n_deleted == 0

    @pytest.mark.parametrize("ids", [[1], [None], ["d1", "\ud800"]])
    def test_what_is_no_id_is_refused(self, index: Any, ids: list[Any]) -> None:
        with pytest.raises(InputError, match="is no id; an id is a string of valid Unicode"):
            index.delete(ids)

    def test_ids_may_come_as_arrow_has_them(self, index: Any) -> None:
        assert index.delete(pa.array(["d1", "d2"])).n_deleted == 2
        assert index.delete(name for name in ["d3"]).n_deleted == 1

    def test_nothing_may_be_added_but_not_documents_without_vectors(self, index: Any) -> None:
        before = self.names_of(index)
        assert index.add(self.vectors([])).n_added == 0
        with pytest.raises(RecordError, match="row 0 is a document without a vector"):
            index.add(self.vectors([]), documents=pa.table({"id": ["e"]}))
        self.check(index, before)

    def test_a_column_without_values_is_of_the_type_that_it_has(self, index: Any) -> None:
        index.add(self.vectors(["e"]), documents=pa.table({"id": ["e"], "year": [None]}))
        assert index.documents.kinds["year"] == pa.int64()

    def test_values_are_counted_over_segments(self, index: Any) -> None:
        names = [f"e{number}" for number in range(10)]
        index.merges_itself = False
        index.add(self.vectors(names), documents=pa.table({"id": names, "year": list(range(10))}))
        assert index.documents.counts("year", 11) == {2000: 21, **dict.fromkeys(range(10), 1)}
        assert index.documents.counts("year", 10) == {}
        assert index.documents.counts("year", 5) == {}

    def test_documents_that_do_not_fit_are_refused(self, index: Any) -> None:
        before = self.names_of(index)
        with pytest.raises(RecordError, match="'year' is string, and int64 in this index"):
            index.add(self.vectors(["e"]), documents=pa.table({"id": ["e"], "year": ["MM"]}))
        with pytest.raises(RecordError, match="row 0 is 'f' among the documents, but 'e' among the vectors"):
            index.add(self.vectors(["e"]), documents=pa.table({"id": ["f"]}))
        self.check(index, before)
        index.add(self.vectors(["e"]), documents=pa.table({"id": ["e"], "kind": ["new"]}))
        assert index.documents.mask({"kind": "new"}).sum() == 1
        assert index.documents.mask({"not": {"kind": "new"}}).sum() == 21
        self.check(index, [*before, "e"])

    def test_vectors_of_another_encoder_are_refused(self, tmp_path: Path) -> None:
        mine, other = EncoderInfo("mine", "1"), EncoderInfo("other", "2")
        index = self.create(tmp_path / "i", self.vectors(["anchor"]), encoder=mine)
        with pytest.raises(MismatchError, match=r"of other \(2\), and the index of mine \(1\)"):
            index.add(self.vectors(["d1"]), encoder=other)
        index.add(self.vectors(["d1"]), encoder=mine)
        self.check(index, ["anchor", "d1"])

    def test_no_merge_to_nothing(self, index: Any) -> None:
        with pytest.raises(InputError, match="max_segments is 0"):
            index.merge(0)

    # -- several at a time

    def test_who_looks_sees_one_moment_until_it_refreshes(self, index: Any) -> None:
        before = self.names_of(index)
        reader, view = self.open(index.path), index.view()
        index.update(self.vectors(["d1", "e"]))
        index.delete(["d2"])
        index.merge(1)
        for old in (reader, view):
            self.check(old, before)
            assert sorted(old.insertion_numbers(np.arange(21)).tolist()) == list(range(21))
        assert reader.refresh()
        assert not reader.refresh()
        self.check(reader, self.names_of(index))

    def test_two_writers_take_turns(self, index: Any) -> None:
        before = self.names_of(index)
        other = self.open(index.path)
        index.add(self.vectors(["e0"]))
        other.add(self.vectors(["e1"]))
        index.delete(["e1"])
        self.check(index, [*before, "e0"])
        with pytest.raises(RecordError, match="'e0', which is in the index already"):
            other.add(self.vectors(["e0"]))

    def test_a_writer_waits_for_another_and_gives_up(self, index: Any) -> None:
        before = self.names_of(index)
        index.lock_timeout_s = 0.05
        with (
            write_lock(index.path, 0),
            pytest.raises(StorageError, match=r"another writer has held .* 0\.05 s"),
        ):
            index.add(self.vectors(["e0"]))
        self.check(index, before)
        index.add(self.vectors(["e0"]))

    def test_an_index_that_was_replaced_is_not_changed_unseen(self, index: Any) -> None:
        self.create(index.path, self.vectors(["anchor", "x"]), replace=True)
        with pytest.raises(StorageError, match="was replaced by another index meanwhile; look at it"):
            index.add(self.vectors(["e0"]))
        self.check(index, ["anchor", "x"])
        index.add(self.vectors(["e0"]))
        self.check(index, ["anchor", "x", "e0"])

    def test_what_was_checked_is_what_is_changed(self, index: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """Another thread may see a replacement after vectors were checked against what it takes the place of."""
        kind: Any = self.kind_of_folders(index)
        look = kind._rows

        def meanwhile(*args: Any) -> Any:
            rows = look(*args)
            self.create(index.path, self.vectors(["anchor", "x"]), replace=True)
            index.refresh()
            return rows

        with monkeypatch.context() as patch:
            patch.setattr(kind, "_rows", meanwhile)
            with pytest.raises(StorageError, match="was replaced by another index meanwhile"):
                index.add(self.vectors(["e0"]))
        self.check(index, ["anchor", "x"])

    def test_an_index_is_not_replaced_while_it_is_changed_or_merged(
        self, index: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = self.names_of(index)
        monkeypatch.setattr(commits, "_REPLACE_TIMEOUT_S", 0.02)
        for lock in (commits.write_lock(index.path, 0), commits.merge_lock(index.path)):
            with lock, pytest.raises(BusyError, match=index.path.name):
                self.create(index.path, self.vectors(["anchor"]), replace=True)
        self.check(self.open(index.path), before)

    def test_a_link_leads_to_the_same_locks(self, index: Any, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to(index.path, target_is_directory=True)
        linked = self.open(tmp_path / "link")
        linked.lock_timeout_s = 0.02
        with commits.write_lock(index.path, 0), pytest.raises(BusyError):
            linked.add(self.vectors(["e0"]))
        linked.add(self.vectors(["e0"]))
        index.refresh()
        self.check(index, self.names_of(linked))

    def test_a_path_may_be_relative(self, index: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(index.path)
        here = self.open(Path())
        monkeypatch.chdir(index.path.parent)
        here.add(self.vectors(["e0"]))
        self.check(here, self.names_of(self.open(index.path)))

    def test_a_child_does_not_keep_the_lock_of_its_parent(self, index: Any) -> None:
        index.lock_timeout_s = 0.05
        reading, writing = os.pipe()
        with commits.write_lock(index.path, 0):
            child = os.fork()
            if child == 0:
                os.close(writing)
                os.read(reading, 1)  # until the parent has closed its end
                os._exit(0)
        index.add(self.vectors(["e0"]))
        os.close(writing)
        os.waitpid(child, 0)
        os.close(reading)

    def test_opening_takes_no_descriptors(self, index: Any) -> None:
        if not Path("/proc/self/fd").exists():
            pytest.skip("needs /proc/self/fd, which is absent here")
        index.merges_itself = False
        for number in range(3):
            index.add(self.vectors([f"e{number}"]))
        before = len(os.listdir("/proc/self/fd"))
        opened = [self.open(index.path) for _ in range(3)]
        assert len(os.listdir("/proc/self/fd")) <= before + 1
        self.check(opened[0], self.names_of(index))

    def test_searches_go_on_while_an_index_changes(self, index: Any) -> None:
        """Every answer is that of some moment: the anchor, which stays, and of a pair both or neither."""
        pairs = [[f"a{number}", f"b{number}"] for number in range(6)]
        stopped = threading.Event()

        def look() -> int:
            looks = 0
            while not stopped.is_set() or looks == 0:
                view = index.view()
                found = {name for name, _ in view.search(self.queries(), 50).of(0)}
                names = set(self.names_of(view))
                assert found <= names
                assert "anchor" in names
                for first, second in pairs:
                    assert (first in names) == (second in names)
                looks += 1
            return looks

        with (
            ThreadPoolExecutor(2) as pool,
            BackgroundMerger(index, MergePolicy(factor=2, smallest=1)) as merger,
        ):
            lookers = [pool.submit(look) for _ in range(2)]
            try:
                for pair in pairs:
                    index.add(self.vectors(pair))
                for pair in pairs[::2]:
                    index.delete(pair)
            finally:
                stopped.set()
            assert all(looker.result() > 0 for looker in lookers)
        assert merger.failure is None
        left = [name for pair in pairs[1::2] for name in pair]
        self.check(index, ["anchor", *(f"d{number}" for number in range(20)), *left])

    def test_many_small_additions_stay_few_segments(self, index: Any) -> None:
        names = self.names_of(index)
        for number in range(20, 40):
            index.add(self.vectors([f"d{number}"]))
            names.append(f"d{number}")
            assert index.n_segments <= MergePolicy().factor * self.n_folders
        self.check(index, names)

    def test_a_change_counts_though_the_merge_after_it_fails(
        self, index: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        names, added = self.names_of(index), 10 * self.n_folders

        def failing(*_: Any) -> Any:
            raise OSError(28, "no space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(self.kind_of_folders(index), "_merged_rows", failing)
            for number in range(20, 20 + added):
                index.add(self.vectors([f"d{number}"]))
                names.append(f"d{number}")
        assert "was changed, but merging it failed" in caplog.text
        self.check(index, names)
        assert index.n_segments == self.n_folders + added
        assert index.merge() >= 1


class LifeContract(ChangesContract):
    """And for an index that is one folder of segments, whose rows are in the order of insertion."""

    def test_rows_are_in_the_order_of_insertion(self, index: Any) -> None:
        index.update(self.vectors(["d3", "e0"]))
        index.merge(1)
        assert index.documents.rows_of(["anchor", "d0", "d2", "d4", "d3", "e0"]).tolist() == [
            0,
            1,
            3,
            4,
            20,
            21,
        ]

    def test_an_update_takes_others_out_in_the_same_change(self, index: Any) -> None:
        names, generation = self.names_of(index), index.generation
        receipt = index.update(self.vectors(["d5", "new"]), delete=["d3", "d5", "nobody"])
        assert (receipt.n_added, receipt.n_deleted, receipt.generation) == (2, 2, generation + 1)
        left = [name for name in names if name not in {"d3", "d5"}]
        self.check(index, [*left, "d5", "new"])
        assert index.update(self.vectors([]), delete=["d5"]).n_deleted == 1
        self.check(self.open(index.path), [*left, "new"])
        generation = index.generation
        assert index.update(self.vectors([]), delete=["d5"]).generation == generation

    def test_changes_during_a_merge_are_in_what_it_makes(
        self, index: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        index.add(self.vectors(["e0", "e1", "e2"]))
        names = [name for name in self.names_of(index) if name not in {"d4", "e1"}]
        other = self.open(index.path)
        write = type(index)._write

        def meanwhile(*args: Any) -> Any:
            monkeypatch.setattr(type(index), "_write", write)
            other.delete(["d4", "e1"])
            other.add(self.vectors(["f"]))
            return write(*args)

        monkeypatch.setattr(type(index), "_write", meanwhile)
        assert index.merge(1) == 2, "the second takes in what came meanwhile"
        self.check(index, [*names, "f"])
        index.verify()

    def test_what_is_all_deleted_during_a_merge_is_not_brought_back(
        self, index: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        index.add(self.vectors(["e0"]))
        other, write = self.open(index.path), type(index)._write

        def meanwhile(*args: Any) -> Any:
            monkeypatch.setattr(type(index), "_write", write)
            other.delete(self.names_of(other))
            return write(*args)

        monkeypatch.setattr(type(index), "_write", meanwhile)
        index.merge(1)
        self.check(index, [])
        assert list((index.path / "segments").iterdir()) == []

    def test_two_do_not_merge_at_once(self, index: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        index.add(self.vectors(["e0"]))
        other, write = self.open(index.path), type(index)._write
        refused: list[str] = []

        def meanwhile(*args: Any) -> Any:
            monkeypatch.setattr(type(index), "_write", write)
            assert merge_due(other, MergePolicy(factor=2)) == 0
            with pytest.raises(StorageError, match="being merged already") as failure:
                other.merge(1)
            refused.append(str(failure.value))
            return write(*args)

        monkeypatch.setattr(type(index), "_write", meanwhile)
        assert index.merge(1) == 1
        assert refused

    def test_a_merge_that_fails_changes_nothing(self, index: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        index.add(self.vectors(["e0"]))
        names, generation = self.names_of(index), index.generation

        def failing(*_: Any) -> Any:
            raise OSError(28, "no space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(type(index), "_write", failing)
            with pytest.raises(StorageError, match="no space left"):
                index.merge(1)
        assert (index.n_segments, index.generation) == (2, generation)
        self.check(index, names)
        assert len(list((index.path / "segments").iterdir())) == 2
        assert index.merge(1) == 1
