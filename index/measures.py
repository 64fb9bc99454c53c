"""Runs, judgements and measures: TREC run files, qrels, and figures by ir-measures.

A run is `{query id: {document id: score}}`, judgements are `{query id: {document id: grade}}`. Equal scores are
ranked in the order in which they stand in the run, so an index's own order of ties is what gets measured.
"""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

from gossamer.kernels.errors import ConfigError, InputError, RecordError

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
    """
    for query, scores in run.items():
        for id_ in (query, *scores):
            if id_.split() != [id_]:
                raise InputError(f"the id {id_!r} has white space or is empty; a TREC run cannot hold it.")
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            for query, scores in run.items():
                order = sorted(scores, key=scores.__getitem__, reverse=True)
                for rank, document in enumerate(order, start=1):
                    file.write(f"{query} Q0 {document} {rank} {float(scores[document])!r} {name}\n")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read_run(path: str | Path) -> dict[str, dict[str, float]]:
    """Read a TREC run. Documents stand in the order of their ranks, which is what ties go by.

    Raises:
        RecordError: a line is not six fields, or repeats a document; the message names it.
    """
    ranks: dict[str, list[tuple[int, str, float]]] = {}
    for where, fields in _lines(path):
        try:
            query, _, document, rank, score, _ = fields
            ranks.setdefault(query, []).append((int(rank), document, float(score)))
        except ValueError as error:
            raise RecordError(f"{where}: expected `query Q0 document rank score name`.") from error
    run = {}
    for query, entries in ranks.items():
        run[query] = {document: score for _, document, score in sorted(entries, key=lambda entry: entry[0])}
        if len(run[query]) < len(entries):
            twice = next(a for a, b in pairwise(sorted(document for _, document, _ in entries)) if a == b)
            raise RecordError(f"{path}: query {query!r} has document {twice!r} twice.")
    return run


def read_qrels(path: str | Path) -> dict[str, dict[str, int]]:
    """Read judgements: BEIR's TSV (`query-id corpus-id score` under a header) or TREC's four columns.

    Raises:
        RecordError: a line cannot be read; the message names it.
    """
    qrels: dict[str, dict[str, int]] = {}
    for number, (where, fields) in enumerate(_lines(path)):
        if number == 0 and fields[0] == "query-id":
            continue
        try:
            if len(fields) == 4:
                del fields[1]
            query, document, grade = fields
            qrels.setdefault(query, {})[document] = int(grade)
        except ValueError as error:
            raise RecordError(f"{where}: expected `query document grade`, separated by tabs.") from error
    return qrels


def _lines(path: str | Path) -> Iterator[tuple[str, list[str]]]:
    """Lines that are not blank, with their place; split at tabs where there are any."""
    with Path(path).open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            text = line.rstrip("\r\n")
            if text.strip():
                yield f"{path}, line {number}", text.split("\t") if "\t" in text else text.split()
