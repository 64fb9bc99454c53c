"""A segment of an inverted index on the disk: written from rows that are streamed twice, and mapped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from gossamer.index.budget import ROWS_AT_ONCE, Budget, return_unused
from gossamer.index.columns import to_arrow, vectors_schema
from gossamer.index.disk import disk
from gossamer.index.document_set import Part
from gossamer.index.exchange.files import VectorFile, read_vectors
from gossamer.index.format import ForwardRecord, InvertedRecord, PostingsRecord
from gossamer.index.forward import Spooled, map_forward, write_forward
from gossamer.index.impacts import ImpactScale, Kind
from gossamer.index.postings import Survey, map_postings, window_for, write_postings
from gossamer.index.segment import Segment
from gossamer.index.vectors import SparseVectors
from gossamer.kernels.clustering import alike_order
from gossamer.kernels.errors import InputError, MismatchError
from gossamer.kernels.inversion import rows_of

FORWARD, SPOOL = "forward", "spool.npy"
Parts = Callable[[], Iterable[SparseVectors]]


def parts_of(
    vectors: SparseVectors | VectorFile | str | Path, budget: Budget | None = None
) -> Iterable[SparseVectors]:
    """Vectors in memory, or of a file or folder that `read_vectors` reads, in parts; as often as asked."""
    budget = budget or Budget()
    at_once = budget.rows_at_once
    if not isinstance(vectors, SparseVectors):
        file = vectors if isinstance(vectors, VectorFile) else read_vectors(vectors)
        return budget.passing(file.in_parts(at_once))
    if vectors.n_rows <= at_once:
        return [vectors]
    return (vectors[at : at + at_once] for at in range(0, vectors.n_rows, at_once))


class Rows(NamedTuple):
    """Documents' vectors, as often as they are asked for, and what a first look at them has found."""

    parts: Parts
    survey: Survey
    source: object
    """What a message calls them."""
    steps: tuple[float, ...] = ()
    """Of the segments that they come from: what a level stands for."""
    error: float = 0.0
    """The largest difference between these weights and those that were given once."""
    scale: ImpactScale | None = None
    """What they are stored by, if that was decided for more than these."""

    @property
    def n_rows(self) -> int:
        """Number of documents."""
        return self.survey.n_rows

    @property
    def ids(self) -> pa.StringArray | None:
        """Their ids, if they have any."""
        return self.survey.ids

    @classmethod
    def of(cls, vectors: SparseVectors | VectorFile | str | Path, budget: Budget | None = None) -> Rows:
        """Of vectors in memory, or of a file or folder that `read_vectors` reads.

        Args:
            vectors: the documents.
            budget: what is done at once.

        Raises:
            VectorError, FormatError, NotFoundError: they cannot be read; the message names the row.
        """
        budget = budget or Budget()

        def parts() -> Iterable[SparseVectors]:
            return parts_of(vectors, budget)

        source = "the vectors" if isinstance(vectors, SparseVectors) else vectors
        return cls(parts, Survey.of(parts()), source)


