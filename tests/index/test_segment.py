"""`Segment`: documents that are gone for good."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gossamer.index import segment as module
from gossamer.index.format import Effort
from gossamer.index.inverted import BuildConfig, InvertedIndex
from gossamer.index.segment import Call, Segment
from gossamer.kernels.errors import InputError
from tests.contracts.oracle import random_vectors

N, WIDTH = 300, 30
QUERIES = random_vectors(np.random.default_rng(7), 20, WIDTH, 0.2, names=None)


@pytest.fixture(params=["uint8", "int8", "float32"])
def segment(request: pytest.FixtureRequest, tmp_path: Path) -> Segment:
    vectors = random_vectors(np.random.default_rng(0), N, WIDTH, 0.3)
    config = BuildConfig(impacts=request.param, window=64)
    return InvertedIndex.build(tmp_path / "i", vectors, config=config)._segment


def test_what_is_gone_is_no_hit(segment: Segment) -> None:
    rng = np.random.default_rng(1)
    live, allowed = rng.random(N) < 0.9, rng.random(N) < 0.5
    thinned = replace(segment, live=live)
    exhaustive = Effort(candidates_a_hit=N)
    for true in (False, True):
        for effort in (None, exhaustive):
            for given, both in ((None, live), (allowed, live & allowed)):
                found = thinned.search(QUERIES, Call(7, given, "auto", 1), effort, true=true)
                expected = segment.search(QUERIES, Call(7, both, "auto", 1), effort, true=true)
                np.testing.assert_array_equal(found[0], expected[0])
                np.testing.assert_array_equal(found[1], expected[1])


def test_what_is_gone_is_looked_through_once(segment: Segment, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    thinned = replace(segment, live=np.arange(N) % 10 > 0)
    monkeypatch.setattr(module, "mask_of", lambda *args, **more: made.append(args))
    for _ in range(3):
        thinned.search(QUERIES, Call(3, None, "auto", 1), None, true=False)
    assert len(made) == 1


def test_only_a_filter_opens_all_windows(tmp_path: Path) -> None:
    vectors = random_vectors(np.random.default_rng(0), N, WIDTH, 0.3)
    segment = InvertedIndex.build(tmp_path / "i", vectors, config=BuildConfig(window=64))._segment
    live = np.ones(N, np.bool_)
    effort = Effort(max_windows=1, candidates_a_hit=N)
    call = Call(7, None, "auto", 1)
    without = segment.search(QUERIES, call, effort, true=True)
    under_live = replace(segment, live=live).search(QUERIES, call, effort, true=True)
    np.testing.assert_array_equal(under_live[0], without[0])
    filtered = replace(segment, live=live).search(QUERIES, replace(call, allowed=live), effort, true=True)
    exact = segment.search(QUERIES, call, None, true=True)
    np.testing.assert_array_equal(filtered[0], exact[0])
    assert (without[0] != exact[0]).any()


def test_a_filter_of_another_size_is_refused(segment: Segment) -> None:
    thinned = replace(segment, live=np.ones(N, np.bool_))
    for size in (1, N - 1):
        with pytest.raises(InputError, match="allowed has shape"):
            thinned.search(QUERIES, Call(3, np.ones(size, np.bool_), "auto", 1), None, true=False)
