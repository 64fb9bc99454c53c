"""Snippets: against brute force, on odd texts, and as hits have them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.lsr import TermSpans
from gossamer.serving import Client, Engine, SearchStage
from gossamer.serving.schemas import Snippet
from gossamer.serving.snippets import snippet
from tests.serving.conftest import WAYS, reached


def spans_of(text: str, *, piece: int = 100) -> TermSpans:
    """The words of a text in pieces; a piece is the term of the number of its first letter."""
    spans, start = [], 0
    for word in text.split(" "):
        spans += [
            (start + at, start + min(len(word), at + piece)) for at in range(0, len(word.rstrip(".")), piece)
        ]
        start += len(word) + 1
    return TermSpans.of(spans, [ord(text[begin]) for begin, _ in spans])


def marked(found: Snippet) -> list[str]:
    return [found.text[start:end] for start, end in found.marks]


def worth(terms: list[int], weights: dict[int, float]) -> float:
    """Once in full, and a 32nd for each time more."""
    return sum(weights[term] * (1 + (n - 1) / 32) for term, n in Counter(terms).items() if term in weights)


WORDS = st.lists(
    st.sampled_from(["a", "bb", "ccc", "dddd.", "Eeeee", "ffffff.", "x", "yyyyyyy", "Zz."]), max_size=40
)
WEIGHTS = st.dictionaries(
    st.sampled_from([ord(letter) for letter in "abcdEf"]), st.sampled_from([0.5, 1, 2, 64])
)


@settings(deadline=None, max_examples=40)
@given(WORDS, WEIGHTS, st.integers(8, 60), st.sampled_from([2, 100]))
def test_no_window_gathers_more(
    words: list[str], weights: dict[int, float], max_chars: int, piece: int
) -> None:
    text = " ".join(words)
    spans = spans_of(text, piece=piece)
    found = snippet(text, spans, weights, max_chars)
    assert len(found.text) <= max_chars
    begin = next(
        at
        for at in range(len(text) + 1)
        if text.startswith(found.text, at) and (at == 0 or text[at - 1] == " ")
        and marks_at(text, at, found) == matched(spans, weights, at, at + len(found.text))
    )  # fmt: skip
    end = begin + len(found.text)
    assert end == len(text) or text[end] == " "
    starts = [0, *(at + 1 for at, letter in enumerate(text) if letter == " ")]
    best = max(worth(terms_within(spans, start, start + max_chars, text), weights) for start in starts)
    assert worth(terms_within(spans, begin, end, text), weights) == pytest.approx(best)


def marks_at(text: str, at: int, found: Snippet) -> set[int]:
    return {at + place for start, end in found.marks for place in range(start, end)}


def matched(spans: TermSpans, weights: dict[int, float], begin: int, end: int) -> set[int]:
    """All characters of the spans that count, within a window."""
    return {
        place
        for start, stop, term in zip(spans.starts, spans.ends, spans.terms.tolist(), strict=True)
        if term in weights
        for place in range(int(start), int(stop))
        if begin <= place < end
    }


def terms_within(spans: TermSpans, begin: int, limit: int, text: str) -> list[int]:
    """Of the whole words within a window."""
    end = len(text) if limit >= len(text) else text.rfind(" ", 0, limit + 1)
    return [
        term
        for start, stop, term in zip(spans.starts, spans.ends, spans.terms.tolist(), strict=True)
        if begin <= start and stop <= end
    ]


def test_a_sentence_is_shown_from_its_beginning() -> None:
    text = (
        "All of this is no matter. " * 8 + "Here a zebra stands in the sun. " + "Nothing more is said. " * 8
    )
    found = snippet(text, spans_of(text), {ord("z"): 1.0}, 60)
    assert found.text == "Here a zebra stands in the sun. Nothing more is said."
    assert marked(found) == ["zebra"]


def test_far_within_a_sentence_it_begins_before_a_word() -> None:
    text = "word " * 100 + "zebra " + "word " * 100
    found = snippet(text, spans_of(text), {ord("z"): 1.0}, 60)
    assert found.text.startswith("word ")
    assert found.text.endswith(" word")
    before, after = found.text.split("zebra")
    assert abs(len(before) - len(after)) < 12


def test_pieces_that_touch_are_one_mark() -> None:
    text = "the zebras zebra"
    spans = TermSpans.of([(0, 3), (4, 8), (8, 10), (10, 16)], [1, 2, 3, 2])  # the last with its space
    assert marked(snippet(text, spans, {2: 1.0, 3: 0.1}, 100)) == ["zebras", "zebra"]
    assert marked(snippet(text, spans, {3: 0.1}, 100)) == ["as"]


@pytest.mark.parametrize("weights", [{}, {ord("q"): 1.0}, {ord("t"): 0.0}, {ord("t"): -1.0}])
def test_nothing_matched_shows_the_beginning(weights: dict[int, float]) -> None:
    text = "  the text goes on and on and on"
    assert snippet(text, spans_of(text), weights, 12) == Snippet(text="the text", marks=[])


@pytest.mark.parametrize(
    "text", ["", "   ", "\U0001f600" * 500, "狐" * 500, "z" * 500, " " * 500, "e\u0301" * 400]
)
@pytest.mark.parametrize("at", [0, 250, 499])
def test_odd_texts(text: str, at: int) -> None:
    spans = TermSpans.of([(at, at + 1)] if at < len(text) else [], [7] if at < len(text) else [])
    found = snippet(text, spans, {7: 1.0}, 50)
    assert len(found.text) <= 50
    assert found.text in text
    if text.strip() and at < len(text):
        assert marked(found) == [text[at]]


def test_it_takes_a_time_that_grows_as_the_text_does() -> None:
    text = "zebra yak. " * 100_000
    spans = spans_of(text)
    started = time.perf_counter()
    assert len(snippet(text, spans, {ord("z"): 1.0, ord("y"): 0.5}, 4_000).text) > 3_900
    assert time.perf_counter() - started < 10  # a second or so; by the square it would be hours


# -- as hits have them -------------------------------------------------------------------------------

Answering: TypeAlias = Engine | Client
LONG = "Nothing here. " * 40 + "An <b>ascending</b> order is kept. " + "Nothing there. " * 40


@pytest.fixture(params=WAYS)
def answering(stage: SearchStage, request: pytest.FixtureRequest) -> Iterator[Answering]:
    engine = Engine(stage)
    engine.put([{"id": "long", "text": LONG}])
    with reached(engine, request.param) as answering:
        yield answering
    engine.close()


@pytest.mark.parametrize("explain", [True, False])
def test_hits_have_them_when_asked(answering: Answering, explain: bool) -> None:
    hits = {
        hit.id: hit for hit in answering.search("order, ascending", snippet_chars=60, explain=explain).hits
    }
    found = hits["long"].snippet
    assert found is not None
    assert found.text == "An <b>ascending</b> order is kept. Nothing there. Nothing"
    assert marked(found) == ["ascending", "order"]
    assert bool(hits["long"].matches) == explain
    short = hits["sorted"].snippet
    assert short is not None
    assert short.text == hits["sorted"].text
    assert marked(short) == ["ascending", "order"]
    assert all(hit.snippet is None for hit in answering.search("order").hits)


def test_a_term_that_only_the_title_says_shows_the_beginning(answering: Answering) -> None:
    hits = {hit.id: hit for hit in answering.search("iterable", snippet_chars=40).hits}
    found: Any = hits["sorted"].snippet
    assert (found.text, found.marks) == ("Return a new list with all items in", [])


def test_only_the_page_is_cut(stage: SearchStage, monkeypatch: pytest.MonkeyPatch) -> None:
    cut: list[str] = []
    whole = SearchStage.snippet

    def counted(self: SearchStage, text: str, *rest: Any) -> Snippet:
        cut.append(text)
        return whole(self, text, *rest)

    monkeypatch.setattr(SearchStage, "snippet", counted)
    assert len(Engine(stage).search("list", k=2, offset=1, snippet_chars=40).hits) == len(cut) == 2
