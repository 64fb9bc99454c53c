"""Tokenised training pairs in a memory-mapped Arrow table, and the batches drawn from it.

Batch t is a pure function of (seed, t): rows are walked in a new permutation each epoch. So a resumed run sees what the
uninterrupted one would have seen, and n workers share the batch that one worker would have taken.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gossamer.kernels.errors import InputError

Tokens = Sequence[Sequence[int]]
Tokenize = Callable[[Sequence[str]], Tokens]

SCHEMA = pa.schema(
    [
        ("query", pa.list_(pa.int32())),
        ("document", pa.list_(pa.int32())),
        ("negative", pa.list_(pa.int32())),
        ("query_key", pa.int64()),
        ("document_key", pa.int64()),
        ("negative_key", pa.int64()),
    ]
)


class PairBatch(NamedTuple):
    """One worker's part of a batch, and what all workers know of the whole.

    Attributes:
        queries: Token lists of this worker's queries.
        documents: Token lists of their documents, in the same order.
        negatives: Token lists of their hard negatives; empty if the pairs have none.
        query_keys: int64 `[B]`, a number for the text of each query of the whole batch.
        document_keys: int64 `[N]`, the same for all documents, then all negatives, of the whole batch.
    """

    queries: Tokens
    documents: Tokens
    negatives: Tokens
    query_keys: NDArray[np.int64]
    document_keys: NDArray[np.int64]


@dataclass
class TokenPairs:
    """Random access to tokenised pairs.

    Args:
        table: Table of `SCHEMA`, usually memory-mapped.
    """

    table: pa.Table
    _epoch: tuple[int, int] | None = field(default=None, init=False, repr=False)
    _order: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64), init=False, repr=False)

    def __post_init__(self) -> None:
        if len(self.table) == 0:
            raise InputError(
                "there are no training pairs; expected a file with query and document in each line"
            )
        n_without = self.table.column("negative").null_count
        if 0 < n_without < len(self.table):
            raise InputError(
                f"{n_without:,} of {len(self.table):,} training pairs have no negative; expected one in all or in none"
            )
        self.has_negatives = n_without == 0

    def __len__(self) -> int:
        return len(self.table)

    def rows(self, seed: int, step: int, batch_size: int) -> NDArray[np.int64]:
        """Row numbers of batch `step`: positions `step·batch_size …` of the permuted epochs, end to end."""
        positions = np.arange(step * batch_size, (step + 1) * batch_size)
        epochs = positions // len(self)
        found = [
            self._permutation(seed, int(epoch))[positions[epochs == epoch] % len(self)]
            for epoch in np.unique(epochs)
        ]
        return np.concatenate(found)

    def batch(self, seed: int, step: int, batch_size: int, share: slice = slice(None)) -> PairBatch:
        """Batch `step`.

        Args:
            seed: Seed of the permutations.
            step: Optimiser step, from 0.
            batch_size: Pairs of all workers together.
            share: This worker's part of the batch.
        """
        taken = self.table.take(self.rows(seed, step, batch_size))
        own = taken[share]
        keys = [taken.column("document_key").to_numpy()]
        if self.has_negatives:
            keys.append(taken.column("negative_key").to_numpy())
        return PairBatch(
            own.column("query").to_pylist(),
            own.column("document").to_pylist(),
            own.column("negative").to_pylist() if self.has_negatives else [],
            taken.column("query_key").to_numpy(),
            np.concatenate(keys),
        )

    def _permutation(self, seed: int, epoch: int) -> NDArray[np.int64]:
        if self._epoch != (seed, epoch):
            self._epoch = (seed, epoch)
            self._order = np.random.default_rng([seed, epoch]).permutation(len(self))
        return self._order


def tokenize_pairs(pairs: pa.RecordBatch | pa.Table, queries: Tokenize, documents: Tokenize) -> pa.Table:
    """Tokenises a batch of `gossamer.lsr.data.read_pairs`.

    Args:
        pairs: String columns `query`, `document` and `negative`.
        queries: Tokenizer of queries.
        documents: Tokenizer of documents.

    Returns:
        Table of `SCHEMA`; pairs whose query or document has no token are left out.
    """
    columns: dict[str, list[list[int] | None]] = {}
    for name, tokenize in (("query", queries), ("document", documents), ("negative", documents)):
        texts = pairs.column(name).to_pylist() if name in pairs.schema.names else [None] * len(pairs)
        tokens = iter(tokenize([text for text in texts if text is not None]))
        columns[name] = [None if text is None else list(next(tokens)) for text in texts]
    arrays = {name: pa.array(rows, SCHEMA.field(name).type) for name, rows in columns.items()}
    arrays |= {f"{name}_key": pa.array(map(_key, rows), pa.int64()) for name, rows in columns.items()}
    whole = [
        bool(query and document)
        for query, document in zip(columns["query"], columns["document"], strict=True)
    ]
    return pa.table(arrays, SCHEMA).filter(pa.array(whole, pa.bool_()))


def spool_pairs(
    pairs: Iterable[pa.RecordBatch], path: Path | str, queries: Tokenize, documents: Tokenize
) -> TokenPairs:
    """Tokenises pairs into an Arrow file, once, and opens it memory-mapped.

    Args:
        pairs: Batches of `gossamer.lsr.data.read_pairs`.
        path: File to write; replaced if it exists.
        queries: Tokenizer of queries.
        documents: Tokenizer of documents.

    Returns:
        The pairs.

    Raises:
        InputError: If there are none.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with pa.ipc.new_file(str(path), SCHEMA) as writer:
        for batch in pairs:
            writer.write_table(tokenize_pairs(batch, queries, documents))
    return TokenPairs(pa.ipc.open_file(pa.memory_map(str(path))).read_all())


def _key(tokens: list[int] | None) -> int | None:
    if tokens is None:
        return None
    digest = hashlib.blake2b(np.asarray(tokens, np.int32).tobytes(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)
