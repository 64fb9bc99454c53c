"""`SearchStage`: an index and the encoder that made it. It turns queries into vectors, and finds documents for them."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gossamer.kernels.errors import InputError, MismatchError, NotFoundError
from gossamer.lsr.spans import TermSpans
from gossamer.serving.schemas import RetrieverHealth, Snippet, SparseVector, TermMatch, TermWeight, Vector
from gossamer.serving.snippets import snippet

if TYPE_CHECKING:
    from gossamer.index.explain import Contribution
    from gossamer.index.filters import Filters
    from gossamer.index.format import EncoderInfo
    from gossamer.index.vectors import SparseVectors
    from gossamer.lsr.encoder import Encoder

AnyIndex: TypeAlias = Any
"""An index of any kind; what a kind lacks is asked for by name."""
Rows: TypeAlias = "SparseVectors | NDArray[np.float32]"


@dataclass(frozen=True)
class Ask:
    """A query as a stage is asked it: a text, or a vector of one row."""

    text: str
    vector: Rows | None
    k: int
    filters: Filters = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """What a stage found for one query, at one moment of its index.

    Attributes:
        view: the index as it was.
        vector: the query, one row.
        rows: int64, best first.
        scores: float32, of these.
        row_ids: the ids of all rows.
    """

    view: AnyIndex
    vector: Rows
    rows: NDArray[np.int64]
    scores: NDArray[np.float32]
    row_ids: Any
    times_s: Mapping[str, float] = field(default_factory=dict)
    """Of the batch that it was in."""

    @property
    def ids(self) -> list[str]:
        """The ids of the rows."""
        import pyarrow as pa

        ids: list[str] = self.row_ids.take(pa.array(self.rows)).to_pylist()
        return ids


class SearchStage:
    """An index and the encoder that made it; safe to call from several threads.

    Args:
        index: of any kind.
        encoder: what its vectors came from; None where all vectors are given.
        recall: of an approximate search, where the index can; None searches exactly.
        n_threads: of one search.

    Raises:
        MismatchError: The index was built with another encoder, so that its terms mean something else.
    """

    def __init__(
        self,
        index: AnyIndex,
        encoder: Encoder | None = None,
        *,
        recall: float | None = None,
        n_threads: int = 1,
    ) -> None:
        self.index = index
        self.encoder = encoder
        self.info = None if encoder is None else encoder.info  # hashes all weights, so it is asked for once
        self._known = ""
        self.view()
        self._options: dict[str, Any] = {"n_threads": n_threads}
        if recall is not None:
            self._options["recall"] = recall
        self._encoding = Lock()  # tokenizers and models keep state while they encode one batch

    @classmethod
    def open(
        cls, index: Path, encoder: Path | None, *, recall: float | None = None, n_threads: int = 1
    ) -> SearchStage:
        """Open both folders, and compile and touch everything, so that nobody's first query waits for it.

        Raises:
            StorageError: A folder is not there, is damaged, or is newer than this version.
            MismatchError: The index was built with another encoder.
        """
        from gossamer.index.open import open_index

        opened = None if encoder is None else open_encoder(encoder)
        stage = cls(open_index(index), opened, recall=recall, n_threads=n_threads)
        stage.warm_up()
        return stage

    def view(self) -> AnyIndex:
        """The index as it is now, for several calls that must be of one moment.

        Raises:
            MismatchError: another index has taken its place, that another encoder made.
        """
        view = self.index.view() if hasattr(self.index, "view") else self.index
        if self.info is not None and self._known != (uid := getattr(view, "uid", "only")):
            _refuse_strangers(view.encoder, self.info)
            self._known = uid
        return view

    @property
    def version(self) -> str:
        """What names this moment of the index; later ones know all writes up to it."""
        return version_of(self.index)

    def refresh(self) -> None:
        """Take over what other processes have changed."""
        if hasattr(self.index, "refresh"):
            self.index.refresh()

    @property
    def is_dense(self) -> bool:
        """Whether vectors are lists of numbers."""
        return getattr(self.index, "kind", "") == "dense"

    @property
    def width(self) -> int:
        """Terms or dimensions of a vector."""
        return int(self.index.n_dims if self.is_dense else self.index.n_terms)

    def vector(self, name: str, given: Vector) -> Rows:
        """A vector of a request as the index takes it, one row.

        Args:
            name: what it is called in messages.
            given: the vector.

        Raises:
            InputError: it is of another kind, or of another width.
        """
        if self.is_dense:
            if isinstance(given, SparseVector) or len(given) != self.width:
                raise InputError(f"vectors.{name}: expected a list of {self.width:,} numbers")
            return np.array([given], np.float32)
        if not isinstance(given, SparseVector):
            raise InputError(f'vectors.{name}: expected {{"terms": …, "weights": …}}, as the index is sparse')
        if max(given.terms, default=0) >= self.width:
            raise InputError(
                f"vectors.{name}: term {max(given.terms)} is beyond the {self.width:,} of the index"
            )
        from gossamer.index.vectors import SparseVectors

        weights = dict(zip(given.terms, given.weights, strict=True))
        return SparseVectors.from_dicts([weights], self.width, signed=min(given.weights, default=0) < 0)

    def find(self, asks: Sequence[Ask]) -> list[Found | Exception]:
        """Find the k best documents of each query; those of one k and filter are searched for together."""
        began = time.perf_counter()
        view, vectors = self.view(), self._vectors(asks)
        encoded = time.perf_counter()
        found: list[Found | Exception] = [InputError("not asked")] * len(asks)
        groups: dict[tuple[int, str], list[int]] = {}
        for place, ask in enumerate(asks):
            groups.setdefault((ask.k, json.dumps(ask.filters, sort_keys=True)), []).append(place)
        for (k, _), places in groups.items():
            try:
                allowed = view.documents.mask(asks[places[0]].filters) if asks[places[0]].filters else None
                some = vectors if len(groups) == 1 else vectors[np.array(places)]
                hits = view.search(some, k, allowed=allowed, **self._options)
            except Exception as error:
                found = [error if place in places else one for place, one in enumerate(found)]
                continue
            times_s = {"encode": encoded - began, "search": time.perf_counter() - encoded}
            for at, place in enumerate(places):
                n = int((hits.rows[at] >= 0).sum())
                vector = vectors if len(asks) == 1 else vectors[place : place + 1]
                found[place] = Found(
                    view, vector, hits.rows[at, :n], hits.scores[at, :n], hits.row_ids, times_s
                )
        return found

    def encode_documents(self, texts: Sequence[str]) -> Rows:
        """The vectors of documents.

        Raises:
            InputError: there is no encoder.
        """
        if self.encoder is None:
            raise InputError("this retriever has no encoder: give its vector with each document")
        with self._encoding:
            return self.encoder.encode_documents(texts)

    def contributions(self, found: Found, rows: Sequence[int]) -> list[list[Contribution]]:
        """For each row, what the terms that it shares with the query give, largest first; nothing if it is dense."""
        if not hasattr(found.view, "explain_rows"):
            return [[] for _ in rows]
        return [
            sorted(parts, key=lambda part: -part.product)
            for parts in found.view.explain_rows(found.vector, rows)
        ]

    def matches(self, parts: Sequence[Contribution]) -> list[TermMatch]:
        """The same with the names of the terms."""
        return [
            TermMatch(
                term=self.term(part.term),
                query_weight=part.query_weight,
                document_weight=part.document_weight,
                contribution=part.product,
            )
            for part in parts
        ]

    def snippet(self, text: str, parts: Sequence[Contribution], max_chars: int) -> Snippet:
        """The part of a text that says most of what matched; its beginning where there is no encoder to tell."""
        weights = {part.term: part.product for part in parts}
        spans = TermSpans.of([], []) if self.encoder is None or not weights else self.encoder.term_spans(text)
        return snippet(text, spans, weights, max_chars)

    def expansion(self, vector: Rows) -> list[TermWeight]:
        """The query's own terms, heaviest first; none if it is dense."""
        if isinstance(vector, np.ndarray):
            return []
        terms, weights = vector.row(0)
        by_weight = sorted(zip(terms.tolist(), weights.tolist(), strict=True), key=lambda pair: -pair[1])
        return [TermWeight(term=self.term(term), weight=weight) for term, weight in by_weight]

    def term(self, number: int) -> str:
        """The name of a term; its number where there is no encoder to tell."""
        return str(number) if self.encoder is None else self.encoder.term(number)

    def warm_up(self) -> None:
        """Compile kernels, of writing too, and touch the model."""
        from gossamer.index.warming import warm_up

        warm_up(self.index)
        vector: Vector = [0.0] * self.width if self.is_dense else SparseVector(terms=[0], weights=[1.0])
        found = self.find([Ask("", self.vector("warm up", vector), 1)])
        if self.encoder is not None:
            found += self.find([Ask("warm up", None, 1)])
        for one in found:
            if isinstance(one, Exception):
                raise one
            for parts in self.contributions(one, one.rows.tolist()):
                self.matches(parts)

    def health(self) -> RetrieverHealth:
        """What this stage answers from."""
        info = self.info or self.index.encoder
        return RetrieverHealth(
            kind=getattr(self.index, "kind", type(self.index).__name__),
            n_documents=self.index.n_documents,
            n_terms=self.width,
            encoder=None if info is None else info.name,
            fingerprint=None if info is None else info.fingerprint,
        )

    def _vectors(self, asks: Sequence[Ask]) -> Rows:
        """The vectors of all queries, `[len(asks), width]`; those that came as texts are encoded together."""
        texts = [ask.text for ask in asks if ask.vector is None]
        encoded: Rows | None = None
        if texts:
            if self.encoder is None:
                raise InputError(
                    "this retriever has no encoder: give the query's vector, by the retriever's name"
                )
            with self._encoding:
                encoded = self.encoder.encode_queries(texts)
            if len(texts) == len(asks):
                return encoded
        rest = iter(() if encoded is None else (encoded[at : at + 1] for at in range(len(texts))))
        parts: list[Any] = [next(rest) if ask.vector is None else ask.vector for ask in asks]
        if self.is_dense:
            return np.concatenate(parts)
        from gossamer.index.vectors import SparseVectors

        return SparseVectors.concat(parts)


