"""Runs, judgements and measures: TREC run files, qrels, and figures by ir-measures.

A run is `{query id: {document id: score}}`, judgements are `{query id: {document id: grade}}`. Equal scores are
ranked in the order in which they stand in the run, so an index's own order of ties is what gets measured.
"""

from __future__ import annotations

import csv
import difflib
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeAlias

from gossamer.kernels.errors import ConfigError, InputError, NotFoundError, RecordError

Run: TypeAlias = Mapping[str, Mapping[str, float]]
Qrels: TypeAlias = Mapping[str, Mapping[str, int]]

MEASURES = ("nDCG@10", "RR@10", "R@100")


def evaluate(run: Run, qrels: Qrels, measures: Sequence[str] = MEASURES) -> dict[str, float]:
    """The mean of each measure over all judged queries; one that is missing from the run counts as 0.

    Args:
        run: what was retrieved.
        qrels: what is relevant.
        measures: names as ir-measures spells them.

    Raises:
        ConfigError: there is no such measure.
        InputError: there are no judgements, or a score is not a number.
    """
    values = per_query(run, qrels, measures)
    return {name: math.fsum(of.values()) / len(of) for name, of in values.items()}


def per_query(run: Run, qrels: Qrels, measures: Sequence[str] = MEASURES) -> dict[str, dict[str, float]]:
    """Each measure of each judged query, in the order of the qrels; arguments and errors as for `evaluate`."""
    if not qrels:
        raise InputError("there are no judged queries to evaluate on; check the qrels file and its split.")
    import ir_measures

    parsed = {name: _parse(name) for name in measures}
    ranked = {query: _ranks(query, run[query]) for query in qrels if query in run}
    try:
        metrics = list(ir_measures.iter_calc(list(set(parsed.values())), qrels, ranked))
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{list(measures)} cannot be computed here: {reason} Choose others.") from error
    values = {measure: dict.fromkeys(qrels, 0.0) for measure in parsed.values()}
    for metric in metrics:
        values[metric.measure][metric.query_id] = float(metric.value)
    return {name: values[measure] for name, measure in parsed.items()}


def _parse(name: str) -> Any:
    import ir_measures

    try:
        return ir_measures.parse_measure(name)
    except (NameError, ValueError, AttributeError, TypeError) as error:
        stem = name.partition("@")[0]
        known = [str(measure) for measure in ir_measures.measures.registry]
        near = stem if stem in known else difflib.get_close_matches(stem, known, 1, 0)[0]
        raise ConfigError(f"there is no measure {name!r}; write it like {near}@10.") from error


def _ranks(query: str, scores: Mapping[str, float]) -> dict[str, float]:
    """Falling ranks in place of scores: evaluators keep scores as float32 and break ties by name."""
    for document, score in scores.items():
        if math.isnan(score):
            raise InputError(f"query {query!r}, document {document!r}: the score is not a number.")
    order = sorted(scores, key=scores.__getitem__, reverse=True)  # stable: ties stay as they stand
    return {document: float(len(order) - rank) for rank, document in enumerate(order)}


# -- files -------------------------------------------------------------------------------------------------


def write_run(run: Run, path: str | Path, *, name: str = "gossamer") -> None:
    """Write a TREC run: `query Q0 document rank score name`, best first, ranks from 1.

    The file appears whole or not at all; one that was there is replaced.

    Raises:
        InputError: an id is empty or holds white space, which the format cannot tell from its separators.
        NotFoundError: there is no folder for the file.
    """
    for query, scores in run.items():
        for id_ in (query, *scores):
            if id_.split() != [id_]:
                raise InputError(f"the id {id_!r} has white space or is empty; a TREC run cannot hold it.")
    with _whole(Path(path)) as file:
        for query, scores in run.items():
            order = sorted(scores, key=scores.__getitem__, reverse=True)
            for rank, document in enumerate(order, start=1):
                file.write(f"{query} Q0 {document} {rank} {float(scores[document])!r} {name}\n")


