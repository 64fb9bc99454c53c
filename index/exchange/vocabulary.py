"""Vocabularies: which number a term has. Read from a tokenizer or a list; kept as a JSON object `{term: number}`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gossamer.index.exchange.drafts import draft_file
from gossamer.index.vectors import MAX_COLUMNS
from gossamer.kernels.errors import ConfigError, FormatError, NotFoundError

Vocabulary = Mapping[str, int]

_FILES = ("tokenizer.json", "vocab.txt")


def read_vocabulary(path: str | Path) -> dict[str, int]:
    """Read the number of every term.

    Args:
        path: a `tokenizer.json`; a JSON object `{term: number}`; a JSON list, or a text file with a term a line, such
            as `vocab.txt`, numbered from 0; or the folder of an encoder, which holds one of the first and last.

    Raises:
        NotFoundError: there is none.
        FormatError: it is none of these, a term repeats, or two have the same number.
    """
    path = _find(Path(path))
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".json":
            return _checked(_pairs(json.loads(text, object_pairs_hook=without_repeats)), path)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise FormatError(f"{path} cannot be read as a vocabulary: {error}.") from error
    lines = text.removesuffix("\n").split("\n")
    return _checked(((line.removesuffix("\r"), number) for number, line in enumerate(lines)), path)


def write_vocabulary(vocabulary: Vocabulary, path: str | Path, *, replace: bool = False) -> None:
    """Write a vocabulary as a JSON object, whole or not at all.

    Raises:
        ConfigError: the path does not end in `.json`.
        ExistsError: it exists, and may not be replaced.
    """
    path = Path(path)
    if path.suffix != ".json":
        raise ConfigError(
            f"{path}: a vocabulary is written as JSON; name it {path.with_suffix('.json').name}."
        )
    with draft_file(path, replace=replace) as draft:
        draft.write_text(json.dumps(dict(vocabulary), indent=0), encoding="utf-8")


def size_of(vocabulary: Vocabulary, n_cols: int | None) -> int:
    """How many terms there are: as many as are said, else up to the largest number.

    Raises:
        ConfigError: the vocabulary has numbers beyond what is said, is empty, or gives a number twice.
    """
    numbers = set(vocabulary.values())
    if not numbers or min(numbers) < 0 or max(numbers) >= (n_cols or MAX_COLUMNS):
        raise ConfigError(
            f"the vocabulary has {len(numbers):,} numbers, up to {max(numbers, default=0):,}; expected at least one, "
            f"and none outside 0..{(n_cols or MAX_COLUMNS) - 1:,}."
        )
    if len(numbers) < len(vocabulary):
        raise ConfigError("the vocabulary gives two terms the same number; make it one to one.")
    return n_cols or max(numbers) + 1


def _find(path: Path) -> Path:
    if not path.is_dir():
        if path.exists():
            return path
        raise NotFoundError(f"there is no vocabulary at {path}.")
    found = [file for name in _FILES for file in (path / name, *sorted(path.glob(f"*/{name}")))]
    for file in found:
        if file.exists():
            return file
    raise NotFoundError(f"{path} holds no {' and no '.join(_FILES)}; name the file of the vocabulary.")


def _pairs(read: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(read, dict) and isinstance(read.get("model"), dict):  # a tokenizer.json
        added = [(token.get("content"), token.get("id")) for token in read.get("added_tokens") or ()]
        return {**dict(_pairs(read["model"].get("vocab"))), **dict(added)}.items()
    if isinstance(read, dict):
        return read.items()
    if isinstance(read, list):  # a tokenizer's unigram model keeps a score beside each
        return (
            (term[0] if isinstance(term, list) and term else term, number) for number, term in enumerate(read)
        )
    raise FormatError("it holds neither an object {term: number} nor a list of terms.")


def _checked(pairs: Iterable[tuple[Any, Any]], path: Path) -> dict[str, int]:
    numbers: dict[str, int] = {}
    terms: dict[int, str] = {}
    for term, number in pairs:
        if not isinstance(term, str) or type(number) is not int or not 0 <= number < MAX_COLUMNS:
            raise FormatError(
                f"{path}: {term!r} has the number {number!r}; expected a string and a number from 0 on."
            )
        if term in numbers or number in terms:
            raise FormatError(
                f"{path}: the term {term!r} or its number {number} is there twice; make the vocabulary one to one."
            )
        numbers[term], terms[number] = number, term
    if not numbers:
        raise FormatError(f"{path} holds no terms.")
    return numbers


def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, for `object_pairs_hook`.

    Raises:
        ValueError: a name is there twice.
    """
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} is there twice")
    return record
