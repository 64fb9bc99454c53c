"""`Recommender`: answers for known users, for histories, for items, and says what an answer rests on and why."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gossamer.index.filters import Filters
from gossamer.index.vectors import SparseVectors
from gossamer.kernels.errors import InputError, NotFoundError
from gossamer.recsys.answers import (
    Asker,
    Recommendation,
    SimilarItems,
    Wanted,
    answer,
    ids_of,
    vectors_of,
)
from gossamer.recsys.folder import RecommenderFolder
from gossamer.recsys.live import LiveInteractions
from gossamer.recsys.selection import Cap, best_items

_NOTHING = np.zeros(0, np.int64)


class Recommender(RecommenderFolder):
    """Answers from one folder; safe to share among threads. Make one with `build` or `open`."""

    def recommend(
        self,
        *,
        user: str | None = None,
        history: Sequence[str] | None = None,
        k: int = 10,
        offset: int = 0,
        exclude_seen: bool = True,
        group: str | None = None,
        filters: Filters | None = None,
        most_per: tuple[str, int] | None = None,
        explain: bool = False,
        live: LiveInteractions | None = None,
    ) -> Recommendation:
        """The k best items for a user, or for someone who took the items of a history.

        A user with new clicks on items that training knew, but not of this user, is folded in from all items, seen and
        clicked; so is a user whom training never saw. Clicks on items that training never saw are named as unknown.

        Args:
            user: id of a user.
            history: ids of items; those that are unknown are passed over and named in the answer.
            k: how many.
            offset: how many of the best are passed over, for further pages of one list.
            exclude_seen: leave out what the user (clicks too), or the history, has taken already.
            group: where popularity has to answer, that within this group goes first.
            filters: an expression over ids and metadata columns of the items; see `gossamer.index.filters`.
            most_per: a metadata column, and how many items of one value there may be, over all pages together: going
                down the list, an item whose value has had its share is passed over. Items without one are not bound.
            explain: say why each item is recommended.
            live: new clicks of users; those of the one that is asked for count. A history has none.

        Raises:
            InputError: if not exactly one of `user` and `history` is given, or a number or filter is out of range.
            ConfigError: if there is no such column.
        """
        wanted = self._wanted(
            k=k,
            offset=offset,
            exclude_seen=exclude_seen,
            group=group,
            filters=filters,
            most_per=most_per,
            explain=explain,
        )
        return answer(self, self._askers(user, history, live), wanted)[0]

    def recommend_users(
        self,
        users: Sequence[str],
        *,
        k: int = 10,
        exclude_seen: bool = True,
        group: str | None = None,
        filters: Filters | None = None,
        most_per: tuple[str, int] | None = None,
        live: LiveInteractions | None = None,
    ) -> list[Recommendation]:
        """An answer for each user id; see `recommend`."""
        wanted = self._wanted(k=k, exclude_seen=exclude_seen, group=group, filters=filters, most_per=most_per)
        return answer(self, self._users(users, live), wanted)

    def recommend_histories(
        self,
        histories: Sequence[Sequence[str]],
        *,
        k: int = 10,
        exclude_seen: bool = True,
        group: str | None = None,
        filters: Filters | None = None,
        most_per: tuple[str, int] | None = None,
    ) -> list[Recommendation]:
        """An answer for each history of item ids; see `recommend`."""
        wanted = self._wanted(k=k, exclude_seen=exclude_seen, group=group, filters=filters, most_per=most_per)
        return answer(self, [self._history(history) for history in histories], wanted)

    def similar(
        self,
        item: str,
        k: int = 10,
        *,
        offset: int = 0,
        filters: Filters | None = None,
        most_per: tuple[str, int] | None = None,
    ) -> SimilarItems:
        """The items whose vectors have the largest cosine with that of an item, which is left out itself.

        The cosine, and not the dot product, as an item is not more like another for a long vector, which is how many
        models write that it is popular; those trained here are of unit length, so that both are the same. Cosines are
        of the stored impacts. Items that share no coordinate with the item are not similar.

        Args:
            item: id of the item.
            k: how many.
            offset: how many of the most similar are passed over.
            filters: as for `recommend`.
            most_per: as for `recommend`.

        Raises:
            NotFoundError: if there is no such item.
            InputError: if a number or filter is out of range.
            ConfigError: if there is no such column.
            FormatError: see `directions`.
        """
        wanted = self._wanted(k=k, offset=offset, filters=filters, most_per=most_per)
        row = self.items.documents.rows_of([item])
        if row[0] < 0:
            raise NotFoundError(
                f"there is no item {item!r}: it was not in the log that this recommender was trained on."
            )
        width = min(offset + k, self.n_items)
        query = self._unit_vector(int(row[0]))
        rows, scores = best_items(
            self.directions, query, [row], width, allowed=wanted.allowed, cap=wanted.cap
        )
        found = rows[0][rows[0] >= 0][offset:]
        return SimilarItems(ids_of(self, found), scores[0][offset:][: found.size].tolist())

    def scores_for(
        self,
        items: Sequence[str],
        *,
        user: str | None = None,
        history: Sequence[str] | None = None,
        live: LiveInteractions | None = None,
    ) -> NDArray[np.float32]:
        """The scores of some items for a user or a history, to be fused with those of a search.

        Args:
            items: ids.
            user: id of a user.
            history: ids of items.
            live: as for `recommend`.

        Returns:
            `[len(items)]`, what `recommend` gives them, seen or not; 0 where nothing is shared. NaN for an item that
            is not known, and for all where nothing is known of who asks: popularity is no score of this kind.

        Raises:
            InputError: if not exactly one of `user` and `history` is given.
        """
        scores = np.full(len(items), np.nan, np.float32)
        vector = vectors_of(self, self._askers(user, history, live))
        rows = self.items.documents.rows_of(items)
        known = np.flatnonzero(rows >= 0)
        if vector.nnz == 0 or known.size == 0:
            return scores
        allowed = np.zeros(self.n_items, np.bool_)
        allowed[rows[known]] = True
        hits = self.items.search(vector, int(allowed.sum()), allowed=allowed)
        of_row = np.zeros(self.n_items, np.float32)
        of_row[hits.rows[0][hits.rows[0] >= 0]] = hits.scores[0][hits.rows[0] >= 0]
        scores[known] = of_row[rows[known]]
        return scores

    def rank(
        self, users: NDArray[np.int64], *, k: int = 10, exclude_seen: bool = True
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Item rows and scores `[len(users), k]` for known user rows; past the end −1 and −inf."""
        taken = [self.seen(int(user)) if exclude_seen else _NOTHING for user in users]
        return best_items(self.items, self.user_vectors[users], taken, k)

    def _askers(
        self, user: str | None, history: Sequence[str] | None, live: LiveInteractions | None
    ) -> list[Asker]:
        if user is not None and history is None:
            return self._users([user], live)
        if history is not None and user is None:
            return [self._history(history)]
        raise InputError("give either user or history; recommend() answers one question at a time.")

    def _users(self, users: Sequence[str], live: LiveInteractions | None) -> list[Asker]:
        rows = self.users.rows_of(users).tolist()
        return [self._user(user, row, live) for user, row in zip(users, rows, strict=True)]

    def _user(self, user: str, row: int, live: LiveInteractions | None) -> Asker:
        clicked = [] if live is None else live.items_of(user)
        if row < 0:
            return self._history(clicked) if clicked else Asker(-1, _NOTHING, [user])
        seen = self.seen(row)
        if not clicked:
            return Asker(row, seen, [])
        new = self._history(clicked)
        taken = np.union1d(seen, new.taken)
        return Asker(row if taken.size == seen.size else -1, taken, new.unknown)

    def _history(self, history: Sequence[str]) -> Asker:
        rows = self.items.documents.rows_of(history)
        unknown = [item for item, row in zip(history, rows, strict=True) if row < 0]
        return Asker(-1, np.unique(rows[rows >= 0]), unknown)

    def _wanted(
        self,
        *,
        k: int,
        offset: int = 0,
        exclude_seen: bool = True,
        group: str | None = None,
        filters: Filters | None = None,
        most_per: tuple[str, int] | None = None,
        explain: bool = False,
    ) -> Wanted:
        if k < 1:
            raise InputError(f"k is {k}; it must be at least 1.")
        if offset < 0:
            raise InputError(f"offset is {offset}; it must be at least 0.")
        cap = None
        if most_per is not None:
            column, most = most_per
            if most < 1:
                raise InputError(
                    f"most_per allows {most} items of each {column!r}; it must allow at least 1."
                )
            cap = Cap(self.values_of(column), most)
        allowed = None if not filters else self.items.documents.mask(filters)
        return Wanted(k, offset, exclude_seen, group, allowed, cap, explain)

    def _unit_vector(self, row: int) -> SparseVectors:
        given = self.item_vectors[[row]]
        values = given.values / np.linalg.norm(given.values)
        return SparseVectors(given.indptr, given.indices, values, given.n_cols, None, True)
