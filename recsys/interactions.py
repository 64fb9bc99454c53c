"""`Interactions`: who took what, and perhaps when; the one input of every recommender here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from gossamer.kernels.errors import NotFoundError, RecordError

if TYPE_CHECKING:
    from scipy import sparse

_IDS = pa.dictionary(pa.int32(), pa.string())


@dataclass(frozen=True, eq=False)
class Interactions:
    """A log as an Arrow table: ids are strings outside, dictionary codes (rows) inside.

    Parts of a log (`take`, the splits) keep the whole log's ids, so a row means the same in all of them.

    Attributes:
        table: columns `user` and `item` (dictionary<int32, string>, one chunk each), and where the log has them
            `time` (float64), `label` (float32) and any feature columns.
    """

    table: pa.Table

    @classmethod
    def from_table(cls, table: pa.Table) -> Interactions:
        """From a table with string columns `user` and `item`; ids are numbered as they first appear.

        Raises:
            RecordError: if a column is missing, or a row has no id.
        """
        return cls.from_batches(table.to_batches(), schema=table.schema)

    @classmethod
    def from_batches(
        cls, batches: Iterable[pa.RecordBatch], *, schema: pa.Schema | None = None
    ) -> Interactions:
        """From record batches; each is turned into codes as it comes, so the strings are held once."""
        coded = [_encode(batch) for batch in batches]
        if not coded:
            if schema is None:
                raise RecordError("the log is empty; expected at least one row with a user and an item.")
            coded = [_encode(pa.RecordBatch.from_pylist([], schema=schema))]
        table = pa.Table.from_batches(coded).unify_dictionaries().combine_chunks()
        return cls(table)

    @classmethod
    def from_rows(
        cls, users: NDArray[Any], items: NDArray[Any], *, n_users: int, n_items: int
    ) -> Interactions:
        """From row numbers; ids are those numbers as strings."""
        columns = [
            pa.DictionaryArray.from_arrays(
                pa.array(codes.astype(np.int32)), pa.array(np.arange(n)).cast(pa.string())
            )
            for codes, n in ((users, n_users), (items, n_items))
        ]
        return cls(pa.table(columns, names=["user", "item"]))

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __repr__(self) -> str:
        return f"Interactions({len(self):,} of {self.n_users:,} users with {self.n_items:,} items)"

    @property
    def user_ids(self) -> pa.StringArray:
        """The id of each user row."""
        return _dictionary(self.table, "user")

    @property
    def item_ids(self) -> pa.StringArray:
        """The id of each item row."""
        return _dictionary(self.table, "item")

    @property
    def n_users(self) -> int:
        """Number of users that the log's ids name (a part of a log keeps them all)."""
        return len(self.user_ids)

    @property
    def n_items(self) -> int:
        """Number of items that the log's ids name."""
        return len(self.item_ids)

    @property
    def users(self) -> NDArray[np.int32]:
        """User row of each interaction `[n]`."""
        return _codes(self.table, "user")

    @property
    def items(self) -> NDArray[np.int32]:
        """Item row of each interaction `[n]`."""
        return _codes(self.table, "item")

    @property
    def times(self) -> NDArray[np.float64] | None:
        """Time of each interaction `[n]`, or None."""
        return self._column("time")  # type: ignore[no-any-return] # pyarrow has no types

    @property
    def labels(self) -> NDArray[np.float32] | None:
        """Label (such as a rating) of each interaction `[n]`, or None."""
        return self._column("label")  # type: ignore[no-any-return] # pyarrow has no types

    def fingerprint(self) -> str:
        """A digest of who took what, ids and all; times, labels and features are not part of it."""
        ids = json.dumps([self.user_ids.to_pylist(), self.item_ids.to_pylist()])
        digest = hashlib.sha256(ids.encode())
        digest.update(np.ascontiguousarray(self.users).data)
        digest.update(np.ascontiguousarray(self.items).data)
        return digest.hexdigest()[:16]

    def _column(self, name: str) -> Any:
        return self.table[name].to_numpy() if name in self.table.column_names else None

    def matrix(self) -> sparse.csr_array:
        """The binary matrix `[n_users, n_items]`, float32, items ascending in each row."""
        from scipy import sparse

        ones = np.ones(len(self), dtype=np.float32)
        matrix = sparse.csr_array((ones, (self.users, self.items)), shape=(self.n_users, self.n_items))
        matrix.sum_duplicates()
        matrix.data[:] = 1
        return matrix

    def user_feature(self, name: str) -> pa.StringArray:
        """A feature column as one value a user: the first that the log gives, null for a user without any.

        Raises:
            NotFoundError: if there is no such column.
        """
        if name not in self.table.column_names:
            raise NotFoundError(f"the log has no feature {name!r}; it has {self.table.column_names}.")
        given = np.flatnonzero(self.table[name].is_valid().to_numpy())
        first = np.full(self.n_users, len(self), dtype=np.int64)
        np.minimum.at(first, self.users[given], given)
        where = pa.array(first, mask=first == len(self))
        return self.table[name].combine_chunks().cast(pa.string()).take(where)

    def take(self, rows: NDArray[Any]) -> Interactions:
        """The interactions at these positions (or under this mask), with the same ids."""
        if rows.dtype == bool:
            rows = np.flatnonzero(rows)
        return Interactions(self.table.take(pa.array(rows)).combine_chunks())

    def merge_duplicates(self) -> Interactions:
        """One interaction a pair of user and item: the latest, or without times the last in the log."""
        order = np.arange(len(self)) if self.times is None else np.argsort(self.times, kind="stable")
        pairs = self.users.astype(np.int64) * self.n_items + self.items
        _, last = np.unique(pairs[order][::-1], return_index=True)
        return self.take(np.sort(order[::-1][last]))

    def filter_labels(self, minimum: float) -> Interactions:
        """Only interactions whose label is at least `minimum` (a rating of 4 or more, say).

        Raises:
            NotFoundError: if the log has no labels.
        """
        if self.labels is None:
            raise NotFoundError("the log has no labels; name their column when reading it (label=...).")
        return self.take(self.labels >= minimum).drop_unused_ids()

    def filter_k_core(self, users: int = 5, items: int = 5) -> Interactions:
        """Merges duplicates, then drops users and items until each user has `users` items, each item `items` users."""
        log = self.merge_duplicates()
        while True:
            enough_users = np.bincount(log.users, minlength=log.n_users) >= users
            enough_items = np.bincount(log.items, minlength=log.n_items) >= items
            keep = enough_users[log.users] & enough_items[log.items]
            if keep.all():
                return log.drop_unused_ids()
            log = log.take(keep)

    def drop_unused_ids(self) -> Interactions:
        """The same interactions with rows numbered anew, in ascending order of id, so that no row is empty."""
        table = self.table
        for at, name in enumerate(("user", "item")):
            codes, ids = _codes(table, name), _dictionary(table, name)
            used = pc.sort_indices(ids).to_numpy()
            present = np.zeros(len(ids), dtype=bool)
            present[codes] = True
            used = used[present[used]]
            new = np.zeros(len(ids), dtype=np.int32)
            new[used] = np.arange(used.size, dtype=np.int32)
            column = pa.DictionaryArray.from_arrays(pa.array(new[codes]), ids.take(pa.array(used)))
            table = table.set_column(at, name, column)
        return Interactions(table)


