"""Files of other systems: nothing is lost on the way there and back, and what is damaged is named."""

from __future__ import annotations

import gzip
import json
import struct
import tempfile
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import sparse

from gossamer.index import InvertedIndex, SparseVectors, read_vectors, read_vocabulary, write_vectors
from gossamer.index.exchange.anserini import collect_vocabulary
from gossamer.index.exchange.vocabulary import write_vocabulary
from gossamer.kernels.errors import (
    ConfigError,
    ExistsError,
    FormatError,
    GossamerError,
    MismatchError,
    NotFoundError,
    RecordError,
    VectorError,
)
from tests.laws.strategies import sparse_vectors
from tests.lsr.tiny import tiny_encoder, write_collection

laws = settings(deadline=None, max_examples=40)
WORDS = {"cat": 0, "dog": 1, "emu": 2, "fox": 3}
ANIMALS = SparseVectors.from_dicts([{0: 1.5, 3: 0.25}, {}, {1: 2.0}], 4, ids=["a", "b", "c"])


def of(rows: list[dict[int, float]], **options: Any) -> SparseVectors:
    return SparseVectors.from_dicts(rows, 4, **options)


# -- laws -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["x.parquet", "x.csr", "x.npz", "x.jsonl", "x.jsonl.gz"])
@given(vectors=sparse_vectors(), batch_rows=st.integers(1, 20), write_rows=st.integers(1, 20))
@laws
def test_nothing_is_lost_in_parts_of_any_size(
    name: str, vectors: SparseVectors, batch_rows: int, write_rows: int
) -> None:
    ids = None if vectors.ids is None else vectors.ids.to_pylist()
    assume("jsonl" in name or name == "x.parquet" or not set("".join(ids or "")) & set("\r\n"))
    options: dict[str, Any] = {} if name == "x.parquet" else {"signed": vectors.signed}
    options |= {"n_cols": vectors.n_cols} if "jsonl" in name else {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        given = [vectors[start : start + write_rows] for start in range(0, max(len(vectors), 1), write_rows)]
        assert write_vectors(given, path) == vectors.n_rows
        parts = list(read_vectors(path, batch_rows=batch_rows, **options))
        assert {file.name for file in Path(folder).iterdir()} <= {name, f"{name}.ids"}
    whole = SparseVectors.concat(parts)
    assert all(part.n_rows <= batch_rows for part in parts)
    assert whole.shape == vectors.shape
    assert whole.to_dicts() == vectors.to_dicts()
    if vectors.n_rows:
        numbers = [str(row) for row in range(len(vectors))] if "jsonl" in name else None
        assert (None if whole.ids is None else whole.ids.to_pylist()) == (numbers if ids is None else ids)


@given(data=st.data(), vectors=sparse_vectors(n_cols=8), terms=st.sets(st.text(), min_size=8, max_size=8))
@laws
def test_words_of_any_vocabulary_come_back(
    data: st.DataObject, vectors: SparseVectors, terms: set[str]
) -> None:
    numbers = data.draw(st.permutations(range(8)))
    vocabulary = dict(zip(sorted(terms), numbers, strict=True))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.jsonl"
        write_vectors(vectors, path, vocabulary=vocabulary)
        again = read_vectors(path, vocabulary=vocabulary, signed=vectors.signed).read()
        write_vocabulary(vocabulary, Path(folder) / "x.json")
        assert read_vocabulary(Path(folder) / "x.json") == vocabulary
    assert again.to_dicts() == vectors.to_dicts()
    assert again.n_cols == 8


@given(vectors=sparse_vectors(n_cols=9, signed=False), scale=st.sampled_from([0.5, 1.0, 100.0]))
@laws
def test_impacts_are_whole_numbers_of_the_stated_scale(vectors: SparseVectors, scale: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_vectors(vectors, Path(folder) / "x.jsonl", scale=scale)
        lines = (Path(folder) / "x.jsonl").read_text(encoding="utf-8").splitlines()
        again = read_vectors(Path(folder) / "x.jsonl", n_cols=9, scale=scale).read()
    for line, row, read in zip(lines, vectors.to_dicts(), again.to_dicts(), strict=True):
        expected = {str(term): round(weight * scale) for term, weight in row.items()}
        assert json.loads(line)["vector"] == {term: impact for term, impact in expected.items() if impact}
        assert all(abs(weight - row[term]) <= 0.5 / scale + 1e-6 for term, weight in read.items())


@given(
    name=st.sampled_from(["x.csr", "x.npz", "x.jsonl.gz"]),
    place=st.floats(0, 1, exclude_max=True),
    bit=st.integers(0, 7),
    cut=st.booleans(),
)
@settings(deadline=None, max_examples=150)
def test_a_damaged_file_raises_an_error_of_ours_or_reads_as_other_numbers(
    name: str, place: float, bit: int, cut: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        write_vectors(ANIMALS, path)
        options: dict[str, Any] = {"n_cols": 4} if name == "x.jsonl.gz" else {}
        data = bytearray(path.read_bytes())
        at = int(place * len(data))
        if cut:
            del data[at:]
        else:
            data[at] ^= 1 << bit
        path.write_bytes(bytes(data))
        try:
            read = read_vectors(path, **options).read()
        except GossamerError as error:
            assert name in str(error)  # noqa: PT017  # there may be none
        else:
            assert not cut
            assert read.n_rows == 3


# -- the formats as others write and read them ------------------------------------------------------------------


def test_csr_has_the_layout_of_the_track(tmp_path: Path) -> None:
    write_vectors(ANIMALS, tmp_path / "x.csr")
    data = (tmp_path / "x.csr").read_bytes()
    expected = struct.pack("<3q4q3i3f", 3, 4, 3, 0, 2, 2, 3, 0, 3, 1, 1.5, 0.25, 2.0)
    assert data == expected
    assert (tmp_path / "x.csr.ids").read_bytes() == b"a\nb\nc\n"


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("kind", [np.float64, np.int8, np.uint64, np.bool_])
def test_npz_of_scipy_is_read_and_ours_is_read_by_scipy(tmp_path: Path, compressed: bool, kind: type) -> None:
    matrix = sparse.csr_matrix(([1, 1, 1, 0], [3, 1, 1, 2], [0, 1, 3, 4]), shape=(3, 4), dtype=kind)
    sparse.save_npz(tmp_path / "x.npz", matrix, compressed=compressed)
    read = read_vectors(tmp_path / "x.npz").read()
    assert read.to_dicts() == SparseVectors.from_scipy(matrix).to_dicts()
    assert read.to_dicts()[2] == {}  # a zero is dropped; repeats are summed, as scipy means them
    write_vectors(ANIMALS, tmp_path / "ours.npz")
    ours = sparse.load_npz(tmp_path / "ours.npz")
    assert isinstance(ours, sparse.csr_array)
    assert SparseVectors.from_scipy(ours, ids=ANIMALS.ids).equals(ANIMALS)


def test_anserini_lines_hold_words_impacts_and_texts(tmp_path: Path) -> None:
    documents = pa.table({"id": ["a", "b", "c"], "title": ["One", "", ""], "text": ["é", None, "two"]})
    path = tmp_path / "x.jsonl"
    write_vectors(ANIMALS, path, vocabulary=WORDS, scale=100, documents=documents)
    assert [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] == [
        {"id": "a", "contents": "One é", "vector": {"cat": 150, "fox": 25}},
        {"id": "b", "contents": "", "vector": {}},
        {"id": "c", "contents": "two", "vector": {"dog": 200}},
    ]
    assert read_vectors(path, vocabulary=WORDS, scale=100).read().equals(ANIMALS)


def test_a_folder_is_read_in_name_order_and_its_words_collected(tmp_path: Path) -> None:
    (tmp_path / "1.jsonl").write_text('\ufeff{"id": 7, "vector": {"b": 1, "a": 2.5}}\r\n\n', encoding="utf-8")
    with gzip.open(tmp_path / "2.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write('{"id": "é", "vector": {"é": 3, "b": 0}}')
    vocabulary = collect_vocabulary(tmp_path)
    assert vocabulary == {"a": 0, "b": 1, "é": 2}
    read = read_vectors(tmp_path, vocabulary=vocabulary).read()
    assert read.equals(SparseVectors.from_dicts([{0: 2.5, 1: 1.0}, {2: 3.0}], 3, ids=["7", "é"]))
    write_vectors(read, tmp_path / "x.parquet")
    with pytest.raises(ConfigError, match="Parquet and JSONL files; name a file"):
        read_vectors(tmp_path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("vocab.txt", "cat\r\ndog\nemu\nfox\n"),
        ("x.json", '["cat", "dog", "emu", "fox"]'),
        ("x.json", '{"fox": 3, "emu": 2, "dog": 1, "cat": 0}'),
        (
            "tokenizer.json",
            '{"model": {"vocab": {"cat": 0, "dog": 1, "emu": 2}}, "added_tokens": [{"id": 3, "content": "fox"}]}',
        ),
        (
            "tokenizer.json",
            '{"model": {"vocab": [["cat", 0.0], ["dog", -1], ["emu", -2.5], ["fox", -3]]}, "added_tokens": '
            '[{"id": 0, "content": "cat"}]}',
        ),
    ],
)
def test_vocabularies_of_tokenizers_and_lists(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / "document_0").mkdir()
    (tmp_path / "document_0" / name).write_text(text, encoding="utf-8")
    assert read_vocabulary(tmp_path / "document_0" / name) == WORDS
    if name != "x.json":
        assert read_vocabulary(tmp_path) == read_vocabulary(tmp_path / "document_0") == WORDS


def test_the_tokenizers_of_real_folders_are_vocabularies(shared_data: Path) -> None:
    for name in ("splade-v5", "inference-free-v5", "csr-v6"):
        vocabulary = read_vocabulary(shared_data / "formats" / name)
        assert sorted(vocabulary.values()) == list(range(len(vocabulary)))
        assert "[CLS]" in vocabulary


def test_real_vectors_go_there_and_back(shared_data: Path, tmp_path: Path) -> None:
    with np.load(shared_data / "vectors" / "summaries-queries-1k.npz", allow_pickle=False) as file:
        given = SparseVectors(file["indptr"], file["indices"], file["values"], 30_522)
    for name in ("x.csr", "x.npz", "x.parquet"):
        write_vectors(given, tmp_path / name)
        assert read_vectors(tmp_path / name, batch_rows=300).read().equals(given)


def test_parquet_of_others_is_read_by_naming_the_vocabulary(tmp_path: Path) -> None:
    pq.write_table(pa.table({"indices": [[3, 7]], "values": [[0.5, 1.5]]}), tmp_path / "x.parquet")
    assert read_vectors(tmp_path / "x.parquet", n_cols=10).read().to_dicts() == [{3: 0.5, 7: 1.5}]
    with pytest.raises(FormatError, match="pass n_cols"):
        read_vectors(tmp_path / "x.parquet").read()


@pytest.mark.parametrize("name", ["x.csr", "x.npz", "x.jsonl"])
def test_an_index_is_built_from_any_of_them(tmp_path: Path, name: str) -> None:
    write_vectors(ANIMALS, tmp_path / name)
    file = read_vectors(tmp_path / name, n_cols=4) if name == "x.jsonl" else tmp_path / name
    index = InvertedIndex.build(tmp_path / "index", file)
    assert index.search(of([{1: 1.0}]), 1).of(0)[0][0] == "c"
    write_vectors(index.vectors(), tmp_path / "again.parquet")
    assert read_vectors(tmp_path / "again.parquet").read().ids == ANIMALS.ids


@pytest.mark.parametrize("name", ["x.csr", "x.npz"])
def test_memory_holds_one_part(tmp_path: Path, name: str) -> None:
    row = SparseVectors.from_dense(np.ones((100, 500)))
    write_vectors((row for _ in range(100)), tmp_path / name)
    size = (tmp_path / name).stat().st_size
    assert size > 40_000_000
    tracemalloc.start()
    assert sum(part.nnz for part in read_vectors(tmp_path / name, batch_rows=100)) == 5_000_000
    write_vectors(read_vectors(tmp_path / name, batch_rows=100), tmp_path / "x.again.csr")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < size / 8


# -- what is refused --------------------------------------------------------------------------------------------


def csr_file(path: Path, header: tuple[int, ...], indptr: list[int], indices: Any, values: Any) -> Path:
    arrays = (header, np.int64), (indptr, np.int64), (indices, np.int32), (values, np.float32)
    path.write_bytes(b"".join(np.asarray(numbers, kind).tobytes() for numbers, kind in arrays))
    return path


@pytest.mark.parametrize(
    ("header", "indptr", "indices", "values", "error", "message"),
    [
        ((2, 4, 3), [0, 2, 3], [0, 3, 1], [1, 1], FormatError, r"x\.csr has 68 bytes, .* 3 weights, 72"),
        ((2, 4, 2**60), [0, 2, 3], [0, 3, 1], [1, 1, 1], FormatError, "truncated .* or no CSR file"),
        ((2**62, 4, 3), [0, 2, 3], [0, 3, 1], [1, 1, 1], FormatError, "truncated"),
        ((-2, 4, 3), [0], [], [], FormatError, "truncated"),
        ((2, 0, 3), [0, 2, 3], [0, 3, 1], [1, 1, 1], FormatError, "0 columns"),
        ((2, 2**31, 3), [0, 2, 3], [0, 3, 1], [1, 1, 1], FormatError, "2147483648 columns"),
        ((2, 4, 3), [0, 4, 3], [0, 3, 1], [1, 1, 1], FormatError, "row 0: indptr goes from 0 to 4"),
        ((3, 4, 3), [0, 2, 1, 3], [0, 3, 1], [1, 1, 1], FormatError, "row 1: indptr goes from 2 to 1"),
        ((3, 4, 3), [0, 2, -(2**63), 3], [0, 3, 1], [1, 1, 1], FormatError, "row 1: indptr goes from 2"),
        ((2, 4, 3), [1, 2, 3], [0, 3, 1], [1, 1, 1], FormatError, "indptr starts at 1"),
        ((2, 4, 3), [0, 2, 2], [0, 3, 1], [1, 1, 1], FormatError, "indptr ends at 2, but there are 3"),
        (
            (2, 4, 3),
            [0, 2, 3],
            [0, 3, 4],
            [1, 1, 1],
            VectorError,
            "from row 1: row 0: term 4 is outside 0..3",
        ),
        ((2, 4, 3), [0, 2, 3], [0, 3, -1], [1, 1, 1], VectorError, "from row 1: row 0: term -1 is outside"),
        ((2, 4, 3), [0, 2, 3], [0, 3, 1], [1, 1, np.nan], VectorError, "from row 1: row 0: the weight nan"),
        ((2, 4, 3), [0, 2, 3], [0, 3, 1], [1, np.inf, 1], VectorError, "from row 0: row 0: the weight inf"),
        ((2, 4, 3), [0, 2, 3], [0, 3, 1], [1, -1, 1], VectorError, "negative; pass signed=True"),
    ],
)
def test_csr_that_is_none(
    tmp_path: Path, header: Any, indptr: Any, indices: Any, values: Any, error: type[Exception], message: str
) -> None:
    path = csr_file(tmp_path / "x.csr", header, indptr, indices, values)
    with pytest.raises(error, match=message):
        read_vectors(path, batch_rows=1).read()


def test_csr_without_order_is_put_in_order(tmp_path: Path) -> None:
    path = csr_file(tmp_path / "x.csr", (2, 4, 5), [0, 3, 5], [3, 0, 3, 2, 1], [1, 2, 3, 0, 4])
    assert read_vectors(path).read().to_dicts() == [{0: 2.0, 3: 4.0}, {1: 4.0}]
    (tmp_path / "short.csr").write_bytes(b"123")
    with pytest.raises(FormatError, match="shorter than a header"):
        read_vectors(tmp_path / "short.csr").read()


GOOD_NPZ: dict[str, Any] = {
    "format": b"csr",
    "shape": [2, 4],
    "indptr": [0, 2, 3],
    "indices": [0, 3, 1],
    "data": [1.0, 1.0, 1.0],
}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"format": b"csc"}, FormatError, r"format b'csc'; save its tocsr\(\)"),
        ({"format": None}, FormatError, "no array 'format'"),
        ({"shape": [2, 4, 1]}, FormatError, "'shape' has not 2"),
        ({"shape": [3, 4]}, FormatError, "3 numbers in indptr, 3 indices and 3 weights for 3 rows"),
        ({"shape": [2, 2**40]}, FormatError, "columns between 1 and"),
        ({"indptr": [0, 3, 2]}, FormatError, "row 1: indptr goes from 3 to 2"),
        ({"indices": [0.0, 3.0, 1.0]}, FormatError, r"indices is float64 of \(3,\); expected a vector"),
        ({"indices": np.array([0, 3, 2**63], np.uint64)}, VectorError, "outside 0..3"),
        ({"data": ["1", "2", "3"]}, FormatError, r"data is <U1"),
        ({"data": [[1.0, 1.0, 1.0]]}, FormatError, r"data is float64 of \(1, 3\)"),
        ({"data": [1.0, 1.0]}, FormatError, "3 indices and 2 weights"),
        ({"data": [1.0, 1.0, 1e300]}, VectorError, "row 1: the weight inf"),
        ({"data": [1.0 + 1j, 1.0, 1.0]}, FormatError, "data is complex128"),
    ],
)
def test_npz_that_is_none(
    tmp_path: Path, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    arrays = {name: array for name, array in (GOOD_NPZ | change).items() if array is not None}
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(error, match=message):
        read_vectors(tmp_path / "x.npz").read()


def test_pickled_objects_are_not_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", allow_pickle=True, **(GOOD_NPZ | {"data": np.array([1.0, "x", {}], object)}))
    with pytest.raises(FormatError, match="holds Python objects, which only unpickling could read"):
        read_vectors(tmp_path / "x.npz").read()


def test_npz_that_promises_more_than_it_has(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", **GOOD_NPZ)
    with zipfile.ZipFile(tmp_path / "x.npz") as given, zipfile.ZipFile(tmp_path / "y.npz", "w") as made:
        for name in given.namelist():
            data = given.read(name)
            made.writestr(
                name, data.replace(b"(3,), } ", b"(3000000000,), } ") if name == "data.npy" else data
            )
    with pytest.raises(FormatError, match="data promises 3,000,000,000 numbers, but has"):
        read_vectors(tmp_path / "y.npz").read()
    (tmp_path / "z.npz").write_bytes(b"no archive")
    with pytest.raises(FormatError, match=r"z\.npz cannot be read as \.npz"):
        read_vectors(tmp_path / "z.npz").read()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "no JSON object"),
        ("[1]", "expected an object"),
        ("[" * 100_000, "no JSON object"),
        ("\xff", "no JSON object .*utf-8"),
        ('{"id": "x"}', '"vector" is missing'),
        ('{"id": "x", "vector": [1]}', r'"vector" is \[1\]; expected an object'),
        ('{"vector": {"cat": 1}}', '"id" is missing'),
        ('{"id": 1.5, "vector": {"cat": 1}}', '"id" is 1.5; expected a string'),
        ('{"id": "\\ud800", "vector": {"cat": 1}}', "no valid Unicode"),
        ('{"id": "x", "vector": {"cat": NaN}}', "NaN is no number"),
        ('{"id": "x", "vector": {"cat": 1e39}}', "weight of 'cat' is 1e.39; expected a number of 32 bits"),
        ('{"id": "x", "vector": {"cat": 1e999}}', "weight of 'cat' is inf"),
        ('{"id": "x", "vector": {"cat": "1"}}', "weight of 'cat' is '1'"),
        ('{"id": "x", "vector": {"cat": true}}', "weight of 'cat' is True"),
        ('{"id": "x", "vector": {"cat": null}}', "weight of 'cat' is missing"),
        ('{"id": "x", "vector": {"cat": -1}}', "weight of 'cat' is negative; allow it"),
        ('{"id": "x", "vector": {"cat": 1, "cat": 2}}', "'cat' is there twice"),
        ('{"id": "x", "vector": {"dgo": 1}}', "'dgo' is not in the vocabulary of 4"),
    ],
)
def test_a_line_that_is_no_vector_is_named(tmp_path: Path, line: str, message: str) -> None:
    good = b'{"id": "a", "vector": {"cat": 1}}\n'
    (tmp_path / "x.jsonl").write_bytes(good + line.encode("latin-1") + b"\n")
    with pytest.raises(RecordError, match=rf"x\.jsonl, line 2: .*{message}"):
        read_vectors(tmp_path / "x.jsonl", vocabulary=WORDS).read()


