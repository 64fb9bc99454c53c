"""Readers of corpora, queries, judgements and training pairs: files in, Arrow record batches out, in bounded memory.

Formats, told by the suffix: `.jsonl` (one object a line), `.tsv`, `.parquet`, or a BEIR folder that holds `corpus.*`,
`queries.*` and `qrels/<split>.tsv`. A file is cut into `Piece`s at line ends or row groups. A plain call walks the
pieces one after another, a Ray Data job maps over them, and both read each piece by the same function.
"""

import json
from codecs import BOM_UTF8
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gossamer.index.measures import read_qrels as read_qrels_file
from gossamer.kernels.errors import NotFoundError, RecordError

Record = dict[str, Any]

ROWS_PER_BATCH = 1_024
PIECE_BYTES = 32 << 20
_SUFFIXES = (".jsonl", ".parquet", ".tsv")


@dataclass(frozen=True)
class Layout:
    """What a kind of file holds.

    Attributes:
        kind: For messages: "corpus", "queries" or "pairs".
        columns: Text columns in order; a TSV file without a header has its fields in this order.
        aliases: Other spellings of a column.
        required: Columns that must be there and not empty.
        keeps_metadata: Whether other columns are kept beside these.
    """

    kind: str
    columns: tuple[str, ...]
    aliases: dict[str, str]
    required: tuple[str, ...]
    keeps_metadata: bool = False


_ID = {
    "_id": "id",
    "doc_id": "id",
    "docid": "id",
    "query_id": "id",
    "qid": "id",
    "contents": "text",
    "query": "text",
}
_PAIR = {
    "anchor": "query",
    "positive": "document",
    "pos": "document",
    "negatives": "negative",
    "negs": "negative",
}
CORPUS = Layout("corpus", ("id", "title", "text"), _ID, ("id",), keeps_metadata=True)
QUERIES = Layout("queries", ("id", "text"), _ID, ("id", "text"))
PAIRS = Layout("pairs", ("query", "document", "negative"), _PAIR, ("query", "document"))


@dataclass(frozen=True)
class Piece:
    """A part of a file that one worker reads: bytes `start:stop` at line ends, or row groups `start:stop`."""

    path: str
    start: int
    stop: int
    layout: Layout
    schema: pa.Schema


def read_corpus(path: Path | str) -> Iterator[pa.RecordBatch]:
    """Reads documents.

    Args:
        path: BEIR folder, or a `.jsonl`, `.tsv` (id, text or id, title, text) or `.parquet` file.

    Yields:
        Batches with the string columns `id`, `title`, `text` and a column for each metadata field: what the first rows
        hold beside these, and the entries of a `metadata` object; lists and objects are kept as JSON, times as text.

    Raises:
        NotFoundError: If there is no such file.
        RecordError: If a line cannot be read; the message names file and line.
    """
    return _read(pieces(path, CORPUS))


def read_queries(path: Path | str) -> Iterator[pa.RecordBatch]:
    """Reads queries: batches with the string columns `id` and `text`. Files and errors as in `read_corpus`."""
    return _read(pieces(path, QUERIES))


def read_pairs(path: Path | str, *, split: str = "train") -> Iterator[pa.RecordBatch]:
    """Reads training pairs.

    Args:
        path: `.jsonl` (query, document, and one `negative` or a list of them), `.tsv` (query, document[, negative]),
            `.parquet`, or a BEIR folder, whose judged pairs of `split` are joined with queries and corpus.
        split: Split of the judgements, for a BEIR folder.

    Yields:
        Batches with the string columns `query`, `document` and `negative` (null where there is none); a list of
        negatives makes one row each.

    Raises:
        NotFoundError: If there is no such file.
        RecordError: If a line cannot be read; the message names file and line.
    """
    path = Path(path)
    if are_joined(path):
        return _batches(
            _judged_pairs(path, split), pa.schema([(name, pa.string()) for name in PAIRS.columns])
        )
    return _read(pieces(path, PAIRS))


def are_joined(path: Path) -> bool:
    """Whether `read_pairs` joins the pairs from judgements, queries and corpus of a BEIR folder."""
    return path.is_dir() and not any((path / f"pairs{suffix}").exists() for suffix in _SUFFIXES)