def split_rows(
    rows: Rows, shard_of_row: NDArray[np.integer[Any]], n_shards: int, scale: ImpactScale, spool: Path
) -> list[Rows]:
    """The rows of each shard, in their order, to be stored by one scale.

    More than are held at once are put into a file for each shard, so that they are read once more, and not once more
    for every shard.

    Args:
        rows: of all shards.
        shard_of_row: integers `[n_rows]`, the shard of each.
        n_shards: how many there are.
        scale: of all.
        spool: where files may be put.

    Raises:
        InputError: the rows are not the same when they are read again.
    """
    whole = rows.survey
    if rows.n_rows <= ROWS_AT_ONCE:
        vectors = SparseVectors.concat(list(rows.parts()))
        if vectors.n_rows != rows.n_rows:
            raise _changed(rows)
        some = [vectors[shard_of_row == shard] for shard in range(n_shards)]
        return [
            rows._replace(
                parts=partial(_only, part),
                survey=replace(whole, n_rows=part.n_rows, nnz=part.nnz, ids=part.ids),
                scale=scale,
            )
            for part in some
        ]
    counts = np.zeros((n_shards, 2), np.int64)
    schema = vectors_schema(whole.n_cols, signed=whole.negative)
    files = [spool / f"{shard:03d}.parquet" for shard in range(n_shards)]
    with ExitStack() as stack:
        handles = [stack.enter_context(disk().create(file)) for file in files]
        writers = [
            stack.enter_context(pq.ParquetWriter(handle, schema, compression="none")) for handle in handles
        ]
        first = 0
        for part in rows.parts():
            shards = shard_of_row[first : first + part.n_rows]
            for shard, writer in enumerate(writers):
                mine = part[np.flatnonzero(shards == shard)]
                writer.write_table(to_arrow(mine).replace_schema_metadata(schema.metadata))
                counts[shard] += mine.shape[0], mine.nnz
            first += part.n_rows
    if first != rows.n_rows:
        raise _changed(rows)
    ids = [
        None if rows.ids is None else rows.ids.filter(pa.array(shard_of_row == shard))
        for shard in range(n_shards)
    ]
    return [
        rows._replace(
            parts=partial(_stream, file),
            survey=replace(whole, n_rows=int(n_rows), nnz=int(nnz), ids=names),
            scale=scale,
        )
        for file, (n_rows, nnz), names in zip(files, counts, ids, strict=True)
    ]


def _only(vectors: SparseVectors) -> list[SparseVectors]:
    return [vectors]


def _stream(path: Path) -> Iterator[SparseVectors]:
    return SparseVectors.stream_parquet(path, batch_rows=ROWS_AT_ONCE)


def _changed(rows: Rows) -> InputError:
    return InputError(f"{rows.source} changed while it was read; begin again when it is complete.")


