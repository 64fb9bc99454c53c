"""`Recommender`: a folder that answers for known users, for histories, and says so when it can do neither.

recommender/
  recommender.json    format, settings, counts
  items/              an `InvertedIndex` of the item vectors: what `recommend` searches
  users/              ids of the users (and their group), found without a table in memory
  users.parquet       their vectors, the queries
  seen.indptr.npy, seen.items.npy   which items each user took
  popularity.parquet  counts over all users and within groups
  centre.npy          direction of the average item, for folding in a history
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from gossamer.index.arrays import ArrayWriter, map_array
from gossamer.index.document_files import write_documents
from gossamer.index.documents import Documents
from gossamer.index.folders import draft_folder, recover
from gossamer.index.format import EncoderInfo
from gossamer.index.inverted import InvertedIndex
from gossamer.index.vectors import SparseVectors
from gossamer.kernels.errors import FormatError, InputError, NotFoundError
from gossamer.recsys.fold_in import FoldInConfig, centre, fold_in
from gossamer.recsys.interactions import Interactions
from gossamer.recsys.popularity import Popularity

FORMAT = "gossamer-recommender"
VERSION = 1
_ABOUT = "recommender.json"
_CHUNK = 256  # users that are searched together

Source = Literal["user", "history", "popularity"]


class _About(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["gossamer-recommender"] = "gossamer-recommender"
    version: int = VERSION
    n_users: int
    n_items: int
    fold_in: FoldInConfig
    group: str | None


@dataclass(frozen=True)
class Recommendation:
    """An answer.

    Attributes:
        item_ids: best first; fewer than k where there are no more, or where few items share a coordinate with the
            vector that asks.
        scores: dot products; for "popularity" the number of users.
        source: what it rests on: the user's own vector, a vector folded in from the history, or popularity, where
            there is no such vector or it is empty.
        unknown: which ids of the question nothing is known of.
    """

    item_ids: list[str]
    scores: list[float]
    source: Source
    unknown: list[str]


class Recommender:
    """Answers `recommend` from one folder; safe to share among threads. Make one with `build` or `open`."""

    def __init__(self, path: Path, about: _About) -> None:
        self.path = path
        self._about = about
        self.items = InvertedIndex.open(path / "items")
        self.users = Documents(path / "users", about.n_users)
        self.user_vectors = SparseVectors.read_parquet(path / "users.parquet")
        self.popularity = Popularity.read(path / "popularity.parquet")
        self._indptr = map_array(path / "seen.indptr.npy", np.int64, (about.n_users + 1,))
        self._seen = map_array(path / "seen.items.npy", np.int32, (int(self._indptr[-1]),))
        self._centre = map_array(path / "centre.npy", np.float32, (self.items.n_terms,))
        self._item_vectors: SparseVectors | None = None

    @classmethod
    def build(
        cls,
        path: str | Path,
        *,
        users: SparseVectors,
        items: SparseVectors,
        interactions: Interactions,
        group: str | None = None,
        fold_in: FoldInConfig | None = None,
        replace: bool = False,
    ) -> Recommender:
        """Writes a recommender folder, whole or not at all, and opens it.

        Args:
            path: the folder.
            users: user vectors, a row for each user of the log.
            items: item vectors, a row for each item of the log.
            interactions: the log that they were trained on: what users have seen, and popularity.
            group: feature of users within which popularity is counted too.
            fold_in: how histories become vectors; its `nnz` should be that of the users.
            replace: whether a recommender that is there may be replaced.

        Raises:
            InputError: if vectors and log do not fit.
            ExistsError: if there is something at `path`.
        """
        if (users.n_rows, items.n_rows) != (interactions.n_users, interactions.n_items):
            raise InputError(
                f"there are {users.n_rows} user and {items.n_rows} item vectors for {interactions.n_users} users and "
                f"{interactions.n_items} items; pass the log that the vectors were trained on."
            )
        about = _About(
            n_users=users.n_rows, n_items=items.n_rows, fold_in=fold_in or FoldInConfig(), group=group
        )
        with draft_folder(Path(path), replace=replace, replaceable=_is_recommender) as draft:
            items = items.with_ids(interactions.item_ids)
            info = EncoderInfo("recommender", _fingerprint(items))
            InvertedIndex.build(draft / "items", items, encoder=info)
            write_documents(draft / "users", None, interactions.user_ids, users.n_rows)
            users.with_ids(interactions.user_ids).write_parquet(draft / "users.parquet")
            seen = interactions.matrix()
            _write(draft / "seen.indptr.npy", seen.indptr.astype(np.int64))
            _write(draft / "seen.items.npy", seen.indices.astype(np.int32))
            Popularity.count(interactions, group=group).write(draft / "popularity.parquet")
            _write(draft / "centre.npy", centre(items))
            (draft / _ABOUT).write_text(about.model_dump_json(indent=2) + "\n", encoding="utf-8")
        return cls.open(path)

    @classmethod
    def open(cls, path: str | Path) -> Recommender:
        """Opens a recommender folder.

        Raises:
            NotFoundError: if there is none.
            FormatError: if it is damaged or from a newer version.
        """
        path = Path(path)
        recover(path)
        if not (path / _ABOUT).is_file():
            raise NotFoundError(f"there is no recommender at {path}; export one with Recommender.build().")
        try:
            raw = json.loads((path / _ABOUT).read_text(encoding="utf-8"))
            if isinstance(raw, dict) and raw.get("version", 0) > VERSION:
                raise FormatError(
                    f"{path} has version {raw['version']}, and this gossamer reads up to {VERSION}; update it."
                )
            return cls(path, _About.model_validate(raw))
        except (ValidationError, json.JSONDecodeError, OSError, ValueError) as error:
            raise FormatError(f"{path} is no whole recommender folder: {error}. Export it again.") from error

    @property
    def n_users(self) -> int:
        """Number of users."""
        return self._about.n_users

    @property
    def n_items(self) -> int:
        """Number of items."""
        return self._about.n_items

    @property
    def group(self) -> str | None:
        """Name of the users' feature within which popularity was counted, if any."""
        return self._about.group

    @property
    def stored_bytes(self) -> int:
        """Bytes of user and item vectors as a float model stores them, indices counted (not those of the index)."""
        vectors = self.user_vectors
        equal = bool(np.all(np.diff(vectors.indptr) == np.diff(vectors.indptr)[:1]))
        entry = 4 + vectors.indices.itemsize
        starts = 0 if equal else 4 * (self.n_users + self.n_items + 2)
        return (vectors.nnz + self.items.nnz) * entry + starts

    def recommend(
        self,
        *,
        user: str | None = None,
        history: Sequence[str] | None = None,
        k: int = 10,
        exclude_seen: bool = True,
        group: str | None = None,
    ) -> Recommendation:
        """The k best items for a user, or for someone who took the items of a history.

        Args:
            user: id of a user.
            history: ids of items; those that are unknown are passed over and named in the answer.
            k: how many.
            exclude_seen: leave out what the user, or the history, has taken already.
            group: where popularity has to answer, that within this group goes first.

        Raises:
            InputError: if not exactly one of `user` and `history` is given, or k is below 1.
        """
        if (user is None) == (history is None):
            raise InputError("give either user or history; recommend() answers one question at a time.")
        if k < 1:
            raise InputError(f"k is {k}; it must be at least 1.")
        if user is not None:
            return self.recommend_users([user], k=k, exclude_seen=exclude_seen, group=group)[0]
        return self.recommend_histories([list(history or ())], k=k, exclude_seen=exclude_seen, group=group)[0]

    def recommend_users(
        self, users: Sequence[str], *, k: int = 10, exclude_seen: bool = True, group: str | None = None
    ) -> list[Recommendation]:
        """An answer for each user id."""
        rows = self.users.rows_of(users)
        known = rows[rows >= 0]
        ranked, scores = self.rank(known, k=k, exclude_seen=exclude_seen)
        empty = _empty_rows(self.user_vectors[known])
        found = iter(zip(known, ranked, scores, empty, strict=True))
        answers = []
        for user, row in zip(users, rows, strict=True):
            if row < 0:
                answers.append(self._popular(k, [user], group))
                continue
            at, items, values, nothing = next(found)
            answers.append(
                self._popular(k, [], group, without=self.seen(int(at)) if exclude_seen else None)
                if nothing
                else self._answer(items, values, source="user", unknown=[])
            )
        return answers

    def recommend_histories(
        self,
        histories: Sequence[Sequence[str]],
        *,
        k: int = 10,
        exclude_seen: bool = True,
        group: str | None = None,
    ) -> list[Recommendation]:
        """An answer for each history of item ids."""
        rows = [self.items.documents.rows_of(history) for history in histories]
        unknown = [
            [item for item, row in zip(history, found, strict=True) if row < 0]
            for history, found in zip(histories, rows, strict=True)
        ]
        known = [np.unique(found[found >= 0]) for found in rows]
        usable = [at for at, found in enumerate(known) if found.size]
        nothing = np.zeros(0, np.int64)
        answers: dict[int, Recommendation] = {}
        if usable:
            queries = self.fold_in([known[at] for at in usable])
            seen = [known[at] if exclude_seen else nothing for at in usable]
            ranked, scores = self._search(queries, seen, k)
            empty = _empty_rows(queries)
            for at, taken, items, values, none in zip(usable, seen, ranked, scores, empty, strict=True):
                answers[at] = (
                    self._popular(k, unknown[at], group, without=taken)
                    if none
                    else self._answer(items, values, source="history", unknown=unknown[at])
                )
        return [
            answers[at] if at in answers else self._popular(k, unknown[at], group)
            for at in range(len(histories))
        ]

    def rank(
        self, users: NDArray[np.int64], *, k: int = 10, exclude_seen: bool = True
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Item rows and scores `[len(users), k]` for known user rows; past the end −1 and −inf."""
        nothing = np.zeros(0, np.int64)
        seen = [self.seen(int(user)) if exclude_seen else nothing for user in users]
        return self._search(self.user_vectors[users], seen, k)

    def seen(self, user: int) -> NDArray[np.int64]:
        """Item rows that a user took, ascending."""
        return np.asarray(self._seen[self._indptr[user] : self._indptr[user + 1]], dtype=np.int64)

    def fold_in(self, histories: list[NDArray[np.int64]]) -> SparseVectors:
        """Vectors of new users from the item rows of their histories."""
        if self._item_vectors is None:
            self._item_vectors = self.items.vectors()
        return fold_in(histories, self._item_vectors, self._centre, self._about.fold_in)

    def _search(
        self, queries: SparseVectors, seen: list[NDArray[np.int64]], k: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The k best of each query that are not among its seen ones: k + |seen| are searched, the seen dropped.

        Users who saw about as much go together, so that one with a long history does not widen all searches.
        """
        rows = np.full((len(seen), k), -1, dtype=np.int64)
        scores = np.full((len(seen), k), -np.inf, dtype=np.float32)
        by_length = np.argsort([part.size for part in seen], kind="stable")
        for start in range(0, len(seen), _CHUNK):
            chunk = by_length[start : start + _CHUNK]
            hits = self.items.search(queries[chunk], min(k + seen[chunk[-1]].size, self.n_items))
            owner = np.repeat(np.arange(chunk.size), [seen[at].size for at in chunk])
            taken = np.concatenate([seen[at] for at in chunk]) + owner * self.n_items
            found = hits.rows + np.arange(chunk.size)[:, None] * self.n_items
            keep = (hits.rows >= 0) & ~np.isin(found, taken)
            first = np.argsort(~keep, axis=1, kind="stable")[:, :k]
            kept = np.take_along_axis(keep, first, 1)
            width = first.shape[1]
            rows[chunk, :width] = np.where(kept, np.take_along_axis(hits.rows, first, 1), -1)
            scores[chunk, :width] = np.where(kept, np.take_along_axis(hits.scores, first, 1), -np.inf)
        return rows, scores

    def _answer(
        self, items: NDArray[np.int64], scores: NDArray[Any], *, source: Source, unknown: list[str]
    ) -> Recommendation:
        found = items[items >= 0]
        ids = self.items.documents.row_ids.take(pa.array(found)).to_pylist()
        return Recommendation(ids, scores[: found.size].tolist(), source, unknown)

    def _popular(
        self, k: int, unknown: list[str], group: str | None, without: NDArray[np.int64] | None = None
    ) -> Recommendation:
        items = self.popularity.rank(k, group=group, without=without)
        counts = np.floor(self.popularity.scores(group)[items])  # the fraction only breaks ties
        return self._answer(items, counts, source="popularity", unknown=unknown)


def _empty_rows(vectors: SparseVectors) -> NDArray[np.bool_]:
    empty: NDArray[np.bool_] = np.diff(vectors.indptr) == 0
    return empty


def _is_recommender(folder: Path) -> bool:
    about = folder / _ABOUT
    return about.is_file() and FORMAT in about.read_text(encoding="utf-8", errors="replace")


def _write(path: Path, array: NDArray[Any]) -> None:
    with ArrayWriter(path, array.dtype, array.shape[1:]) as file:
        file.append(array)


def _fingerprint(items: SparseVectors) -> str:
    digest = hashlib.sha256()
    for part in (items.indptr, items.indices, items.values):
        digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()[:16]