def pair_files(path: Path | str, *, split: str = "train") -> list[Path]:
    """The files that `read_pairs` reads.

    Raises:
        NotFoundError: If one is missing.
    """
    path = Path(path)
    if are_joined(path):
        return [_find(path, CORPUS), _find(path, QUERIES), _find_qrels(path, split)]
    return [_find(path, PAIRS)]


def document_texts(batch: pa.RecordBatch | pa.Table) -> list[str]:
    """What an encoder reads of each document of `read_corpus`: title, a space, text."""
    titles, texts = batch.column("title").to_pylist(), batch.column("text").to_pylist()
    return [f"{title} {text}".strip() for title, text in zip(titles, texts, strict=True)]


def corpus_texts(path: Path | str) -> Iterator[str]:
    """What an encoder reads of each document of a corpus, streamed; see `read_corpus` and `document_texts`."""
    for batch in read_corpus(path):
        yield from document_texts(batch)


def read_qrels(path: Path | str, split: str = "test") -> dict[str, dict[str, int]]:
    """Reads judgements.

    Args:
        path: BEIR folder, or a file: `query-id, corpus-id, score` with tabs and a header, or TREC's four columns; a
            line without tabs is cut at spaces.
        split: Which file of the folder's `qrels/`.

    Returns:
        query id → document id → grade.

    Raises:
        NotFoundError: If there is no such file; the message names the splits that exist.
        RecordError: If a line has not three or four fields or no whole number as grade.
    """
    return read_qrels_file(_find_qrels(Path(path), split))


def pieces(path: Path | str, layout: Layout, *, piece_bytes: int = PIECE_BYTES) -> list[Piece]:
    """Cuts a file into parts that can be read apart from one another.

    Args:
        path: File, or BEIR folder.
        layout: `CORPUS`, `QUERIES` or `PAIRS`.
        piece_bytes: About how much one piece of a text file holds; in Parquet a row group is a piece.

    Returns:
        Pieces in the order of the file; all have the same schema, which comes from its first rows.
    """
    file = _find(Path(path), layout)
    schema = _schema(file, layout)
    if file.suffix == ".parquet":
        n_groups = pq.ParquetFile(file).num_row_groups
        return [Piece(str(file), group, group + 1, layout, schema) for group in range(n_groups)]
    size = file.stat().st_size
    cuts = [0]
    with file.open("rb") as lines:
        while cuts[-1] < size:
            lines.seek(min(cuts[-1] + piece_bytes, size))
            lines.readline()
            cuts.append(lines.tell())
    return [Piece(str(file), start, stop, layout, schema) for start, stop in pairwise(cuts)]


def read_piece(piece: Piece) -> Iterator[pa.RecordBatch]:
    """Reads one piece; all batches have `piece.schema`. Errors as in `read_corpus`."""
    return _batches(_records(piece), piece.schema)


def _read(parts: Iterable[Piece]) -> Iterator[pa.RecordBatch]:
    for piece in parts:
        yield from read_piece(piece)


