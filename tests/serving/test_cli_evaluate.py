"""`gossamer evaluate`: the figures of runs, tests between them, and what a mistake is answered with."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gossamer.index.measures import evaluate, per_query, write_run
from gossamer.index.significance import paired_tests
from gossamer.kernels.errors import ConfigError, GossamerError, InputError, NotFoundError, RecordError
from gossamer.serving.cli import app

QRELS = {f"q{number}": {"a": 1, "b": number % 2} for number in range(20)}
RUNS = {
    "bm25": {query: {"x": 2.0, "b": 1.5, "a": 1.0} for query in [*QRELS][:18]},
    "splade": {query: {"a": 2.0, "x": 1.5, "b": 1.0} for query in QRELS},
}
Evaluate = Callable[..., str]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lines = [f"{query}\t{document}\t{grade}" for query, of in QRELS.items() for document, grade in of.items()]
    (tmp_path / "q.tsv").write_text(
        "query-id\tcorpus-id\tscore\n" + "\n".join(lines) + "\n", encoding="utf-8"
    )
    for name, run in RUNS.items():
        write_run(run, tmp_path / f"{name}.trec")
    return tmp_path


@pytest.fixture
def call(folder: Path) -> Evaluate:
    """The command with the judgements; its output, or the error of ours that it raised."""

    def call(*words: object) -> str:
        given = ["evaluate", "--qrels", str(folder / "q.tsv"), *map(str, words)]
        result = CliRunner().invoke(app, given, env={"COLUMNS": "200"})
        if isinstance(result.exception, GossamerError):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.stdout

    return call


def test_one_run(call: Evaluate, folder: Path) -> None:
    shown = call("--run", folder / "bm25.trec")
    for measure, mean in evaluate(RUNS["bm25"], QRELS).items():
        assert measure in shown
        assert f"{mean:.4f}" in shown
    assert "20 judged queries" in shown
    assert " 18 " in shown  # answered
    assert "Holm" not in shown


def test_two_runs_are_compared(call: Evaluate, folder: Path) -> None:
    words = ("--run", folder / "bm25.trec", "--run", folder / "splade.trec", "--measures", "RR@10", "R@1")
    shown = call(*words)
    assert "against bm25" in shown
    baseline, other = (per_query(RUNS[name], QRELS, ["RR@10", "R@1"]) for name in RUNS)
    tests = paired_tests(baseline, {"splade": other})
    for test in tests:
        row = next(line for line in shown.splitlines() if f" {test.measure} " in line and "+" in line)
        assert f"{test.difference:+.4f}" in row
        assert f"{test.p_holm:.4f}" in row
        assert ("<0.0001" in row) == (test.p_t < 0.0001)
        assert f"{test.wins} / {test.ties} / {test.losses}" in row
    report = json.loads(call(*words, "--json"))
    assert report["n_queries"] == 20
    assert [run["run"] for run in report["runs"]] == ["bm25", "splade"]
    assert [run["n_answered"] for run in report["runs"]] == [18, 20]
    assert report["runs"][1]["measures"] == pytest.approx(evaluate(RUNS["splade"], QRELS, ["RR@10", "R@1"]))
    assert [test["p_randomised"] for test in report["tests"]] == [test.p_randomised for test in tests]


def test_each_query_as_csv(call: Evaluate, folder: Path) -> None:
    call("--run", folder / "bm25.trec", "--measures", "R@1", "--per-query", folder / "out.csv")
    rows = list(csv.DictReader((folder / "out.csv").read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 20
    assert rows[1] == {"run": "bm25", "query": "q1", "R@1": "0.0"}


def test_runs_of_one_name_go_by_their_paths(call: Evaluate, folder: Path) -> None:
    (folder / "other").mkdir()
    write_run(RUNS["bm25"], folder / "other" / "bm25.trec")
    report = json.loads(
        call("--run", folder / "bm25.trec", "--run", folder / "other" / "bm25.trec", "--json")
    )
    assert [run["run"] for run in report["runs"]] == [run["path"] for run in report["runs"]]
    assert {test["p_holm"] for test in report["tests"]} == {1.0}


def test_mistakes_are_named(call: Evaluate, folder: Path) -> None:
    run = folder / "bm25.trec"
    with pytest.raises(ConfigError, match=r"bm25\.trec is given twice"):
        call("--run", run, "--run", run)
    with pytest.raises(ConfigError, match="no measure 'nDGC@10'; write it like nDCG@10"):
        call("--run", run, "--measures", "RR@10", "nDGC@10")
    with pytest.raises(NotFoundError, match=r"absent\.trec"):
        call("--run", folder / "absent.trec")
    with pytest.raises(RecordError, match=r"q\.tsv:1: expected `query Q0 document rank score name`"):
        call("--run", folder / "q.tsv")
    write_run({"Q1": {"a": 1.0}}, folder / "x.trec")
    with pytest.raises(
        InputError, match="answers none of the judged queries, such as 'q0'; its own are such as 'Q1'"
    ):
        call("--run", folder / "x.trec")
