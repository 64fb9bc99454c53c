"""Paired tests, against tests written out plainly, scipy's, and figures by hand."""

from __future__ import annotations

import math
from itertools import product
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from gossamer.index import significance
from gossamer.index.measures import per_query
from gossamer.index.significance import PairedTest, PerQuery, holm, paired_tests
from gossamer.kernels.errors import InputError


def figures(*values: float) -> PerQuery:
    return {"RR": {f"q{number}": value for number, value in enumerate(values)}}


def paired(old: list[float], new: list[float], n_resamples: int = 10_000) -> PairedTest:
    (test,) = paired_tests(figures(*old), {"new": figures(*new)}, n_resamples=n_resamples)
    return test


def random_figures(n: int, shift: float = 0.05) -> tuple[list[float], list[float]]:
    rng = np.random.default_rng(n)
    old = np.round(rng.random(n), 1)
    return old.tolist(), np.clip(np.round(old + rng.normal(shift, 0.2, n), 1), 0, 1).tolist()


@given(
    pairs=st.lists(
        st.tuples(*[st.sampled_from([0.0, 0.1, 0.3, 1 / 3, 0.5, 1.0])] * 2), min_size=2, max_size=8
    )
)
@settings(deadline=None, max_examples=40)
def test_few_queries_are_tested_exactly(pairs: list[tuple[float, float]]) -> None:
    """By trying all assignments, one by one."""
    old, new = ([pair[side] for pair in pairs] for side in (0, 1))
    seen = abs(math.fsum(b - a for a, b in pairs))
    sums = [
        abs(math.fsum(sign * (b - a) for sign, (a, b) in zip(signs, pairs, strict=True)))
        for signs in product((1, -1), repeat=len(pairs))
    ]
    expected = sum(total >= seen - 1e-9 for total in sums) / len(sums)
    assert paired(old, new, 256).p_randomised == pytest.approx(expected)


def test_many_queries_agree_with_scipy() -> None:
    old, new = random_figures(60)
    test = paired(old, new)
    differences = np.array(new) - np.array(old)
    theirs = stats.permutation_test(
        (differences,),
        lambda x, axis: x.mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=10_000,
        rng=1,
    ).pvalue
    error = math.sqrt(theirs * (1 - theirs) / 10_000)
    assert test.p_randomised == pytest.approx(theirs, abs=5 * error)
    t = differences.mean() / (differences.std(ddof=1) / math.sqrt(60))
    assert test.p_t == pytest.approx(2 * stats.t.sf(abs(t), 59))
    spread = differences.std() / math.sqrt(60)
    assert test.low == pytest.approx(differences.mean() - 1.96 * spread, abs=0.2 * spread)
    assert test.high == pytest.approx(differences.mean() + 1.96 * spread, abs=0.2 * spread)
    assert (test.wins, test.ties, test.losses) == (
        sum(b > a for a, b in zip(old, new, strict=True)),
        sum(b == a for a, b in zip(old, new, strict=True)),
        sum(b < a for a, b in zip(old, new, strict=True)),
    )
    assert test.wins + test.ties + test.losses == 60
    assert (test.baseline, test.mean) == pytest.approx((np.mean(old), np.mean(new)))
    assert test.difference == pytest.approx(differences.mean())


def test_a_test_is_repeatable_and_fair_to_both_sides() -> None:
    old, new = random_figures(40)
    one, other = paired(old, new), paired(new, old)
    assert one == paired(old, new)
    assert one.p_randomised == other.p_randomised
    assert one.difference == -other.difference
    with mock.patch.object(
        significance, "_SIGNS_AT_A_TIME", 160
    ):  # four assignments at a time: 5 whole bytes each
        assert paired(old, new, 500).p_randomised == pytest.approx(one.p_randomised, abs=0.05)


def test_a_large_difference_has_the_least_p_there_can_be() -> None:
    test = paired([0.0] * 30, [0.5] * 15 + [0.6] * 15)
    assert test.p_randomised == 1 / 10_001
    assert test.p_t < 1e-20
    assert 0.5 < test.low < test.difference < test.high < 0.6


@pytest.mark.parametrize("by", [0.0, 0.25, -0.25])
def test_runs_that_differ_alike_everywhere(by: float) -> None:
    test = paired([0.25, 0.5, 0.75], [0.25 + by, 0.5 + by, 0.75 + by])
    assert (test.p_t, test.p_randomised) == ((1.0, 1.0) if by == 0 else (0.0, 2 / 8))
    assert (test.low, test.high) == (by, by)
    assert (test.wins, test.ties, test.losses) == (3 * (by > 0), 3 * (by == 0), 3 * (by < 0))


def test_rounding_is_no_win() -> None:
    test = paired([0.3, 0.5], [0.1 + 0.2, 0.5])
    assert (test.wins, test.ties, test.p_t, test.p_randomised) == (0, 2, 1.0, 1.0)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


def test_all_tests_of_a_call_are_corrected_together() -> None:
    qrels = {f"q{number}": {"a": 1} for number in range(12)}
    near = {query: {"a": 1.0} for query in list(qrels)[:11]}
    far = {query: {"x": 2.0, "a": 1.0} for query in qrels}
    baseline, one, two = (per_query(run, qrels, ["RR@10", "R@1"]) for run in (far, near, far))
    tests = paired_tests(baseline, {"near": one, "far": two})
    assert [(test.run, test.measure) for test in tests] == [
        ("near", "RR@10"),
        ("near", "R@1"),
        ("far", "RR@10"),
        ("far", "R@1"),
    ]
    assert [test.p_holm for test in tests] == holm([test.p_randomised for test in tests])
    assert (tests[0].wins, tests[0].losses) == (11, 1)  # the query without an answer counts as 0
    assert tests[2].p_holm == 1.0
    assert paired_tests(baseline, {}) == []
    alone = paired_tests(baseline, {"near": one})
    assert [test.p_randomised for test in alone] == [test.p_randomised for test in tests[:2]]


def test_what_cannot_be_paired_is_refused() -> None:
    with pytest.raises(InputError, match="RR of 'new' and of the baseline differ in query 'q1'"):
        paired([0.1, 0.2], [0.1])
    with pytest.raises(InputError, match="RR is there for 1 queries"):
        paired([0.1], [0.1])
    with pytest.raises(InputError, match=r"RR of 'new' is nan for query 'q1'"):
        paired([0.1, 0.2], [0.1, math.nan])
    with pytest.raises(InputError, match=r"'new' has the measures \['P'\] and the baseline \['RR'\]"):
        paired_tests(figures(0.1, 0.2), {"new": {"P": {"q0": 1.0}}})
    with pytest.raises(InputError, match="n_resamples 0"):
        paired([0.1, 0.2], [0.1, 0.2], 0)
