"""`SparseVectors`: the one type that travels between encoders, recommenders, indexes and the service."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gossamer.kernels.errors import VectorError

if TYPE_CHECKING:
    import torch
    from scipy import sparse

MAX_COLUMNS = 2**31 - 1
_UINT16_COLUMNS = 65_536


@dataclass(frozen=True, eq=False)
class SparseVectors:
    """Rows of a CSR matrix: documents, queries, users or items; checked once, when made.

    Arrays of the right type are not copied, but held as read-only views: whoever gave them must not change them.

    Attributes:
        indptr: int64 `[n_rows + 1]`; row r holds entries `indptr[r]:indptr[r + 1]`.
        indices: uint16 (where `n_cols` allows) or int32 `[nnz]`; terms, strictly ascending within a row.
        values: float32 `[nnz]`; finite, never 0, and positive unless `signed`.
        n_cols: size of the vocabulary.
        ids: one string a row, or None where rows have no names.
        signed: whether negative weights are allowed (recommender factors, signed codes).

    Raises:
        VectorError: if any of this does not hold; the message names the row.
    """

    indptr: NDArray[np.int64]
    indices: NDArray[Any]
    values: NDArray[np.float32]
    n_cols: int
    ids: pa.StringArray | None = None
    signed: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.n_cols <= MAX_COLUMNS:
            raise VectorError(f"n_cols is {self.n_cols}; it must be between 1 and {MAX_COLUMNS:,}.")
        set_ = object.__setattr__  # the dataclass is frozen from here on
        set_(self, "indptr", _as_vector("indptr", self.indptr, np.int64))
        set_(self, "values", _as_vector("values", self.values, np.float32))
        indices = _as_vector("indices", self.indices, None)
        if indices.size and indices.dtype.kind not in "iu":
            raise VectorError(f"indices have the type {indices.dtype}; expected integers.")
        set_(self, "ids", as_ids(self.ids, self.n_rows))
        self._check(indices)
        width = np.uint16 if self.n_cols <= _UINT16_COLUMNS else np.int32
        set_(self, "indices", _read_only(indices.astype(width, copy=False)))

    def _check(self, indices: NDArray[Any]) -> None:
        indptr, values = self.indptr, self.values
        if indptr.size == 0 or indptr[0] != 0 or np.any(np.diff(indptr) < 0):
            raise VectorError(
                "indptr must start at 0 and never fall; rebuild it with np.cumsum of row lengths."
            )
        if not indptr[-1] == indices.size == values.size:
            raise VectorError(
                f"indptr ends at {indptr[-1]}, but there are {indices.size} indices and {values.size} values; "
                "all three must agree."
            )
        if indices.size == 0:
            return
        self._refuse(~np.isfinite(values), "the weight {value} is not finite; replace or drop it")
        self._refuse(values == 0, "the weight of term {term} is 0; leave zeros out")
        if not self.signed:
            self._refuse(values < 0, "the weight {value} is negative; pass signed=True if that is meant")
        wide = indices.astype(np.int64, copy=False)
        outside = (wide < 0) | (wide >= self.n_cols)
        self._refuse(outside, f"term {{term}} is outside 0..{self.n_cols - 1}", indices)
        falls = np.zeros(indices.size, dtype=bool)
        falls[1:] = wide[1:] <= wide[:-1]
        starts = indptr[:-1][np.diff(indptr) > 0]
        falls[starts] = False
        self._refuse(falls, "term {term} repeats or is out of order; sort terms and merge repeats", indices)

    def _refuse(self, wrong: NDArray[np.bool_], reason: str, indices: NDArray[Any] | None = None) -> None:
        if not wrong.any():
            return
        at = int(np.argmax(wrong))
        row = int(np.searchsorted(self.indptr, at, side="right")) - 1
        name = f"row {row}" if self.ids is None else f"row {row} (id {self.ids[row].as_py()!r})"
        terms = self.indices if indices is None else indices
        raise VectorError(f"{name}: " + reason.format(value=self.values[at], term=terms[at]) + ".")

    # -- shape and parts ------------------------------------------------------------------------------

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return int(self.indptr.size) - 1

    @property
    def nnz(self) -> int:
        """Number of stored weights."""
        return int(self.values.size)

    @property
    def shape(self) -> tuple[int, int]:
        """`(n_rows, n_cols)`."""
        return self.n_rows, self.n_cols

    def __len__(self) -> int:
        return self.n_rows

    def __repr__(self) -> str:
        mean = self.nnz / max(self.n_rows, 1)
        return f"SparseVectors({self.n_rows:,} rows x {self.n_cols:,} terms, {mean:.1f} non-zeros a row)"

    def row(self, row: int) -> tuple[NDArray[Any], NDArray[np.float32]]:
        """The terms and weights of one row, as views."""
        if not -self.n_rows <= row < self.n_rows:
            raise IndexError(f"row {row} is outside 0..{self.n_rows - 1}")
        row %= self.n_rows
        part = slice(int(self.indptr[row]), int(self.indptr[row + 1]))
        return self.indices[part], self.values[part]

    def __getitem__(self, rows: slice | Sequence[int] | NDArray[Any]) -> SparseVectors:
        """Rows by slice, by integer array (any order, repeats allowed) or by boolean mask."""
        numbers = np.arange(self.n_rows)[rows if isinstance(rows, slice) else _as_selection(rows)]
        if numbers.ndim != 1:
            raise VectorError(
                "select rows by a slice, a list of rows or a mask; use row(i) for a single one."
            )
        lengths = np.diff(self.indptr)[numbers]
        indptr = _indptr(lengths)
        entries = np.repeat(self.indptr[:-1][numbers] - indptr[:-1], lengths) + np.arange(indptr[-1])
        ids = None if self.ids is None else self.ids.take(pa.array(numbers))
        return self._with(indptr, self.indices[entries], self.values[entries], ids)

    def top(self, k: int) -> SparseVectors:
        """Keep the k weights of largest magnitude in each row; among equals the smaller term."""
        if k < 1:
            raise VectorError(f"top({k}): k must be at least 1.")
        lengths = np.diff(self.indptr)
        rows = np.repeat(np.arange(self.n_rows), lengths)
        order = np.lexsort((self.indices, -np.abs(self.values), rows))
        rank = np.arange(self.nnz) - np.repeat(self.indptr[:-1], lengths)
        keep = np.sort(order[rank < k])
        return self._with(_indptr(np.minimum(lengths, k)), self.indices[keep], self.values[keep], self.ids)

    def equals(self, other: SparseVectors) -> bool:
        """Whether both hold the same rows, weights (bit for bit), ids and shape."""
        same_ids = (self.ids is None) == (other.ids is None) and (
            self.ids is None or self.ids.equals(other.ids)
        )
        return (
            self.shape == other.shape
            and same_ids
            and np.array_equal(self.indptr, other.indptr)
            and np.array_equal(self.indices, other.indices)
            and np.array_equal(self.values, other.values)
        )

    def with_ids(self, ids: Sequence[str] | pa.StringArray) -> SparseVectors:
        """The same rows under these names."""
        return self._with(self.indptr, self.indices, self.values, as_ids(ids, self.n_rows))

    def _with(
        self, indptr: NDArray[np.int64], indices: NDArray[Any], values: NDArray[np.float32], ids: Any
    ) -> SparseVectors:
        return SparseVectors(indptr, indices, values, self.n_cols, ids, self.signed)

    @classmethod
    def concat(cls, parts: Sequence[SparseVectors]) -> SparseVectors:
        """Stack rows of parts with the same vocabulary; ids are kept if all parts with rows have them, or none."""
        if not parts:
            raise VectorError("concat() needs at least one part.")
        if len({part.n_cols for part in parts}) > 1:
            raise VectorError(
                f"parts have different vocabularies: {sorted({part.n_cols for part in parts})}."
            )
        named = [part.ids for part in parts if part.ids is not None]
        if named and any(part.ids is None and part.n_rows for part in parts):
            raise VectorError("some parts have ids and some have none; give ids to all or to none.")
        return cls(
            _indptr(np.concatenate([np.diff(part.indptr) for part in parts])),
            np.concatenate([part.indices for part in parts]),
            np.concatenate([part.values for part in parts]),
            parts[0].n_cols,
            pa.concat_arrays(named) if named else None,
            any(part.signed for part in parts),
        )

    # -- from and to other forms ----------------------------------------------------------------------

    @classmethod
    def from_scipy(
        cls, matrix: sparse.sparray | sparse.spmatrix, *, ids: Any = None, signed: bool = False
    ) -> SparseVectors:
        """From any scipy sparse matrix; repeated entries are summed (as scipy means them), zeros dropped."""
        from scipy import sparse

        csr = sparse.csr_array(matrix, dtype=np.float32, copy=True)
        csr.sum_duplicates()
        csr.eliminate_zeros()
        return cls(csr.indptr, csr.indices, csr.data, int(csr.shape[1]), ids, signed)

    def to_scipy(self) -> sparse.csr_array:
        """As a scipy CSR array of float32."""
        from scipy import sparse

        wide = np.int64 if self.nnz > MAX_COLUMNS else np.int32
        parts = self.values.copy(), self.indices.astype(wide), self.indptr.astype(wide)
        return sparse.csr_array(parts, shape=self.shape)

    @classmethod
    def from_dense(cls, array: NDArray[Any], *, ids: Any = None, signed: bool = False) -> SparseVectors:
        """From a dense `[n_rows, n_cols]` array; zeros are dropped."""
        array = np.asarray(array, dtype=np.float32)
        if array.ndim != 2:
            raise VectorError(f"the array has {array.ndim} dimensions; expected rows and columns.")
        rows, columns = np.nonzero(array)
        indptr = _indptr(np.bincount(rows, minlength=array.shape[0]))
        return cls(indptr, columns, array[rows, columns], int(array.shape[1]), ids, signed)

    @classmethod
    def from_dicts(
        cls, rows: Sequence[Mapping[int, float]], n_cols: int, *, ids: Any = None, signed: bool = False
    ) -> SparseVectors:
        """From one `{term: weight}` mapping a row; zeros are dropped."""
        terms = np.fromiter((term for row in rows for term in sorted(row)), dtype=np.int64)
        weights = np.fromiter((row[term] for row in rows for term in sorted(row)), dtype=np.float32)
        owner = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
        keep = weights != 0
        indptr = _indptr(np.bincount(owner[keep], minlength=len(rows)))
        return cls(indptr, terms[keep], weights[keep], n_cols, ids, signed)

    def to_dicts(self) -> list[dict[int, float]]:
        """One `{term: weight}` dictionary a row, terms ascending."""
        rows = (self.row(row) for row in range(self.n_rows))
        return [dict(zip(terms.tolist(), weights.tolist(), strict=True)) for terms, weights in rows]

    @classmethod
    def from_torch(
        cls, tensor: torch.Tensor | Sequence[torch.Tensor], *, ids: Any = None, signed: bool = False
    ) -> SparseVectors:
        """From a torch tensor, dense, COO or CSR, on any device; whatever `SparseEncoder.encode` returned.

        Args:
            tensor: `[n_rows, n_cols]`; one row `[n_cols]`; or a list of such rows.
            ids: one string a row, or None.
            signed: whether negative weights are allowed.
        """
        import torch

        if not isinstance(tensor, torch.Tensor):
            if len({tuple(row.shape) for row in tensor}) != 1:
                raise VectorError("expected one row or more, all of the same length, in a list of tensors.")
            tensor = torch.stack(list(tensor))
        tensor = tensor.detach().to("cpu", torch.float32)
        if tensor.ndim == 1:
            tensor = tensor.unsqueeze(0)
        if tensor.ndim != 2 or 0 in tensor.shape[1:]:
            raise VectorError(f"the tensor has the shape {list(tensor.shape)}; expected rows and columns.")
        if tensor.layout == torch.strided:
            return cls.from_dense(tensor.numpy(), ids=ids, signed=signed)
        from scipy import sparse

        coo = tensor.to_sparse(layout=torch.sparse_coo).coalesce()
        rows, columns = coo.indices().numpy()
        matrix = sparse.coo_array((coo.values().numpy(), (rows, columns)), shape=tuple(coo.shape))
        return cls.from_scipy(matrix, ids=ids, signed=signed)

    def to_torch(self) -> torch.Tensor:
        """As a coalesced `torch.sparse_coo` tensor of float32."""
        import torch

        rows = np.repeat(np.arange(self.n_rows), np.diff(self.indptr))
        places = torch.from_numpy(np.stack([rows, self.indices.astype(np.int64)]))
        values = torch.from_numpy(self.values.copy())
        return torch.sparse_coo_tensor(
            places, values, size=self.shape, is_coalesced=True, check_invariants=False
        )

    @classmethod
    def from_arrow(
        cls, table: pa.Table | pa.RecordBatch, *, n_cols: int | None = None, signed: bool | None = None
    ) -> SparseVectors:
        """From columns `id`, `indices`, `values`; see `gossamer.index.columns`."""
        from gossamer.index import columns

        return columns.from_arrow(table, n_cols=n_cols, signed=signed)

    def to_arrow(self) -> pa.Table:
        """As columns `id: string, indices: list<int32>, values: list<float32>`, `n_cols` in the metadata."""
        from gossamer.index import columns

        return columns.to_arrow(self)

    @classmethod
    def read_parquet(cls, path: str | Path) -> SparseVectors:
        """Read a Parquet file, or all Parquet files of a folder in name order."""
        from gossamer.index import columns

        return cls.concat(list(columns.stream_parquet(path)))

    @classmethod
    def stream_parquet(cls, path: str | Path, *, batch_rows: int = 65_536) -> Iterator[SparseVectors]:
        """Yield a Parquet file or folder in parts of at most `batch_rows` rows."""
        from gossamer.index import columns

        return columns.stream_parquet(path, batch_rows=batch_rows)

    def write_parquet(self, path: str | Path) -> None:
        """Write one Parquet file; it appears whole or not at all."""
        from gossamer.index import columns

        columns.write_parquet(self, path)


def _indptr(lengths: NDArray[Any]) -> NDArray[np.int64]:
    indptr = np.zeros(lengths.size + 1, dtype=np.int64)
    np.cumsum(lengths, out=indptr[1:])
    return indptr


def _as_vector(name: str, array: Any, dtype: Any) -> NDArray[Any]:
    vector = np.ascontiguousarray(array, dtype=dtype)
    if vector.ndim != 1:
        raise VectorError(f"{name} has {vector.ndim} dimensions; expected 1.")
    return _read_only(vector)


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    view = array.view()
    view.flags.writeable = False
    return view


def _as_selection(rows: Any) -> NDArray[Any]:
    selection = np.asarray(rows)
    is_empty_list = selection.size == 0 and selection.dtype.kind == "f"  # numpy takes [] for floats
    return selection.astype(np.int64) if is_empty_list else selection


def as_ids(ids: Any, n_rows: int) -> pa.StringArray | None:
    """Ids as an array of strings.

    Raises:
        VectorError: there is not one a row, or one is no string of valid Unicode.
    """
    if ids is None:
        return None
    if isinstance(ids, pa.ChunkedArray):
        ids = ids.combine_chunks()
    try:
        array = ids if isinstance(ids, pa.StringArray) else pa.array(ids, type=pa.string())
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise VectorError(f"ids must be strings: {error}.") from error
    except UnicodeEncodeError as error:
        raise VectorError(
            f"the id {error.object!r} is no valid Unicode: {error.reason}; rename it."
        ) from error
    if len(array) != n_rows:
        raise VectorError(f"there are {len(array)} ids for {n_rows} rows; give one a row.")
    if array.null_count:
        raise VectorError(f"row {array.is_null().index(True).as_py()} has no id; name every row or none.")
    return array
