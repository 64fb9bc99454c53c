"""The Parquet files of a build, wherever they are, cut into input shards that can be read apart.

An input shard is a file, or some row groups of a large one; it is no shard of a `ShardedIndex`, which is an index. It
knows what tells it from what the file may become (size and time of change), so that what was made of it is found again
after a build that was killed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from gossamer.index.columns import READ_BYTES, stream_file, unreadable
from gossamer.index.vectors import SparseVectors
from gossamer.kernels.errors import FormatError, NotFoundError

ROWS_A_SHARD = 262_144
_COLUMNS = ("indices", "values")


@dataclass(frozen=True)
class InputShard:
    """Rows of one Parquet file of sparse vectors.

    Attributes:
        filesystem: where it is; goes to other processes.
        path: the file.
        size, mtime_ns: of the file when it was listed; None where the filesystem does not say when.
        row_groups: those that belong to the shard.
        first: number of its first row in the file.
        n_rows, nnz: rows and weights, by the file's footer.
        n_cols: size of the vocabulary, if the file says so.
        id_bytes: of the ids, uncompressed.
        longest: weights a row, in the row group where that is most.
    """

    filesystem: Any
    path: str
    size: int
    mtime_ns: int | None
    row_groups: tuple[int, ...]
    first: int
    n_rows: int
    nnz: int
    n_cols: int | None
    id_bytes: int
    longest: float

    @property
    def key(self) -> str:
        """A name for what is made of these rows; another one when the file has changed."""
        identity = [self.filesystem.type_name, self.path, self.size, self.mtime_ns, self.row_groups]
        return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]

    def stream(self, batch_rows: int) -> Iterator[SparseVectors]:
        """Yield the rows in parts of at most `batch_rows`, at least one part.

        Raises:
            VectorError, FormatError: as `stream_file`; the message names the file.
            NotFoundError: the file is gone.
        """
        with _opened(self.filesystem, self.path) as parquet:
            yield from stream_file(parquet, self.path, batch_rows=batch_rows, row_groups=self.row_groups)


def find_shards(
    source: str | Path, filesystem: Any = None, *, rows_a_shard: int = ROWS_A_SHARD
) -> list[InputShard]:
    """The shards of a Parquet file or folder, files in name order; reads their footers.

    Args:
        source: a path, or a URI such as `s3://bucket/folder`; with `filesystem` a path in it.
        filesystem: a `pyarrow.fs.FileSystem` or an fsspec filesystem.
        rows_a_shard: files of more rows are cut between row groups into shards of at least so many.

    Raises:
        NotFoundError: there is no Parquet file.
        FormatError: a file has no Parquet footer, or lacks a column; the message names it.
    """
    filesystem, path = locate(source, filesystem)
    shards: list[InputShard] = []
    for info in list_files(source, filesystem, path):
        shards += shards_of(filesystem, info, rows_a_shard=rows_a_shard)
    return shards


def locate(source: str | Path, filesystem: Any = None) -> tuple[Any, str]:
    """The filesystem of a source, and its path there.

    Raises:
        NotFoundError: no filesystem of pyarrow's has such a URI.
    """
    if filesystem is not None:
        return _as_arrow(filesystem), str(source)
    if "://" not in str(source):
        return pafs.LocalFileSystem(), str(Path(source).resolve())
    try:
        found: tuple[Any, str] = pafs.FileSystem.from_uri(str(source))
    except (pa.ArrowException, OSError) as error:
        raise NotFoundError(f"{source} cannot be reached: {error}; give a path or URI that can.") from error
    return found


def _as_arrow(filesystem: Any) -> Any:
    if isinstance(filesystem, pafs.FileSystem):
        return filesystem
    return pafs.PyFileSystem(pafs.FSSpecHandler(filesystem))


def list_files(source: str | Path, filesystem: Any, path: str) -> list[Any]:
    """`pyarrow.fs.FileInfo` of the Parquet files at a path, in name order; hidden ones and those below are left out.

    Raises:
        NotFoundError: there is none.
    """
    info = filesystem.get_file_info(path)
    if info.type == pafs.FileType.File:
        return [info]
    infos = []
    if info.type == pafs.FileType.Directory:
        infos = filesystem.get_file_info(pafs.FileSelector(path))
    files = [
        file
        for file in infos
        if file.type == pafs.FileType.File
        and file.base_name.endswith(".parquet")
        and not file.base_name.startswith((".", "_"))
    ]
    if not files:
        raise NotFoundError(
            f"{source} is no Parquet file and holds none; write one with SparseVectors.write_parquet()."
        )
    return sorted(files, key=lambda file: str(file.path))


def shards_of(filesystem: Any, info: Any, *, rows_a_shard: int = ROWS_A_SHARD) -> list[InputShard]:
    """The shards of one file, of which the footer is read; at least one.

    Raises:
        FormatError: it has no footer, or lacks a column; the message names it.
        NotFoundError: the file is gone.
    """
    with _opened(filesystem, info.path) as parquet:
        metadata, schema = parquet.metadata, parquet.schema_arrow
    missing = [name for name in _COLUMNS if name not in schema.names]
    if missing:
        raise FormatError(f"{info.path}: the column {missing[0]!r} is missing; there are {schema.names}.")
    n_cols = (schema.metadata or {}).get(b"gossamer.n_cols")
    shards, first = [], 0
    for groups in _grouped(metadata, rows_a_shard):
        parts = [metadata.row_group(group) for group in groups]
        n_rows = sum(part.num_rows for part in parts)
        shards.append(
            InputShard(
                filesystem=filesystem,
                path=info.path,
                size=info.size,
                mtime_ns=info.mtime_ns,
                row_groups=groups,
                first=first,
                n_rows=n_rows,
                nnz=sum(_column(part, "values").num_values for part in parts),
                n_cols=None if n_cols is None else int(n_cols),
                id_bytes=sum(_column(part, "id").total_uncompressed_size for part in parts)
                if "id" in schema.names
                else 0,
                longest=max(
                    (_column(part, "values").num_values / max(part.num_rows, 1) for part in parts),
                    default=0.0,
                ),
            )
        )
        first += n_rows
    return shards


def _grouped(metadata: Any, rows_a_shard: int) -> list[tuple[int, ...]]:
    """Runs of row groups of about as many rows."""
    runs: list[list[int]] = [[]]
    n_rows = 0
    for group in range(metadata.num_row_groups):
        if n_rows >= rows_a_shard:
            runs.append([])
            n_rows = 0
        runs[-1].append(group)
        n_rows += metadata.row_group(group).num_rows
    return [tuple(run) for run in runs]


def _column(part: Any, name: str) -> Any:
    return next(
        column
        for column in map(part.column, range(part.num_columns))
        if column.path_in_schema.split(".")[0] == name
    )


@contextmanager
def _opened(filesystem: Any, path: str) -> Iterator[pq.ParquetFile]:
    try:
        with (
            filesystem.open_input_file(path) as file,
            pq.ParquetFile(file, buffer_size=READ_BYTES, pre_buffer=False) as parquet,
        ):
            yield parquet
    except FileNotFoundError as error:
        raise NotFoundError(
            f"{path} is not there any more; begin again when its folder is complete."
        ) from error
    except (pa.ArrowException, OSError) as error:
        raise unreadable(path, error) from error
