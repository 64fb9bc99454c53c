"""Whether one run is better than another: paired tests over the queries that both are judged on.

The randomisation test asks how often a difference in means as large would come about if for each query a coin's toss
had decided which run got which figure (Fisher 1935). It assumes nothing about how figures are distributed. Smucker,
Allan and Carterette (2007) compared it with the t-test, the bootstrap and others on TREC runs: these three agree, and
they advise against the sign and the Wilcoxon test. Where several runs or measures are tested at once, some will seem to
differ by chance; Holm (1979) raises their p, so that the chance of any such error stays what one asks for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from gossamer.kernels.errors import InputError

PerQuery: TypeAlias = Mapping[str, Mapping[str, float]]
"""Measure → query → figure, as `gossamer.index.measures.per_query` gives it: a query without an answer counts as 0."""

_SAME = 1e-9  # figures that differ by less are one; sums are rounded differently in different orders
_SIGNS_AT_A_TIME = 1 << 22


@dataclass(frozen=True)
class PairedTest:
    """One measure of one run against the baseline's.

    Attributes:
        run: name of the run.
        measure: name of the measure.
        baseline: the baseline's mean over the queries.
        mean: the run's mean.
        difference: mean less baseline.
        low: lower end of the bootstrap interval of the difference.
        high: its upper end.
        p_t: p of Student's paired t-test, two-sided; 0 where all queries differ by the same amount.
        p_randomised: p of the randomisation test, two-sided; exact where all assignments were tried, never 0.
        p_holm: `p_randomised` corrected for the number of tests made in the one call.
        wins: queries on which the run is better.
        ties: queries on which both are the same.
        losses: queries on which it is worse.
    """

    run: str
    measure: str
    baseline: float
    mean: float
    difference: float
    low: float
    high: float
    p_t: float
    p_randomised: float
    p_holm: float
    wins: int
    ties: int
    losses: int


def paired_tests(
    baseline: PerQuery,
    others: Mapping[str, PerQuery],
    *,
    confidence: float = 0.95,
    n_resamples: int = 10_000,
    seed: int = 0,
) -> list[PairedTest]:
    """Test each measure of each run against the baseline.

    Args:
        baseline: its figures; all runs have the same measures and queries.
        others: the figures of the other runs, by name.
        confidence: of the intervals.
        n_resamples: assignments that are tried, and samples of the bootstrap. Where there are no more assignments than
            that, each is tried once.
        seed: of what is drawn; the same seed gives the same result.

    Returns:
        Runs in their order, and within each its measures.

    Raises:
        InputError: the runs differ in measures or queries, there are fewer than two queries, a figure is not finite, or
            an argument is out of range.
    """
    if not 0 < confidence < 1 or n_resamples < 1:
        raise InputError(
            f"confidence is {confidence} and n_resamples {n_resamples}; expected a share, and at least 1."
        )
    before = {measure: _figures("the baseline", baseline, measure, of) for measure, of in baseline.items()}
    names, differences, tests = [], [], []
    for name, values in others.items():
        if list(values) != list(baseline):
            raise InputError(
                f"{name!r} has the measures {list(values)} and the baseline {list(baseline)}; compute the same."
            )
        for measure, old in before.items():
            new = _figures(repr(name), values, measure, baseline[measure])
            names.append((name, measure, float(old.mean()), float(new.mean())))
            differences.append(np.where(np.abs(new - old) < _SAME, 0, new - old))
    if not differences:
        return []
    p_randomised = _randomisation_tests(np.stack(differences), n_resamples, seed)
    for (name, measure, old_mean, new_mean), difference, p in zip(
        names, differences, p_randomised, strict=True
    ):
        low, high = _interval(difference, confidence, n_resamples, seed)
        tests.append(
            PairedTest(
                run=name,
                measure=measure,
                baseline=old_mean,
                mean=new_mean,
                difference=new_mean - old_mean,
                low=low,
                high=high,
                p_t=_t_test(difference),
                p_randomised=p,
                p_holm=p,
                wins=int((difference > 0).sum()),
                ties=int((difference == 0).sum()),
                losses=int((difference < 0).sum()),
            )
        )
    return [replace(test, p_holm=p) for test, p in zip(tests, holm(p_randomised), strict=True)]


def holm(p_values: Sequence[float]) -> list[float]:
    """Raise p values so that rejecting those below α errs in any of them with chance α at most (Holm 1979).

    The smallest of m is taken m times, the next m − 1 times, and so on; none falls below the one before it.
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    raised, last = [0.0] * len(order), 0.0
    for place, at in enumerate(order):
        last = max(last, min(1.0, p_values[at] * (len(order) - place)))
        raised[at] = last
    return raised