@pytest.mark.parametrize("term", ["4", "-1", "01", "1.0", "x", "", "²", "9" * 5000])
def test_a_term_that_is_no_number_is_named(tmp_path: Path, term: str) -> None:
    (tmp_path / "x.jsonl").write_text(json.dumps({"id": "a", "vector": {term: 1}}), encoding="utf-8")
    with pytest.raises(RecordError, match=r"x\.jsonl, line 1: the term .* is no number in 0\.\.3"):
        read_vectors(tmp_path / "x.jsonl", n_cols=4).read()


@pytest.mark.parametrize("name", ["x.parquet", "x.jsonl", "x.csr", "x.npz"])
def test_an_id_that_repeats_is_named_with_both_rows(tmp_path: Path, name: str) -> None:
    write_vectors(ANIMALS, tmp_path / name)
    if name == "x.parquet":
        ANIMALS.with_ids(["a", "b", "a"]).write_parquet(tmp_path / name)
    else:
        path = tmp_path / (name if name == "x.jsonl" else f"{name}.ids")
        path.write_bytes(path.read_bytes().replace(b"c", b"a", 1 if name != "x.jsonl" else 0))
        if name == "x.jsonl":
            path.write_text(path.read_text().replace('"id":"c"', '"id":"a"'))
    options: dict[str, Any] = {"n_cols": 4} if name == "x.jsonl" else {}
    with pytest.raises(RecordError, match=f"{name}: the id 'a' is given to rows 0 and 2"):
        list(read_vectors(tmp_path / name, batch_rows=1, **options))
    with pytest.raises(RecordError, match="the id 'a' is given to rows 0 and 2"):
        write_vectors(ANIMALS.with_ids(["a", "b", "a"]), tmp_path / f"y{name}")
    assert not (tmp_path / f"y{name}").exists()


