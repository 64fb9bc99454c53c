"""A build cut into steps that can be spread: input shards are read and rounded apart, then joined into segments.

First every shard is read and kept as plain arrays, with a survey of it; from all surveys follows the one scale of the
index. Then each shard is rounded by it, and its rows look for their centres; joining puts the shards behind each other
and makes the postings. What is done in each step, and in which order of rows, does not depend on how it was spread: one
merged segment is byte for byte that of `InvertedIndex.build`.

What was read and rounded is kept in a hidden folder beside the target until the build has succeeded, by the identity
of each shard, so a build that was killed goes on, and one of changed files reads those anew.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gossamer.index.budget import Budget, InputSize, return_unused
from gossamer.index.commits import SEGMENTS, segment_name, unchanging
from gossamer.index.creation import is_index, with_segments
from gossamer.index.disk import disk
from gossamer.index.document_files import Source, batches_of, refuse_repeats, write_documents
from gossamer.index.documents import Documents
from gossamer.index.folders import draft_folder, locked
from gossamer.index.format import EncoderInfo, InvertedRecord, PostingsRecord, SegmentRecord
from gossamer.index.forward import map_impacts
from gossamer.index.impacts import ImpactScale
from gossamer.index.input_shard_files import Rounding, join_rows, read_shard, read_survey, round_shard
from gossamer.index.input_shards import InputShard, find_shards
from gossamer.index.inverted import BuildConfig, InvertedIndex, manifest_for, opened
from gossamer.index.inverted_files import FORWARD, SPOOL, finish_segment, orders
from gossamer.index.locks import release
from gossamer.index.manifests import MANIFEST
from gossamer.index.postings import Survey
from gossamer.index.snapshots import DOCUMENTS
from gossamer.kernels.clustering import Centres, centres_of, nearest_of, order_of
from gossamer.kernels.errors import ConfigError, StorageError

T = TypeVar("T")
R = TypeVar("R")
_ROWS_A_TASK = 131_072

OnStep = Callable[[str, int, int], None]


class Spread(Protocol):
    """Does some work for each item, here or elsewhere; results come in the order of the items."""

    def __call__(
        self, work: Callable[[T], R], items: Sequence[T], on_done: Callable[[int], None] | None = None
    ) -> list[R]:
        """Call `work(item)` for every item, and `on_done` with how many are done."""


def in_turn(
    work: Callable[[T], R], items: Sequence[T], on_done: Callable[[int], None] | None = None
) -> list[R]:
    """`Spread` in this process, one after another."""
    results = []
    for item in items:
        results.append(work(item))
        if on_done is not None:
            on_done(len(results))
    return results


@dataclass(frozen=True)
class _Steps:
    """Spreads the work of one step after another, and tells how far each is."""

    spread: Spread
    on_step: OnStep | None

    def __call__(self, name: str, work: Callable[[T], R], items: Sequence[T]) -> list[R]:
        def tell(done: int) -> None:
            if self.on_step is not None:
                self.on_step(name, done, len(items))

        tell(0)
        return self.spread(work, items, tell)


@dataclass(frozen=True)
class _Group:
    """The shards of one segment.

    Attributes:
        folder: of the segment.
        shards: whole ones, in order.
        survey: of their rows.
    """

    folder: Path
    shards: tuple[InputShard, ...]
    survey: Survey


def build_spread(
    path: str | Path,
    source: str | Path,
    *,
    filesystem: Any = None,
    documents: Source | None = None,
    config: BuildConfig | None = None,
    encoder: EncoderInfo | None = None,
    replace: bool = False,
    n_segments: int = 1,
    budget_bytes: int | None = None,
    spread: Spread = in_turn,
    n_threads: int = 1,
    on_step: OnStep | None = None,
) -> InvertedIndex:
    """Write an index of Parquet files, step by step over their shards, and open it.

    Args:
        path: the folder to make. What is kept of a build that did not end is in `.<name>.build` beside it.
        source: a Parquet file or folder: a path, a URI such as `s3://bucket/folder`, or with `filesystem` a path in it.
        filesystem: a `pyarrow.fs.FileSystem` or an fsspec filesystem.
        documents: titles, texts and metadata in the order of the vectors: of files by their names; streamed once.
        config: how to store the weights.
        encoder: what made the vectors.
        replace: whether an index that is there already may be replaced.
        n_segments: segments that are left; more than one are joined at the same time, each of whole shards.
        budget_bytes: memory that each process may use; see `gossamer.index.budget`. None for no limit.
        spread: where the work on shards is done.
        n_threads: threads that join them, where one segment is made.
        on_step: called with the name of a step, and how many of its parts are done, and of how many.

    Raises:
        ExistsError: there is something at `path`, and it may not be replaced.
        StorageError: another build of the same target runs.
        VectorError, FormatError, NotFoundError: a file cannot be indexed; the message names file and row.
        RecordError: an id repeats, or documents do not fit the vectors; the message names the places.
        ConfigError: the budget is too small, or the impacts cannot store these weights.
    """
    if n_segments < 1:
        raise ConfigError(f"n_segments is {n_segments}; give at least 1.")
    config, path = config or BuildConfig(), Path(os.path.realpath(path))
    steps = _Steps(spread, on_step)
    with (
        draft_folder(path, replace=replace, replaceable=is_index, unchanging=unchanging) as draft,
        _kept_beside(path) as work,
    ):
        shards = find_shards(source, filesystem)
        budget = Budget.of(budget_bytes, InputSize.of_shards(shards))
        _forget_others(work, shards)
        steps("reading", partial(read_shard, work, budget), shards)
        return_unused()
        survey = _joined(work, shards)
        manifest = manifest_for(survey, config, encoder)
        settings = manifest.inverted
        scale = ImpactScale.choose(settings.impacts, largest=survey.largest, negative=survey.negative)
        disk().mkdir(draft / SEGMENTS)
        groups = _grouped(work, shards, draft / SEGMENTS, n_segments) if survey.n_rows else []
        _write_documents(draft, groups, documents, _place(work, shards))
        rounding = Rounding.of(scale, survey, settings)
        del survey  # its ids are on the disk now
        steps("rounding", partial(round_shard, work, rounding), shards)
        return_unused()
        join = partial(join_segment, work, rounding, settings, budget)
        if len(groups) != 1:
            data = steps("joining", join, groups)
        else:  # its parts are spread instead
            data = [join(groups[0], steps=steps, n_threads=n_threads)]
        with disk().create(draft / MANIFEST) as file:
            file.write(with_segments(manifest, draft, _records(groups, data)).to_bytes())
    disk().remove(_beside(path))
    return opened(path)


def join_segment(
    work: Path,
    rounding: Rounding,
    settings: InvertedRecord,
    budget: Budget,
    group: _Group,
    *,
    steps: _Steps | None = None,
    n_threads: int = 1,
) -> PostingsRecord:
    """Write a segment of rounded shards.

    Args:
        work: the folder of the build.
        rounding: how they were rounded.
        settings: of the index.
        budget: what is done at once.
        group: the segment.
        steps: what spreads the search for centres; None does it here.
        n_threads: threads for the rest.
    """
    steps = steps or _Steps(in_turn, None)
    spooled = join_rows(group.folder, work, group.shards, rounding)
    order = None
    if orders(rounding.scale.kind, settings):
        centres = centres_of(
            spooled.rows, settings.n_terms, max_centres=budget.max_centres, n_threads=n_threads
        )
        if centres is not None:
            find = partial(_nearest, group.folder, group.survey.n_rows, group.survey.nnz, centres)
            firsts = range(0, spooled.n_rows, _ROWS_A_TASK)
            parts = [(first, min(first + _ROWS_A_TASK, spooled.n_rows)) for first in firsts]
            order = order_of(np.concatenate(steps("grouping", find, parts)), centres)

    def tell(done: int, whole: int) -> None:
        if steps.on_step is not None:
            steps.on_step("joining", done, whole)

    return finish_segment(
        group.folder,
        spooled,
        group.survey,
        rounding.scale,
        settings,
        order=order,
        on_rows=tell,
        n_threads=n_threads,
    )


def _nearest(
    folder: Path, n_rows: int, nnz: int, centres: Centres, part: tuple[int, int]
) -> NDArray[np.int32]:
    shape = {"n_rows": n_rows, "n_terms": len(centres.starts) - 1, "nnz": nnz}
    return nearest_of(map_impacts(folder / FORWARD, folder / SPOOL, kind="uint8", **shape), *part, centres)


def _joined(work: Path, shards: Sequence[InputShard]) -> Survey:
    return Survey.joined([read_survey(work, shard) for shard in shards], [shard.path for shard in shards])


def _grouped(work: Path, shards: Sequence[InputShard], segments: Path, n_segments: int) -> list[_Group]:
    """Neighbouring shards that make a segment, so that segments have about as many rows."""
    rows = np.cumsum([shard.n_rows for shard in shards])
    which = np.minimum((rows - 1) * n_segments // max(int(rows[-1]), 1), n_segments - 1)
    groups: list[_Group] = []
    for number in np.unique(which):
        mine = tuple(shard for shard, of in zip(shards, which, strict=True) if of == number)
        survey = _joined(work, mine)
        if survey.n_rows:
            folder = segments / segment_name(len(groups))
            disk().mkdir(folder)
            groups.append(_Group(folder, mine, survey))
    return groups


def _records(groups: Sequence[_Group], data: Sequence[PostingsRecord]) -> list[SegmentRecord]:
    records, first = [], 0
    for group, record in zip(groups, data, strict=True):
        n_rows = group.survey.n_rows
        records.append(
            SegmentRecord(
                folder=group.folder.name, n_rows=n_rows, first_number=first, gaps=False, data=record
            )
        )
        first += n_rows
    return records


def _write_documents(
    draft: Path, groups: Sequence[_Group], documents: Source | None, place: Callable[[int], str]
) -> None:
    """Write the documents of every segment from one stream, and see that no id repeats.

    Raises:
        RecordError: as `write_documents`.
    """
    if not groups:
        write_documents(draft / "none", documents, None, 0)  # refuses documents without vectors
        disk().remove(draft / "none")
        return
    stream = None if documents is None else _Stream(batches_of(documents))
    first = 0
    for number, group in enumerate(groups):
        n_rows, ids = group.survey.n_rows, group.survey.ids
        if ids is None and stream is None:
            ids = pa.array(np.arange(first, first + n_rows)).cast(pa.string())
        mine = None if stream is None else stream.take(None if number == len(groups) - 1 else n_rows)
        here = partial(_further, place, first)
        write_documents(group.folder / DOCUMENTS, mine, ids, n_rows, place=here)
        first += n_rows
    if len(groups) > 1:
        ids = [Documents(group.folder / DOCUMENTS, group.survey.n_rows).ids for group in groups]
        refuse_repeats(pa.concat_arrays(ids), place=place)


def _further(place: Callable[[int], str], first: int, row: int) -> str:
    return place(first + row)


class _Stream:
    """Record batches that are taken row by row."""

    def __init__(self, batches: Iterator[pa.RecordBatch]) -> None:
        self._batches = batches
        self._rest: pa.RecordBatch | None = None

    def take(self, n_rows: int | None) -> Iterator[pa.RecordBatch]:
        """The next rows, fewer if there are no more; None takes all."""
        while n_rows is None or n_rows > 0:
            batch = next(self._batches, None) if self._rest is None else self._rest
            self._rest = None
            if batch is None:
                return
            if n_rows is not None:
                if batch.num_rows > n_rows:
                    batch, self._rest = batch[:n_rows], batch[n_rows:]
                n_rows -= batch.num_rows
            yield batch


def _place(work: Path, shards: Sequence[InputShard]) -> Callable[[int], str]:
    """What a row of the whole is called: by its file, and its number there."""
    starts = np.cumsum([0, *(read_survey(work, shard).n_rows for shard in shards)]).tolist()

    def place(row: int) -> str:
        number = bisect_right(starts, row) - 1
        return f"row {row - starts[number] + shards[number].first} of {shards[number].path}"

    return place


# -- what is kept of a build that did not end ----------------------------------------------------------------------


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.build")


@contextmanager
def _kept_beside(path: Path) -> Iterator[Path]:
    """The folder of what was done already, for one build at a time."""
    work = _beside(path)
    disk().mkdir(work, parents=True)
    try:
        handle = locked(work, wait=False)
    except BlockingIOError:
        raise StorageError(f"another build of {path} is running; wait for it, or stop it.") from None
    try:
        yield work
    finally:
        release(handle)


def _forget_others(work: Path, shards: Sequence[InputShard]) -> None:
    """Remove what was kept of other shards, and what was not finished."""
    keys = {shard.key for shard in shards}
    for entry in list(work.iterdir()):
        if entry.name not in keys:
            disk().remove(entry)
            continue
        for draft in entry.glob("*.*-*.*-*"):
            disk().remove(draft)
