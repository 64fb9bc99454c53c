"""`DenseVectors`: float32 rows, in memory or mapped; and the forms in which they come: .npy, Parquet, Arrow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gossamer.index.dense_config import MAX_DIMENSIONS, Metric
from gossamer.index.vectors import as_ids
from gossamer.kernels.errors import FormatError, NotFoundError, VectorError

VECTOR = "vector"
_BYTES_AT_ONCE = 2**26


@dataclass(frozen=True, eq=False)
class DenseVectors:
    """Rows of float32 numbers: documents, queries, users or items.

    Attributes:
        values: float32 `[N, D]`; it may be a map of a file. float16 is taken, too, as that is a float32 as it stands.
        ids: one string a row, or None where rows have no names.

    Raises:
        VectorError: `values` is of another type or shape, or there is not one id a row.
    """

    values: NDArray[np.float32]
    ids: pa.StringArray | None = None

    def __post_init__(self) -> None:
        values = self.values
        if not isinstance(values, np.ndarray) or values.ndim != 2:
            raise VectorError(f"the vectors are {_shape(values)}; expected an array of rows and columns.")
        if values.dtype not in (np.float32, np.float16):
            raise VectorError(
                f"the vectors are {values.dtype}; expected float32, so convert them: .astype(np.float32)."
            )
        if not 0 < values.shape[1] <= MAX_DIMENSIONS:
            raise VectorError(
                f"the vectors have {values.shape[1]} dimensions; expected 1 to {MAX_DIMENSIONS:,}."
            )
        object.__setattr__(self, "ids", as_ids(self.ids, len(values)))

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return len(self.values)

    @property
    def n_dims(self) -> int:
        """Number of dimensions."""
        return int(self.values.shape[1])

    def __len__(self) -> int:
        return self.n_rows

    def __repr__(self) -> str:
        return f"DenseVectors({self.n_rows:,} rows x {self.n_dims:,} dimensions)"

    @classmethod
    def from_arrow(cls, table: pa.Table | pa.RecordBatch) -> DenseVectors:
        """From columns `vector: fixed_size_list<float32>[D]`, or lists of one length, and optionally `id: string`.

        Raises:
            FormatError: a column is missing or of another type.
            VectorError: a row has no vector, or one of another length.
        """
        if isinstance(table, pa.RecordBatch):
            table = pa.Table.from_batches([table])
        if VECTOR not in table.column_names:
            raise FormatError(f"the column {VECTOR!r} is missing; there are {table.column_names}.")
        ids = table["id"].cast(pa.string()).combine_chunks() if "id" in table.column_names else None
        return cls(_numbers(table[VECTOR]), None if ids is None or ids.null_count == len(ids) else ids)

    def to_arrow(self) -> pa.Table:
        """As columns `id: string, vector: fixed_size_list<float32>[D]`."""
        flat = pa.array(np.ascontiguousarray(self.values, np.float32).ravel())
        ids = pa.nulls(self.n_rows, pa.string()) if self.ids is None else self.ids
        return pa.table({"id": ids, VECTOR: pa.FixedSizeListArray.from_arrays(flat, self.n_dims)})


Given: TypeAlias = DenseVectors | NDArray[Any] | str | Path
"""What an index takes as vectors: in memory, or the path of a .npy file, or of a Parquet or Arrow file or folder."""


class DenseRows(NamedTuple):
    """Documents' vectors, as often as they are asked for, and what a first look at them has found."""

    parts: Callable[[], Iterable[NDArray[np.float32]]]
    n_rows: int
    n_dims: int
    ids: pa.StringArray | None

    @classmethod
    def of(cls, vectors: Given, metric: Metric) -> DenseRows:
        """Look through vectors, once; they are brought to length 1 for "cosine".

        Raises:
            VectorError: a row has a NaN or infinite number, another length, or no direction; the message names it.
            FormatError, NotFoundError: there are no vectors at a path.
        """
        look = _FirstLook(vectors, metric)
        look.through()

        def parts() -> Iterator[NDArray[np.float32]]:
            return (checked(part.values, metric) for part in _parts_of(vectors))

        return cls(parts, look.n_rows, look.n_dims, pa.concat_arrays(look.ids) if look.ids else None)


class _FirstLook:
    """What there is to know of vectors before any is stored."""

    def __init__(self, vectors: Given, metric: Metric) -> None:
        self._vectors, self._metric = vectors, metric
        self.n_rows, self.n_dims = 0, 0
        self.ids: list[pa.StringArray] = []

    def through(self) -> None:
        """Look through all of them."""
        is_path = isinstance(self._vectors, (str, Path))
        try:
            for part in _parts_of(self._vectors):
                self._take(part)
        except VectorError as error:
            if self.n_rows == 0 and not is_path:
                raise
            source = self._vectors if is_path else "the vectors"
            raise VectorError(f"{source}, counting from row {self.n_rows}: {error}") from error

    def _take(self, part: DenseVectors) -> None:
        checked(part.values, self._metric)
        if self.n_dims not in (0, part.n_dims):
            raise VectorError(
                f"row 0 has {part.n_dims} dimensions, and the rows before {self.n_dims}; all must agree."
            )
        if self.n_rows and (part.ids is None) == bool(self.ids):
            raise VectorError("some vectors have ids and some have none; name all or none.")
        if part.ids is not None:
            self.ids.append(part.ids)
        self.n_rows, self.n_dims = self.n_rows + part.n_rows, part.n_dims


