"""The first stage of a search: an encoder turns queries into sparse vectors, an index finds documents for them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

from gossamer.kernels.errors import MismatchError, NotFoundError
from gossamer.serving.schemas import (
    Facet,
    FacetValue,
    SearchHealth,
    SearchHit,
    SearchResult,
    TermMatch,
    TermWeight,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from gossamer.index.document_set import DocumentSet
    from gossamer.index.explain import Contribution
    from gossamer.index.filters import Filters
    from gossamer.index.format import EncoderInfo
    from gossamer.index.inverted import InvertedIndex
    from gossamer.index.sharded import ShardedIndex
    from gossamer.index.vectors import SparseVectors
    from gossamer.lsr.encoder import Encoder

_TEXTS: Final = ("id", "title", "text")
_MAX_FACET_VALUES: Final = 24  # a longer list is no filter a person would pick from


class SearchStage:
    """An index and the encoder that made it; safe to call from several threads.

    Raises:
        MismatchError: The index was built with another encoder, so that its terms mean something else.
    """

    def __init__(self, index: InvertedIndex | ShardedIndex, encoder: Encoder) -> None:
        self.index = index
        self.encoder = encoder
        self._info = encoder.info  # hashes all weights, so it is asked for once
        _refuse_strangers(index.encoder, self._info)
        self._encoding = Lock()  # tokenizers and models keep state while they encode one batch
        self._facets: tuple[int, list[Facet]] | None = None

    @classmethod
    def open(cls, index: Path, encoder: Path) -> SearchStage:
        """Open both folders.

        Raises:
            StorageError: A folder is not there, is damaged, or is newer than this version.
            MismatchError: The index was built with another encoder.
        """
        from gossamer.index.inverted import InvertedIndex
        from gossamer.index.open import open_index
        from gossamer.index.sharded import ShardedIndex
        from gossamer.lsr.formats import load_encoder

        if not encoder.is_dir():  # load_encoder would look for a repository of that name
            raise NotFoundError(f"there is no encoder at {encoder}: give the folder that its `save` wrote")
        opened = open_index(index)
        if not isinstance(opened, InvertedIndex | ShardedIndex):
            raise MismatchError(
                f"{index} is a {type(opened).__name__}, which an encoder of terms cannot search."
            )
        stage = cls(opened, load_encoder(encoder))
        stage.warm_up()
        return stage

    def search(
        self, queries: Sequence[str], *, k: int, filters: Filters, explain: bool
    ) -> list[SearchResult]:
        """Find the k best documents of each query among those that the filters leave.

        Raises:
            InputError: A filter names no column of the documents, or a value that it cannot be compared with.
        """
        view = self.index.view()
        allowed = view.documents.mask(filters) if filters else None
        with self._encoding:
            vectors = self.encoder.encode_queries(queries)
        return self._find(view, vectors, k, allowed, explain=explain)

    def warm_up(self) -> None:
        """Compile kernels and touch the model now, so that nobody's first query waits for it."""
        from gossamer.index.vectors import SparseVectors

        with self._encoding:
            self.encoder.encode_queries(["warm up"])
        queries = SparseVectors.from_dicts([{0: 1.0}], self.index.n_terms)
        self._find(self.index.view(), queries, 1, None, explain=True)

    def facets(self) -> list[Facet]:
        """The metadata columns with few distinct values; counted on the first call after a change, then kept."""
        view = self.index.view()
        kept = self._facets
        if kept is None or kept[0] != view.generation:
            kept = self._facets = view.generation, _count_facets(view.documents)
        return kept[1]

    def health(self) -> SearchHealth:
        """What searches are answered from."""
        return SearchHealth(
            n_documents=self.index.n_documents,
            n_terms=self.index.n_terms,
            encoder=self._info.name,
            fingerprint=self._info.fingerprint,
        )

    def _find(
        self,
        view: InvertedIndex | ShardedIndex,
        vectors: SparseVectors,
        k: int,
        allowed: NDArray[np.bool_] | None,
        *,
        explain: bool,
    ) -> list[SearchResult]:
        hits = view.search(vectors, k, allowed=allowed)
        documents = iter(view.documents.take(hits.rows[hits.rows >= 0]).to_pylist())
        results = []
        for number in range(len(hits)):
            query = vectors[number : number + 1]
            rows = hits.rows[number][hits.rows[number] >= 0].tolist()
            scores = hits.scores[number, : len(rows)].tolist()
            parts = view.explain_rows(query, rows) if explain else [[]] * len(rows)
            found = [
                self._hit(next(documents), score, contributions)
                for score, contributions in zip(scores, parts, strict=True)
            ]
            results.append(SearchResult(hits=found, expansion=self._expansion(query) if explain else []))
        return results

    def _hit(
        self, document: Mapping[str, Any], score: float, contributions: Sequence[Contribution]
    ) -> SearchHit:
        by_size = sorted(contributions, key=lambda part: -part.product)
        return SearchHit(
            id=document["id"],
            score=score,
            title=document["title"],
            text=document["text"],
            metadata={column: _as_json(document[column]) for column in document if column not in _TEXTS},
            matches=[
                TermMatch(
                    term=self.encoder.term(part.term),
                    query_weight=part.query_weight,
                    document_weight=part.document_weight,
                    contribution=part.product,
                )
                for part in by_size
            ],
        )

    def _expansion(self, query: SparseVectors) -> list[TermWeight]:
        terms, weights = query.row(0)
        by_weight = sorted(zip(terms.tolist(), weights.tolist(), strict=True), key=lambda pair: -pair[1])
        return [TermWeight(term=self.encoder.term(term), weight=weight) for term, weight in by_weight]


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


def _as_json(value: str | int | float | bool | None) -> str | int | float | bool | None:
    """A metadata value as JSON has it: without NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _count_facets(documents: DocumentSet) -> list[Facet]:
    facets = []
    kinds = documents.schema
    for column in documents.metadata:
        if str(kinds.field(column).type) == "double":
            continue  # nobody picks a float from a list
        counts = documents.counts(column, _MAX_FACET_VALUES)
        if len(counts) > 1:
            values = [FacetValue(value=value, count=count) for value, count in counts.items()]
            facets.append(Facet(column=column, values=values))
    return facets