def read_run(path: str | Path) -> dict[str, dict[str, float]]:
    """Read a TREC run. Documents stand in the order of their ranks, which is what ties go by.

    Raises:
        NotFoundError: there is no such file.
        RecordError: a line is not six fields, its score is not a number, or it repeats a document; the message names
            file and line.
    """
    answers: dict[str, dict[str, tuple[int, float]]] = {}
    for where, fields in _lines(path, "run"):
        try:
            query, _, document, rank, score, _ = fields
            entry = int(rank), float(score)
        except ValueError as error:
            raise RecordError(
                f"{where}: expected `query Q0 document rank score name`, got {_shown(fields)}. "
                "Mend or remove the line."
            ) from error
        if math.isnan(entry[1]):
            raise RecordError(f"{where}: the score {score!r} is not a number. Mend or remove the line.")
        if answers.setdefault(query, {}).setdefault(document, entry) is not entry:
            raise RecordError(f"{where}: query {query!r} has document {document!r} twice. Remove one line.")
    return {
        query: {document: score for document, (_, score) in sorted(found.items(), key=lambda one: one[1][0])}
        for query, found in answers.items()
    }


def read_qrels(path: str | Path) -> dict[str, dict[str, int]]:
    """Read judgements: BEIR's TSV (`query-id corpus-id score`, with or without a header) or TREC's four columns.

    Fields are cut at tabs where a line has any, and so may hold spaces; else at spaces.

    Raises:
        NotFoundError: there is no such file.
        RecordError: a line has not three or four fields, or no whole number as grade; the message names file and line.
    """
    qrels: dict[str, dict[str, int]] = {}
    for number, (where, fields) in enumerate(_lines(path, "judgements")):
        if number == 0 and (fields[0] == "query-id" or fields[-1].lower() in _GRADE_COLUMNS):
            continue
        if len(fields) not in (3, 4) or not all(fields) or not _WHOLE.fullmatch(fields[-1]):
            raise RecordError(
                f"{where}: expected query id, document id and a whole number as grade, got {_shown(fields)}. "
                "Mend or remove the line."
            )
        qrels.setdefault(fields[0], {})[fields[-2]] = int(fields[-1])
    return qrels


def write_per_query(figures: Mapping[str, Mapping[str, Mapping[str, float]]], path: str | Path) -> None:
    """Write figures of each query as CSV: a line a run and query, a column a measure.

    Args:
        figures: by run, what `per_query` gives; all runs have the same measures and queries.
        path: the file, which appears whole or not at all; one that was there is replaced.

    Raises:
        NotFoundError: there is no folder for the file.
    """
    with _whole(Path(path)) as file:
        lines = csv.writer(file, lineterminator="\n")
        for number, (name, values) in enumerate(figures.items()):
            if number == 0:
                lines.writerow(["run", "query", *values])
            for query in next(iter(values.values()), {}):
                lines.writerow([name, query, *(of[query] for of in values.values())])


@contextmanager
def _whole(path: Path) -> Iterator[IO[str]]:
    """A text file that appears when it is whole."""
    if not path.parent.is_dir():
        raise NotFoundError(f"{path} cannot be written, as there is no folder {path.parent}; make it first.")
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8", newline="") as file:
            yield file
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


_GRADE_COLUMNS = ("score", "grade", "rel", "relevance", "label")
_WHOLE = re.compile(r"[+-]?[0-9]+")


def _lines(path: str | Path, kind: str) -> Iterator[tuple[str, list[str]]]:
    """Fields of the lines that are not blank, with their place."""
    if not Path(path).is_file():
        raise NotFoundError(f"there is no file {path} with {kind}; check the path.")
    with Path(path).open("rb") as file:
        for number, line in enumerate(file, start=1):
            where = f"{path}:{number}"
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            except UnicodeDecodeError as error:
                raise RecordError(
                    f"{where}: this is not UTF-8 ({error}). Write the file in UTF-8."
                ) from error
            if text:
                yield where, [of.strip() for of in text.split("\t")] if "\t" in text else text.split()


def _shown(fields: Sequence[str]) -> str:
    return repr(" ".join(fields)[:80])
