"""Impact vectors as JSON lines, the input of Anserini's `JsonVectorCollection`: `{"id", "contents", "vector"}`.

`vector` is an object `{term: weight}`. Anserini cuts weights to whole numbers, so write it scaled ones (`scale=100` is
usual). A term is a word of a vocabulary, or without one its number. Files end in `.jsonl` or `.jsonl.gz`; a folder is
read in name order.
"""

from __future__ import annotations

import gzip
import json
import math
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from gossamer.index.document_files import Source, batches_of
from gossamer.index.exchange.drafts import draft_file
from gossamer.index.exchange.vocabulary import Vocabulary, size_of, without_repeats
from gossamer.index.vectors import MAX_COLUMNS, SparseVectors
from gossamer.kernels.errors import (
    ConfigError,
    FormatError,
    MismatchError,
    NotFoundError,
    RecordError,
    VectorError,
)

SUFFIXES = (".jsonl", ".jsonl.gz")
_LONGEST_LINE = 1 << 26
_LARGEST_WEIGHT = float(np.finfo(np.float32).max)
_LARGEST_IMPACT = 2**31 - 1


def stream_jsonl(
    path: Path,
    *,
    vocabulary: Vocabulary | None = None,
    n_cols: int | None = None,
    scale: float | None = None,
    signed: bool = False,
    batch_rows: int = 65_536,
) -> Iterator[SparseVectors]:
    """Yield the rows of a file or folder in parts of at most `batch_rows`, at least one part; zeros are dropped.

    Args:
        path: `.jsonl` or `.jsonl.gz`, or a folder of these.
        vocabulary: the number of each term; None where terms are numbers already, `"0"`, `"1"`, …
        n_cols: size of the vocabulary; needed without one, else its own.
        scale: what weights are divided by.
        signed: whether negative weights are allowed.
        batch_rows: rows a part.

    Raises:
        ConfigError: the vocabulary is not one to one, or its size is not known.
        RecordError: a line is no impact vector, or has an unknown term; the message names file and line.
        FormatError: a compressed file is damaged.
    """
    if vocabulary is None and n_cols is None:
        raise ConfigError(
            f"{path} has terms, but nothing says their numbers: give a vocabulary (tokenizer.json, vocab.txt, an "
            "encoder's folder, or one that `gossamer vectors vocabulary` collects), or where terms are numbers how "
            "many there are (n_cols, --n-terms)."
        )
    width = n_cols if vocabulary is None else size_of(vocabulary, n_cols)
    assert width is not None
    largest = min(_LARGEST_WEIGHT * (1 if scale is None else scale), sys.float_info.max)
    rows: list[dict[int, float]] = []
    ids: list[str] = []
    is_empty = True
    for place, record in _records(path):
        vector = _vector(record, place, largest, signed=signed)
        numbers = _numbers(vector, place, vocabulary, width)
        weights: Iterable[float] = vector.values()
        if scale is not None:
            weights = (weight / scale for weight in weights)
        rows.append(dict(zip(numbers, weights, strict=True)))
        ids.append(_id(record, place))
        if len(rows) == batch_rows:
            yield SparseVectors.from_dicts(rows, width, ids=ids, signed=signed)
            rows, ids, is_empty = [], [], False
    if rows or is_empty:
        yield SparseVectors.from_dicts(rows, width, ids=ids, signed=signed)


def collect_vocabulary(path: str | Path) -> dict[str, int]:
    """Read all terms, and number them in the order of their code points.

    Raises:
        NotFoundError, RecordError, FormatError: as `stream_jsonl`.
    """
    terms: set[str] = set()
    for place, record in _records(Path(path)):
        terms.update(_vector(record, place, sys.float_info.max, signed=True))
    if not terms:
        raise RecordError(f"{path} has no terms, so there is no vocabulary to collect.")
    return {term: number for number, term in enumerate(sorted(terms))}


def files_of(path: Path) -> list[Path]:
    """A file, or those of a folder in name order.

    Raises:
        NotFoundError: there are none.
    """
    found = (
        sorted(file for file in path.iterdir() if file.name.endswith(SUFFIXES)) if path.is_dir() else [path]
    )
    if not found or not found[0].exists():
        raise NotFoundError(f"there is no file that ends in {' or '.join(SUFFIXES)} at {path}.")
    return found


# -- reading -----------------------------------------------------------------------------------------------


