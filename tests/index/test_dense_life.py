"""A dense index on the disk, and one that changes: the contracts of storage and of life."""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gossamer.index.dense import DenseIndex
from gossamer.index.dense_config import DenseConfig, Flat, Hnsw, IvfPq, Metric, Structure
from gossamer.index.dense_vectors import DenseVectors
from gossamer.index.disk import using
from gossamer.index.format import DenseEffort
from gossamer.kernels.errors import MismatchError
from tests.contracts.dense import brute_force, build, clustered
from tests.contracts.disks import Crash, Recorder, Short
from tests.contracts.index_life import LifeContract
from tests.contracts.index_storage import StorageContract

_N_DIMS = 7


class TestStorage(StorageContract):
    n_files = 6
    module = "tests.contracts.dense"

    def build(self, path: Path, n_rows: int = 40, *, replace: bool = False) -> DenseIndex:
        return build(path, n_rows, replace=replace)

    def build_with(self, path: Path, documents: Any) -> DenseIndex:
        return build(path, documents=documents)

    def open(self, path: Path) -> DenseIndex:
        return DenseIndex.open(path)

    def queries(self) -> NDArray[np.float32]:
        return clustered(40, 6)

    def unfit(self, body: dict[str, Any]) -> None:
        body["index"].update(n_dims=5)


class Dense(LifeContract):
    metric: Metric = "dot"
    structure: Structure = Flat()
    effort: DenseEffort | None = None

    def vectors(self, names: list[str]) -> DenseVectors:
        return DenseVectors(self.values(names), names)

    def values(self, names: list[str]) -> NDArray[np.float32]:
        rows = [self.row(name) for name in names]
        return np.asarray(rows, np.float32).reshape(len(rows), _N_DIMS)

    def row(self, name: str) -> list[float]:
        if name == "anchor":
            return [9.0] * _N_DIMS
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        row: list[float] = rng.choice([-1.5, -0.5, 0.5, 1.0, 2.0], _N_DIMS).tolist()
        return row

    def queries(self) -> NDArray[np.float32]:
        return (
            np.random.default_rng(5)
            .choice([0.0, 0.5, 1.0], (4, _N_DIMS), p=[0.2, 0.4, 0.4])
            .astype(np.float32)
        )

    def create(self, path: Path, vectors: Any, **options: Any) -> DenseIndex:
        config = DenseConfig(metric=self.metric, structure=self.structure, flat_below=1, calibrate=False)
        return DenseIndex.build(path, vectors, config=config, **options)

    def open(self, path: Path) -> DenseIndex:
        return DenseIndex.open(path)

    def best(self, names: list[str], k: int) -> list[list[tuple[str, float]]]:
        found = brute_force(self.values(names), self.queries(), k, self.metric)
        return [
            [(names[row], score) for row, score in zip(rows, scores, strict=True) if row >= 0]
            for rows, scores in zip(found.rows.tolist(), found.scores.tolist(), strict=True)
        ]

    def check(self, index: Any, names: list[str], k: int = 7) -> None:
        super().check(index, names, k)
        if self.effort is not None:
            hits = index.search(self.queries(), k, effort=self.effort)
            for number, wanted in enumerate(self.best(names, k)):
                assert hits.of(number) == [(name, pytest.approx(score, rel=1e-6)) for name, score in wanted]

    def test_vectors_of_other_dimensions_are_refused(self, index: DenseIndex) -> None:
        with pytest.raises(MismatchError, match="vectors have 8 dimensions, and this index 7"):
            index.add(DenseVectors(np.ones((1, 8), np.float32), ["e"]))

    def test_a_merge_keeps_every_bit(self, index: DenseIndex) -> None:
        index.add(self.vectors(["e0", "e1"]))
        index.delete(["d3"])
        live = index.documents.live
        before = index.vectors().values[live]
        index.merge(1)
        np.testing.assert_array_equal(index.vectors().values, before)


class TestFlat(Dense):
    metric = "cosine"


class TestHnsw(Dense):
    structure = Hnsw(m=8, ef_construction=64)
    effort = DenseEffort(ef_search=200, candidates_a_hit=20)


class TestIvfPq(Dense):
    structure = IvfPq(bits=4, m=4)
    effort = DenseEffort(nprobe=200, candidates_a_hit=20)

    def test_a_structure_goes_with_an_old_view(self, index: DenseIndex) -> None:
        """Its file is removed by the merge before the view has ever read it."""
        before, old = self.names_of(index), index.view()
        index.add(self.vectors(["e0", "e1"]))
        index.merge(1)
        assert old._snapshot.segments[0].structure is not None
        assert not (index.path / "segments" / "000000").exists()
        self.check(old, before)

    def test_a_structure_stays_read_while_documents_are_deleted(self, index: DenseIndex) -> None:
        before = index._snapshot.segments[0].structure
        assert before is not None
        index.delete(["d3"])
        assert index._snapshot.segments[0].structure is before


# -- power cuts

CHANGES: list[tuple[Callable[[DenseIndex], object], list[str]]] = [
    (lambda index: index.add(some("d", "e")), ["a", "b", "c", "d", "e"]),
    (lambda index: index.update(some("c", "f")), ["a", "b", "d", "e", "c", "f"]),
    (lambda index: index.delete(["b"]), ["a", "d", "e", "c", "f"]),
    (lambda index: index.merge(1), ["a", "d", "e", "c", "f"]),
]
"""What is done to an index of a, b and c, and which documents there are afterwards."""


def some(*names: str) -> DenseVectors:
    return DenseVectors(np.array([[ord(name), 1.0] for name in names], np.float32), names)


def built(path: Path) -> DenseIndex:
    config = DenseConfig(structure=Hnsw(m=2), flat_below=1, calibrate=False)
    return DenseIndex.build(path, some("a", "b", "c"), config=config)


def names_of(index: DenseIndex) -> list[str]:
    """The names of all documents, which are found exactly and by the structures."""
    index.verify()
    names = index.documents.take(np.flatnonzero(index.documents.live))["id"].to_pylist()
    for effort in (None, DenseEffort(ef_search=20)):
        hits = index.search(np.array([[1, 0]], np.float32), 10, effort=effort)
        assert [name for name, _ in hits.of(0)] == sorted(names, reverse=True)
    return list(names)


def test_no_power_cut_loses_what_was_acknowledged(tmp_path: Path) -> None:
    recorder = Recorder()
    (tmp_path / "record").mkdir()
    with using(recorder):
        index = built(tmp_path / "record" / "index")
        recorder.told(0)
        for number, (change, _) in enumerate(CHANGES):
            change(index)
            recorder.told(number + 1)
    states = [["a", "b", "c"], *(names for _, names in CHANGES)]
    first = recorder.ops.index(("told", 0)) + 1
    assert len(recorder.ops) - first > 60
    for n_ops in range(first, len(recorder.ops) + 1, 3):
        left = tmp_path / "left"
        crash = Crash(recorder.ops, tmp_path / "record", np.random.default_rng(n_ops))
        told = crash.after(n_ops, left)
        assert names_of(DenseIndex.open(left / "index")) in states[told : told + 2]
        shutil.rmtree(left)


def test_a_file_may_take_few_bytes_at_a_time(tmp_path: Path) -> None:
    with using(Short()):
        index = built(tmp_path / "index")
        for change, names in CHANGES:
            change(index)
            assert names_of(DenseIndex.open(tmp_path / "index")) == names