def test_ids_beside_must_be_those_of_the_rows(tmp_path: Path) -> None:
    path = tmp_path / "x.csr"
    write_vectors(of([{0: 1.0}, {1: 1.0}]), path)
    assert read_vectors(path).read().ids is None
    for text, message in (
        (b"a\n", "line 2: missing, as there are 2 rows"),
        (b"a\nb\nc\n", "line 3: one too many for 2 rows"),
        (b"a\n\xff\n", "line 2: this is not UTF-8"),
    ):
        (tmp_path / "names").write_bytes(text)
        with pytest.raises(RecordError, match=f"names, {message}"):
            read_vectors(path, ids=tmp_path / "names", batch_rows=1).read()
    (tmp_path / "names").write_bytes(b"a\r\nb")
    named = read_vectors(path, ids=tmp_path / "names").read()
    assert named.ids is not None
    assert named.ids.to_pylist() == ["a", "b"]
    with pytest.raises(NotFoundError, match="no file of ids"):
        read_vectors(path, ids=tmp_path / "absent").read()
    with pytest.raises(VectorError, match=r"row 1: the id 'b\\n' holds a line end"):
        write_vectors(of([{}, {}], ids=["a", "b\n"]), tmp_path / "y.csr")
    assert not (tmp_path / "y.csr").exists()


