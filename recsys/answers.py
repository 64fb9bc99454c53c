"""From who asks, as rows, to an answer with ids: what every question of a recommender goes through."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gossamer.index.vectors import SparseVectors
from gossamer.recsys.folder import RecommenderFolder
from gossamer.recsys.reasons import Because, because_of_history, because_similar
from gossamer.recsys.selection import Cap, best_items

AnswerSource = Literal["user", "history", "popularity"]

_NOTHING = np.zeros(0, np.int64)


@dataclass(frozen=True)
class Recommendation:
    """An answer.

    Attributes:
        item_ids: best first; fewer than k where there are no more, or where few items share a coordinate with the
            vector that asks.
        scores: dot products; for "popularity" the number of users.
        source: what it rests on: the user's own vector; a vector folded in from the history, or from all items of a
            user with new ones; or popularity, where there is no such vector or it is empty.
        unknown: which ids of the question nothing is known of.
        because: why each item, if that was asked for; else empty.
    """

    item_ids: list[str]
    scores: list[float]
    source: AnswerSource
    unknown: list[str]
    because: list[Because]


@dataclass(frozen=True)
class SimilarItems:
    """Items like another one.

    Attributes:
        item_ids: most similar first.
        scores: cosines.
    """

    item_ids: list[str]
    scores: list[float]


@dataclass(frozen=True, eq=False)
class Asker:
    """Who asks.

    Attributes:
        user: row of the user whose trained vector asks, or −1.
        taken: item rows that the user or the history took, ascending; folded in where there is no such user.
        unknown: ids that nothing is known of.
    """

    user: int
    taken: NDArray[np.int64]
    unknown: list[str]


@dataclass(frozen=True, eq=False)
class Wanted:
    """What is asked for.

    Attributes:
        k: items.
        offset: how many of the best are passed over.
        exclude_seen: whether what was taken is left out.
        group: whose popularity goes first, where popularity answers.
        allowed: bool `[n_items]`, others are no answers; None for all.
        cap: what else holds for all items up to `offset + k`.
        explain: whether it is said why.
    """

    k: int
    offset: int
    exclude_seen: bool
    group: str | None
    allowed: NDArray[np.bool_] | None
    cap: Cap | None
    explain: bool


def vectors_of(folder: RecommenderFolder, askers: list[Asker]) -> SparseVectors:
    """The vector of each asker; empty where there is nothing to make one of."""
    users = [at for at, asker in enumerate(askers) if asker.user >= 0]
    histories = [at for at, asker in enumerate(askers) if asker.user < 0 and asker.taken.size]
    others = [at for at, asker in enumerate(askers) if asker.user < 0 and not asker.taken.size]
    parts = []
    if users:
        trained = folder.user_vectors[[askers[at].user for at in users]]
        parts.append(
            SparseVectors(trained.indptr, trained.indices, trained.values, trained.n_cols, None, True)
        )
    if histories:
        parts.append(folder.fold_in([askers[at].taken for at in histories]))
    if others:
        parts.append(SparseVectors.from_dicts([{}] * len(others), folder.items.n_terms, signed=True))
    return SparseVectors.concat(parts)[np.argsort([*users, *histories, *others])]


def answer(folder: RecommenderFolder, askers: list[Asker], wanted: Wanted) -> list[Recommendation]:
    """An answer for each asker."""
    if not askers:
        return []
    vectors = vectors_of(folder, askers)
    has_vector = np.diff(vectors.indptr) > 0
    asking = np.flatnonzero(has_vector)
    taken = [askers[at].taken if wanted.exclude_seen else _NOTHING for at in asking]
    width = min(wanted.offset + wanted.k, folder.n_items)
    rows, scores = best_items(
        folder.items, vectors[asking], taken, width, allowed=wanted.allowed, cap=wanted.cap
    )
    ranked = {int(at): (rows[place], scores[place]) for place, at in enumerate(asking)}
    return [
        _ranked(folder, asker, *ranked[at], wanted) if at in ranked else _popular(folder, asker, wanted)
        for at, asker in enumerate(askers)
    ]


def ids_of(folder: RecommenderFolder, rows: NDArray[np.int64]) -> list[str]:
    """The ids of item rows."""
    ids: list[str] = folder.items.documents.row_ids.take(pa.array(rows)).to_pylist()
    return ids


def _ranked(
    folder: RecommenderFolder, asker: Asker, rows: NDArray[np.int64], scores: NDArray[Any], wanted: Wanted
) -> Recommendation:
    found = rows[rows >= 0][wanted.offset :]
    because: list[Because] = []
    if wanted.explain:
        explained = because_similar if asker.user >= 0 else because_of_history
        because = explained(folder, asker.taken, found)
    return Recommendation(
        ids_of(folder, found),
        scores[wanted.offset :][: found.size].tolist(),
        "user" if asker.user >= 0 else "history",
        asker.unknown,
        because,
    )


def _popular(folder: RecommenderFolder, asker: Asker, wanted: Wanted) -> Recommendation:
    popularity = folder.popularity
    without = asker.taken if wanted.exclude_seen else None
    rows = popularity.rank(folder.n_items, group=wanted.group, without=without)
    if wanted.allowed is not None:
        rows = rows[wanted.allowed[rows]]
    if wanted.cap is not None:
        rows = rows[wanted.cap.fitting(rows, wanted.cap.room())]
    rows = rows[wanted.offset :][: wanted.k]
    counts = np.floor(popularity.scores(wanted.group)[rows])  # the fraction only breaks ties
    because: list[Because] = []
    if wanted.explain:
        group = wanted.group if wanted.group in popularity.groups() else None
        because = [Because("popularity", (), group)] * rows.size
    return Recommendation(ids_of(folder, rows), counts.tolist(), "popularity", asker.unknown, because)
