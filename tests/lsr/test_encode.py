import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gossamer.index.inverted import InvertedIndex
from gossamer.index.measures import MEASURES
from gossamer.index.vectors import SparseVectors
from gossamer.kernels.errors import ExistsError, FormatError, InputError, MismatchError, NotFoundError
from gossamer.lsr import encode as encode_module
from gossamer.lsr.bm25 import Bm25Encoder
from gossamer.lsr.data import document_texts, read_corpus
from gossamer.lsr.encode import encode_corpus, read_encoder_info
from gossamer.lsr.encoder import Encoder
from gossamer.lsr.evaluate import evaluate_encoder


def texts_of(folder: Path) -> list[str]:
    return [text for batch in read_corpus(folder) for text in document_texts(batch)]


@pytest.fixture(scope="module")
def encoder(collection: Path) -> Encoder:
    return Bm25Encoder.fit(texts_of(collection))


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode_module, "PIECE_BYTES", 1_000)


def test_vectors_stand_in_the_order_of_the_corpus(
    encoder: Encoder, collection: Path, tmp_path: Path, small_pieces: None
) -> None:
    seen: list[tuple[int, int]] = []
    target = encode_corpus(encoder, collection, tmp_path / "v", progress=lambda *at: seen.append(at))
    vectors = SparseVectors.read_parquet(target)
    expected = encoder.encode_documents(texts_of(collection))
    np.testing.assert_array_equal(vectors.to_scipy().toarray(), expected.to_scipy().toarray())
    assert vectors.ids is not None
    assert vectors.ids.to_pylist() == [
        i for batch in read_corpus(collection) for i in batch.column("id").to_pylist()
    ]
    assert len(list(target.glob("*.parquet"))) == len(seen) > 3
    assert seen[-1] == (len(seen), len(seen))
    assert read_encoder_info(target) == encoder.info