def version_of(view: AnyIndex) -> str:
    """The index, and how often it was changed."""
    return f"{getattr(view, 'uid', '')[:12]}.{getattr(view, 'generation', 0)}"


def open_encoder(folder: Path) -> Encoder:
    """Load the encoder of a folder.

    Raises:
        NotFoundError: there is none.
    """
    from gossamer.lsr.formats import load_encoder

    if not folder.is_dir():  # load_encoder would look for a repository of that name
        raise NotFoundError(f"there is no encoder at {folder}: give the folder that its `save` wrote")
    return load_encoder(folder)


def _refuse_strangers(built: EncoderInfo | None, given: EncoderInfo) -> None:
    if built is None:
        raise MismatchError(
            f"the index does not say which encoder its vectors came from, so it cannot be trusted with {given.name!r} "
            f"({given.fingerprint}): build it again with `encoder` given"
        )
    if built.fingerprint == given.fingerprint and built.tokenizer_fingerprint == given.tokenizer_fingerprint:
        return
    tokenizers = (
        "are the same" if built.tokenizer_fingerprint == given.tokenizer_fingerprint else "differ, too"
    )
    raise MismatchError(
        f"the index was built with encoder {built.name!r} ({built.fingerprint}), and this is {given.name!r} "
        f"({given.fingerprint}); their tokenizers {tokenizers}. Open the encoder that the index was built with, or "
        "encode the documents with this one and build the index again"
    )
