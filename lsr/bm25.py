"""BM25 as sparse vectors: the baseline lives in the same index as what it is compared with.

A document's weight for a term is its whole BM25 contribution, a query's weight is how often it names the term,
so their product sums to the score. Variant and constants are Lucene's (Kamphuis et al. 2020, "Which BM25 do you
mean?"): `ln(1 + (N - df + .5) / (df + .5)) * tf / (tf + k1 * (1 - b + b * dl / avgdl))`.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, ValidationError

from gossamer.index.format import EncoderInfo
from gossamer.index.vectors import SparseVectors
from gossamer.kernels.errors import ConfigError, FormatError, InputError
from gossamer.lsr.spans import TermSpans
from gossamer.lsr.tokenizer import plain_tokenizer

_ENGLISH = (
    "a an and are as at be but by for if in into is it no not of on or such that the their then there these "
    "they this to was will with"
)
STOP_WORDS: Final = frozenset(_ENGLISH.split())
"""Lucene's English list."""
_WORD: Final = re.compile(
    r"\b\w\w+\b"
)  # of two characters or more, the usual choice behind published figures
_VERSION: Final = 1
_FREQUENCIES: Final = "document_frequencies.npy"


class Bm25Config(BaseModel):
    """Parameters of BM25; the defaults are the ones that published figures use most."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    analyzer: Literal["stems", "pieces"] = "stems"
    """`stems`: whole words of two characters or more in lower case, English stop words left out, Snowball stems.
    `pieces`: word pieces."""
    k1: NonNegativeFloat = 1.2
    b: float = Field(default=0.75, ge=0, le=1)


class Bm25Encoder:
    """BM25 over a fixed vocabulary; made by `fit`.

    Args:
        config: Parameters.
        terms: The vocabulary.
        document_frequencies: int64 `[n_terms]`, in how many documents each term occurs.
        n_documents: How many documents were counted.
        mean_length: Mean number of terms a document.
        tokenizer: A transformers fast tokenizer, for the analyzer `pieces`.
    """

    name = "bm25"

    def __init__(
        self,
        config: Bm25Config,
        terms: Sequence[str],
        document_frequencies: npt.NDArray[np.int64],
        *,
        n_documents: int,
        mean_length: float,
        tokenizer: Any = None,
    ) -> None:
        self.config = config
        self.n_documents = n_documents
        self.mean_length = mean_length
        self._terms = list(terms)
        self._numbers = {term: number for number, term in enumerate(self._terms)}
        self._frequencies = document_frequencies
        self._tokenizer = tokenizer
        self._analyze = _analyzer(config.analyzer, tokenizer)
        self._backend = None if tokenizer is None else plain_tokenizer(tokenizer)
        rest_V = n_documents - document_frequencies
        self._idf_V = np.log1p((rest_V + 0.5) / (document_frequencies + 0.5))

    @classmethod
    def fit(
        cls, texts: Iterable[str], *, config: Bm25Config | None = None, tokenizer: Any = None
    ) -> Bm25Encoder:
        """Count terms in a corpus, which is read once and not kept.

        Args:
            texts: The documents.
            config: Parameters.
            tokenizer: A transformers fast tokenizer, needed for and only for the analyzer `pieces`.

        Raises:
            ConfigError: Tokenizer and analyzer do not go together.
            InputError: No document has any term.
        """
        config = config or Bm25Config()
        analyze = _analyzer(config.analyzer, tokenizer)
        frequencies: Counter[str] = Counter()
        n_documents = total_length = 0
        for text in texts:
            terms = analyze(text)
            frequencies.update(set(terms))
            n_documents += 1
            total_length += len(terms)
        if not frequencies:
            raise InputError(f"none of {n_documents} documents has any term: give texts with words")
        vocabulary = sorted(frequencies)
        counts_V = np.array([frequencies[term] for term in vocabulary], np.int64)
        mean = total_length / n_documents
        return cls(
            config, vocabulary, counts_V, n_documents=n_documents, mean_length=mean, tokenizer=tokenizer
        )

    # -- texts to vectors -----------------------------------------------------------------------------

    def encode_queries(self, texts: Sequence[str], *, batch_size: int = 32) -> SparseVectors:
        """How often each query names each term of the vocabulary."""
        return self._encode(texts, batch_size, _counts)

    def encode_documents(self, texts: Sequence[str], *, batch_size: int = 32) -> SparseVectors:
        """BM25 weights, by the counts of the corpus that `fit` saw."""
        return self._encode(texts, batch_size, self._weights)

    def _weights(
        self, terms_T: npt.NDArray[Any], counts_T: npt.NDArray[Any], length: int
    ) -> npt.NDArray[Any]:
        k1, b = self.config.k1, self.config.b
        saturation = k1 * (1 - b + b * length / self.mean_length)
        weights_T: npt.NDArray[Any] = self._idf_V[terms_T] * counts_T / (counts_T + saturation)
        return weights_T

    def _encode(self, texts: Sequence[str], batch_size: int, weigh: Callable[..., Any]) -> SparseVectors:
        if isinstance(texts, str):
            raise InputError("texts is a single string; give a list of texts")
        if batch_size < 1:
            raise InputError(f"batch_size is {batch_size}; it must be at least 1")
        indptr = np.zeros(len(texts) + 1, np.int64)
        terms, weights = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
        for row, text in enumerate(texts):
            found = self._analyze(text)
            counts = Counter(self._numbers[term] for term in found if term in self._numbers)
            terms_T = np.array(sorted(counts), np.int64)
            counts_T = np.array([counts[int(term)] for term in terms_T], np.float64)
            terms.append(terms_T)
            weights.append(weigh(terms_T, counts_T, len(found)).astype(np.float32))
            indptr[row + 1] = indptr[row] + terms_T.size
        return SparseVectors(indptr, np.concatenate(terms), np.concatenate(weights), self.n_terms)

    # -- the rest -------------------------------------------------------------------------------------

    @property
    def n_terms(self) -> int:
        """Size of the vocabulary."""
        return len(self._terms)

    @property
    def info(self) -> EncoderInfo:
        """Name and fingerprints of parameters, vocabulary and counts."""
        tokenizer = hashlib.sha256(self._tokenizer_json().encode()).hexdigest() if self._tokenizer else ""
        counted = f"{tokenizer} {self.config.model_dump_json()} {self.n_documents} {self.mean_length!r}"
        digest = hashlib.sha256(counted.encode())
        digest.update("\n".join(self._terms).encode())
        digest.update(self._frequencies.astype("<i8").tobytes())
        return EncoderInfo(self.name, digest.hexdigest(), tokenizer)

    def term(self, number: int) -> str:
        """The stem or word piece with this number."""
        return self._terms[number]

    def term_spans(self, text: str) -> TermSpans:
        """The words, or word pieces, of a text that are in the vocabulary; see `Encoder`."""
        find = _stem_spans if self._tokenizer is None else partial(_piece_spans, self._backend)
        spans, terms = find(text)
        return TermSpans.of(spans, [self._numbers.get(term, -1) for term in terms])

    def _tokenizer_json(self) -> str:
        return str(plain_tokenizer(self._tokenizer).to_str())

    def save(self, path: str | os.PathLike[str], *, replace: bool = False) -> None:
        """Write the folder: `bm25.json`, the counts as `.npy`, and the tokenizer if there is one."""
        from gossamer.lsr.save import BM25, encoder_folder, write_json

        with encoder_folder(Path(path), replace=replace) as folder:
            described = {
                "format_version": _VERSION,
                "config": self.config.model_dump(),
                "n_documents": self.n_documents,
                "mean_length": self.mean_length,
                "terms": self._terms,
            }
            write_json(folder / BM25, described)
            np.save(folder / _FREQUENCIES, self._frequencies, allow_pickle=False)
            if self._tokenizer is not None:
                (folder / "tokenizer.json").write_text(self._tokenizer_json(), encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Bm25Encoder:
        """Read what `save` wrote.

        Raises:
            FormatError: The folder is incomplete, damaged or from another version.
        """
        from gossamer.lsr.formats import read_json

        folder = Path(path)
        found = read_json(folder / "bm25.json")
        if not isinstance(found, dict) or found.get("format_version") != _VERSION:
            raise FormatError(f"{folder}/bm25.json has another format version than {_VERSION}: fit it again")
        try:
            config = Bm25Config(**found["config"])
            counts_V = np.load(folder / _FREQUENCIES, allow_pickle=False)
            n_documents, mean_length = int(found["n_documents"]), float(found["mean_length"])
            terms = [str(term) for term in found["terms"]]
        except (KeyError, OSError, ValueError, ValidationError) as error:
            raise FormatError(f"{folder} cannot be read: {error}") from error
        if counts_V.shape != (len(terms),):
            raise FormatError(f"{folder} has {len(terms)} terms, but counts of shape {counts_V.shape}")
        tokenizer = _read_tokenizer(folder) if config.analyzer == "pieces" else None
        return cls(
            config, terms, counts_V, n_documents=n_documents, mean_length=mean_length, tokenizer=tokenizer
        )


def _counts(terms_T: npt.NDArray[Any], counts_T: npt.NDArray[Any], length: int) -> npt.NDArray[Any]:  # noqa: ARG001
    return counts_T


def _read_tokenizer(folder: Path) -> Any:
    from transformers import PreTrainedTokenizerFast

    if not (folder / "tokenizer.json").is_file():
        raise FormatError(f"{folder}/tokenizer.json is missing: the folder is incomplete")
    return PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))


def _analyzer(kind: Literal["stems", "pieces"], tokenizer: Any) -> Callable[[str], list[str]]:
    if (tokenizer is not None) != (kind == "pieces"):
        given = "was given" if tokenizer is not None else "is missing"
        raise ConfigError(f"a tokenizer {given}, but the analyzer is {kind!r}: change one of the two")
    return _stems() if kind == "stems" else _pieces(tokenizer)


def _stems() -> Callable[[str], list[str]]:
    import Stemmer

    stem = Stemmer.Stemmer("english").stemWords

    def analyze(text: str) -> list[str]:
        words = [word for word in _WORD.findall(text.lower()) if word not in STOP_WORDS]
        return list(stem(words))

    return analyze


def _pieces(tokenizer: Any) -> Callable[[str], list[str]]:
    backend = plain_tokenizer(tokenizer)
    return lambda text: list(backend.encode(text, add_special_tokens=False).tokens)


def _stem_spans(text: str) -> tuple[list[tuple[int, int]], list[str]]:
    """Spans of words in a text, and their stems."""
    import Stemmer

    lower = text.lower()
    found = [match for match in _WORD.finditer(lower) if match[0] not in STOP_WORDS]
    spans = [match.span() for match in found]
    if len(lower) > len(text):  # a few letters become two, none becomes none
        origin = [place for place, letter in enumerate(text) for _ in letter.lower()]
        spans = [(origin[start], origin[end - 1] + 1) for start, end in spans]
    # a stemmer keeps state, so that others need theirs
    return spans, Stemmer.Stemmer("english").stemWords([match[0] for match in found])


def _piece_spans(backend: Any, text: str) -> tuple[list[tuple[int, int]], list[str]]:
    encoding = backend.encode(text, add_special_tokens=False)
    return encoding.offsets, encoding.tokens