def write_segment(
    folder: Path,
    rows: Rows,
    scale: ImpactScale,
    settings: InvertedRecord,
    *,
    on_rows: Callable[[int, int], None] | None = None,
    budget: Budget | None = None,
) -> PostingsRecord:
    """Write postings, and the rows as given where these are kept.

    Args:
        folder: of the segment; made if it is not there.
        rows: the documents.
        scale: how their weights are stored.
        settings: of the index.
        on_rows: called now and then with the rows done and the rows in all.
        budget: what is done at once.

    Raises:
        InputError: the rows are not the same when they are read again.
    """
    on_rows = on_rows or _tell_nobody
    survey = rows.survey
    if survey.n_cols != settings.n_terms:  # the kernels trust that terms are inside
        raise MismatchError(f"{rows.source} has {survey.n_cols:,} terms, and the index {settings.n_terms:,}.")
    spooled = write_forward(
        folder / FORWARD,
        folder / SPOOL,
        rows.parts(),
        scale,
        n_terms=settings.n_terms,
        halves=survey.halves if keeps_forward(scale.kind, settings) else None,
        on_rows=lambda done: on_rows(done // 2, survey.n_rows),
    )
    if spooled.n_rows != survey.n_rows:
        raise _changed(rows)
    spooled = spooled._replace(largest_error=spooled.largest_error + rows.error)
    return_unused()
    order = None
    if orders(scale.kind, settings):
        max_centres = (budget or Budget()).max_centres
        order = alike_order(spooled.rows, settings.n_terms, max_centres=max_centres)
    return finish_segment(folder, spooled, survey, scale, settings, order=order, on_rows=on_rows)


def orders(kind: Kind, settings: InvertedRecord) -> bool:
    """Whether alike rows are put beside each other: it serves the bounds, which only uint8 impacts have."""
    return settings.reorder and kind == "uint8"


def keeps_forward(kind: Kind, settings: InvertedRecord) -> bool:
    """Whether a segment has a forward index; float32 postings are the weights as given."""
    return settings.forward and kind != "float32"


def finish_segment(
    folder: Path,
    spooled: Spooled,
    survey: Survey,
    scale: ImpactScale,
    settings: InvertedRecord,
    *,
    order: NDArray[np.int64] | None,
    on_rows: Callable[[int, int], None] | None = None,
    n_threads: int = 1,
) -> PostingsRecord:
    """Write the postings of rows that are on the disk, in an order; the rest of `write_segment`."""
    on_rows = on_rows or _tell_nobody
    window = settings.window or window_for(settings.n_terms, survey.n_rows, survey.nnz)
    written = write_postings(
        folder,
        spooled.rows,
        scale.kind,
        n_terms=settings.n_terms,
        window=window,
        order=order,
        n_threads=n_threads,
        on_rows=lambda done: on_rows((survey.n_rows + done) // 2, survey.n_rows),
    )
    for unneeded in spooled.unneeded:
        disk().remove(unneeded)
    weights: Literal["float16", "float32"] = "float16" if survey.halves else "float32"
    keeps = keeps_forward(scale.kind, settings)
    return PostingsRecord(
        nnz=written.nnz,
        window=window,
        n_dense=written.n_dense,
        step=scale.step,
        largest_error=spooled.largest_error,
        forward=ForwardRecord(nnz=survey.nnz, weights=weights) if keeps else None,
    )


def _tell_nobody(_done: int, _whole: int) -> None:
    pass


def map_segment(
    folder: Path,
    record: PostingsRecord,
    n_rows: int,
    settings: InvertedRecord,
    live: NDArray[np.bool_] | None,
) -> Segment:
    """Map what `write_segment` wrote.

    Raises:
        FormatError: an array is not what the manifest says.
    """
    forward = None
    if record.forward is not None:
        halves = record.forward.weights == "float16"
        forward = map_forward(folder / FORWARD, n_rows, settings.n_terms, record.forward.nnz, halves=halves)
    postings = map_postings(folder, record, n_rows, settings.n_terms, settings.impacts)
    return Segment(postings, forward, ImpactScale(settings.impacts, record.step), record.largest_error, live)


def live_rows(segments: Sequence[tuple[Segment, Part]]) -> Rows:
    """The rows of `live_parts`, as often as asked."""
    weights = [_weights(segment) for segment, _ in segments]  # unpacked once, where only postings are kept

    def parts() -> Iterator[SparseVectors]:
        for rows, (segment, part) in zip(weights, segments, strict=True):
            yield from _live_parts(rows, segment, part)

    steps = tuple(segment.scale.step for segment, _ in segments if len(segment.postings.local))
    error = max((segment.largest_error for segment, _ in segments if segment.forward is None), default=0.0)
    return Rows(parts, Survey.of(parts()), "the index", steps, error)


def live_parts(segments: Sequence[tuple[Segment, Part]]) -> Iterator[SparseVectors]:
    """The rows of some segments, without deleted ones: as given where that is kept, else as they are stored."""
    for segment, part in segments:
        yield from _live_parts(_weights(segment), segment, part)


def _live_parts(rows: _Weights, segment: Segment, part: Part) -> Iterator[SparseVectors]:
    for first in range(0, segment.postings.n_documents, ROWS_AT_ONCE):
        span = slice(first, first + ROWS_AT_ONCE)
        some = rows.part(span.start, span.stop).with_ids(part.documents.ids[span])
        yield some if part.live is None else some[np.flatnonzero(part.live[span])]


class _Weights(NamedTuple):
    """Rows of weights, which may be mapped."""

    indptr: NDArray[np.int64]
    terms: NDArray[Any]
    values: NDArray[Any]
    restore: Callable[[NDArray[Any]], NDArray[np.float32]]
    n_terms: int

    def part(self, first: int, last: int) -> SparseVectors:
        indptr = self.indptr[first : last + 1]
        entries = slice(int(indptr[0]), int(indptr[-1]))
        values = self.restore(self.values[entries])
        return SparseVectors(indptr - indptr[0], self.terms[entries], values, self.n_terms, signed=True)


def _weights(segment: Segment) -> _Weights:
    n_terms, forward = segment.postings.n_terms, segment.forward
    if forward is None:
        rows = rows_of(segment.postings)
        return _Weights(rows.indptr, rows.terms, rows.impacts, segment.scale.restore, n_terms)
    return _Weights(*forward, _as_floats, n_terms)


def _as_floats(values: NDArray[Any]) -> NDArray[np.float32]:
    return (values.view(np.float16) if values.dtype == np.uint16 else values).astype(np.float32)
