"""Laws of fusion: it is the sum written out plainly, and does not know the order of lists, queries or rows."""

from __future__ import annotations

import math
from typing import cast

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.index.fusion import AsGiven, Method, MinMax, ReciprocalRank, ZScore, fuse
from gossamer.index.hits import Hits

laws = settings(deadline=None, max_examples=60)
IDS = [f"d{number}" for number in range(8)]
List = list[list[tuple[str, float]]]

methods = st.sampled_from([ReciprocalRank(), ReciprocalRank(constant=0), MinMax(), ZScore(), AsGiven()])
scores = st.one_of(st.sampled_from([0.0, 0.5, 1.0]), st.floats(-9, 9, width=32))
weights = st.sampled_from([0.25, 0.3, 1.0, 7.0])


@st.composite
def list_sets(draw: st.DrawFn, max_lists: int = 4) -> list[List]:
    """Some lists for the same queries, best first, some of them empty."""
    n_queries = draw(st.integers(0, 3))
    answer = st.dictionaries(st.sampled_from(IDS), scores, max_size=6)
    of_all = st.lists(answer, min_size=n_queries, max_size=n_queries)
    drawn = draw(st.lists(of_all, min_size=1, max_size=max_lists))
    return [[sorted(of.items(), key=lambda hit: -hit[1]) for of in one] for one in drawn]


def as_hits(one: List, row_ids: list[str] = IDS) -> Hits:
    width = max([1, *map(len, one)])
    rows = np.full((len(one), width), -1, dtype=np.int64)
    values = np.full(rows.shape, -np.inf, dtype=np.float32)
    for query, answer in enumerate(one):
        for column, (id_, score) in enumerate(answer):
            rows[query, column], values[query, column] = row_ids.index(id_), score
    return Hits(rows, values, pa.array(row_ids))


def shuffled(seed: int) -> list[str]:
    return [IDS[row] for row in np.random.default_rng(seed).permutation(len(IDS))]


def plain(answer: list[tuple[str, float]], method: Method) -> dict[str, float]:
    """What a list makes of its hits, one at a time."""
    values = [score for _, score in answer]
    if isinstance(method, ReciprocalRank):
        return {id_: 1 / (method.constant + rank) for rank, (id_, _) in enumerate(answer, start=1)}
    if isinstance(method, AsGiven) or not answer:
        return dict(answer)
    if isinstance(method, MinMax):
        low, high = min(values), max(values)
        return {id_: 1.0 if high == low else (score - low) / (high - low) for id_, score in answer}
    mean = math.fsum(values) / len(values)
    deviation = math.sqrt(math.fsum((score - mean) ** 2 for score in values) / len(values))
    if min(values) == max(values):
        return dict.fromkeys(dict(answer), 0.5)
    return {id_: max(0.0, 0.5 + (score - mean) / deviation / 2 / method.limit) for id_, score in answer}


@given(lists=list_sets(), method=methods, data=st.data(), k=st.sampled_from([1, 3, 20]))
@laws
def test_a_fused_score_is_the_plain_sum(
    lists: list[List], method: Method, data: st.DataObject, k: int
) -> None:
    shares = data.draw(st.lists(weights, min_size=len(lists), max_size=len(lists)))
    hits = fuse([as_hits(one) for one in lists], k, method=method, weights=shares)
    assert hits.rows.shape == hits.scores.shape == (len(lists[0]), k)
    for query in range(len(hits)):
        total: dict[str, float] = {}
        for one, share in zip(lists, shares, strict=True):
            for id_, worth in plain(one[query], method).items():
                total[id_] = total.get(id_, 0) + share * worth
        found = hits.of(query)
        assert len(found) == min(k, len(total))
        best = sorted(total.values(), reverse=True)[:k]
        np.testing.assert_allclose([score for _, score in found], best, rtol=1e-5, atol=1e-5)
        for id_, score in found:
            np.testing.assert_allclose(score, total[id_], rtol=1e-5, atol=1e-5)


@given(lists=list_sets(), method=methods, data=st.data())
@laws
def test_the_order_of_lists_changes_nothing(lists: list[List], method: Method, data: st.DataObject) -> None:
    shares = data.draw(st.lists(weights, min_size=len(lists), max_size=len(lists)))
    order = data.draw(st.permutations(range(len(lists))))
    hits = [as_hits(one) for one in lists]
    one = fuse(hits, 5, method=method, weights=shares)
    other = fuse([hits[at] for at in order], 5, method=method, weights=[shares[at] for at in order])
    np.testing.assert_array_equal(one.rows, other.rows)
    np.testing.assert_array_equal(one.scores, other.scores)


@given(lists=list_sets(max_lists=1), method=methods, n=st.integers(1, 4))
@laws
def test_a_list_fused_with_itself_keeps_its_order(lists: list[List], method: Method, n: int) -> None:
    hits = as_hits(lists[0])
    np.testing.assert_array_equal(fuse([hits] * n, hits.k, method=method).rows, hits.rows)


@given(lists=list_sets(), method=methods, data=st.data())
@laws
def test_a_weight_of_zero_leaves_a_list_out(lists: list[List], method: Method, data: st.DataObject) -> None:
    hits = [as_hits(one) for one in lists]
    shares = data.draw(st.lists(st.sampled_from([0.0, 1.0, 2.5]), min_size=len(hits), max_size=len(hits)))
    used = [at for at, share in enumerate(shares) if share]
    if used:
        one = fuse(hits, 9, method=method, weights=shares)
        other = fuse([hits[at] for at in used], 9, method=method, weights=[shares[at] for at in used])
        np.testing.assert_array_equal(one.rows, other.rows)
        np.testing.assert_array_equal(one.scores, other.scores)


@given(lists=list_sets(), method=methods, seeds=st.lists(st.integers(0, 99), min_size=4, max_size=4))
@laws
def test_documents_are_matched_by_id(lists: list[List], method: Method, seeds: list[int]) -> None:
    """Whatever rows each index has: ids here ascend with the rows, so that even ties are the same."""
    one = fuse([as_hits(of) for of in lists], 9, method=method)
    apart = [as_hits(of, shuffled(seed)) for of, seed in zip(lists, seeds[: len(lists)], strict=True)]
    other = fuse(apart, 9, method=method)
    if len({tuple(cast("pa.Array", of.row_ids).to_pylist()) for of in apart}) > 1:
        assert other.ids.equals(one.ids)
        np.testing.assert_array_equal(other.scores, one.scores)


@given(lists=list_sets(), method=methods)
@laws
def test_queries_are_answered_apart(lists: list[List], method: Method) -> None:
    whole = fuse([as_hits(one) for one in lists], 9, method=method)
    for query in range(len(lists[0])):
        alone = fuse([as_hits([one[query]]) for one in lists], 9, method=method)
        np.testing.assert_array_equal(whole.rows[query], alone.rows[0])
        np.testing.assert_allclose(whole.scores[query], alone.scores[0], rtol=1e-6)
