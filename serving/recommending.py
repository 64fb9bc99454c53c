"""`RecommendStage`: a recommender and the clicks that came since it was trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakValueDictionary

import numpy as np

from gossamer.kernels.errors import BusyError, InputError, NotReadyError, OverloadedError
from gossamer.serving.item_schemas import (
    Because,
    RecommendedItem,
    RecommendRequest,
    SimilarRequest,
    SimilarResponse,
)
from gossamer.serving.pipeline import Pipeline
from gossamer.serving.records import Interaction, Written
from gossamer.serving.retrieval import Query
from gossamer.serving.schemas import RecommendHealth, SearchOptions
from gossamer.serving.showing import metadata_of

if TYPE_CHECKING:
    from gossamer.recsys.live import LiveInteractions
    from gossamer.recsys.recommender import Recommender

_CANDIDATES: Final = 200  # that a query finds, to be ordered by taste, too
_LIVE: WeakValueDictionary[Path, LiveInteractions] = WeakValueDictionary()
"""One of a folder in a process, as it has one writer: a stage that takes another's place goes on with its clicks."""


class RecommendStage:
    """Answers recommendations; safe to call from several threads.

    Args:
        recommender: what was trained.
        live: clicks since; None where none are taken.
    """

    def __init__(self, recommender: Recommender, live: LiveInteractions | None = None) -> None:
        self.recommender, self.live = recommender, live

    @classmethod
    def open(cls, recommender: Path, clicks: Path | None) -> RecommendStage:
        """Open both folders; that of the clicks is made if it is not there.

        Raises:
            StorageError: A folder is damaged, or is newer than this version.
            NotFoundError: There is no recommender.
        """
        from gossamer.recsys.live import LiveInteractions
        from gossamer.recsys.recommender import Recommender

        live = None
        if clicks is not None:
            key = clicks.absolute()
            live = _LIVE.get(key)
            if live is None:
                live = _LIVE[key] = LiveInteractions.open(clicks, create=True)
        return cls(Recommender.open(recommender), live)

    def close(self) -> None:
        """Let others write clicks."""
        if self.live is not None:
            self.live.close()

    def refresh(self) -> None:
        """Take over clicks that another process has written."""
        if self.live is not None:
            self.live.refresh()

    @property
    def version(self) -> str:
        """Names the clicks that are known."""
        return "0" if self.live is None else str(self.live.position)

    def write(self, interactions: Sequence[Interaction]) -> Written:
        """Keep new clicks; when this returns, they are on the disk, and the next answer knows them.

        Raises:
            InputError: no clicks are kept here.
            OverloadedError: another process writes them.
        """
        if self.live is None:
            raise InputError("this collection keeps no interactions: set `clicks` to a folder")
        try:
            position = self.live.append([(one.user, one.item, one.time) for one in interactions])
        except BusyError as error:
            raise OverloadedError(
                f"another process writes interactions of this collection: {error}"
            ) from error
        return Written(version=str(position), n_added=len(interactions))

    def recommend(self, request: RecommendRequest, search: Pipeline | None) -> dict[str, Any]:
        """The fields of a `RecommendResponse`, but for the time.

        Raises:
            InputError: A filter or cap does not suit the items, or a query needs an index that is not there.
            NotReadyError: A write is not to be seen here yet.
        """
        if request.min_version is not None:
            self._wait_for(request.min_version)
        whom: dict[str, Any] = {"user": request.user, "history": request.history}
        if request.query is not None:
            return self._about(request.query, whom, request, search)
        found = self.recommender.recommend(
            **whom,
            k=request.k,
            offset=request.offset,
            exclude_seen=not request.include_seen,
            filters=request.filters or None,
            most_per=None
            if request.most_per is None
            else (request.most_per.column, request.most_per.at_most),
            explain=request.explain,
            live=self.live,
        )
        reasons: list[Because | None] = [None] * len(found.item_ids)
        if found.because:
            reasons = [Because(kind=one.kind, items=dict(one.items)) for one in found.because]
        return {
            "items": self._items(found.item_ids, found.scores, reasons),
            "source": found.source,
            "unknown": list(found.unknown),
            "version": self.version,
        }

    def similar(self, request: SimilarRequest) -> SimilarResponse:
        """The items most like another.

        Raises:
            NotFoundError: there is no such item.
            InputError: A filter or cap does not suit the items.
        """
        found = self.recommender.similar(
            request.item,
            request.k,
            offset=request.offset,
            filters=request.filters or None,
            most_per=None
            if request.most_per is None
            else (request.most_per.column, request.most_per.at_most),
        )
        return SimilarResponse(items=self._items(found.item_ids, found.scores, [None] * len(found.item_ids)))

    def health(self) -> RecommendHealth:
        """What this stage answers from."""
        return RecommendHealth(
            n_users=self.recommender.n_users,
            n_items=self.recommender.n_items,
            n_interactions=None if self.live is None else self.live.position,
        )

    def _about(
        self, query: str, whom: dict[str, Any], request: RecommendRequest, search: Pipeline | None
    ) -> dict[str, Any]:
        """What a query finds, ordered by its list and by taste: reciprocal ranks of both."""
        from gossamer.index.fusion import fuse
        from gossamer.index.hits import Hits

        if search is None:
            raise InputError("query: this collection has no index to look for it in")
        if request.most_per is not None:
            raise InputError("most_per: not with a query; filter instead")
        depth = max(_CANDIDATES, request.offset + request.k)
        options = SearchOptions(k=depth, filters=request.filters, explain=False)
        (result,) = search.search([Query(query)], options)
        seen = set() if request.include_seen else self._seen(whom)
        run = {hit.id: hit.score for hit in result.hits if hit.id not in seen}
        scores = self.recommender.scores_for(list(run), **whom, live=self.live)
        taste = {id_: float(score) for id_, score in zip(run, scores, strict=True) if np.isfinite(score)}
        lists = [Hits.from_run({"q": one}, ["q"]) for one in (run, taste) if one]
        if not lists:
            return {"items": [], "source": "query", "unknown": [], "version": self.version}
        fused = fuse(lists, request.offset + request.k)
        ids = [id_ for id_ in fused.ids.to_pylist()[0] if id_ is not None][request.offset :]
        values = fused.scores[0, request.offset :][: len(ids)].tolist()
        source = "query" if not taste else "user" if request.user is not None else "history"
        unknown = (
            [] if taste else [one for one in [request.user, *(request.history or [])] if one is not None]
        )
        return {
            "items": self._items(ids, values, [None] * len(ids)),
            "source": source,
            "unknown": unknown,
            "version": self.version,
        }

    def _seen(self, whom: dict[str, Any]) -> set[str]:
        if whom["history"] is not None:
            return set(whom["history"])
        seen = set() if self.live is None else set(self.live.items_of(whom["user"]))
        rows = self.recommender.users.rows_of([whom["user"]])
        if rows[0] >= 0:
            taken = self.recommender.seen(int(rows[0]))
            seen |= set(self.recommender.items.documents.take(taken)["id"].to_pylist())
        return seen

    def _items(
        self, ids: Sequence[str], scores: Sequence[float], because: Sequence[Because | None]
    ) -> list[RecommendedItem]:
        documents = self.recommender.items.documents
        rows = documents.rows_of(ids)
        known = iter(documents.take(rows[rows >= 0]).to_pylist())
        items = []
        for id_, score, reason, row in zip(ids, scores, because, rows.tolist(), strict=True):
            about = next(known) if row >= 0 else {}
            metadata = metadata_of(about)
            items.append(
                RecommendedItem(
                    id=id_, score=score, title=about.get("title", ""), metadata=metadata, because=reason
                )
            )
        return items

    def _wait_for(self, version: str) -> None:
        if not version.isdecimal() or len(version) > 18:
            raise InputError("min_version: expected the version of an interaction of this collection")
        if int(version) and (self.live is None or not self.live.reached(int(version))):
            raise NotReadyError("min_version: that write has not arrived here: ask again in a moment")
