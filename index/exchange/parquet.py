"""Parquet files, written part by part; `gossamer.index.columns` reads them, and says what they hold."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

import pyarrow.parquet as pq

from gossamer.index.columns import to_arrow, vectors_schema
from gossamer.index.exchange.drafts import draft_file
from gossamer.index.vectors import SparseVectors
from gossamer.kernels.errors import VectorError


def write_parquet(parts: Iterable[SparseVectors], path: Path, *, replace: bool = False) -> None:
    """Write one Parquet file; the first part says whether weights are signed.

    Raises:
        ExistsError: there is a file, and it may not be replaced.
        VectorError: a later part is signed, and the first is not.
    """
    with draft_file(path, replace=replace) as draft, ExitStack() as stack:
        writer, signed = None, False
        for part in parts:
            if writer is None:
                signed = part.signed
                schema = vectors_schema(part.n_cols, signed=signed)
                writer = stack.enter_context(pq.ParquetWriter(draft, schema, compression="zstd"))
            if part.signed and not signed:
                raise VectorError(
                    "the first part is not signed, and a later one is; make all of them signed."
                )
            table = to_arrow(part).replace_schema_metadata(writer.schema.metadata)
            writer.write_table(table, row_group_size=65_536)
