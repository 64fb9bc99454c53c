"""Measures, run files and qrels."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gossamer.index.measures import evaluate, per_query, read_qrels, read_run, write_per_query, write_run
from gossamer.kernels.errors import ConfigError, InputError, NotFoundError, RecordError

QRELS = {"q1": {"a": 2, "b": 1, "c": 0}, "q2": {"d": 1}, "q3": {"e": 1}}
RUN = {"q1": {"c": 3.0, "b": 2.0, "a": 1.0}, "q2": {"x": 1.0, "d": 0.5}, "other": {"a": 1.0}}


def test_figures_worked_out_by_hand() -> None:
    """q1 has its grades 1 and 2 at ranks 2 and 3, q2 its only one at rank 2, q3 is missing and counts as 0."""
    found = evaluate(RUN, QRELS, ["nDCG@10", "RR@10", "R@2", "P@1"])
    first = (1 / math.log2(3) + 2 / math.log2(4)) / (2 + 1 / math.log2(3))
    second = 1 / math.log2(3)
    assert found == pytest.approx(
        {"nDCG@10": (first + second) / 3, "RR@10": 1 / 3, "R@2": (0.5 + 1) / 3, "P@1": 0.0}
    )
    assert list(found) == ["nDCG@10", "RR@10", "R@2", "P@1"]


def test_per_query_values_average_to_the_whole() -> None:
    values = per_query(RUN, QRELS)
    assert list(values) == ["nDCG@10", "RR@10", "R@100"]
    assert values["RR@10"] == {"q1": 0.5, "q2": 0.5, "q3": 0.0}
    for name, mean in evaluate(RUN, QRELS).items():
        assert np.mean(list(values[name].values())) == pytest.approx(mean)


def test_ties_are_ranked_as_they_stand_in_the_run() -> None:
    for order in (["a", "z"], ["z", "a"]):
        run = {"q1": dict.fromkeys(order, 1.0)}
        assert evaluate(run, {"q1": {"z": 1}}, ["RR@10"])["RR@10"] == 1 / (order.index("z") + 1)
    close = {"q1": {"a": np.nextafter(1.0, 0), "z": 1.0}}  # the same number as float32
    assert evaluate(close, {"q1": {"z": 1}}, ["RR@10"]) == {"RR@10": 1.0}


@pytest.mark.parametrize(
    ("name", "near"), [("nDGC@10", "nDCG"), ("nDCG@", "nDCG"), ("RR@x", "RR"), ("Recal@10", "Recall")]
)
def test_an_unknown_measure_names_the_nearest(name: str, near: str) -> None:
    with pytest.raises(ConfigError, match="there is no measure") as caught:
        evaluate(RUN, QRELS, [name])
    assert f"like {near}" in str(caught.value)


def test_no_judgements_and_no_numbers_are_refused() -> None:
    with pytest.raises(InputError, match="no judged queries"):
        evaluate(RUN, {})
    with pytest.raises(InputError, match=r"query 'q1', document 'a'"):
        evaluate({"q1": {"a": float("nan")}}, QRELS)


def test_runs_round_trip(tmp_path: Path) -> None:
    run = {"q1": {"b": 0.1 + 0.2, "a": float(np.float32(0.1)), "c": -1e-30}, "ü": {"d": 1.0, "a": 1.0}}
    write_run(run, tmp_path / "run.txt", name="tag")
    assert (tmp_path / "run.txt").read_text().splitlines()[-1] == "ü Q0 a 2 1.0 tag"
    again = read_run(tmp_path / "run.txt")
    assert again == run
    assert list(again["ü"]) == ["d", "a"]


@pytest.mark.parametrize("id_", ["a b", "", " a", "a\n"])
def test_ids_that_a_run_cannot_hold_are_refused(tmp_path: Path, id_: str) -> None:
    with pytest.raises(InputError, match="white space or is empty"):
        write_run({"q": {id_: 1.0}}, tmp_path / "run.txt")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            b"q Q0 d 1 0.5 t\nq Q0 d 1\n",
            r"run\.txt:2: expected `query Q0 document rank score name`, got 'q Q0 d 1'",
        ),
        (b"q Q0 d one 0.5 t\n", r"run\.txt:1: expected"),
        (b"q Q0 d 1 nan t\n", r"run\.txt:1: the score 'nan' is not a number"),
        (b"q Q0 d 1 0.5 t\n\nq Q0 d 1 0.5 t\n", r"run\.txt:3: query 'q' has document 'd' twice"),
        (b"q Q0 d 1 0.5 t\nq Q0 \xff 2 0.4 t\n", r"run\.txt:2: this is not UTF-8"),
    ],
)
def test_a_broken_run_is_refused(tmp_path: Path, text: bytes, message: str) -> None:
    (tmp_path / "run.txt").write_bytes(text)
    with pytest.raises(RecordError, match=message):
        read_run(tmp_path / "run.txt")


def test_qrels_of_both_kinds(tmp_path: Path) -> None:
    (tmp_path / "beir.tsv").write_text("query-id\tcorpus-id\tscore\nq1\ta\t2\nq1\tb c\t0\n\nq2\ta\t1\n")
    assert read_qrels(tmp_path / "beir.tsv") == {"q1": {"a": 2, "b c": 0}, "q2": {"a": 1}}
    (tmp_path / "trec.txt").write_text("q1 0 a 2\nq2 0 a 1\n")
    assert read_qrels(tmp_path / "trec.txt") == {"q1": {"a": 2}, "q2": {"a": 1}}
    (tmp_path / "headed.tsv").write_text("topic\tdoc\tRelevance\nq1\ta\t+1\n", encoding="utf-8-sig")
    assert read_qrels(tmp_path / "headed.tsv") == {"q1": {"a": 1}}
    for line in ("q1\ta\tyes", "q1\t\t1", "a 1", "q1 0 a 1 1", "q1 0 a 1.0"):
        (tmp_path / "bad.tsv").write_text(line)
        with pytest.raises(RecordError, match=r"bad\.tsv:1: expected .* a whole number as grade"):
            read_qrels(tmp_path / "bad.tsv")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"no file .*absent\.run with run"):
        read_run(tmp_path / "absent.run")
    with pytest.raises(NotFoundError, match="with judgements"):
        read_qrels(tmp_path)
    with pytest.raises(NotFoundError, match="there is no folder"):
        write_run(RUN, tmp_path / "absent" / "x.run")


def test_figures_of_each_query_as_csv(tmp_path: Path) -> None:
    figures = {name: per_query(RUN, QRELS, ["RR@10", "R@2"]) for name in ("a, b", "c")}
    write_per_query(figures, tmp_path / "x.csv")
    lines = (tmp_path / "x.csv").read_text().splitlines()
    assert lines[:3] == ["run,query,RR@10,R@2", '"a, b",q1,0.5,0.5', '"a, b",q2,0.5,1.0']
    assert len(lines) == 1 + 2 * 3


def test_a_perfect_run_on_real_judgements(shared_data: Path) -> None:
    qrels = read_qrels(shared_data / "text" / "nfcorpus" / "qrels" / "test.tsv")
    assert (len(qrels), sum(map(len, qrels.values()))) == (323, 12_334)
    found = evaluate({query: dict(grades) for query, grades in qrels.items()}, qrels)
    assert found["nDCG@10"] == pytest.approx(1)
    assert found["RR@10"] == pytest.approx(1)


@pytest.mark.parametrize("broken", [{"q": {"a b": 1.0}}, {"q": {"a": "high"}}])
def test_a_run_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, broken: Any) -> None:
    write_run({"q": {"a": 1.0}}, tmp_path / "run")
    with pytest.raises(ValueError, match=r"white space|could not convert"):
        write_run({"p": {"b": 1.0}, **broken}, tmp_path / "run")
    assert read_run(tmp_path / "run") == {"q": {"a": 1.0}}
    assert [file.name for file in tmp_path.iterdir()] == ["run"]