def test_ids_of_another_file_do_not_stay_beside(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    write_vectors(ANIMALS, path)
    with pytest.raises(ExistsError, match="--replace"):
        write_vectors(of([{}] * 3), path)
    write_vectors(of([{}] * 3), path, replace=True)
    assert read_vectors(path).read().ids is None
    (tmp_path / "y.npz.ids").write_bytes(b"mine\n")
    with pytest.raises(ExistsError, match=r"y\.npz\.ids exists"):
        write_vectors(ANIMALS, tmp_path / "y.npz")


@pytest.mark.parametrize("name", ["x.parquet", "x.csr", "x.npz", "x.jsonl", "x.jsonl.gz"])
def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, name: str) -> None:
    def broken() -> Iterator[SparseVectors]:
        yield ANIMALS
        raise OSError("no space left")

    write_vectors(ANIMALS, tmp_path / name)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(OSError, match="no space left"):
        write_vectors(broken(), tmp_path / name, replace=True)
    with pytest.raises(VectorError, match="no parts to write"):
        write_vectors([], tmp_path / name, replace=True)
    with pytest.raises(VectorError, match="from row 3 on there are 9 terms, before 4"):
        write_vectors([ANIMALS, SparseVectors.from_dicts([], 9)], tmp_path / name, replace=True)
    with pytest.raises(VectorError, match="after row 3 have ids and some have none"):
        write_vectors([ANIMALS, of([{}])], tmp_path / name, replace=True)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    (tmp_path / f"folder.{name}").mkdir()
    with pytest.raises(ExistsError, match="is a folder"):
        write_vectors(ANIMALS, tmp_path / f"folder.{name}", replace=True)