def _batches(records: Iterable[Record], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    records = iter(records)
    while rows := list(islice(records, ROWS_PER_BATCH)):
        yield pa.RecordBatch.from_pylist(rows, schema)


def _find(path: Path, layout: Layout) -> Path:
    if path.is_dir():
        found = [path / f"{layout.kind}{suffix}" for suffix in _SUFFIXES]
        path = next((file for file in found if file.is_file()), found[0])
    if not path.is_file():
        raise NotFoundError(
            f"no {layout.kind} file {path}; give a file or a folder that holds "
            f"{', '.join(layout.kind + suffix for suffix in _SUFFIXES)}"
        )
    if path.suffix not in _SUFFIXES:
        raise RecordError(
            f"{path}: the suffix {path.suffix!r} says no format; expected one of {', '.join(_SUFFIXES)}"
        )
    return path


def _find_qrels(path: Path, split: str) -> Path:
    file = path / "qrels" / f"{split}.tsv" if path.is_dir() else path
    if not file.is_file():
        there = sorted(found.stem for found in file.parent.glob("*.tsv"))
        raise NotFoundError(f"no judgements {file}; splits that are there: {', '.join(there) or 'none'}")
    return file


# Schema ------------------------------------------------------------------------------------------------------------

_PYTHON_TYPES: dict[pa.DataType, tuple[type, ...]] = {
    pa.bool_(): (bool,),
    pa.int64(): (int,),
    pa.float64(): (int, float),
    pa.string(): (str,),
}


def _schema(file: Path, layout: Layout) -> pa.Schema:
    """Text columns, and the metadata columns that the first rows hold, each with the narrowest type that fits them."""
    values: dict[str, set[type]] = {}
    if layout.keeps_metadata:
        whole = Piece(str(file), 0, file.stat().st_size, layout, None)
        for record in islice(_records(whole), ROWS_PER_BATCH):
            for name in record.keys() - set(layout.columns):
                values.setdefault(name, set()).add(type(record[name]))
    metadata = [(name, _narrowest(types - {type(None)})) for name, types in sorted(values.items())]
    return pa.schema([*((name, pa.string()) for name in layout.columns), *metadata])


def _narrowest(types: set[type]) -> pa.DataType:
    fitting = (arrow for arrow, python in _PYTHON_TYPES.items() if types and types <= set(python))
    return next(fitting, pa.string())


def _fit(record: Record, schema: pa.Schema, layout: Layout) -> Record:
    """Checks the metadata of a record against the columns; a column of texts takes anything, as text."""
    for name in record.keys() - set(layout.columns):
        if name not in schema.names:
            raise ValueError(f"the field {name!r} is not in the file's first {ROWS_PER_BATCH:,} rows")
        value, arrow = record[name], schema.field(name).type
        if value is not None and arrow == pa.string():
            record[name] = value if isinstance(value, str) else _json(value)
        elif type(value) is int and arrow == pa.float64():
            record[name] = float(value)
        elif value is not None and type(value) not in _PYTHON_TYPES[arrow]:
            raise ValueError(f"{name!r} is {_json(value)[:40]}, but {arrow} in the first rows")
    return record


# Records -----------------------------------------------------------------------------------------------------------


def _records(piece: Piece) -> Iterator[Record]:
    """Yields the checked records of a piece."""
    file = Path(piece.path)
    rows, parse = {
        ".jsonl": (_lines, _parse_json),
        ".tsv": (_lines, _tsv_parser(file, piece.layout)),
        ".parquet": (_parquet_rows, lambda row, _: row),
    }[file.suffix]
    for place, row in rows(piece):
        try:
            for record in _check(parse(row, place), piece.layout):
                _refuse_unstorable(record)
                yield record if piece.schema is None else _fit(record, piece.schema, piece.layout)
        except ValueError as error:  # bad JSON and bad UTF-8 are ValueErrors too
            raise RecordError(
                f"{file}:{_line_number(file, place)}: {error}; expected {', '.join(piece.layout.required)}. "
                "Mend or remove the line."
            ) from error


def _lines(piece: Piece) -> Iterator[tuple[int, bytes]]:
    """Yields (byte offset, line)."""
    with Path(piece.path).open("rb") as lines:
        lines.seek(piece.start)
        offset = piece.start
        while offset < piece.stop:
            line = lines.readline()
            yield offset, line if offset else line.removeprefix(BOM_UTF8)
            offset += len(line)


def _parquet_rows(piece: Piece) -> Iterator[tuple[int, Record]]:
    """Yields (row number in the file, record)."""
    parquet = pq.ParquetFile(piece.path)
    groups = range(piece.start, min(piece.stop, parquet.num_row_groups))
    row = sum(parquet.metadata.row_group(group).num_rows for group in range(piece.start))
    for batch in parquet.iter_batches(ROWS_PER_BATCH, row_groups=list(groups)):
        for record in batch.to_pylist():
            yield row, record
            row += 1


def _line_number(file: Path, place: int) -> int:
    """Number of a line (or Parquet row) from 1."""
    if file.suffix == ".parquet":
        return place + 1
    number = 1
    with file.open("rb") as lines:
        while place > 0:
            block = lines.read(min(place, 1 << 20))
            number += block.count(b"\n")
            place -= len(block)
    return number


def _parse_json(line: bytes, _offset: int) -> Record | None:
    if not line.strip():
        return None
    record = json.loads(line)
    if not isinstance(record, dict):
        raise ValueError(f"this is a {type(record).__name__}, not an object")  # noqa: TRY004 (as all bad lines)
    return record


def _tsv_parser(file: Path, layout: Layout) -> Callable[[bytes, int], Record | None]:
    """A parser of lines.

    The first line is a header if it names all required columns, in any order and spelling, whatever it names beside
    them; without one, the number of a line's fields says which columns they are.
    """
    with file.open("rb") as lines:
        first = lines.readline().decode("utf-8-sig", errors="replace").rstrip("\r\n").split("\t")
    names = [layout.aliases.get(name, name) for name in first]
    has_header = set(layout.required) <= set(names)
    by_width = {len(layout.columns): layout.columns, len(layout.required): layout.required}
    if layout.kind == "corpus":
        by_width[2] = ("id", "text")

    def parse(line: bytes, offset: int) -> Record | None:
        if (has_header and offset == 0) or not line.strip():
            return None
        fields = line.decode().rstrip("\r\n").split("\t")
        columns: Sequence[str] | None = names if has_header else by_width.get(len(fields))
        if columns is None or len(columns) != len(fields):
            widths = [len(names)] if has_header else sorted(by_width)
            raise ValueError(f"{len(fields)} fields instead of {' or '.join(map(str, widths))}")
        return dict(zip(columns, fields, strict=True))

    return parse


def _check(raw: Record | None, layout: Layout) -> Iterator[Record]:
    """Brings one record into the layout: known names, ids as strings, metadata flat, one row a negative."""
    if raw is None:
        return
    record: Record = {}
    for name, value in raw.items():
        if name == "metadata" and isinstance(value, dict) and layout.keeps_metadata:
            record |= {key: _scalar(entry) for key, entry in value.items()}
            continue
        column = layout.aliases.get(name, name)
        if column in layout.columns:
            record[column] = value if column == "negative" else _text(column, value)
        elif layout.keeps_metadata:
            record[column] = _scalar(value)
    for column in layout.required:
        if not (record.get(column) or "").strip():
            raise ValueError(f"no {column!r}")
    if layout.kind == "corpus":
        record = {"title": "", "text": ""} | record
    negatives = record.get("negative")
    if not isinstance(negatives, list):
        negatives = [negatives]
    for negative in negatives or [None]:
        yield record if layout.kind != "pairs" else record | {"negative": _text("negative", negative) or None}


def _text(column: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if column == "id" and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise ValueError(f"{column!r} is {_json(value)[:40]}, not a string")


def _scalar(value: Any) -> Any:
    if isinstance(value, list | dict):
        return _json(value)
    return value if value is None or isinstance(value, str | int | float) else str(value)


def _json(value: Any) -> str:
    """JSON of a value; what JSON has no form for, as a time or bytes, as Python writes it."""
    return json.dumps(value, ensure_ascii=False, default=str)


def _refuse_unstorable(record: Record) -> None:
    """Refuses what JSON can hold, but no Arrow column."""
    for name, value in record.items():
        for text in (name, value):
            if isinstance(text, str):
                text.encode()  # raises on half of a surrogate pair
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise ValueError(f"{name!r} is {value}, beyond 64 bits")


def _judged_pairs(folder: Path, split: str) -> Iterator[Record]:
    """Joins judgements, queries and corpus of a BEIR folder; only queries and judgements are held in memory."""
    queries_of: dict[str, list[str]] = defaultdict(list)
    for query, grades in read_qrels(folder, split).items():
        for document, grade in grades.items():
            if grade > 0:
                queries_of[document].append(query)
    texts = {row["id"]: row["text"] for batch in read_queries(folder) for row in batch.to_pylist()}
    for batch in read_corpus(folder):
        for number, document in zip(batch.column("id").to_pylist(), document_texts(batch), strict=True):
            for query in queries_of.get(number, ()):
                if query in texts and document:
                    yield {"query": texts[query], "document": document}
