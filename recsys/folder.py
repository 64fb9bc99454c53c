"""`RecommenderFolder`: a recommender's files, written whole or not at all, and what they hold, by rows.

recommender/
  recommender.json    format, settings, counts
  items/              an `InvertedIndex` of the item vectors with the items' documents: what is searched
  directions/         the same at unit length, for `similar`; only where the vectors have other lengths
  users/              ids of the users (and their group), found without a table in memory
  users.parquet       their vectors, the queries
  seen.indptr.npy, seen.items.npy   which items each user took
  popularity.parquet  counts over all users and within groups
  centre.npy          direction of the average item, for folding in a history
"""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from gossamer.index.arrays import ArrayWriter, map_array
from gossamer.index.document_files import Source, batches_of, refuse_repeats, write_documents
from gossamer.index.documents import Documents
from gossamer.index.folders import draft_folder, recover
from gossamer.index.format import EncoderInfo
from gossamer.index.inverted import InvertedIndex
from gossamer.index.vectors import SparseVectors
from gossamer.kernels.errors import FormatError, InputError, NotFoundError, RecordError
from gossamer.recsys.fold_in import FoldInConfig, centre, fold_in
from gossamer.recsys.interactions import Interactions
from gossamer.recsys.popularity import Popularity
from gossamer.recsys.selection import ItemValues

FORMAT = "gossamer-recommender"
VERSION = 2
_ABOUT = "recommender.json"
_DIRECTIONS = "directions"