def checked(values: NDArray[Any], metric: Metric) -> NDArray[np.float32]:
    """Rows as they are stored, or queries as they are asked: float32 `[n, D]`, of length 1 for "cosine".

    Raises:
        VectorError: a row has a NaN or infinite number, or no direction.
    """
    rows = np.ascontiguousarray(values, np.float32)
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        row = int(np.argmin(finite))
        column = int(np.argmin(np.isfinite(rows[row])))
        raise VectorError(
            f"row {row}: the number {rows[row, column]} of dimension {column} is not finite; replace it."
        )
    if metric == "dot":
        return rows
    lengths = norms(rows)
    if not lengths.all():
        raise VectorError(f"row {int(np.argmin(lengths))} is all zeros, which has no cosine; leave it out.")
    return np.asarray(rows / lengths[:, None], np.float32)


def norms(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """Euclidean lengths, float64 `[n]`."""
    wide = rows.astype(np.float64)
    return np.asarray(np.sqrt((wide * wide).sum(axis=1)), np.float64)


def rows_at_once(n_dims: int) -> int:
    """Rows that are dealt with together: some ten megabytes."""
    return max(_BYTES_AT_ONCE // (4 * n_dims), 1)


def _parts_of(vectors: Given) -> Iterator[DenseVectors]:
    if isinstance(vectors, (str, Path)):
        path = Path(vectors)
        if path.suffix != ".npy":
            yield from _stream(path)
            return
        vectors = DenseVectors(_map(path))
    if not isinstance(vectors, DenseVectors):
        vectors = DenseVectors(vectors)
    step = rows_at_once(vectors.n_dims)
    for first in range(0, max(vectors.n_rows, 1), step):
        rows = slice(first, first + step)
        yield DenseVectors(vectors.values[rows], None if vectors.ids is None else vectors.ids[rows])


def _map(path: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise NotFoundError(f"there are no vectors at {path}.") from error
    except (ValueError, EOFError) as error:
        raise FormatError(f"{path} cannot be read as an array: {error}") from error
    return array


def _stream(path: Path) -> Iterator[DenseVectors]:
    from pyarrow import dataset

    files = sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
    if not files or not files[0].exists():
        raise NotFoundError(
            f"there are no vectors at {path}; give a .npy, Parquet or Arrow file, or a folder."
        )
    kind = "ipc" if files[0].suffix in (".arrow", ".feather", ".ipc") else "parquet"
    try:
        source = dataset.dataset([str(file) for file in files], format=kind)
        columns = [name for name in ("id", VECTOR) if name in source.schema.names]
        none = True
        for batch in source.to_batches(columns=columns, batch_readahead=1, fragment_readahead=1):
            if batch.num_rows:
                none = False
                yield DenseVectors.from_arrow(batch)
        if none:
            yield DenseVectors.from_arrow(source.schema.empty_table())
    except (pa.ArrowException, FormatError) as error:
        raise FormatError(f"{path} cannot be read as dense vectors: {error}") from error


def _numbers(column: pa.ChunkedArray) -> NDArray[Any]:
    """The numbers of a column of lists, `[N, D]`; not copied where it is one chunk."""
    kind = column.type
    is_list = pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if not is_list or not pa.types.is_floating(kind.value_type):
        raise FormatError(f"the column {VECTOR!r} is {kind}; expected a list of float32 of one length a row.")
    if column.null_count:
        raise VectorError(f"row {column.is_null().index(True).as_py()} has no vector; expected one a row.")
    lists = column.combine_chunks()
    flat = lists.flatten()
    if flat.null_count:
        raise VectorError("a vector has a number that is null; expected float32.")
    if pa.types.is_fixed_size_list(kind):
        width = kind.list_size
    else:
        lengths = lists.value_lengths().to_numpy(zero_copy_only=False)
        width = int(lengths[0]) if len(lengths) else 0
        if (lengths != width).any():
            row = int(np.argmax(lengths != width))
            raise VectorError(
                f"row {row} has {lengths[row]} dimensions, and row 0 has {width}; all must agree."
            )
    return np.asarray(flat.to_numpy(zero_copy_only=False)).reshape(len(lists), width)


def _shape(values: object) -> str:
    return f"of shape {values.shape}" if isinstance(values, np.ndarray) else f"a {type(values).__name__}"
