"""`gossamer evaluate`: measures of runs, and tests of whether they differ."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gossamer.serving.cli.show import console, table

if TYPE_CHECKING:
    from gossamer.index.measures import Qrels, Run
    from gossamer.index.significance import PairedTest


def evaluate(
    paths: Annotated[
        list[Path],
        typer.Option("--run", help="TREC run; may be repeated: the others are tested against the first."),
    ],
    qrels: Annotated[
        Path, typer.Option(help="Judgements: a TREC file, a TSV file as BEIR's, or a BEIR folder.")
    ],
    measures: Annotated[
        list[str] | None,
        typer.Option(
            "--measures", help="A name as ir-measures spells it, such as nDCG@10; more may follow it."
        ),
    ] = None,
    further: Annotated[
        list[str] | None, typer.Argument(metavar="MEASURE", help="The further measures.")
    ] = None,
    split: Annotated[str, typer.Option(help="Which judgements of a BEIR folder.")] = "test",
    per_query: Annotated[Path | None, typer.Option(help="Write each query's figures here, as CSV.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON in place of tables.")] = False,
) -> None:
    """Measure runs, and test whether the others differ from the first.

    A judged query that a run does not answer counts as 0; queries that are not judged do not count.
    """
    from gossamer.index.measures import MEASURES, read_run, write_per_query
    from gossamer.index.measures import per_query as figures_of
    from gossamer.index.significance import paired_tests
    from gossamer.lsr.data import read_qrels

    names = _names(paths)
    judged = read_qrels(qrels, split)
    wanted = dict.fromkeys([*(measures or []), *(further or [])] or MEASURES)
    figures, rows = {}, []
    for name, path in zip(names, paths, strict=True):
        run = read_run(path)
        n_answered = _count_answered(path, run, judged)
        figures[name] = figures_of(run, judged, list(wanted))
        means = {measure: sum(of.values()) / len(of) for measure, of in figures[name].items()}
        rows.append((name, path, n_answered, means))
    first, *others = names
    tests = paired_tests(figures[first], {name: figures[name] for name in others})
    if per_query is not None:
        write_per_query(figures, per_query)
        console.print(f"figures of each query written to {per_query}")
    if as_json:
        runs = [
            {"run": name, "path": str(path), "n_answered": n_answered, "measures": means}
            for name, path, n_answered, means in rows
        ]
        report = {"n_queries": len(judged), "runs": runs, "tests": [asdict(test) for test in tests]}
        typer.echo(json.dumps(report, indent=2, ensure_ascii=False))
        return
    table(
        f"{len(judged):,} judged queries of {qrels}",
        ("run", *wanted, "answered"),
        [(name, *(f"{mean:.4f}" for mean in means.values()), n) for name, _, n, means in rows],
    )
    if tests:
        _show_tests(first, tests)


def _names(paths: Sequence[Path]) -> list[str]:
    """What the runs are called: the stems of their files, or the paths where two have one stem."""
    from gossamer.kernels.errors import ConfigError

    for names in ([path.stem for path in paths], [str(path) for path in paths]):
        if len(set(names)) == len(names):
            return names
    raise ConfigError(f"--run {max(names, key=names.count)} is given twice; give each run once.")


def _count_answered(path: Path, run: Run, qrels: Qrels) -> int:
    from gossamer.kernels.errors import InputError

    n_answered = sum(query in run for query in qrels)
    if qrels and not n_answered:
        raise InputError(
            f"{path} answers none of the judged queries, such as {next(iter(qrels))!r}; its own are such as "
            f"{next(iter(run), None)!r}. Both must call the queries by the same ids."
        )
    return n_answered


def _show_tests(baseline: str, tests: Sequence[PairedTest]) -> None:
    rows = [
        (
            test.run,
            test.measure,
            f"{test.difference:+.4f}",
            f"{test.low:+.4f} to {test.high:+.4f}",
            *(f"{p:.4f}" if p >= 0.0001 else "<0.0001" for p in (test.p_t, test.p_randomised, test.p_holm)),
            f"{test.wins:,} / {test.ties:,} / {test.losses:,}",
        )
        for test in tests
    ]
    table(
        f"against {baseline}: p of the t-test, of the randomisation test, and that corrected after Holm",
        ("run", "measure", "difference", "95 % interval", "p t", "p rand.", "p Holm", "wins / ties / losses"),
        rows,
    )