def concat(parts: list[Interactions]) -> Interactions:
    """Joins logs (a given train and test file, say) under common ids; columns that only some have are dropped."""
    common = [
        name for name in parts[0].table.column_names if all(name in p.table.column_names for p in parts)
    ]
    tables = [part.table.select(common) for part in parts]
    return Interactions(pa.concat_tables(tables).unify_dictionaries().combine_chunks())


def _encode(batch: pa.RecordBatch) -> pa.RecordBatch:
    columns, names = [], []
    for name in ("user", "item"):
        if name not in batch.schema.names:
            raise RecordError(f"the log has no column {name!r}; its columns are {batch.schema.names}.")
        column = batch.column(name)
        if column.null_count:
            row = column.is_null().index(True).as_py()
            raise RecordError(f"row {row} has no {name}; expected an id in every row.")
        columns.append(
            column.cast(pa.string()).dictionary_encode().cast(_IDS) if column.type != _IDS else column
        )
        names.append(name)
    for name, kind in (("time", pa.float64()), ("label", pa.float32())):
        if name in batch.schema.names:
            columns.append(batch.column(name).cast(kind))
            names.append(name)
    for name in batch.schema.names:
        if name not in names:
            columns.append(batch.column(name))
            names.append(name)
    return pa.RecordBatch.from_arrays(columns, names=names)


def _codes(table: pa.Table, name: str) -> NDArray[np.int32]:
    column = table[name]
    if column.num_chunks == 0:
        return np.zeros(0, dtype=np.int32)
    return column.chunk(0).indices.to_numpy()  # type: ignore[no-any-return]


def _dictionary(table: pa.Table, name: str) -> Any:
    column = table[name]
    return pa.array([], pa.string()) if column.num_chunks == 0 else column.chunk(0).dictionary
