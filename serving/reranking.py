"""`Reranker`: scores the best documents of a first search anew, by encoding their texts with a better encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from gossamer.lsr.encoder import Encoder
from gossamer.serving.stage import open_encoder


class Reranker:
    """Dot products of a query and texts, encoded on the spot.

    Args:
        encoder: what encodes both.
        n_candidates: how many of the best are scored.
        timeout_s: after so long the answer does without it.
    """

    def __init__(self, encoder: Encoder, *, n_candidates: int = 50, timeout_s: float = 1.0) -> None:
        self.n_candidates, self.timeout_s = n_candidates, timeout_s
        self._encoder = encoder
        self._encoding = Lock()

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        n_candidates: int,
        timeout_s: float,
        load: Callable[[Path], Encoder] = open_encoder,
    ) -> Reranker:
        """Load the encoder of a folder, and use it once.

        Raises:
            NotFoundError: there is none.
        """
        reranker = cls(load(folder), n_candidates=n_candidates, timeout_s=timeout_s)
        reranker.scores("warm up", ["warm up"])
        return reranker

    def scores(self, query: str, texts: Sequence[str]) -> NDArray[np.float32]:
        """A score for each text, float32 `[len(texts)]`."""
        with self._encoding:
            asked = self._encoder.encode_queries([query]).to_scipy()
            found = self._encoder.encode_documents(texts).to_scipy()
        return np.asarray((found @ asked.T).todense(), np.float32).ravel()