def test_what_cannot_be_written_for_anserini(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    for options, error, message in (
        ({"vocabulary": {"cat": 0, "dog": 4}}, MismatchError, "vocabulary has 5 terms, and the vectors 4"),
        ({"vocabulary": {"cat": 0}}, VectorError, r"row 0 \(id 'a'\): term 3 has no name"),
        ({"vocabulary": {"cat": 0, "dog": 0}}, ConfigError, "two terms the same number"),
        ({"scale": 0}, ConfigError, "scale is 0"),
        ({"scale": 1e10}, VectorError, "row 0: the weight 1.5 is no impact at a scale of 1e.10"),
        ({"documents": pa.table({"id": ["a", "b"]})}, RecordError, r"row 2 \(id 'c'\) has no document"),
        ({"documents": pa.table({"id": list("abcd")})}, RecordError, "row 3 is a document without a vector"),
        (
            {"documents": pa.table({"id": list("acb")})},
            RecordError,
            "row 1 is 'c' among the documents, but 'b'",
        ),
        ({"documents": pa.table({"text": list("abc")})}, RecordError, "no column 'id'"),
    ):
        with pytest.raises(error, match=message):
            write_vectors(ANIMALS, path, **options)
    with pytest.raises(VectorError, match=r"row 0: the weight -1\.0 is no impact"):
        write_vectors(of([{0: -1.0}], signed=True), path, scale=100)
    assert not list(tmp_path.iterdir())


def test_options_of_other_formats_are_refused(tmp_path: Path) -> None:
    write_vectors(ANIMALS, tmp_path / "x.csr")
    write_vectors(ANIMALS, tmp_path / "x.jsonl")
    for options in ({"vocabulary": WORDS}, {"n_cols": 4}, {"scale": 1.0}):
        with pytest.raises(ConfigError, match=r"has no meaning for this format; it takes ids, signed"):
            read_vectors(tmp_path / "x.csr", **options)
    with pytest.raises(ConfigError, match="documents has no meaning for this format; it takes none such"):
        write_vectors(ANIMALS, tmp_path / "y.csr", documents=pa.table({"id": []}))
    with pytest.raises(ConfigError, match="nothing says their numbers: give a vocabulary"):
        read_vectors(tmp_path / "x.jsonl").read()
    with pytest.raises(ConfigError, match="each must be above 0"):
        read_vectors(tmp_path / "x.csr", batch_rows=0)
    with pytest.raises(ConfigError, match="numbers, up to 3; expected"):
        read_vectors(tmp_path / "x.jsonl", vocabulary=WORDS, n_cols=3).read()


def test_paths_that_say_no_format(tmp_path: Path) -> None:
    (tmp_path / "x.csr.gz").touch()
    with pytest.raises(ConfigError, match=r"uncompress it \(gunzip\) first; expected one of \.parquet"):
        read_vectors(tmp_path / "x.csr.gz")
    with pytest.raises(ConfigError, match="no format is known by this suffix; expected"):
        write_vectors(ANIMALS, tmp_path / "x.txt")
    with pytest.raises(NotFoundError, match="no file of vectors at"):
        read_vectors(tmp_path / "x.csr")
    (tmp_path / "x.csr.gz").unlink()
    with pytest.raises(NotFoundError, match="holds no Parquet file and no JSONL file"):
        read_vectors(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.txt", "cat\ncat\n", "the term 'cat' or its number 1 is there twice"),
        ("x.json", '{"cat": 0, "cat": 1}', "'cat' is there twice"),
        ("x.json", '{"cat": 0, "dog": 0}', "the term 'dog' or its number 0 is there twice"),
        ("x.json", '{"cat": -1}', "'cat' has the number -1; expected"),
        ("x.json", '{"cat": true}', "'cat' has the number True"),
        ("x.json", "[1]", "1 has the number 0"),
        ("x.json", "3", "neither an object"),
        ("x.json", "{}", "holds no terms"),
        ("x.json", '{"model": {}, "added_tokens": 3}', "cannot be read as a vocabulary"),
        ("x.json", '{"model": {"vocab": 3}}', "neither an object"),
        ("x.json", "{", "cannot be read as a vocabulary"),
    ],
)
def test_vocabularies_that_are_none(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(FormatError, match=message):
        read_vocabulary(tmp_path / name)


def test_vocabularies_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"no tokenizer\.json and no vocab\.txt"):
        read_vocabulary(tmp_path)
    with pytest.raises(NotFoundError, match="no vocabulary at"):
        read_vocabulary(tmp_path / "absent")
    with pytest.raises(ConfigError, match=r"name it x\.json"):
        write_vocabulary(WORDS, tmp_path / "x.txt")
    (tmp_path / "x.jsonl").write_text('{"id": "a", "vector": {}}\n', encoding="utf-8")
    with pytest.raises(RecordError, match="no terms"):
        collect_vocabulary(tmp_path / "x.jsonl")