def test_a_killed_call_goes_on_with_what_is_missing(
    encoder: Encoder, collection: Path, tmp_path: Path, small_pieces: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, encoded = encode_module.encode_piece, []

    def die_at_the_third(*args: object, **settings: object) -> int:
        encoded.append(args[2])
        if len(encoded) == 3:
            raise KeyboardInterrupt
        return real(*args, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(encode_module, "encode_piece", die_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        encode_corpus(encoder, collection, tmp_path / "v")
    assert not (tmp_path / "v").exists()
    encode_corpus(encoder, collection, tmp_path / "v")
    assert len(SparseVectors.read_parquet(tmp_path / "v")) == 60
    assert len(encoded) == len(set(encoded)) + 1, "only the piece that was under way is encoded twice"
    assert [path.name for path in tmp_path.iterdir()] == ["v"]


def test_a_draft_of_another_corpus_is_thrown_away(
    encoder: Encoder, collection: Path, tmp_path: Path, small_pieces: None
) -> None:
    corpus = tmp_path / "corpus.jsonl"
    shutil.copy(collection / "corpus.jsonl", corpus)
    plan = encode_module.plan_encoding(encoder.info, corpus, tmp_path / "v", replace=False)
    encode_module.encode_piece(encoder, plan.pieces[0], plan.part(0))
    assert encode_module.plan_encoding(encoder.info, corpus, tmp_path / "v", replace=False).missing()[0] == 1
    corpus.write_text(json.dumps({"_id": "only", "text": "heron"}) + "\n")
    encode_corpus(encoder, corpus, tmp_path / "v")
    assert len(SparseVectors.read_parquet(tmp_path / "v")) == 1


def test_a_draft_of_another_precision_is_thrown_away(
    encoder: Encoder, collection: Path, tmp_path: Path, small_pieces: None
) -> None:
    plan = encode_module.plan_encoding(encoder.info, collection, tmp_path / "v", replace=False)
    encode_module.encode_piece(encoder, plan.pieces[0], plan.part(0))
    half = encode_module.plan_encoding(
        encoder.info, collection, tmp_path / "v", replace=False, precision="bfloat16"
    )
    assert half.missing()[0] == 0


@pytest.mark.parametrize("survived", [0, 1, 2])
def test_a_kill_while_vectors_are_replaced_loses_nothing(
    encoder: Encoder, collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, survived: int
) -> None:
    encode_corpus(encoder, collection, tmp_path / "v")
    plan = encode_module.plan_encoding(encoder.info, collection, tmp_path / "v", replace=True)
    for number in plan.missing():
        encode_module.encode_piece(encoder, plan.pieces[number], plan.part(number))
    left = iter([True] * survived)

    def or_die(real: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object) -> object:
            if not next(left, False):
                raise KeyboardInterrupt
            return real(*args)

        return call

    with monkeypatch.context() as patch:
        for name in ("rename", "unlink"):
            patch.setattr(Path, name, or_die(getattr(Path, name)))
        with pytest.raises(KeyboardInterrupt):
            plan.finish(replace=True)
    there = [folder for folder in tmp_path.iterdir() if len(SparseVectors.read_parquet(folder)) == 60]
    assert len(there) == 2, "the old vectors and the new ones"

    def never(*args: object, **settings: object) -> int:
        raise AssertionError

    if survived < 2:
        monkeypatch.setattr(encode_module, "encode_piece", never)
    encode_corpus(encoder, collection, tmp_path / "v", replace=True)
    assert len(SparseVectors.read_parquet(tmp_path / "v")) == 60
    assert [path.name for path in tmp_path.iterdir()] == ["v"]
    assert not (tmp_path / "v" / "plan.json").exists()


def test_an_empty_corpus_is_refused(encoder: Encoder, tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl").write_text("\n")
    for path in (tmp_path, tmp_path / "corpus.jsonl"):
        with pytest.raises(InputError, match="holds no documents"):
            encode_corpus(encoder, path, tmp_path / "v")
    assert [path.name for path in tmp_path.iterdir()] == ["corpus.jsonl"]


def test_what_exists_is_replaced_only_when_told(encoder: Encoder, collection: Path, tmp_path: Path) -> None:
    encode_corpus(encoder, collection, tmp_path / "v")
    with pytest.raises(ExistsError, match="replace=True"):
        encode_corpus(encoder, collection, tmp_path / "v")
    assert (
        len(SparseVectors.read_parquet(encode_corpus(encoder, collection, tmp_path / "v", replace=True)))
        == 60
    )
    (tmp_path / "precious").mkdir()
    with pytest.raises(ExistsError, match="remove it yourself"):
        encode_corpus(encoder, collection, tmp_path / "precious", replace=True)


def test_an_encoder_file_that_says_nothing(tmp_path: Path) -> None:
    assert read_encoder_info(tmp_path) is None
    (tmp_path / "encoder.json").write_text('{"colour": "red"}')
    with pytest.raises(FormatError, match="encode the corpus again"):
        read_encoder_info(tmp_path)


class TestEvaluate:
    def test_words_that_single_out_a_document_find_it(self, encoder: Encoder, collection: Path) -> None:
        found = evaluate_encoder(encoder, collection)
        assert found.measures == dict.fromkeys(MEASURES, 1.0)
        assert (found.n_documents, found.n_queries) == (60, 60)
        assert found.query_nnz == 3
        assert (
            found.document_nnz == 6
        )  # animal, every, night, deed, near, place; "it" and "the" are stop words

    def test_an_index_of_ones_own(self, encoder: Encoder, collection: Path, tmp_path: Path) -> None:
        vectors = encode_corpus(encoder, collection, tmp_path / "v")
        InvertedIndex.build(tmp_path / "index", vectors, encoder=encoder.info)
        found = evaluate_encoder(encoder, collection, index=tmp_path / "index", measures=["nDCG@3"])
        assert found.measures == {"nDCG@3": 1.0}
        assert found.encode_s == 0
        other = Bm25Encoder.fit(["something else"])
        with pytest.raises(MismatchError, match="another encoder"):
            evaluate_encoder(other, collection, index=tmp_path / "index")

    def test_a_judged_query_without_text(self, encoder: Encoder, collection: Path, tmp_path: Path) -> None:
        folder = tmp_path / "collection"
        shutil.copytree(collection, folder)
        with (folder / "qrels" / "test.tsv").open("a") as file:
            file.write("ghost\totter-river\t1\n")
        with pytest.raises(InputError, match="'ghost' is judged in split 'test'"):
            evaluate_encoder(encoder, folder)

    def test_a_split_that_judges_nothing(self, encoder: Encoder, collection: Path, tmp_path: Path) -> None:
        folder = shutil.copytree(collection, tmp_path / "collection")
        (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n")
        with pytest.raises(InputError, match=r"test\.tsv judges nothing"):
            evaluate_encoder(encoder, folder)

    def test_a_missing_split(self, encoder: Encoder, collection: Path) -> None:
        with pytest.raises(NotFoundError, match="splits that are there: test"):
            evaluate_encoder(encoder, collection, split="dev")
