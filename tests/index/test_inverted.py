"""`InvertedIndex` keeps the contract of an index for every type of impacts and every CPU backend."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from gossamer.index.format import EncoderInfo, Manifest
from gossamer.index.inverted import BuildConfig, InvertedIndex
from gossamer.index.vectors import SparseVectors
from gossamer.kernels.errors import (
    BackendError,
    ConfigError,
    FormatError,
    MismatchError,
    RecordError,
    StorageError,
    VectorError,
)
from tests.contracts.index import IndexContract
from tests.contracts.oracle import random_vectors


class TestUint8(IndexContract):
    kind = "uint8"


class TestUint8Reference(IndexContract):
    kind, backend = "uint8", "reference"


class TestInt8(IndexContract):
    kind = "int8"


class TestInt8Reference(IndexContract):
    kind, backend = "int8", "reference"


class TestFloat32(IndexContract):
    kind = "float32"


class TestFloat32Reference(IndexContract):
    kind, backend = "float32", "reference"


def test_auto_takes_signed_bytes_only_where_needed(tmp_path: Path) -> None:
    plain = SparseVectors.from_dicts([{0: 1.0}], 2)
    signed = SparseVectors.from_dicts([{0: -1.0}], 2, signed=True)
    assert InvertedIndex.build(tmp_path / "a", plain).info().impacts == "uint8"
    assert InvertedIndex.build(tmp_path / "b", signed).info().impacts == "int8"
    with pytest.raises(ConfigError, match="'uint8' cannot store negative weights"):
        InvertedIndex.build(tmp_path / "c", signed, config=BuildConfig(impacts="uint8"))


@pytest.mark.parametrize("wrong", [{"window": 0}, {"window": 65_537}, {"impacts": "int4"}, {"windows": 3}])
def test_config_refuses_what_it_does_not_know(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        BuildConfig(**wrong)


def test_the_float_kind_has_no_gpu_path_and_says_so(tmp_path: Path) -> None:
    vectors = SparseVectors.from_dicts([{0: 1.0}], 2)
    index = InvertedIndex.build(tmp_path / "i", vectors, config=BuildConfig(impacts="float32"))
    with pytest.raises(BackendError, match="float32"):
        index.search(vectors, 1, backend="triton")


def test_info_counts_every_byte(tmp_path: Path) -> None:
    encoder = EncoderInfo("tiny", "abc", "def")
    vectors = random_vectors(np.random.default_rng(0), 50, 20)
    table = pa.table({"id": vectors.ids, "title": ["x"] * 50})
    info = InvertedIndex.build(tmp_path / "i", vectors, documents=table, encoder=encoder).info()
    on_disk = sum(file.stat().st_size for file in (tmp_path / "i").rglob("*") if file.is_file())
    assert sum(info.bytes.values()) == on_disk - (tmp_path / "i" / "manifest.json").stat().st_size
    assert all(info.bytes.values())
    assert info.encoder == encoder == InvertedIndex.open(tmp_path / "i").encoder
    assert info.nnz * 3 < info.bytes["postings"] < info.nnz * 3 + 300
    assert info.bytes_per_posting == (info.bytes["postings"] + info.bytes["offsets"]) / info.nnz


def test_a_mismatch_names_the_encoder(tmp_path: Path) -> None:
    vectors = SparseVectors.from_dicts([{0: 1.0}], 2)
    index = InvertedIndex.build(tmp_path / "i", vectors, encoder=EncoderInfo("tiny", "abc"))
    with pytest.raises(MismatchError, match="the encoder of tiny"):
        index.search(SparseVectors.from_dicts([{0: 1.0}], 3))


def test_progress_reaches_the_end(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    vectors = SparseVectors.from_dicts([{0: 1.0}] * 25, 2)
    config = BuildConfig(window=10)
    InvertedIndex.build(tmp_path / "i", vectors, config=config, on_rows=lambda *at: seen.append(at))
    assert {total for _, total in seen} == {25}
    done = [rows for rows, _ in seen]  # half for reading them, half for writing their postings
    assert done == sorted(done)
    assert done[-1] == 25
    assert len(set(done)) == 4


def test_parts_must_agree(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    one = SparseVectors.from_dicts([{0: 1.0}], 2, ids=["a"])
    one.write_parquet(tmp_path / "parts" / "0.parquet")
    SparseVectors.from_dicts([{0: 1.0}], 3, ids=["b"]).write_parquet(tmp_path / "parts" / "1.parquet")
    with pytest.raises(VectorError, match="from row 1 on there are 3 terms, and 2 before"):
        InvertedIndex.build(tmp_path / "i", tmp_path / "parts")
    SparseVectors.from_dicts([{0: 1.0}], 2).write_parquet(tmp_path / "parts" / "1.parquet")
    with pytest.raises(VectorError, match="row 1 have ids and some have none"):
        InvertedIndex.build(tmp_path / "i", tmp_path / "parts")


def test_documents_in_another_order_are_refused(tmp_path: Path) -> None:
    vectors = SparseVectors.from_dicts([{0: 1.0}] * 3, 2, ids=["a", "b", "c"])
    with pytest.raises(RecordError, match="row 1 is 'c' among the documents, but 'b' among the vectors"):
        InvertedIndex.build(tmp_path / "i", vectors, documents=pa.table({"id": ["a", "c", "b"]}))


def test_many_threads_share_one_index(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    vectors, queries = random_vectors(rng, 300, 40), random_vectors(rng, 30, 40, names=None)
    index = InvertedIndex.build(tmp_path / "i", vectors, config=BuildConfig(window=50))
    expected = index.search(queries, 10).rows

    def work() -> bool:
        alone = [index.search(queries[row : row + 1], 10).rows[0] for row in range(queries.n_rows)]
        return np.array_equal(alone, expected)

    with ThreadPoolExecutor(4) as pool:
        same = [pool.submit(work) for _ in range(8)]
        assert all(future.result() for future in same)


def one_term(path: Path, weight: float) -> InvertedIndex:
    vectors = SparseVectors.from_dicts([{0: weight}], 2)
    return InvertedIndex.build(path, vectors, config=BuildConfig(impacts="float32"), replace=True)


@pytest.mark.parametrize("replacements", [1, 2])
def test_an_index_replaced_while_it_is_opened_is_opened_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replacements: int
) -> None:
    one_term(tmp_path / "i", 1.0)
    one_term(tmp_path / "other", 9.0)  # of the same sizes, so only the manifests tell them apart
    read = Manifest.read
    left = replacements

    def swapped_after(folder: Path) -> Manifest:
        nonlocal left
        manifest = read(folder)
        if left:
            left -= 1
            (tmp_path / "i").rename(tmp_path / "aside")
            (tmp_path / "other").rename(tmp_path / "i")
            (tmp_path / "aside").rename(tmp_path / "other")
        return manifest

    monkeypatch.setattr(Manifest, "read", swapped_after)
    index = InvertedIndex.open(tmp_path / "i")
    assert index.vectors().values.tolist() == [9.0 if replacements == 1 else 1.0]
    assert index.info() == InvertedIndex.open(tmp_path / "i").info()
    left = 100
    with pytest.raises(StorageError, match="changed again and again"):
        InvertedIndex.open(tmp_path / "i")


def test_a_file_that_vanishes_in_a_replacement_is_looked_for_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_term(tmp_path / "i", 1.0)
    read, calls = Manifest.read, []

    def replaced_after(folder: Path) -> Manifest:
        calls.append(folder)
        manifest = read(folder)
        if len(calls) == 1:
            monkeypatch.setattr(Manifest, "read", read)
            one_term(tmp_path / "i", 9.0)
            monkeypatch.setattr(Manifest, "read", replaced_after)
            raise FormatError("a file is missing")
        return manifest

    monkeypatch.setattr(Manifest, "read", replaced_after)
    assert InvertedIndex.open(tmp_path / "i").vectors().values.tolist() == [9.0]
