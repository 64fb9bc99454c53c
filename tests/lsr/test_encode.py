import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

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
from gossamer.lsr.known_rows import Changes


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


# -- only what has changed ---------------------------------------------------------------------------


class Counting:
    """An encoder that counts what it encodes."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder, self.n_encoded = encoder, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def encode_documents(self, texts: Sequence[str], *, batch_size: int = 32) -> SparseVectors:
        self.n_encoded += len(texts)
        return self._encoder.encode_documents(texts, batch_size=batch_size)


def write_corpus(path: Path, documents: dict[str, tuple[str, str]]) -> None:
    lines = [
        json.dumps({"_id": id_, "title": title, "text": text}) for id_, (title, text) in documents.items()
    ]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def test_only_what_has_changed_is_encoded_again(
    encoder: Encoder, collection: Path, tmp_path: Path, small_pieces: None
) -> None:
    texts = texts_of(collection)
    before = {f"d{number}": ("title", text) for number, text in enumerate(texts)}
    corpus, target = tmp_path / "corpus.jsonl", tmp_path / "v"
    write_corpus(corpus, before)
    counting = Counting(encoder)
    encode_corpus(counting, corpus, target, changed=True)  # nothing is there yet
    assert counting.n_encoded == len(texts)
    after = dict(reversed(before.items()))
    del after["d3"], after["d40"]
    after["d5"] = ("title", "otter river")
    after["d6"] = ("another", after["d6"][1])
    after |= {f"new{number}": ("", text) for number, text in enumerate(texts[:30])}
    write_corpus(corpus, after)
    counting = Counting(encoder)
    encode_corpus(counting, corpus, target, changed=True)
    assert counting.n_encoded == 32
    assert Changes.read(target) == Changes(n_encoded=32, n_reused=len(texts) - 4, n_dropped=2)
    whole = encode_corpus(encoder, corpus, tmp_path / "whole")
    assert SparseVectors.read_parquet(target).equals(SparseVectors.read_parquet(whole))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus.jsonl", "v", "whole"]
    with pytest.raises(FormatError, match="does not say what had changed"):
        Changes.read(whole)


def test_another_encoder_encodes_all_again(
    encoder: Encoder, collection: Path, tmp_path: Path, small_pieces: None
) -> None:
    encode_corpus(encoder, collection, tmp_path / "v")
    other = Bm25Encoder.fit([*texts_of(collection), "entirely different words"])
    encode_corpus(other, collection, tmp_path / "v", changed=True)
    assert Changes.read(tmp_path / "v") == Changes(n_encoded=60, n_reused=0, n_dropped=0)
    whole = encode_corpus(other, collection, tmp_path / "whole")
    assert SparseVectors.read_parquet(tmp_path / "v").equals(SparseVectors.read_parquet(whole))


def test_vectors_without_fingerprints_are_encoded_again(
    encoder: Encoder, collection: Path, tmp_path: Path
) -> None:
    target = encode_corpus(encoder, collection, tmp_path / "v")
    (fingerprints,) = target.glob("part-*.npy")
    fingerprints.unlink()
    counting = Counting(encoder)
    encode_corpus(counting, collection, target, changed=True)
    assert Changes.read(target).n_encoded == counting.n_encoded == 60
    counting = Counting(encoder)
    encode_corpus(counting, collection, target, replace=True)
    assert counting.n_encoded == 60
    assert not (target / "changes.json").exists()
    (fingerprints,) = target.glob("part-*.npy")
    fingerprints.write_bytes(b"")
    with pytest.raises(FormatError, match=r"part-000000\.npy"):
        encode_corpus(encoder, collection, target, changed=True)


def test_what_is_no_folder_of_vectors_is_not_replaced(
    encoder: Encoder, collection: Path, tmp_path: Path
) -> None:
    (tmp_path / "notes").write_text("precious", encoding="utf-8")
    with pytest.raises(ExistsError, match="holds no vectors"):
        encode_corpus(encoder, collection, tmp_path, changed=True)
    assert (tmp_path / "notes").read_text(encoding="utf-8") == "precious"
