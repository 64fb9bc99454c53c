"""What a build keeps of each input shard until it has succeeded: its rows as plain arrays, its survey, and its impacts.

    KEY/                 of the shard; see `InputShard.key`
        indptr.npy       int64   [rows + 1]
        terms.npy        uint16 | int32 [nnz]
        values.npy       float32 [nnz]
        ids.arrow        absent if rows have no ids
        survey.json
        ROUNDING/        of a scale
            impacts.npy  absent where they are the values
            halves.npy   float16 bits; absent where float16 does not hold them, or no one wants them
            error.json   the largest rounding error

A folder appears when it is complete, so one that is there is used again.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from gossamer.index.arrays import ArrayWriter, map_array
from gossamer.index.budget import Budget
from gossamer.index.disk import disk, sync_tree
from gossamer.index.format import InvertedRecord
from gossamer.index.forward import INDPTR, TERMS, VALUES, Spooled, map_impacts, wide_for
from gossamer.index.impacts import ImpactScale
from gossamer.index.input_shards import InputShard
from gossamer.index.inverted_files import FORWARD, SPOOL, keeps_forward
from gossamer.index.postings import Survey
from gossamer.index.vectors import SparseVectors

_IMPACTS = "impacts.npy"
_SURVEY, _IDS, _ERROR, _HALVES = "survey.json", "ids.arrow", "error.json", "halves.npy"
_AT_ONCE = 1 << 18
_SCHEMA = pa.schema([("id", pa.string())])


@dataclass(frozen=True)
class Rounding:
    """How the weights of a build are stored.

    Attributes:
        scale: of the index.
        halves: whether the weights as given are kept as float16; None if they are not kept.
        n_terms: size of the vocabulary.
    """

    scale: ImpactScale
    halves: bool | None
    n_terms: int

    @classmethod
    def of(cls, scale: ImpactScale, survey: Survey, settings: InvertedRecord) -> Rounding:
        """For all rows of a build."""
        keeps = keeps_forward(scale.kind, settings)
        return cls(scale, survey.halves if keeps else None, settings.n_terms)

    @property
    def name(self) -> str:
        """The folder of what was rounded so."""
        return f"{self.scale.kind}-{self.scale.step.hex()}-{self.halves}"


def read_shard(work: Path, budget: Budget, shard: InputShard) -> None:
    """Read a shard and keep its rows, unless they are there.

    Args:
        work: the folder of a build.
        budget: what is done at once.
        shard: the shard.

    Raises:
        VectorError, FormatError, NotFoundError: it cannot be read; the message names file and row.
    """
    with _once(work / shard.key) as folder:
        if folder is None:
            return
        survey = Survey.of(_kept(budget.passing(shard.stream(budget.rows_at_once)), folder))
        if survey.ids is not None:
            with disk().create(folder / _IDS) as file, pa.ipc.new_file(file, _SCHEMA) as writer:
                writer.write_batch(pa.record_batch([survey.ids], schema=_SCHEMA))
        said = asdict(replace(survey, ids=None))
        with disk().create(folder / _SURVEY) as file:
            file.write(json.dumps(said).encode())


def _kept(parts: Iterable[SparseVectors], folder: Path) -> Iterator[SparseVectors]:
    """Write parts while they pass."""
    nnz = 0
    with ExitStack() as stack:
        indptr = stack.enter_context(ArrayWriter(folder / INDPTR, np.int64))
        values = stack.enter_context(ArrayWriter(folder / VALUES, np.float32))
        terms = None
        indptr.append(np.zeros(1, np.int64))
        for part in parts:
            if terms is None:
                terms = stack.enter_context(ArrayWriter(folder / TERMS, wide_for(part.n_cols)))
            indptr.append(part.indptr[1:] + nnz)
            values.append(part.values)
            yield part  # before its terms: those of another vocabulary are refused
            terms.append(part.indices)
            nnz += part.nnz


def read_survey(work: Path, shard: InputShard) -> Survey:
    """The survey of a shard that was read; its ids are mapped."""
    folder = work / shard.key
    said = json.loads((folder / _SURVEY).read_bytes())
    if not (folder / _IDS).exists():
        return Survey(**said)
    with pa.memory_map(str(folder / _IDS)) as source:
        ids = pa.ipc.open_file(source).get_batch(0).column("id")
    return Survey(**{**said, "ids": ids})


def round_shard(work: Path, rounding: Rounding, shard: InputShard) -> None:
    """Write the impacts of a shard that was read, unless they are there."""
    survey, scale = read_survey(work, shard), rounding.scale
    values = map_array(work / shard.key / VALUES, np.float32, (survey.nnz,))
    with _once(work / shard.key / rounding.name) as folder:
        if folder is None:
            return
        error = 0.0
        with ExitStack() as stack:
            impacts = halves = None
            if scale.kind != "float32":
                impacts = stack.enter_context(ArrayWriter(folder / _IMPACTS, scale.kind))
            if rounding.halves:
                halves = stack.enter_context(ArrayWriter(folder / _HALVES, np.uint16))
            for first in range(0, survey.nnz, _AT_ONCE):
                some = values[first : first + _AT_ONCE]
                if impacts is not None:
                    rounded, of_some = scale.quantise(some)
                    impacts.append(rounded)
                    error = max(error, of_some)
                if halves is not None:
                    halves.append(some.astype(np.float16).view(np.uint16))
        with disk().create(folder / _ERROR) as file:
            file.write(json.dumps(error).encode())


def join_rows(folder: Path, work: Path, shards: Sequence[InputShard], rounding: Rounding) -> Spooled:
    """Put rounded shards behind each other, as `write_forward` would have written them as one.

    Args:
        folder: of the segment.
        work: the folder of the build.
        shards: those of the segment.
        rounding: how they were rounded.
    """
    kind, wide = rounding.scale.kind, wide_for(rounding.n_terms)
    disk().mkdir(folder / FORWARD)
    n_rows, nnz, error = 0, 0, 0.0
    with ExitStack() as stack:
        indptr = stack.enter_context(ArrayWriter(folder / FORWARD / INDPTR, np.int64))
        terms = stack.enter_context(ArrayWriter(folder / FORWARD / TERMS, wide))
        impacts = stack.enter_context(ArrayWriter(folder / SPOOL, kind))
        values = None
        if rounding.halves is not None:
            of = np.uint16 if rounding.halves else np.float32
            values = stack.enter_context(ArrayWriter(folder / FORWARD / VALUES, of))
        indptr.append(np.zeros(1, np.int64))
        for shard in shards:
            survey, read = read_survey(work, shard), work / shard.key
            starts = map_array(read / INDPTR, np.int64, (survey.n_rows + 1,))
            for first in range(1, len(starts), _AT_ONCE):
                indptr.append(starts[first : first + _AT_ONCE] + nnz)
            terms.append(map_array(read / TERMS, wide, (survey.nnz,)))
            rounded = read / rounding.name
            given = map_array(read / VALUES, np.float32, (survey.nnz,))
            impacts.append(given if kind == "float32" else map_array(rounded / _IMPACTS, kind, given.shape))
            if values is not None:
                values.append(
                    map_array(rounded / _HALVES, np.uint16, given.shape) if rounding.halves else given
                )
            error = max(error, json.loads((rounded / _ERROR).read_bytes()))
            n_rows, nnz = n_rows + survey.n_rows, nnz + survey.nnz
    shape = {"n_rows": n_rows, "n_terms": rounding.n_terms, "nnz": nnz}
    rows = map_impacts(folder / FORWARD, folder / SPOOL, kind=kind, **shape)
    unneeded = (folder / SPOOL, *(() if rounding.halves is not None else (folder / FORWARD,)))
    return Spooled(rows, n_rows, error, unneeded)


@contextmanager
def _once(target: Path) -> Iterator[Path | None]:
    """A draft that becomes `target` if the block ends well; None where that is there already."""
    if target.exists():
        yield None
        return
    draft = target.with_name(f"{target.name}.{os.getpid()}-{secrets.token_hex(4)}")
    disk().mkdir(draft)
    try:
        yield draft
        sync_tree(draft)
        try:
            disk().rename(draft, target)
        except OSError:
            if not target.exists():  # else a worker that was thought to be lost was faster
                raise
    finally:
        disk().remove(draft)
