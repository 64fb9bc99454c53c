"""A dense index: exact search is brute force to the bit, and approximate search finds what it says."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from gossamer.index.dense import DenseIndex
from gossamer.index.dense_config import DenseConfig, Flat, Hnsw, IvfPq, Metric, Structure
from gossamer.index.dense_vectors import DenseVectors
from gossamer.index.faiss_library import faiss_threads
from gossamer.index.format import DenseEffort, EncoderInfo, Manifest, OperatingPoint
from gossamer.index.inverted import InvertedIndex
from gossamer.index.vectors import SparseVectors
from gossamer.kernels.errors import (
    BackendError,
    CorruptError,
    FormatError,
    InputError,
    MismatchError,
    NotFoundError,
    VectorError,
)
from tests.contracts.dense import brute_force, clustered

STRUCTURES: list[tuple[Structure, DenseEffort]] = [
    (IvfPq(m=8, bits=6), DenseEffort(nprobe=8, candidates_a_hit=16)),
    (Hnsw(m=16, ef_construction=64), DenseEffort(ef_search=128)),
]


def check(
    index: DenseIndex,
    documents: NDArray[np.float32],
    queries: NDArray[np.float32],
    k: int,
    metric: Metric = "dot",
    allowed: NDArray[np.bool_] | None = None,
    **options: Any,
) -> None:
    hits = index.search(queries, k, allowed=allowed, **options)
    expected = brute_force(documents, queries, k, metric, allowed)
    np.testing.assert_array_equal(hits.rows, expected.rows)
    np.testing.assert_array_equal(hits.scores, expected.scores)
    assert hits.rows.shape == (len(queries), k)
    assert hits.rows.dtype == np.int64
    assert hits.scores.dtype == np.float32


def recall_of(found: NDArray[np.int64], exact: NDArray[np.int64]) -> float:
    shared = [len(set(a) & set(b) - {-1}) for a, b in zip(found.tolist(), exact.tolist(), strict=True)]
    return sum(shared) / max(int((exact >= 0).sum()), 1)


# -- exact search


@pytest.mark.parametrize("metric", ["dot", "cosine"])
@pytest.mark.parametrize("shape", [(1, 1), (97, 31), (1_500, 17)])
@pytest.mark.parametrize("k", [1, 10, 200])
def test_search_is_brute_force(tmp_path: Path, shape: tuple[int, int], metric: Metric, k: int) -> None:
    documents, queries = clustered(*shape), clustered(9, shape[1], seed=1)
    index = DenseIndex.build(tmp_path / "i", documents, config=DenseConfig(metric=metric))
    check(index, documents, queries, k, metric)
    check(DenseIndex.open(tmp_path / "i"), documents, queries, k, metric)


def test_ties_go_to_the_earlier_row(tmp_path: Path) -> None:
    documents, queries = clustered(2_000, 5, few_values=True), clustered(12, 5, seed=1, few_values=True)
    index = DenseIndex.build(tmp_path / "i", documents)
    check(index, documents, queries, 20)
    assert (np.diff(index.search(queries, 20).scores, axis=1) == 0).any(), "no ties were tested"


def test_rows_that_are_all_the_same_come_in_order(tmp_path: Path) -> None:
    index = DenseIndex.build(tmp_path / "i", np.full((500, 3), 0.1, np.float32))
    hits = index.search(np.ones((2, 3), np.float32), 7)
    assert hits.rows.tolist() == [list(range(7))] * 2


def test_what_float32_cannot_tell_apart_is_still_in_order(tmp_path: Path) -> None:
    """Rows that differ in the last places, whose float32 sums faiss puts in another order than their scores."""
    rng = np.random.default_rng(0)
    documents = np.repeat(rng.standard_normal((1, 64)).astype(np.float32) * 100, 3_000, axis=0)
    documents *= 1 + rng.integers(-8, 9, documents.shape).astype(np.float32) * np.float32(2.0**-23)
    queries = rng.standard_normal((3, 64)).astype(np.float32)
    check(DenseIndex.build(tmp_path / "i", documents), documents, queries, 10)
    _, nominated = faiss.knn(queries, documents, 10, metric=faiss.METRIC_INNER_PRODUCT)
    assert (nominated != brute_force(documents, queries, 10).rows).any(), "faiss alone is exact here"


@pytest.mark.parametrize("size", [1e-25, 1e18, 1e25])
def test_magnitudes_at_the_ends_of_float32(tmp_path: Path, size: float) -> None:
    documents, queries = clustered(900, 6), clustered(4, 6, seed=1)
    documents, queries = (documents * np.float32(size)), (queries * np.float32(size))
    check(DenseIndex.build(tmp_path / "i", documents), documents, queries, 5)


@pytest.mark.parametrize(("structure", "effort"), STRUCTURES)
@pytest.mark.parametrize("size", [1e-40, 1e30])
def test_structures_take_any_magnitude(
    tmp_path: Path, structure: Structure, effort: DenseEffort, size: float
) -> None:
    documents, queries = (
        (clustered(900, 8).astype(np.float64) * size).astype(np.float32),
        clustered(9, 8, seed=1),
    )
    config = DenseConfig(structure=structure, flat_below=1, calibrate=False)
    index = DenseIndex.build(tmp_path / "i", documents, config=config)
    exact = index.search(queries, 10)
    assert recall_of(index.search(queries, 10, effort=effort).rows, exact.rows) >= 0.9


def test_threads_and_batches_change_nothing(tmp_path: Path) -> None:
    documents, queries = clustered(3_000, 48), clustered(40, 48, seed=1)
    index = DenseIndex.build(tmp_path / "i", documents)
    whole = index.search(queries, 10)
    np.testing.assert_array_equal(index.search(queries, 10, n_threads=2).scores, whole.scores)
    for row in range(40):
        alone = index.search(queries[row : row + 1], 10)
        np.testing.assert_array_equal(alone.rows[0], whole.rows[row])
        np.testing.assert_array_equal(alone.scores[0], whole.scores[row])
    with ThreadPoolExecutor(4) as pool:
        for hits in pool.map(lambda _: index.search(queries, 10), range(8)):
            np.testing.assert_array_equal(hits.rows, whole.rows)


def test_many_rows_are_looked_at_block_by_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("dense_vectors", "dense_segment", "dense_structure", "dense_files"):
        monkeypatch.setattr(f"gossamer.index.{module}.rows_at_once", lambda _n_dims: 37)
    documents, queries = clustered(1_000, 6), clustered(5, 6, seed=1)
    index = DenseIndex.build(tmp_path / "i", documents)
    check(index, documents, queries, 10)
    check(index, documents, queries, 10, allowed=np.random.default_rng(0).random(1_000) < 0.4)


def test_nothing_to_search_and_nothing_asked(tmp_path: Path) -> None:
    queries = np.ones((2, 4), np.float32)
    empty = DenseIndex.build(tmp_path / "empty", np.zeros((0, 4), np.float32))
    assert empty.search(queries, 3).rows.tolist() == [[-1] * 3] * 2
    assert empty.search(queries, 3).ids.to_pylist() == [[None] * 3] * 2
    index = DenseIndex.build(tmp_path / "i", queries)
    assert index.search(queries[:0], 3).rows.shape == (0, 3)
    assert index.search(np.zeros((1, 4), np.float32), 3).rows.tolist() == [[0, 1, -1]]
    assert index.documents.ids.to_pylist() == ["0", "1"]


# -- masks and filters


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
@pytest.mark.parametrize("config", [(Flat(), None), *STRUCTURES])
def test_a_mask_is_brute_force_on_the_subset(
    tmp_path: Path, share: float, config: tuple[Structure, DenseEffort | None]
) -> None:
    structure, effort = config
    documents, queries = clustered(1_200, 12), clustered(6, 12, seed=1)
    built = DenseConfig(structure=structure, flat_below=100, calibrate=False)
    index = DenseIndex.build(tmp_path / "i", documents, config=built)
    allowed = np.random.default_rng(2).random(1_200) < share
    check(index, documents, queries, 10, allowed=allowed)
    if effort is not None:
        hits = index.search(queries, 10, allowed=allowed, effort=effort)
        exact = brute_force(documents, queries, 10, "dot", allowed)
        assert allowed[hits.rows[hits.rows >= 0]].all()
        assert ((hits.rows >= 0).sum(axis=1) == min(10, allowed.sum())).all()
        assert recall_of(hits.rows, exact.rows) >= (0.9 if share else 0)


def test_a_filter_is_a_mask(tmp_path: Path) -> None:
    documents, queries = clustered(300, 6), clustered(4, 6, seed=1)
    ids = [f"d{row}" for row in range(300)]
    table = pa.table({"id": ids, "year": [2000 + row % 7 for row in range(300)]})
    index = DenseIndex.build(tmp_path / "i", DenseVectors(documents, ids), documents=table)
    hits = index.search(queries, 5, filters={"year": {">=": 2005}})
    expected = brute_force(documents, queries, 5, allowed=np.arange(300) % 7 >= 5)
    np.testing.assert_array_equal(hits.rows, expected.rows)
    assert hits.of(0)[0] == (f"d{expected.rows[0, 0]}", expected.scores[0, 0])


# -- approximate search


@pytest.mark.parametrize("metric", ["dot", "cosine"])
@pytest.mark.parametrize(("structure", "effort"), STRUCTURES)
def test_what_is_found_has_its_exact_score(
    tmp_path: Path, structure: Structure, effort: DenseEffort, metric: Metric
) -> None:
    documents, queries = clustered(3_000, 32), clustered(30, 32, seed=1)
    config = DenseConfig(metric=metric, structure=structure, flat_below=500, calibrate=False)
    index = DenseIndex.build(tmp_path / "i", documents, config=config)
    everything = index.search(queries, 3_000)
    scores = np.empty((30, 3_000), np.float32)
    np.put_along_axis(scores, everything.rows, everything.scores, axis=1)
    hits = index.search(queries, 10, effort=effort)
    np.testing.assert_array_equal(hits.scores, np.take_along_axis(scores, hits.rows, axis=1))
    assert recall_of(hits.rows, everything.rows[:, :10]) >= 0.9
    assert index.info().n_structures == 1


@pytest.mark.parametrize(("structure", "_effort"), STRUCTURES)
def test_recall_chooses_from_a_curve_that_is_kept(
    tmp_path: Path, structure: Structure, _effort: DenseEffort
) -> None:
    documents, queries = clustered(3_000, 32), clustered(60, 32, seed=1)
    config = DenseConfig(structure=structure, flat_below=500, calibrate=False)
    index = DenseIndex.build(tmp_path / "i", documents, config=config)
    assert index.effort_for(0.5) is None, "exact, as there is no curve"
    curve = index.calibrate()
    assert curve[-1].effort is None
    assert curve == DenseIndex.open(index.path).info().curve == index.info().curve
    exact = index.search(queries, 10)
    np.testing.assert_array_equal(index.search(queries, 10, recall=1.0).scores, exact.scores)
    assert recall_of(index.search(queries, 10, recall=0.9).rows, exact.rows) >= 0.85


@pytest.mark.parametrize(("structure", "_effort"), STRUCTURES)
def test_a_curve_says_what_queries_find(
    tmp_path: Path, structure: Structure, _effort: DenseEffort, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents, queries = clustered(3_000, 32), clustered(60, 32, seed=1)
    config = DenseConfig(structure=structure, flat_below=500, calibrate=False)
    index = DenseIndex.build(tmp_path / "i", documents, config=config)
    clock = SimpleNamespace(thread_time=lambda: 0.0)  # no search is slower than another
    monkeypatch.setattr("gossamer.index.dense_calibration.time", clock)
    monkeypatch.setattr("gossamer.index.dense_calibration.pareto", lambda points: points)
    points = index.calibrate(queries)
    assert points[0] == OperatingPoint(effort=None, recall=1.0, query_us=0.0)
    exact = index.search(queries, 10)
    for point in points[1:]:
        assert isinstance(point.effort, DenseEffort)
        hits = index.search(queries, 10, effort=point.effort)
        assert 0.7 < point.recall <= recall_of(hits.rows, exact.rows)
    assert len(points) > 2


def test_few_rows_need_no_structure(tmp_path: Path) -> None:
    documents = clustered(200, 8)
    config = DenseConfig(structure=Hnsw(), flat_below=300)
    index = DenseIndex.build(
        tmp_path / "i", DenseVectors(documents, [f"d{n}" for n in range(200)]), config=config
    )
    assert index.info().n_structures == 0
    with pytest.raises(InputError, match="only segments with a structure can be calibrated"):
        index.calibrate()
    check(index, documents, documents[:3], 5, recall=0.5)
    check(index, documents, documents[:3], 5, effort=DenseEffort(ef_search=1))
    index.add(DenseVectors(clustered(200, 8, seed=1), [f"e{n}" for n in range(200)]))
    index.merge(1)
    assert index.info().n_structures == 1
    assert index.info().curve is not None, "the merge has measured it"


@pytest.mark.parametrize("structure", [IvfPq(m=5), Hnsw(m=6)])
def test_the_same_vectors_make_the_same_files_and_no_noise(
    tmp_path: Path, structure: Structure, capfd: pytest.CaptureFixture[str]
) -> None:
    config = DenseConfig(structure=structure, flat_below=1, calibrate=False)
    files = []
    for name in ("a", "b"):
        DenseIndex.build(tmp_path / name, clustered(700, 31), config=config)
        files.append(Manifest.read(tmp_path / name).files)
    assert files[0] == files[1]
    assert any("structure" in name for name in files[0])
    assert capfd.readouterr() == ("", "")


# -- what is stored


def test_every_form_of_vectors_makes_the_same_index(tmp_path: Path) -> None:
    values, ids = clustered(50, 6), [f"d{row}" for row in range(50)]
    table = DenseVectors(values, ids).to_arrow()
    (tmp_path / "parts").mkdir()
    pq.write_table(table[:20], tmp_path / "parts" / "0.parquet")
    pq.write_table(table[20:], tmp_path / "parts" / "1.parquet", row_group_size=7)
    lists = table.set_column(1, "vector", pa.array(values.tolist(), pa.list_(pa.float32())))
    pq.write_table(lists, tmp_path / "lists.parquet")
    with pa.ipc.new_file(tmp_path / "v.arrow", table.schema) as writer:
        writer.write_table(table)
    np.save(tmp_path / "v.npy", values)
    whole = DenseIndex.build(tmp_path / "i", DenseVectors(values, ids))
    for path in (tmp_path / "parts", str(tmp_path / "lists.parquet"), tmp_path / "v.arrow"):
        index = DenseIndex.build(tmp_path / "other", path, replace=True)
        assert index._snapshot.manifest.files == whole._snapshot.manifest.files
    named = DenseIndex.build(
        tmp_path / "other", tmp_path / "v.npy", documents=pa.table({"id": ids}), replace=True
    )
    assert named._snapshot.manifest.files == whole._snapshot.manifest.files
    mapped = DenseIndex.build(
        tmp_path / "other",
        np.load(tmp_path / "v.npy", mmap_mode="r"),
        documents=pa.table({"id": ids}),
        replace=True,
    )
    assert mapped._snapshot.manifest.files == whole._snapshot.manifest.files
    stored = whole.vectors()
    np.testing.assert_array_equal(stored.values, values)
    assert stored.ids is not None
    assert stored.ids.to_pylist() == ids


def test_halves_are_kept_as_they_are(tmp_path: Path) -> None:
    halves = clustered(20, 3).astype(np.float16)
    index = DenseIndex.build(tmp_path / "i", halves)
    np.testing.assert_array_equal(index.vectors().values, halves.astype(np.float32))


def test_info_counts_every_byte(tmp_path: Path) -> None:
    encoder = EncoderInfo("tiny", "abc")
    ids = [f"d{row}" for row in range(60)]
    config = DenseConfig(metric="cosine", structure=Hnsw(m=4), flat_below=1)
    index = DenseIndex.build(
        tmp_path / "i",
        DenseVectors(clustered(60, 6), ids),
        documents=pa.table({"id": ids, "title": ["x"] * 60}),
        config=config,
        encoder=encoder,
    )
    info = index.info()
    on_disk = sum(file.stat().st_size for file in (tmp_path / "i" / "segments").rglob("*") if file.is_file())
    assert sum(info.bytes.values()) == on_disk
    assert all(info.bytes.values())
    assert (info.n_documents, info.n_dims, info.metric, info.structure) == (60, 6, "cosine", Hnsw(m=4))
    assert info.encoder == encoder == DenseIndex.open(tmp_path / "i").encoder
    assert info == DenseIndex.open(tmp_path / "i").info()
    with pytest.raises(
        MismatchError, match=r"queries have 7 dimensions, and this index 6.*of tiny that made"
    ):
        index.search(np.ones((1, 7), np.float32))


def test_a_damaged_structure_never_reaches_faiss(tmp_path: Path) -> None:
    documents, (structure, effort) = clustered(900, 8), STRUCTURES[0]
    config = DenseConfig(structure=structure, flat_below=1, calibrate=False)
    DenseIndex.build(tmp_path / "i", documents, config=config)
    file = tmp_path / "i" / "segments" / "000000" / "structure.faiss"
    whole = file.read_bytes()
    for at in (0, 20, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        index = DenseIndex.open(tmp_path / "i")
        check(index, documents, documents[:3], 5)
        for found in (lambda index=index: index.search(documents[:3], 5, effort=effort), index.verify):
            with pytest.raises(CorruptError, match=r"structure\.faiss was altered"):
                found()


# -- what is refused


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            np.array([[1.0, 2.0], [np.nan, 1.0]], np.float32),
            "row 1: the number nan of dimension 0 is not finite",
        ),
        (np.array([[1.0, np.inf]], np.float32), "row 0: the number inf of dimension 1"),
        (np.ones((2, 2)), "float64; expected float32"),
        (np.ones(2, np.float32), r"of shape \(2,\); expected an array of rows and columns"),
        (np.ones((2, 0), np.float32), "0 dimensions"),
        ([[1.0]], "a list; expected an array"),
    ],
)
def test_vectors_that_cannot_be_indexed_are_refused(tmp_path: Path, values: Any, message: str) -> None:
    with pytest.raises(VectorError, match=message):
        DenseIndex.build(tmp_path / "i", values)
    assert list(tmp_path.iterdir()) == []
    index = DenseIndex.build(tmp_path / "i", np.ones((1, 2), np.float32))
    with pytest.raises(VectorError, match=message):
        index.search(values)


def test_a_vector_without_direction_has_no_cosine(tmp_path: Path) -> None:
    zeros = np.array([[1.0, 0.0], [0.0, 0.0]], np.float32)
    with pytest.raises(VectorError, match="row 1 is all zeros, which has no cosine"):
        DenseIndex.build(tmp_path / "i", zeros, config=DenseConfig(metric="cosine"))
    assert DenseIndex.build(tmp_path / "i", zeros).n_documents == 2


def test_files_that_hold_no_vectors_are_refused(tmp_path: Path) -> None:
    def refused(name: str, error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            DenseIndex.build(tmp_path / "i", tmp_path / name)

    refused("none.npy", NotFoundError, "there are no vectors at")
    refused("none.parquet", NotFoundError, "there are no vectors at")
    np.save(tmp_path / "objects.npy", np.array([[object()]], object), allow_pickle=True)
    refused("objects.npy", FormatError, "cannot be read as an array")
    pq.write_table(pa.table({"id": ["a"], "emb": [[1.0]]}), tmp_path / "name.parquet")
    refused("name.parquet", FormatError, "the column 'vector' is missing")
    pq.write_table(pa.table({"vector": [1.0]}), tmp_path / "type.parquet")
    refused("type.parquet", FormatError, "is double; expected a list of float32")
    floats = pa.list_(pa.float32())
    pq.write_table(pa.table({"vector": pa.array([[1.0], [1.0, 2.0]], floats)}), tmp_path / "ragged.parquet")
    refused("ragged.parquet", VectorError, "ragged.parquet.*row 1 has 2 dimensions, and row 0 has 1")
    pq.write_table(pa.table({"vector": pa.array([[1.0], None], floats)}), tmp_path / "null.parquet")
    refused("null.parquet", VectorError, "null.parquet.*row 1 has no vector")
    (tmp_path / "text.parquet").write_text("no table")
    refused("text.parquet", FormatError, "cannot be read as dense vectors")
    (tmp_path / "mixed").mkdir()
    pq.write_table(pa.table({"vector": pa.array([[1.0]] * 3, floats)}), tmp_path / "mixed" / "0.parquet")
    pq.write_table(pa.table({"vector": pa.array([[1.0, 2.0]], floats)}), tmp_path / "mixed" / "1.parquet")
    refused("mixed", VectorError, "counting from row 3: row 0 has 2 dimensions, and the rows before 1")


def test_arguments_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    documents = clustered(300, 4)
    index = DenseIndex.build(tmp_path / "i", documents, config=DenseConfig(structure=Hnsw(), flat_below=1))
    flat = DenseIndex.build(tmp_path / "flat", documents)
    ask: Any = index.search
    cases: list[tuple[dict[str, Any], str]] = [
        ({"k": 0}, "k is 0"),
        ({"n_threads": 0}, "n_threads is 0"),
        ({"recall": 0.0}, "recall is 0"),
        ({"recall": 0.9, "effort": DenseEffort(ef_search=3)}, "both given"),
        ({"effort": DenseEffort(nprobe=3)}, "structure 'hnsw' has ef_search, not nprobe"),
        ({"effort": DenseEffort()}, "has ef_search"),
        ({"allowed": [True]}, "allowed is bool"),
        ({"device": "tpu"}, "no device='tpu'"),
    ]
    for options, message in cases:
        with pytest.raises(InputError, match=message):
            ask(documents[:1], **options)
    with pytest.raises(InputError, match="this index is flat"):
        flat.search(documents[:1], effort=DenseEffort(ef_search=3))
    wrong: list[dict[str, Any]] = [
        {"structure": {"kind": "ivf"}},
        {"flat_below": -1},
        {"bits": 3},
        {"metric": "l2"},
    ]
    for config in wrong:
        with pytest.raises(ValidationError):
            DenseConfig(**config)


@pytest.mark.skipif(faiss.get_num_gpus() > 0, reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_not_replaced_by_something_else(tmp_path: Path) -> None:
    index = DenseIndex.build(tmp_path / "i", clustered(3, 4))
    with pytest.raises(BackendError, match=r"sees no GPU.*gossamer\[gpu\]"):
        index.search(clustered(1, 4), device="cuda")


def test_without_faiss_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = DenseIndex.build(tmp_path / "i", clustered(100, 4))
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(BackendError, match=r"pip install 'gossamer\[dense\]'"):
        DenseIndex.build(tmp_path / "j", clustered(3, 4))
    with pytest.raises(BackendError, match=r"pip install 'gossamer\[dense\]'"):
        index.search(clustered(1, 4), 3)


def test_an_index_of_another_kind_is_refused(tmp_path: Path) -> None:
    DenseIndex.build(tmp_path / "dense", clustered(3, 4))
    sparse = InvertedIndex.build(tmp_path / "sparse", SparseVectors.from_dicts([{0: 1.0}], 2))
    with pytest.raises(FormatError, match="of the kind 'dense', not 'inverted'"):
        InvertedIndex.open(tmp_path / "dense")
    with pytest.raises(FormatError, match="of the kind 'inverted', not 'dense'"):
        DenseIndex.open(tmp_path / "sparse")
    mixed = DenseIndex.open(tmp_path / "dense")._snapshot.manifest.model_copy(
        update={"segments": sparse._snapshot.manifest.segments, "files": {}}
    )
    (tmp_path / "dense" / "manifest.json").write_bytes(mixed.to_bytes())
    with pytest.raises(FormatError, match="segment 000000 is inverted, the index dense"):
        DenseIndex.open(tmp_path / "dense")


# -- threads


def test_threads_are_those_of_the_call_and_the_thread() -> None:
    before = faiss.omp_get_max_threads()
    with faiss_threads(3), ThreadPoolExecutor(1) as pool:
        assert faiss.omp_get_max_threads() == 3
        assert pool.submit(faiss.omp_get_max_threads).result() != 3
    assert faiss.omp_get_max_threads() == before


@pytest.mark.parametrize("first", ["torch", "faiss"])
def test_faiss_and_torch_live_in_one_process(first: str) -> None:
    """Each brings an OpenMP of its own."""
    code = f"""
import {first}, faiss, torch
import numpy as np
from gossamer.index.faiss_library import faiss_threads
rows = np.random.default_rng(0).standard_normal((500, 64)).astype(np.float32)
for _ in range(3):
    product = torch.from_numpy(rows) @ torch.from_numpy(rows).T
    with faiss_threads(2):
        scores, found = faiss.knn(rows, rows, 3, metric=faiss.METRIC_INNER_PRODUCT)
    assert np.allclose(scores[:, 0], product.max(dim=1).values.numpy(), rtol=1e-4)
    torch.set_num_threads(2)
"""
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, "PYTHONPATH": str(root / ".editable")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