def _figures(name: str, values: PerQuery, measure: str, queries: Mapping[str, float]) -> NDArray[np.float64]:
    """The figures of a measure, in the order of the queries."""
    of = values[measure]
    if odd := next(iter(of.keys() ^ queries.keys()), None):
        raise InputError(
            f"{measure} of {name} and of the baseline differ in query {odd!r}; judge the same queries."
        )
    if len(queries) < 2:
        raise InputError(f"{measure} is there for {len(queries)} queries; a test needs two at least.")
    figures = np.array([of[query] for query in queries], dtype=np.float64)
    if not np.isfinite(figures).all():
        query = list(queries)[int(np.argmin(np.isfinite(figures)))]
        raise InputError(f"{measure} of {name} is {of[query]} for query {query!r}; expected a finite number.")
    return figures


def _randomisation_tests(differences: NDArray[np.float64], n_resamples: int, seed: int) -> list[float]:
    """Returns p of each row of differences `[tests, queries]`, all by the same assignments.

    To swap the figures of a query turns the sign of its difference, so the sum is the whole less twice what turns.
    """
    n_tests, n_queries = differences.shape
    totals = differences.sum(axis=1)
    least = np.abs(totals) - 1e-12 * np.abs(differences).sum(axis=1)  # as large, but for rounding
    twice = 2 * differences.T
    n_reached, n_tried, exact = np.zeros(n_tests, dtype=np.int64), 0, 2**n_queries <= n_resamples
    for turned in _assignments(n_queries, n_resamples, seed):
        n_reached += (np.abs(totals - turned @ twice) >= least).sum(axis=0)
        n_tried += len(turned)
    reached = (
        (n_reached / n_tried) if exact else (n_reached + 1) / (n_tried + 1)
    )  # the one that was seen counts
    return [float(p) for p in reached]


def _assignments(n_queries: int, n_resamples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """Which queries are swapped, `[some, queries]` of 0 and 1: all ways if these are few enough, else random ones."""
    if 2**n_queries <= n_resamples:
        ways = np.arange(2**n_queries)[:, None] >> np.arange(n_queries)
        yield (ways & 1).astype(np.float64)
        return
    random = np.random.default_rng(seed)
    step = max(1, _SIGNS_AT_A_TIME // n_queries)
    for start in range(0, n_resamples, step):
        n = min(step, n_resamples - start)
        bits = np.frombuffer(random.bytes(n * math.ceil(n_queries / 8)), dtype=np.uint8).reshape(n, -1)
        yield np.unpackbits(bits, axis=1, count=n_queries).astype(np.float64)


def _t_test(differences: NDArray[np.float64]) -> float:
    from scipy import stats

    if np.ptp(differences) < _SAME:  # no variance to divide by
        return float(not differences.any())
    return float(stats.ttest_1samp(differences, 0).pvalue)


def _interval(
    differences: NDArray[np.float64], confidence: float, n_resamples: int, seed: int
) -> tuple[float, float]:
    """Percentiles of the mean of queries drawn with replacement (Efron 1979)."""
    from scipy import stats

    found = stats.bootstrap(
        (differences,),
        np.mean,
        n_resamples=n_resamples,
        batch=max(1, _SIGNS_AT_A_TIME // len(differences)),
        confidence_level=confidence,
        method="percentile",
        rng=seed,
    ).confidence_interval
    return float(found.low), float(found.high)
