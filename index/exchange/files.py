"""Read and write vectors by a file's suffix: `.parquet`, `.csr`, `.npz`, `.jsonl`, `.jsonl.gz`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

from gossamer.index.columns import stream_parquet
from gossamer.index.document_files import Source
from gossamer.index.exchange import anserini, bigann, npz, parquet
from gossamer.index.exchange.ids import ids_beside, unique
from gossamer.index.exchange.vocabulary import Vocabulary, read_vocabulary
from gossamer.index.vectors import SparseVectors
from gossamer.kernels.errors import ConfigError, NotFoundError, VectorError

Format: TypeAlias = Literal["parquet", "csr", "npz", "jsonl"]

_SUFFIXES: dict[str, Format] = {
    ".parquet": "parquet",
    ".csr": "csr",
    ".npz": "npz",
    ".jsonl": "jsonl",
    ".jsonl.gz": "jsonl",
}
_READS = {
    "parquet": {"n_cols"},
    "csr": {"ids", "signed"},
    "npz": {"ids", "signed"},
    "jsonl": {"vocabulary", "n_cols", "scale", "signed"},
}
_WRITES = {
    "parquet": set[str](),
    "csr": set[str](),
    "npz": set[str](),
    "jsonl": {"vocabulary", "scale", "documents"},
}


@dataclass(frozen=True)
class VectorFile:
    """Vectors of a file or folder, in parts, from the start as often as asked. Make one with `read_vectors`.

    Attributes:
        path: the file or folder.
        format: how it is read.
    """

    path: Path
    format: Format
    _stream: Callable[..., Iterator[SparseVectors]]

    def __iter__(self) -> Iterator[SparseVectors]:
        """At least one part; raises what `read_vectors` says."""
        return unique(self._stream(), self.path)

    def in_parts(self, batch_rows: int) -> Iterator[SparseVectors]:
        """At least one part, of at most so many rows; ids that repeat are for the caller to find."""
        return self._stream(batch_rows=batch_rows)

    def read(self) -> SparseVectors:
        """All rows, in memory."""
        return SparseVectors.concat(list(self))


def read_vectors(
    path: str | Path,
    *,
    vocabulary: Vocabulary | str | Path | None = None,
    n_cols: int | None = None,
    ids: str | Path | None = None,
    scale: float | None = None,
    signed: bool = False,
    batch_rows: int = 65_536,
) -> VectorFile:
    """Vectors to be read in parts, of the format that the suffix says.

    Args:
        path: `.parquet`, `.csr` (Big-ANN), `.npz` (scipy, CSR) or `.jsonl[.gz]` (Anserini); or a folder of Parquet or
            of JSONL files.
        vocabulary: JSONL: the number of each term, or where to read it (see `read_vocabulary`).
        n_cols: how many terms there are: JSONL where terms are numbers, Parquet of others that does not say it.
        ids: `.csr` and `.npz`: a file with an id a line; by default `NAME.csr.ids` if it is there, else rows have none.
        scale: JSONL: what weights are divided by, such as 100.
        signed: not Parquet, which says it by itself: whether negative weights are allowed.
        batch_rows: the most rows a part; what memory holds, beside all ids.

    Raises:
        NotFoundError: there is no such file.
        ConfigError: no format is known by the suffix, or it does not take what was given.

    Iterating the answer raises:
        FormatError: the file is damaged, or of another kind.
        RecordError: a line cannot be read, or an id repeats; the message names file and line, or rows.
        VectorError: a row is no valid sparse vector; the message names file and row.
    """
    path = Path(path)
    kind = format_of(path)
    _refuse_others(
        path, _READS[kind], vocabulary=vocabulary, n_cols=n_cols, ids=ids, scale=scale, signed=signed
    )
    if (
        batch_rows < 1
        or (n_cols is not None and n_cols < 1)
        or (scale is not None and not 0 < scale < float("inf"))
    ):
        raise ConfigError(f"batch_rows={batch_rows}, n_cols={n_cols}, scale={scale}: each must be above 0.")
    if kind == "parquet":
        return VectorFile(path, kind, partial(stream_parquet, path, batch_rows=batch_rows, n_cols=n_cols))
    if kind == "jsonl":
        if isinstance(vocabulary, (str, Path)):
            vocabulary = read_vocabulary(vocabulary)
        read = partial(
            anserini.stream_jsonl, vocabulary=vocabulary, n_cols=n_cols, scale=scale, signed=signed
        )
        return VectorFile(path, kind, partial(read, path, batch_rows=batch_rows))
    if ids is None and ids_beside(path).exists():
        ids = ids_beside(path)
    stream = bigann.stream_csr if kind == "csr" else npz.stream_npz
    names = None if ids is None else Path(ids)
    return VectorFile(path, kind, partial(stream, path, ids=names, signed=signed, batch_rows=batch_rows))


def write_vectors(
    vectors: SparseVectors | Iterable[SparseVectors],
    path: str | Path,
    *,
    vocabulary: Vocabulary | str | Path | None = None,
    scale: float | None = None,
    documents: Source | None = None,
    replace: bool = False,
) -> int:
    """Write vectors in the format that the suffix says; the file appears whole or not at all.

    Args:
        vectors: rows, or parts of them such as `read_vectors` gives, over one vocabulary.
        path: `.parquet`, `.csr`, `.npz` or `.jsonl[.gz]`. Ids of `.csr` and `.npz` go to `NAME.csr.ids`.
        vocabulary: JSONL: names of the terms, or where to read them; without one they are called by their numbers.
        scale: JSONL: weights become `rint(weight * scale)`, without those that become 0. Anserini wants whole numbers.
        documents: JSONL: titles and texts, in the order of the rows, for `contents`.
        replace: whether a file that is there may be replaced.

    Returns:
        How many rows were written.

    Raises:
        ExistsError: there is something at `path`, and it may not be replaced.
        ConfigError: no format is known by the suffix, or it does not take what was given.
        VectorError, RecordError, MismatchError: the rows cannot be written so; the message names the row.
    """
    path = Path(path)
    kind = _known(path)
    _refuse_others(path, _WRITES[kind], vocabulary=vocabulary, scale=scale, documents=documents)
    parts = _Alike([vectors] if isinstance(vectors, SparseVectors) else vectors)
    rows = unique(parts, "the vectors")
    if kind == "parquet":
        parquet.write_parquet(rows, path, replace=replace)
    elif kind == "csr":
        bigann.write_csr(rows, path, replace=replace)
    elif kind == "npz":
        npz.write_npz(rows, path, replace=replace)
    else:
        if isinstance(vocabulary, (str, Path)):
            vocabulary = read_vocabulary(vocabulary)
        anserini.write_jsonl(
            rows, path, vocabulary=vocabulary, scale=scale, documents=documents, replace=replace
        )
    return parts.n_rows


def format_of(path: Path) -> Format:
    """The format of a file that is there, or of the files in a folder.

    Raises:
        NotFoundError: there is nothing, or no such file in the folder.
        ConfigError: no format is known by its suffix, or the folder has files of two.
    """
    if not path.exists():
        raise NotFoundError(f"there is no file of vectors at {path}.")
    if not path.is_dir():
        return _known(path)
    kinds = [
        kind
        for kind, suffixes in (("parquet", ".parquet"), ("jsonl", anserini.SUFFIXES))
        if any(file.name.endswith(suffixes) for file in path.iterdir())
    ]
    if len(kinds) > 1:
        raise ConfigError(f"{path} holds Parquet and JSONL files; name a file, or move those of one kind.")
    if not kinds:
        raise NotFoundError(f"{path} holds no Parquet file and no JSONL file, so no vectors.")
    return "jsonl" if kinds[0] == "jsonl" else "parquet"


def _known(path: Path) -> Format:
    for suffix, kind in _SUFFIXES.items():
        if path.name.endswith(suffix):
            return kind
    hint = "; uncompress it (gunzip) first" if path.name.endswith(".csr.gz") else ""
    raise ConfigError(
        f"{path}: no format is known by this suffix{hint}; expected one of {', '.join(_SUFFIXES)}."
    )


def _refuse_others(path: Path, allowed: set[str], **given: Any) -> None:
    odd = [
        name
        for name, value in given.items()
        if value is not None and value is not False and name not in allowed
    ]
    if odd:
        takes = f"it takes {', '.join(sorted(allowed))}" if allowed else "it takes none such"
        raise ConfigError(f"{path}: {odd[0]} has no meaning for this format; {takes}.")


class _Alike:
    """The same parts, checked to be alike; counts their rows."""

    def __init__(self, parts: Iterable[SparseVectors]) -> None:
        self._parts, self.n_rows = parts, 0

    def __iter__(self) -> Iterator[SparseVectors]:
        n_cols, named = None, None
        for part in self._parts:
            if n_cols not in (None, part.n_cols):
                raise VectorError(
                    f"from row {self.n_rows} on there are {part.n_cols:,} terms, before {n_cols:,}."
                )
            if part.n_rows and named not in (None, part.ids is not None):
                raise VectorError(
                    f"some rows before and after row {self.n_rows} have ids and some have none."
                )
            n_cols, named = part.n_cols, part.ids is not None if part.n_rows else named
            self.n_rows += part.n_rows
            yield part
        if n_cols is None:
            raise VectorError("there are no parts to write; give at least one, which may have no rows.")
