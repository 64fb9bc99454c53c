"""Snippets: the part of a text that says most of what a query asks, and where it says it."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from gossamer.serving.schemas import Snippet

if TYPE_CHECKING:
    from gossamer.lsr.spans import TermSpans

_LONGEST_WORD: Final = 40  # of what is longer, such as a text without spaces, a part will do
_FINEST: Final = 1 << 30  # weights are whole numbers up to this, so that sums do not depend on their order
_REPEATED: Final = 32  # a term that comes again counts for so little a part of its weight

Span = tuple[int, int]


def snippet(text: str, spans: TermSpans, weights: Mapping[int, float], max_chars: int) -> Snippet:
    """Cut the window out of a text that gathers most weight, in a time that grows as the text does.

    A term counts for its weight once, and for a 32nd of it when it comes again. The window begins with a sentence if
    one begins shortly before what matched, and else before a word; it ends after one. If nothing matched, it is the
    beginning of the text.

    Args:
        text: the text.
        spans: its terms.
        weights: of the terms that matched, by their numbers; those that are not above 0 do not count.
        max_chars: longest window, in characters.
    """
    counted = {term: weight for term, weight in weights.items() if weight > 0}
    matched = [
        (*_trimmed(text, start, end), term)
        for start, end, term in zip(
            spans.starts.tolist(), spans.ends.tolist(), spans.terms.tolist(), strict=True
        )
        if term in counted
    ]
    words = [_word_around(text, start, end, max_chars) for start, end, _ in matched]
    needed = _best(words, [term for *_, term in matched], counted, max_chars)
    begin, end = _window(text, needed, max_chars)
    marks = _merged([(max(start, begin), min(stop, end)) for start, stop, _ in matched])
    return Snippet(text=text[begin:end], marks=[(start - begin, stop - begin) for start, stop in marks])


def _trimmed(text: str, start: int, end: int) -> Span:
    """Some tokenizers count the space before a word to the word."""
    while start < end - 1 and text[start].isspace():
        start += 1
    return start, end


def _word_around(text: str, start: int, end: int, max_chars: int) -> Span:
    """The whole word that a span is in, if that is no longer than words are; at most `max_chars`."""
    low, high = start, end
    while low > 0 and not text[low - 1].isspace() and high - low <= _LONGEST_WORD:
        low -= 1
    while high < len(text) and not text[high].isspace() and high - low <= _LONGEST_WORD:
        high += 1
    if high - low > min(_LONGEST_WORD, max_chars):
        low, high = start, end
    return low, min(high, low + max_chars)


def _best(words: Sequence[Span], terms: Sequence[int], weights: Mapping[int, float], max_chars: int) -> Span:
    """From the first to the last of the matched words within `max_chars` that are worth most together."""
    top = max(weights.values(), default=1.0)
    worth = {term: max(_REPEATED, int(weight / top * _FINEST)) for term, weight in weights.items()}
    counts: Counter[int] = Counter()
    left = value = most = 0
    best = 0, 0
    for (_, high), term in zip(words, terms, strict=True):
        value += worth[term] // _REPEATED if counts[term] else worth[term]
        counts[term] += 1
        while high - words[left][0] > max_chars:
            gone = terms[left]
            counts[gone] -= 1
            value -= worth[gone] // _REPEATED if counts[gone] else worth[gone]
            left += 1
        if value > most:
            most, best = value, (words[left][0], high)
    return best


def _window(text: str, needed: Span, max_chars: int) -> Span:
    """The window around what it has to show."""
    from gossamer.lsr.passages import sentence_starts

    first, last = needed
    earliest = max(0, last - max_chars)
    latest = min(first, max(0, len(text) - max_chars))
    starts = sentence_starts(text)
    place = bisect_right(starts, latest) - 1
    if latest == 0:
        begin = 0
    elif place >= 0 and starts[place] >= earliest:
        begin = starts[place]
    else:
        begin = _word_start(text, max(earliest, min(latest, (first + last - max_chars) // 2)), first)
    while begin < len(text) and text[begin].isspace():
        begin += 1
    last = max(begin, last)
    end = _word_end(text, last, min(len(text), begin + max_chars))
    while end > last and text[end - 1].isspace():
        end -= 1
    return begin, end


def _word_start(text: str, earliest: int, first: int) -> int:
    """Where a word begins, soon after `earliest` and no later than `first`."""
    for place in range(earliest, min(first, earliest + _LONGEST_WORD)):
        if place == 0 or (text[place - 1].isspace() and not text[place].isspace()):
            return place
    return first if first - earliest <= _LONGEST_WORD else earliest


def _word_end(text: str, last: int, end: int) -> int:
    """Where a word ends, soon before `end` and no earlier than `last`."""
    for place in range(end, max(last, end - _LONGEST_WORD), -1):
        if (place == len(text) or text[place].isspace()) and not text[place - 1].isspace():
            return place
    return last if end - last <= _LONGEST_WORD and (last == end or text[last].isspace()) else end


def _merged(marks: Sequence[Span]) -> list[Span]:
    """Marks that are not empty, those that touch as one."""
    merged: list[Span] = []
    for start, end in marks:
        if start >= end:
            continue
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return merged