class _About(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["gossamer-recommender"] = "gossamer-recommender"
    version: int = VERSION
    n_users: int
    n_items: int
    fold_in: FoldInConfig
    group: str | None


class RecommenderFolder:
    """What a recommender is made of, by rows. Make one with `build` or `open`."""

    def __init__(self, path: Path, about: _About) -> None:
        self.path = path
        self._about = about
        self.items = InvertedIndex.open(path / "items")
        self.users = Documents(path / "users", about.n_users)
        self.user_vectors = SparseVectors.read_parquet(path / "users.parquet")
        self.popularity = Popularity.read(path / "popularity.parquet")
        self._indptr = map_array(path / "seen.indptr.npy", np.int64, (about.n_users + 1,))
        self._seen = map_array(path / "seen.items.npy", np.int32, (int(self._indptr[-1]),))
        self.centre = map_array(path / "centre.npy", np.float32, (self.items.n_terms,))
        has_directions = (path / _DIRECTIONS).is_dir()
        self._values: dict[str, ItemValues] = {}
        self._directions = InvertedIndex.open(path / _DIRECTIONS) if has_directions else None

    @classmethod
    def build(
        cls,
        path: str | Path,
        *,
        users: SparseVectors,
        items: SparseVectors,
        interactions: Interactions,
        item_documents: Source | None = None,
        group: str | None = None,
        fold_in: FoldInConfig | None = None,
        replace: bool = False,
    ) -> Self:
        """Writes a recommender folder, whole or not at all, and opens it.

        Args:
            path: the folder.
            users: user vectors, a row for each user of the log.
            items: item vectors, a row for each item of the log.
            interactions: the log that they were trained on: what users have seen, and popularity.
            item_documents: titles, texts and metadata of the items, by a string column `id`, in any order; each item
                of the log must be among them, and others are left out, as they have no vector.
            group: feature of users within which popularity is counted too.
            fold_in: how histories become vectors; its `nnz` should be that of the users.
            replace: whether a recommender that is there may be replaced.

        Raises:
            InputError: if vectors and log do not fit.
            RecordError: if an item has no document, or two.
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
        ids = interactions.item_ids
        documents = None if item_documents is None else _in_order(item_documents, ids)
        with draft_folder(Path(path), replace=replace, replaceable=_is_recommender) as draft:
            items = items.with_ids(ids)
            info = EncoderInfo("recommender", _fingerprint(items))
            InvertedIndex.build(draft / "items", items, documents=documents, encoder=info)
            lengths = _lengths(items)
            if not _are_one(lengths, 1e-3):
                InvertedIndex.build(draft / _DIRECTIONS, _at_unit_length(items, lengths), encoder=info)
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
    def open(cls, path: str | Path) -> Self:
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
    def fold_in_config(self) -> FoldInConfig:
        """How histories become vectors."""
        return self._about.fold_in

    @property
    def stored_bytes(self) -> int:
        """Bytes of user and item vectors as a float model stores them, indices counted (not those of the index)."""
        vectors = self.user_vectors
        equal = bool(np.all(np.diff(vectors.indptr) == np.diff(vectors.indptr)[:1]))
        entry = 4 + vectors.indices.itemsize
        starts = 0 if equal else 4 * (self.n_users + self.n_items + 2)
        return (vectors.nnz + self.items.nnz) * entry + starts

    @cached_property
    def item_vectors(self) -> SparseVectors:
        """The item vectors as the index stores them, in memory; made when first asked for."""
        return self.items.vectors()

    @cached_property
    def directions(self) -> InvertedIndex:
        """The items at unit length: the index of the items itself, where their vectors have that.

        Raises:
            FormatError: an earlier version made this folder, which did not look at the lengths, and they differ.
        """
        if self._directions is not None:
            return self._directions
        if self._about.version == 1 and not _are_one(_lengths(self.item_vectors), 0.02):  # they are rounded
            raise FormatError(
                f"{self.path} was exported by an earlier gossamer, and its items have vectors of several lengths; "
                "export it again to ask for similar items."
            )
        return self.items

    def values_of(self, column: str) -> ItemValues:
        """The values of a metadata column of the items; read when first asked for.

        Raises:
            ConfigError: if there is no such column.
        """
        if column not in self._values:
            self._values[column] = ItemValues.of(self.items.documents, column)
        return self._values[column]

    def seen(self, user: int) -> NDArray[np.int64]:
        """Item rows that a user took, ascending."""
        return np.asarray(self._seen[self._indptr[user] : self._indptr[user + 1]], dtype=np.int64)

    def fold_in(self, histories: list[NDArray[np.int64]]) -> SparseVectors:
        """Vectors of new users from the item rows of their histories."""
        return fold_in(histories, self.item_vectors, self.centre, self.fold_in_config)


def _in_order(source: Source, ids: pa.StringArray) -> pa.Table:
    """The documents of these ids, in this order."""
    batches = list(batches_of(source))
    if not batches or "id" not in batches[0].schema.names:
        there = batches[0].schema.names if batches else "no rows"
        raise RecordError(f"the documents of the items have no column 'id'; there are {there}.")
    try:
        table = pa.Table.from_batches(batches)
    except pa.ArrowException as error:
        raise RecordError(
            f"the batches of the items' documents differ: {error}; give all one schema."
        ) from error
    given = table["id"].combine_chunks().cast(pa.string())
    if given.null_count:
        raise RecordError(
            f"row {given.is_null().index(True).as_py()} of the items' documents has no id; name it."
        )
    refuse_repeats(given)
    places = pc.index_in(ids, value_set=given)
    if places.null_count:
        first = ids[places.is_null().index(True).as_py()].as_py()
        raise RecordError(
            f"{places.null_count:,} of {len(ids):,} items have no document, such as {first!r}; add a row for each (all "
            "but its id may be missing), or leave documents out."
        )
    return table.take(places)


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


def _lengths(vectors: SparseVectors) -> NDArray[np.float64]:
    """The length of each row `[n]`."""
    rows = np.repeat(np.arange(vectors.n_rows), np.diff(vectors.indptr))
    squares = vectors.values.astype(np.float64) ** 2
    return np.sqrt(np.bincount(rows, weights=squares, minlength=vectors.n_rows))


def _are_one(lengths: NDArray[np.float64], tolerance: float) -> bool:
    """Whether vectors have unit length, but for empty ones, which have no direction."""
    return bool(np.all(np.abs(lengths[lengths > 0] - 1) <= tolerance))


def _at_unit_length(vectors: SparseVectors, lengths: NDArray[np.float64]) -> SparseVectors:
    matrix = vectors.to_scipy()
    matrix.data = vectors.values / np.repeat(lengths, np.diff(vectors.indptr))
    return SparseVectors.from_scipy(matrix, ids=vectors.ids, signed=vectors.signed)
