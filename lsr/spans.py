"""Where the terms of a text stand in it: what snippets mark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class TermSpans:
    """The terms that a text says, in its order: neither starts nor ends ever go back.

    Attributes:
        starts: int64, where each begins, in characters (code points).
        ends: int64, one past its last character; larger than its start.
        terms: int64, its number in the encoder's vocabulary.
    """

    starts: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]
    terms: npt.NDArray[np.int64]

    @classmethod
    def of(cls, spans: Sequence[tuple[int, int]], terms: Sequence[int]) -> Self:
        """Spans of begin and end; empty ones, and those of terms below 0, are left out."""
        bounds = np.array(spans, np.int64).reshape(-1, 2)
        numbers = np.array(terms, np.int64)
        kept = (bounds[:, 0] < bounds[:, 1]) & (numbers >= 0)
        return cls(bounds[kept, 0], bounds[kept, 1], numbers[kept])

    def __len__(self) -> int:
        return len(self.terms)
