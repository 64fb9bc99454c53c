"""What every text encoder must do. A new encoder inherits `EncoderContract` and says how to make one."""

from abc import abstractmethod
from pathlib import Path

import numpy as np
import pytest

from gossamer.index.vectors import SparseVectors
from gossamer.kernels.errors import ExistsError, InputError
from gossamer.lsr.encoder import Encoder
from gossamer.lsr.formats import load_encoder

TEXTS = [
    "The quick brown fox jumps over the lazy dog.",
    "Sparse vectors are rows of a matrix; an index stores them.",
    "dog",
    "os.path.join(a, *paths): join one or more path segments intelligently",
    "A fox is a small animal. " * 40,
    "index index index of sparse rows",
]
ODD_TEXTS = [
    "",
    " \n\t",
    "😀👩\u200d👧 dog",
    "café foxés ́",
    "İİ dogs İndex",
    "\x00dog\u200b狐狸",
]
LONG_TEXT = "The brown fox stores sparse rows. " * 30_000 + "dog"


class EncoderContract:
    @pytest.fixture
    def encoder(self) -> Encoder:
        return self.make(TEXTS)

    @abstractmethod
    def make(self, texts: list[str]) -> Encoder:
        """An encoder made for these texts; the same one at every call."""

    def both(self, encoder: Encoder, texts: list[str], batch_size: int = 32) -> list[SparseVectors]:
        return [
            encoder.encode_queries(texts, batch_size=batch_size),
            encoder.encode_documents(texts, batch_size=batch_size),
        ]

    def test_follows_the_protocol(self, encoder: Encoder) -> None:
        assert isinstance(encoder, Encoder)

    def test_one_row_a_text_over_the_vocabulary(self, encoder: Encoder) -> None:
        for vectors in self.both(encoder, TEXTS):
            assert vectors.shape == (len(TEXTS), encoder.n_terms)
            assert (np.diff(vectors.indptr) > 0).all()
            assert not vectors.signed

    def test_same_texts_same_vectors(self, encoder: Encoder) -> None:
        for first, again in zip(self.both(encoder, TEXTS), self.both(self.make(TEXTS), TEXTS), strict=True):
            assert first.equals(again)

    @pytest.mark.parametrize("batch_size", [1, 2, 5])
    def test_batches_change_nothing(self, encoder: Encoder, batch_size: int) -> None:
        for whole, parts in zip(
            self.both(encoder, TEXTS), self.both(encoder, TEXTS, batch_size), strict=True
        ):
            assert_close(whole, parts, 1e-5)

    def test_rows_stand_in_the_order_of_the_texts(self, encoder: Encoder) -> None:
        order = [3, 0, 5, 2, 4, 1]
        for vectors, moved in zip(
            self.both(encoder, TEXTS), self.both(encoder, [TEXTS[row] for row in order]), strict=True
        ):
            assert_close(vectors[order], moved, 1e-5)

    def test_no_texts_give_no_rows(self, encoder: Encoder) -> None:
        for vectors in self.both(encoder, []):
            assert vectors.shape == (0, encoder.n_terms)

    def test_empty_texts_are_encoded_like_any_other(self, encoder: Encoder) -> None:
        for alone, among in zip(
            self.both(encoder, ["", "  "]), self.both(encoder, ["", *TEXTS, "  "]), strict=True
        ):
            assert_close(alone, among[[0, len(TEXTS) + 1]], 1e-5)

    def test_a_string_is_no_list_of_texts(self, encoder: Encoder) -> None:
        with pytest.raises(InputError, match="list of texts"):
            encoder.encode_queries("dog")
        with pytest.raises(InputError, match="list of texts"):
            encoder.encode_documents("dog")

    def test_a_batch_of_nothing_is_refused(self, encoder: Encoder) -> None:
        with pytest.raises(InputError, match="batch_size"):
            encoder.encode_documents(TEXTS, batch_size=0)

    def test_terms_have_names(self, encoder: Encoder) -> None:
        names = [encoder.term(number) for number in range(encoder.n_terms)]
        assert all(names)
        assert len(set(names)) == encoder.n_terms
        terms, _ = encoder.encode_queries(["dog"]).row(0)
        assert "dog" in [names[term] for term in terms]

    @pytest.mark.parametrize("text", [*TEXTS, *ODD_TEXTS, LONG_TEXT])
    def test_terms_stand_in_the_text(self, encoder: Encoder, text: str) -> None:
        spans = encoder.term_spans(text)
        assert len(spans.starts) == len(spans.ends) == len(spans.terms) == len(spans)
        assert (spans.starts < spans.ends).all()
        assert (np.diff(spans.starts, prepend=0) >= 0).all()
        assert (np.diff(spans.ends, append=len(text)) >= 0).all()
        assert ((spans.terms >= 0) & (spans.terms < encoder.n_terms)).all()

    def test_spans_say_what_their_terms_are(self, encoder: Encoder) -> None:
        text = "İ dog,\t😀 index of the FOX"
        spans = encoder.term_spans(text)
        said = {
            encoder.term(term): text[start:end]
            for start, end, term in zip(spans.starts, spans.ends, spans.terms.tolist(), strict=True)
        }
        assert (said["dog"], said["index"], said["fox"]) == ("dog", "index", "FOX")
        assert len(encoder.term_spans("")) == 0

    def test_spans_reach_to_the_end_of_a_long_text(self, encoder: Encoder) -> None:
        assert encoder.term_spans(LONG_TEXT).ends[-1] == len(LONG_TEXT)

    def test_a_saved_encoder_is_the_same(self, encoder: Encoder, tmp_path: Path) -> None:
        encoder.save(tmp_path / "encoder")
        loaded = load_encoder(tmp_path / "encoder")
        assert type(loaded) is type(encoder)
        assert loaded.info == encoder.info
        assert loaded.n_terms == encoder.n_terms
        for before, after in zip(self.both(encoder, TEXTS), self.both(loaded, TEXTS), strict=True):
            assert before.equals(after)

    def test_saving_twice_needs_leave(self, encoder: Encoder, tmp_path: Path) -> None:
        encoder.save(tmp_path / "encoder")
        with pytest.raises(ExistsError, match="encoder"):
            encoder.save(tmp_path / "encoder")
        encoder.save(tmp_path / "encoder", replace=True)
        assert load_encoder(tmp_path / "encoder").info == encoder.info

    def test_what_is_no_encoder_is_never_replaced(self, encoder: Encoder, tmp_path: Path) -> None:
        (tmp_path / "precious").write_text("notes", encoding="utf-8")
        with pytest.raises(ExistsError):
            encoder.save(tmp_path, replace=True)
        assert (tmp_path / "precious").read_text(encoding="utf-8") == "notes"

    def test_another_encoder_has_another_fingerprint(self, encoder: Encoder) -> None:
        other = self.make([*TEXTS, "Entirely different words appear here"])
        assert other.info.fingerprint != encoder.info.fingerprint


def assert_close(left: SparseVectors, right: SparseVectors, tolerance: float) -> None:
    """Equal up to a tolerance; a weight that small may be missing on one side."""
    assert left.shape == right.shape
    difference = abs(left.to_scipy() - right.to_scipy())
    assert difference.nnz == 0 or difference.max() <= tolerance