def _records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each object, with the file and line where it stands; empty lines are skipped."""
    for file in files_of(path):
        for number, line in enumerate(_lines(file), 1):
            place = f"{file}, line {number}"
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                if not text.strip():
                    continue
                record = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=without_repeats)
            except (ValueError, RecursionError) as error:
                raise RecordError(
                    f"{place}: this is no JSON object ({error}); correct or drop the line."
                ) from error
            if not isinstance(record, dict):
                raise RecordError(f'{place}: expected an object {{"id", "vector"}}, not {text[:40]!r}.')
            yield place, record


def _lines(path: Path) -> Iterator[bytes]:
    open_ = gzip.open if path.suffix == ".gz" else open
    if path.suffix == ".gz" and not path.stat().st_size:  # gzip would take that for no lines
        raise FormatError(f"{path} is empty, which no compressed file is. Fetch or write it again.")
    with open_(path, "rb") as file:
        number = 0
        try:
            while line := file.readline(_LONGEST_LINE + 1):
                number += 1
                if len(line) > _LONGEST_LINE:
                    raise RecordError(
                        f"{path}, line {number}: longer than {_LONGEST_LINE >> 20} MiB; split it."
                    )
                yield line
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise FormatError(
                f"{path} cannot be uncompressed after line {number}: {error}. Fetch or write it again."
            ) from error


def _vector(record: dict[str, Any], place: str, largest: float, *, signed: bool) -> dict[str, float]:
    vector = record.get("vector")
    if not isinstance(vector, dict):
        raise RecordError(f'{place}: "vector" is {_shown(vector)}; expected an object {{term: weight}}.')
    weights = vector.values()
    if not set(map(type, weights)) <= {int, float} or (
        vector and not (-largest if signed else 0) <= min(weights) <= max(weights) <= largest
    ):
        raise _odd_weight(vector, place, largest, signed=signed)
    return vector


def _odd_weight(vector: dict[str, Any], place: str, largest: float, *, signed: bool) -> RecordError:
    for term, weight in vector.items():
        if type(weight) not in (int, float) or not abs(weight) <= largest:
            return RecordError(
                f"{place}: the weight of {term!r} is {_shown(weight)}; expected a number of 32 bits."
            )
        if weight < 0 and not signed:
            break
    return RecordError(
        f"{place}: the weight of {term!r} is negative; allow it (signed=True, or --signed) if that is meant."
    )


def _numbers(vector: dict[str, float], place: str, vocabulary: Vocabulary | None, n_cols: int) -> list[int]:
    if vocabulary is None:
        return [_number(term, place, n_cols) for term in vector]
    try:
        return [vocabulary[term] for term in vector]
    except KeyError as error:
        raise RecordError(
            f"{place}: the term {error.args[0]!r} is not in the vocabulary of {len(vocabulary):,}; give the one of "
            "the encoder that made the vectors."
        ) from None


def _number(term: str, place: str, n_cols: int) -> int:
    number = int(term) if term.isascii() and term.isdigit() and len(term) <= len(str(MAX_COLUMNS)) else -1
    if not 0 <= number < n_cols or str(number) != term:
        raise RecordError(
            f"{place}: the term {term!r} is no number in 0..{n_cols - 1}; give a vocabulary if terms are words."
        )
    return number


def _id(record: dict[str, Any], place: str) -> str:
    id_ = record.get("id")
    if type(id_) not in (str, int):
        raise RecordError(f'{place}: "id" is {_shown(id_)}; expected a string.')
    try:
        str(id_).encode()
    except UnicodeEncodeError:
        raise RecordError(f'{place}: "id" is {_shown(id_)}, which is no valid Unicode; rename it.') from None
    return str(id_)


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _shown(value: Any) -> str:
    return "missing" if value is None else repr(value)[:40]


# -- writing -----------------------------------------------------------------------------------------------


def write_jsonl(
    parts: Iterable[SparseVectors],
    path: Path,
    *,
    vocabulary: Vocabulary | None = None,
    scale: float | None = None,
    documents: Source | None = None,
    replace: bool = False,
) -> None:
    """Write one line a row.

    Args:
        parts: the rows; those without ids are called by their number.
        path: `.jsonl`, or `.jsonl.gz` to compress.
        vocabulary: the names of terms; None writes their numbers.
        scale: weights become whole numbers, `rint(weight * scale)`, and those that become 0 are left out; None writes
            them as they are, which Anserini would cut.
        documents: titles and texts in the order of the rows, written as `contents`.
        replace: whether a file that is there may be replaced.

    Raises:
        ExistsError: there is a file, and it may not be replaced.
        MismatchError: the vocabulary is of another size than the vectors'.
        ConfigError: the scale is not above 0.
        VectorError: a term has no name, or a weight no impact; the message names the row.
        RecordError: the documents are not those of the rows, in their order.
    """
    if scale is not None and not 0 < scale < math.inf:
        raise ConfigError(f"scale is {scale}; it is what weights are multiplied by, above 0.")
    names = None if vocabulary is None else {number: term for term, number in vocabulary.items()}
    texts = None if documents is None else _texts(documents)
    with draft_file(path, replace=replace) as draft, ExitStack() as stack:
        file: IO[bytes] = stack.enter_context(draft.open("wb"))
        if path.suffix == ".gz":  # no name and time inside, so that the same rows are the same bytes
            file = stack.enter_context(cast("IO[bytes]", gzip.GzipFile("", "wb", 6, file, 0)))
        n_rows = 0
        for part in parts:
            if vocabulary is not None and size_of(vocabulary, None) > part.n_cols:
                raise MismatchError(
                    f"the vocabulary has {size_of(vocabulary, None):,} terms, and the vectors {part.n_cols:,}; give "
                    "the vocabulary of the encoder that made them."
                )
            file.writelines(_line(*row, texts) for row in _named_rows(part, n_rows, names, scale))
            n_rows += part.n_rows
        if texts is not None and next(texts, None) is not None:
            raise RecordError(f"row {n_rows} is a document without a vector: there are {n_rows:,} vectors.")


def _named_rows(
    part: SparseVectors, first: int, names: Mapping[int, str] | None, scale: float | None
) -> Iterator[tuple[int, str, dict[str, float]]]:
    """Number, id and vector of each row."""
    weights = part.values if scale is None else _impacts(part, first, scale)
    ids = None if part.ids is None else part.ids.to_pylist()
    bounds, terms, values = part.indptr.tolist(), part.indices.tolist(), weights.tolist()
    for row in range(part.n_rows):
        here = slice(bounds[row], bounds[row + 1])
        id_ = str(first + row) if ids is None else ids[row]
        try:
            words = map(str, terms[here]) if names is None else [names[term] for term in terms[here]]
        except KeyError as error:
            raise VectorError(
                f"row {first + row} (id {id_!r}): term {error.args[0]} has no name; give the vocabulary of the encoder "
                "that made the vectors."
            ) from None
        yield (
            first + row,
            id_,
            {word: weight for word, weight in zip(words, values[here], strict=True) if weight},
        )


def _impacts(part: SparseVectors, first: int, scale: float) -> Any:
    impacts = np.rint(part.values.astype(np.float64) * scale)
    wrong = (impacts < 0) | (impacts > _LARGEST_IMPACT)
    if wrong.any():
        at = int(np.argmax(wrong))
        row = int(np.searchsorted(part.indptr, at, side="right")) - 1
        raise VectorError(
            f"row {first + row}: the weight {part.values[at]} is no impact at a scale of {scale:g}; expected between "
            f"0 and {_LARGEST_IMPACT:,} after it. Choose another scale, or none."
        )
    return impacts.astype(np.int64)


def _line(row: int, id_: str, vector: dict[str, float], texts: Iterator[tuple[str, str]] | None) -> bytes:
    contents = ""
    if texts is not None:
        named, contents = next(texts, (None, ""))
        if named is None:
            raise RecordError(f"row {row} (id {id_!r}) has no document; give as many documents as vectors.")
        if named != id_:
            raise RecordError(
                f"row {row} is {named!r} among the documents, but {id_!r} among the vectors; both must come in the "
                "same order."
            )
    record = {"id": id_, "contents": contents, "vector": vector}
    return json.dumps(record, separators=(",", ":")).encode() + b"\n"


def _texts(documents: Source) -> Iterator[tuple[str, str]]:
    """Id, and title and text, of each document."""
    for batch in batches_of(documents):
        if "id" not in batch.schema.names:
            raise RecordError(f"the documents have no column 'id'; there are {batch.schema.names}.")
        columns = [batch.column(name).to_pylist() for name in ("title", "text") if name in batch.schema.names]
        blank = [""] * batch.num_rows
        for id_, *texts in zip(batch.column("id").to_pylist(), blank, *columns, strict=True):
            yield id_, " ".join(text for text in texts if text)