# -- sentence-transformers ----------------------------------------------------------------------------------------


def test_whatever_a_sparse_encoder_returns_is_one_call_away(tmp_path: Path) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    tiny_encoder(write_collection(tmp_path / "collection")).save(tmp_path / "model")
    model = sentence_transformers.SparseEncoder(str(tmp_path / "model"), device="cpu")
    texts, ids = ["otter river", "falcon", "heron sleeps"], ["x", "y", "z"]
    expected = SparseVectors.from_dense(model.encode_document(texts).to_dense().numpy(), ids=ids)
    assert expected.nnz > 0
    for tensor in (True, False):
        for sparse_tensor in (True, False):
            encoded = model.encode_document(
                texts, convert_to_tensor=tensor, convert_to_sparse_tensor=sparse_tensor
            )
            assert SparseVectors.from_torch(encoded, ids=ids).equals(expected)
    one = SparseVectors.from_torch(model.encode_document(texts[0]))
    assert one.equals(SparseVectors.from_torch(model.encode_document(texts[:1])))
    for nothing in (model.encode_document([]), model.encode_document([], convert_to_tensor=False)):
        with pytest.raises(VectorError, match=r"expected rows and columns|expected one row or more"):
            SparseVectors.from_torch(nothing)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state:UserWarning")
def test_tensors_of_other_layouts_and_shapes() -> None:
    torch = pytest.importorskip("torch")
    dense = torch.tensor([[0.0, 1.5], [0.0, 0.0]], requires_grad=True)
    for tensor in (dense, dense.to_sparse(), dense.detach().to_sparse_csr(), dense.to(torch.bfloat16)):
        assert SparseVectors.from_torch(tensor).to_dicts() == [{1: 1.5}, {}]
    with pytest.raises(VectorError, match=r"shape \[1, 2, 2\]; expected rows and columns"):
        SparseVectors.from_torch(dense.unsqueeze(0))
    with pytest.raises(VectorError, match="all of the same length"):
        SparseVectors.from_torch([torch.ones(2), torch.ones(3)])
