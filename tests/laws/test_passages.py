"""Laws of passages."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from gossamer.lsr.passages import Passages, sentence_starts

TEXTS = st.lists(
    st.sampled_from(["word", "Word", "end.", "end!”", "e.g.", " ", "\n\n", "\t", "狐狸", "。", "\U0001f600", "e\u0301"])
).map(lambda parts: " ".join(parts))  # fmt: skip


@settings(deadline=None, max_examples=40)
@given(TEXTS | st.text(), st.integers(1, 8), st.data())
def test_every_character_is_in_a_passage(text: str, max_words: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, max_words - 1))
    spans = Passages(max_words=max_words, overlap_words=overlap).split(text)
    assert spans[0][0] == 0
    assert spans[-1][1] == len(text)
    for (start, end), (after, its_end) in pairwise(spans):
        assert start < after <= end < its_end
        shared = text[after:end]
        assert len(shared.split()) <= overlap if shared.isascii() else True
        assert overlap or not shared
    if text.isascii():
        assert all(len(text[start:end].split()) <= max_words for start, end in spans)


@settings(deadline=None, max_examples=40)
@given(TEXTS)
def test_sentences_begin_with_something(text: str) -> None:
    starts = sentence_starts(text)
    assert starts == sorted(set(starts))
    assert all(not text[start].isspace() for start in starts)
    assert bool(starts) == bool(text.strip())


def test_a_passage_ends_with_a_sentence() -> None:
    text = "One two three. Four five, e.g. six seven. Eight nine ten eleven twelve thirteen fourteen fifteen."
    parts = [text[start:end] for start, end in Passages(max_words=9).split(text)]
    assert parts == [
        "One two three. Four five, e.g. six seven. ",
        "Eight nine ten eleven twelve thirteen fourteen fifteen.",
    ]
    parts = [text[start:end] for start, end in Passages(max_words=5, overlap_words=2).split(text)]
    assert parts[0] == "One two three. "
    assert parts[1].startswith("two three. Four five, ")


def test_scripts_without_spaces_are_split_too() -> None:
    text = "狐狸跑了。" * 4
    assert [text[start:end] for start, end in Passages(max_words=12).split(text)] == [text[:10], text[10:]]


@pytest.mark.parametrize(
    "wrong", [{"max_words": 0}, {"max_words": "9"}, {"max_words": 3, "overlap_words": 3}]
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Passages(**wrong)  # type: ignore[arg-type]
