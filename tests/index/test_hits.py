"""Hits: ids on demand, padding, and runs that keep the index's order of ties."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from gossamer.index.hits import Hits
from gossamer.kernels.errors import InputError


@pytest.fixture
def hits() -> Hits:
    rows = np.array([[2, 0, 1], [1, -1, -1]])
    scores = np.array([[1.5, 1.5, 1.0], [0.5, -np.inf, -np.inf]], dtype=np.float32)
    return Hits(rows, scores, pa.array(["a", "b", "c"]))


def test_ids_are_null_past_the_end(hits: Hits) -> None:
    assert hits.ids.to_pylist() == [["c", "a", "b"], ["b", None, None]]
    assert hits.of(1) == [("b", 0.5)]


def test_a_run_keeps_the_order_of_ties(hits: Hits) -> None:
    run = hits.to_run(["q0", "q1"])
    assert sorted(run["q0"], key=lambda id_: -run["q0"][id_]) == ["c", "a", "b"]
    assert len(set(run["q0"].values())) == 3
    assert run["q1"] == {"b": 0.5}
    with pytest.raises(InputError, match="1 query ids for 2 queries"):
        hits.to_run(["q0"])
    with pytest.raises(InputError, match="the query id 'q' repeats"):
        hits.to_run(["q", "q"])


def test_hits_of_a_run(hits: Hits) -> None:
    again = Hits.from_run(hits.to_run(["q0", "q1"]), ["q1", "absent", "q0"])
    assert again.ids.to_pylist() == [["b", None, None], [None] * 3, ["c", "a", "b"]]
    assert again.of(2) == hits.of(0)
    assert again.row_ids.take(pa.array([0, 1, 2])).to_pylist() == ["a", "b", "c"]
    tied = Hits.from_run({"q": {"z": 1.0, "a": 1.0, "m": 2.0}}, ["q"])
    assert [id_ for id_, _ in tied.of(0)] == ["m", "z", "a"]
    assert Hits.from_run({"q": {"a": 1e300, "b": 2e300}}, ["q"]).ids.to_pylist() == [["b", "a"]]
    assert Hits.from_run({}, ["q"]).of(0) == []
    assert len(Hits.from_run({}, [])) == 0
    with pytest.raises(InputError, match="query 'q', document 'b': the score is not a number"):
        Hits.from_run({"q": {"a": 1.0, "b": float("nan")}}, ["q"])
