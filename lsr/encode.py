"""Encoding a corpus into a folder of Parquet files, one for each piece of the corpus, in its order.

The plain call encodes piece after piece; the job (`gossamer.lsr.jobs`) hands pieces to actors. Both write into a draft
beside the target, which is renamed when it is whole. Parts are written whole or not at all, so a call that was killed
is started again and goes on with the pieces that are missing.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, PositiveInt

from gossamer.index.format import EncoderInfo
from gossamer.index.vectors import SparseVectors
from gossamer.kernels.errors import ExistsError, FormatError, InputError
from gossamer.lsr.data import CORPUS, Piece, document_texts, pieces, read_corpus, read_piece
from gossamer.lsr.encoder import Encoder, Precision, SparseEncoder
from gossamer.lsr.known_rows import KnownRows, fingerprints_file, fingerprints_of

Progress = Callable[[int, int], None]

PIECE_BYTES = 1 << 20
ENCODER_FILE = "encoder.json"
_PLAN = "plan.json"


class EncodeConfig(BaseModel):
    """How a corpus is encoded."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    batch_size: PositiveInt = 32
    """Texts that are encoded at a time."""
    precision: Precision = "float32"
    """See `SparseEncoder`."""


@dataclass(frozen=True)
class EncodingPlan:
    """What is to be encoded, and where the parts go.

    Attributes:
        pieces: Pieces of the corpus; piece n becomes `part-<n>.parquet`.
        target: Folder that appears at the end.
        draft: Folder that is written until then.
        before: Folder of vectors whose rows are used again where nothing has changed; None encodes all.
    """

    pieces: tuple[Piece, ...]
    target: Path
    draft: Path
    before: Path | None = None

    def part(self, number: int) -> Path:
        """The file of a piece."""
        return self.draft / f"part-{number:06d}.parquet"

    def missing(self) -> list[int]:
        """Numbers of the pieces that have no part yet."""
        parts = [self.part(number) for number in range(len(self.pieces))]
        return [
            number
            for number, part in enumerate(parts)
            if not part.exists() or not fingerprints_file(part).exists()
        ]

    def known(self) -> KnownRows | None:
        """The rows that can be used again."""
        if self.before is None:
            return None
        return KnownRows(self.before, is_same=read_encoder_info(self.before) == read_encoder_info(self.draft))

    def finish(self, *, replace: bool) -> Path:
        """Moves the whole draft to the target.

        Nothing is deleted before it is replaced: after a kill the old vectors or a whole draft are there, and the next
        call goes on with the draft. A plan that a kill left in the target does no harm.
        """
        known = self.known()
        if known is not None:
            known.changes([self.part(number) for number in range(len(self.pieces))]).write(self.draft)
        aside = self.target.with_name(f".{self.target.name}.replaced")
        if self.target.exists():
            _refuse_taken(self.target, replace=replace)
            shutil.rmtree(aside, ignore_errors=True)
            self.target.rename(aside)
        self.draft.rename(self.target)
        (self.target / _PLAN).unlink()
        shutil.rmtree(aside, ignore_errors=True)
        return self.target


