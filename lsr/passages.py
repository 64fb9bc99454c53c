"""Sentences and passages of a text: long documents are encoded in parts, as models read a few hundred words at most."""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import Final, Self

from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt, model_validator

_SENTENCE_END: Final = re.compile(r"""[.!?…]["'”’»)\]]*\s++(?![a-z])|[。！？]["'”’»）」』]*\s*+|\n\s*\n\s*""")
_ALONE: Final = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"  # of scripts without spaces
_WORD: Final = re.compile(rf"[{_ALONE}]|[^\s{_ALONE}]+")


def sentence_starts(text: str) -> list[int]:
    """Where sentences and paragraphs begin, ascending.

    They end at a full stop that no lower-case letter follows, so that "e.g. this" goes on, or at an empty line.
    """
    first = len(text) - len(text.lstrip())
    starts = [first, *(match.end() for match in _SENTENCE_END.finditer(text, first))]
    return [start for start in starts if start < len(text)]


class Passages(BaseModel):
    """How long documents are taken apart."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    max_words: PositiveInt = 200
    """Most words of a passage, or Chinese or Japanese characters. It ends with a sentence if its second half has the
    end of one."""
    overlap_words: NonNegativeInt = 0
    """How many words of a passage the next one has, too."""

    @model_validator(mode="after")
    def _goes_on(self) -> Self:
        if self.overlap_words >= self.max_words:
            raise ValueError(
                f"overlap_words is {self.overlap_words}, and max_words {self.max_words}: give fewer than that"
            )
        return self

    def split(self, text: str) -> list[tuple[int, int]]:
        """Begin and end of each passage, in characters; without overlap they are all of the text, end to end."""
        words = [match.start() for match in _WORD.finditer(text)]
        starts = sentence_starts(text)
        bounds = [0, *words[1:], len(text)]  # what is before a word belongs to the one before it
        passages: list[tuple[int, int]] = []
        first = 0
        while True:
            last = first + self.max_words
            if last >= len(words):
                return [*passages, (bounds[first], len(text))]
            sentence = starts[bisect_right(starts, bounds[last]) - 1]
            shortest = first + max(self.overlap_words, self.max_words // 2) + 1
            if shortest <= last and sentence >= bounds[shortest]:
                last = bisect_right(words, sentence) - 1
            passages.append((bounds[first], bounds[last]))
            first = last - self.overlap_words