def encode_corpus(
    encoder: Encoder,
    corpus: Path | str,
    target: Path | str,
    *,
    batch_size: int = 32,
    replace: bool = False,
    changed: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Encodes a corpus in this process.

    Args:
        encoder: Encoder.
        corpus: What `gossamer.lsr.data.read_corpus` reads.
        target: Folder to make: Parquet files of `SparseVectors` with ids, fingerprints of what was encoded, and
            `encoder.json`.
        batch_size: Texts that are encoded at a time.
        replace: Whether vectors that are already there may be replaced.
        changed: Replace them, and encode only what has changed since: rows of documents with the same id, title and
            text, by the same encoder, are used again, and `Changes.read` says how many. If there are none, encode all.
        progress: Called with (pieces done, pieces in all).

    Returns:
        The target.

    Raises:
        ExistsError: If the target exists and is not to be replaced, or is no folder of vectors.
        InputError: If the corpus holds no document.
        RecordError: If a line of the corpus cannot be read; the message names it.
    """
    replace = replace or changed
    plan = plan_encoding(
        encoder.info, corpus, target, replace=replace, precision=_precision(encoder), changed=changed
    )
    known = plan.known()
    for number in plan.missing():
        encode_piece(encoder, plan.pieces[number], plan.part(number), batch_size=batch_size, known=known)
        if progress is not None:
            progress(number + 1, len(plan.pieces))
    return plan.finish(replace=replace)


def plan_encoding(
    info: EncoderInfo,
    corpus: Path | str,
    target: Path | str,
    *,
    replace: bool,
    precision: Precision = "float32",
    changed: bool = False,
) -> EncodingPlan:
    """Cuts the corpus into pieces and makes the draft, or takes up the one that a killed call left.

    A draft of another encoder, precision or corpus is thrown away.

    Raises:
        ExistsError: If the target exists and is not to be replaced, or is no folder of vectors.
        InputError: If the corpus holds no document.
    """
    target = Path(target).resolve()
    if target.exists():
        _refuse_taken(target, replace=replace)
    cut = tuple(pieces(corpus, CORPUS, piece_bytes=PIECE_BYTES))
    if next(read_corpus(corpus), None) is None:
        raise InputError(f"{corpus} holds no documents; expected at least one to encode")
    draft = target.with_name(f".{target.name}.draft")
    mtimes = {path: Path(path).stat().st_mtime_ns for path in {piece.path for piece in cut}}
    described = json.dumps(
        {"encoder": asdict(info), "precision": precision, "changed": mtimes, "n_pieces": len(cut)}
    )
    if not (draft / _PLAN).exists() or (draft / _PLAN).read_text(encoding="utf-8") != described:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        (draft / ENCODER_FILE).write_text(json.dumps(asdict(info), indent=2) + "\n", encoding="utf-8")
        (draft / _PLAN).write_text(described, encoding="utf-8")
    return EncodingPlan(cut, target, draft, target if changed and target.exists() else None)


def encode_piece(
    encoder: Encoder, piece: Piece, part: Path, *, batch_size: int = 32, known: KnownRows | None = None
) -> int:
    """Encodes one piece of a corpus into one Parquet file, which appears whole or not at all.

    Args:
        encoder: Encoder.
        piece: Piece of the corpus.
        part: The file.
        batch_size: Texts that are encoded at a time.
        known: Rows that are used again where nothing has changed.

    Returns:
        How many documents it holds.
    """
    parts = [_nothing(encoder.n_terms)]
    prints = [fingerprints_of([], "")]
    for batch in read_piece(piece):
        texts, ids = document_texts(batch), batch.column("id")
        prints.append(fingerprints_of(texts, _precision(encoder)))
        rows = np.full(len(texts), -1) if known is None else known.rows_of(ids.to_pylist(), prints[-1])
        new = np.flatnonzero(rows < 0)
        vectors = encoder.encode_documents([texts[place] for place in new], batch_size=batch_size)
        if known is not None and len(new) < len(rows):
            both = SparseVectors.concat([vectors, known.take(rows[rows >= 0])])
            vectors = both[np.argsort(np.argsort(rows >= 0, kind="stable"))]
        parts.append(vectors.with_ids(ids))
    vectors = SparseVectors.concat(parts)
    np.save(fingerprints_file(part), np.concatenate(prints), allow_pickle=False)  # before what counts
    vectors.write_parquet(part)
    return len(vectors)


def _precision(encoder: Encoder) -> Precision:
    return encoder.precision if isinstance(encoder, SparseEncoder) else "float32"


def read_encoder_info(folder: Path | str) -> EncoderInfo | None:
    """The encoder that made a folder of vectors, or None if it does not say.

    Raises:
        FormatError: If what it says cannot be read.
    """
    file = Path(folder) / ENCODER_FILE
    if not file.is_file():
        return None
    try:
        described: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return EncoderInfo(**described)
    except (ValueError, TypeError) as error:
        raise FormatError(f"{file} names no encoder ({error}); encode the corpus again") from error


def _nothing(n_terms: int) -> SparseVectors:
    no_ids = pa.array([], pa.string())
    return SparseVectors(
        np.zeros(1, np.int64), np.empty(0, np.int32), np.empty(0, np.float32), n_terms, no_ids
    )


def _refuse_taken(target: Path, *, replace: bool) -> None:
    if not replace:
        raise ExistsError(f"{target} exists; allow its replacement (replace=True), or name another folder")
    if not (target / ENCODER_FILE).is_file():
        raise ExistsError(
            f"{target} holds no vectors that were encoded here; remove it yourself, or name another folder"
        )
