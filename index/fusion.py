"""Several lists of hits made one: by reciprocal ranks, or by weighted sums of scores brought to one scale.

A document's fused score is the sum over lists of weight times what the list makes of it; a list that does not hold it
adds nothing. What a list makes of a hit is the method:

    ReciprocalRank(constant=60)   1 / (constant + rank), whatever the score (Cormack, Clarke, Büttcher 2009)
    MinMax(floors=None)           from 0, the query's lowest hit (or the list's floor), to 1, its best
    ZScore(limit=3)               from 0, `limit` standard deviations below the query's mean, to ½ at the mean, and on
    AsGiven()                     the score itself, for lists of one scale (CombSUM of Fox and Shaw 1994)

With weights (α, 1 − α) the last three are the convex combination of Bruch, Gai and Ingber (2023), who found it better
than ranks once α is tuned on some judged queries. A floor is the lowest score that a list could give, such as 0 for
weights that are not negative and −1 for cosines: their theoretical min-max.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat

from gossamer.index.document_set import PartedIds
from gossamer.index.hits import Hits, RowIds
from gossamer.index.ranking import best_sums
from gossamer.kernels.errors import InputError

_ENTRIES_AT_A_TIME = 1 << 15  # of all lists together: what is sorted stays in the cache


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ReciprocalRank(_Frozen):
    """Ranks only: the hit at rank r, counted from 1, is worth 1 / (constant + r). Scores are not looked at."""

    kind: Literal["reciprocal_rank"] = "reciprocal_rank"
    constant: NonNegativeFloat = 60.0
    """The larger, the less the first ranks stand out."""


class MinMax(_Frozen):
    """A query's scores from 0 to 1; all are worth 1 where they are equal."""

    kind: Literal["min_max"] = "min_max"
    floors: tuple[float, ...] | None = None
    """The lowest score that each list could give. Without, a query's last hit is worth as little as no hit: 0."""


class ZScore(_Frozen):
    """½ + z / (2 · limit), and at least 0, with z in standard deviations of the query's hits; ½ where all are equal.

    So the scores `limit` deviations below and above the mean are worth 0 and 1, as in distribution-based score fusion.
    """

    kind: Literal["z_score"] = "z_score"
    limit: PositiveFloat = 3.0
    """How many deviations below the mean a hit is worth no more than none."""


class AsGiven(_Frozen):
    """Scores as they are, for lists of one scale, such as of two phrasings of a query in one index."""

    kind: Literal["as_given"] = "as_given"


Method: TypeAlias = Annotated[ReciprocalRank | MinMax | ZScore | AsGiven, Field(discriminator="kind")]


def fuse(
    hits: Sequence[Hits], k: int, *, method: Method | None = None, weights: Sequence[float] | None = None
) -> Hits:
    """Fuse lists of hits for the same queries, such as of a sparse and of a dense index.

    Documents are the same where their ids are. Lists may be of different depths, and empty for a query. Fuse deeper
    lists than the k you want: a document that is low in each may be high in the whole.

    Args:
        hits: one `Hits` a list, with the same queries in the same order.
        k: hits a query.
        method: what a list makes of a hit; `ReciprocalRank()` if not given.
        weights: one a list, not negative; 1 each if not given. They are not scaled to a sum of 1. A list of weight 0
            is left out.

    Returns:
        Hits `[Q, k]`: score descending, then best rank in any list, then row ascending; the order of the lists does not
        matter. Rows are those of the lists if all have the same ids in the same order, as indexes of one corpus do;
        else rows number the ids that were found, which `row_ids` then holds in the order of their code points.

    Raises:
        InputError: there are no lists, they answer different numbers of queries, one has a document twice for a query,
            an argument is out of range, a score that the method reads is not finite or is below its floor, or a fused
            score is beyond float32.
    """
    method = ReciprocalRank() if method is None else method
    lists, row_ids = _lists(hits, k, method, weights)
    width = max(k, sum(one.rows.shape[1] for one in lists))
    step = max(1, _ENTRIES_AT_A_TIME // width)
    rows = np.full((len(hits[0]), k), -1, dtype=np.int64)
    scores = np.full(rows.shape, -np.inf, dtype=np.float32)
    for start in range(0, len(rows), step):
        some = slice(start, start + step)
        with np.errstate(over="ignore", invalid="ignore"):  # looked for below
            entries = _side_by_side(lists, some, width, method, row_ids)
            rows[some], scores[some] = best_sums(*entries, k)
    if not np.isfinite(scores[rows >= 0]).all():
        raise InputError("a fused score is beyond float32; give smaller weights.")
    return Hits(rows, scores, row_ids)


class _List(NamedTuple):
    """A list that counts: its place among those given, `[Q, k]` document numbers and scores, its weight and floor."""

    place: int
    rows: NDArray[np.int64]
    scores: NDArray[np.float32]
    weight: float
    floor: float | None


def _lists(
    hits: Sequence[Hits], k: int, method: Method, weights: Sequence[float] | None
) -> tuple[list[_List], pa.StringArray]:
    """The lists that have a weight, with document numbers that they share, and the ids behind these."""
    if k < 1:
        raise InputError(f"k is {k}; ask for at least 1 hit")
    if not hits:
        raise InputError("there are no lists to fuse; give one Hits a list.")
    for place, one in enumerate(hits):
        if len(one) != len(hits[0]):
            raise InputError(
                f"list {place} answers {len(one)} queries and list 0 {len(hits[0])}; ask all lists the same."
            )
    shares = [1.0] * len(hits) if weights is None else [float(weight) for weight in weights]
    floors = method.floors if isinstance(method, MinMax) else None
    for name, given in (("weights", shares), ("floors", floors)):
        if given is not None and len(given) != len(hits):
            raise InputError(f"there are {len(given)} {name} for {len(hits)} lists; give one a list.")
    if not all(0 <= share < np.inf for share in shares) or not any(shares):
        raise InputError(f"the weights are {shares}; expected finite ones, none below 0, one above.")
    used = [place for place, share in enumerate(shares) if share > 0]
    rows, row_ids = _numbered([hits[place] for place in used])
    return [
        _List(place, numbers, hits[place].scores, shares[place], None if floors is None else floors[place])
        for place, numbers in zip(used, rows, strict=True)
    ], row_ids


def _numbered(hits: Sequence[Hits]) -> tuple[list[NDArray[np.int64]], RowIds]:
    """Document numbers of each list, the same for the same id, and the id of each number."""
    first = hits[0].row_ids
    if all(_are_same(one.row_ids, first) for one in hits):
        return [one.rows for one in hits], first
    coded = [pa.array(one.rows.ravel(), mask=one.rows.ravel() < 0).dictionary_encode() for one in hits]
    named = [one.row_ids.take(codes.dictionary) for one, codes in zip(hits, coded, strict=True)]
    row_ids = pc.unique(pa.concat_arrays(named))
    row_ids = row_ids.take(pc.sort_indices(row_ids))
    numbered = []
    for one, codes, names in zip(hits, coded, named, strict=True):
        numbers = np.append(pc.index_in(names, value_set=row_ids).to_numpy().astype(np.int64), -1)
        at = codes.indices.fill_null(len(names)).to_numpy()  # past the end stands the −1
        numbered.append(numbers[at].reshape(one.rows.shape))
    return numbered, row_ids


def _are_same(ids: RowIds, first: RowIds) -> bool:
    """Whether rows of both are the same documents, as far as that is seen without looking at all of them."""
    if ids is first:
        return True
    if isinstance(ids, PartedIds) or isinstance(first, PartedIds):
        return isinstance(ids, PartedIds) and isinstance(first, PartedIds) and ids.equals(first)
    if not isinstance(ids, pa.Array | pa.ChunkedArray) or type(ids) is not type(first):
        return False
    array: Any = ids
    return bool(array.equals(first))


def _name(ids: RowIds, row: int) -> str:
    return repr(ids.take(pa.array([row]))[0].as_py())


def _side_by_side(
    lists: Sequence[_List], some: slice, width: int, method: Method, row_ids: RowIds
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """The entries that all lists have for some queries, `[q, width]`: document numbers, what they are worth, ranks."""
    n_queries = len(lists[0].rows[some])
    numbers = np.full((n_queries, width), -1, dtype=np.int64)
    worth = np.zeros(numbers.shape)
    ranks = np.zeros_like(numbers)
    end = 0
    for one in lists:
        begin, end = end, end + one.rows.shape[1]
        rows, found = one.rows[some], one.rows[some] >= 0
        _refuse_repeats(one, some, row_ids)
        numbers[:, begin:end][found] = rows[found]
        ranks[:, begin:end] = rank = np.cumsum(found, axis=1)
        if isinstance(method, ReciprocalRank):
            worth[:, begin:end] = one.weight / (method.constant + np.maximum(rank, 1))
        else:
            worth[:, begin:end] = one.weight * _scaled(_finite(one, some, row_ids), found, method, one.floor)
    return numbers, worth, ranks


def _scaled(
    scores: NDArray[np.float64],
    found: NDArray[np.bool_],
    method: MinMax | ZScore | AsGiven,
    floor: float | None,
) -> NDArray[np.float64]:
    """What hits `[q, k]` are worth by their scores; anything finite where there is none."""
    if isinstance(method, AsGiven):
        return scores
    low = scores.min(axis=1, keepdims=True, where=found, initial=np.inf)
    high = scores.max(axis=1, keepdims=True, where=found, initial=-np.inf)
    if isinstance(method, MinMax):
        base = low if floor is None else np.full_like(low, floor)
        differ = high > base
        return np.where(found & differ, (scores - base) / np.where(differ, high - base, 1), 1)
    n = np.maximum(found.sum(axis=1, keepdims=True), 1)
    centred = np.where(found, scores - scores.sum(axis=1, keepdims=True) / n, 0)
    deviation = np.sqrt((centred**2).sum(axis=1, keepdims=True) / n)
    differ = high > low  # which rounding of the mean cannot feign
    return np.maximum(
        np.where(differ, 0.5 + centred / np.where(differ, 2 * method.limit * deviation, 1), 0.5), 0
    )


def _finite(one: _List, some: slice, row_ids: RowIds) -> NDArray[np.float64]:
    """Scores, 0 where there is no hit."""
    rows = one.rows[some]
    scores = np.where(rows >= 0, one.scores[some], 0).astype(np.float64)
    bad = ~np.isfinite(scores)
    if one.floor is not None:
        bad |= (rows >= 0) & (scores < one.floor)
    if bad.any():
        query, column = np.argwhere(bad)[0]
        least = "" if one.floor is None else f" of at least the floor {one.floor:g}"
        raise InputError(
            f"list {one.place}, query {some.start + query}: {_name(row_ids, rows[query, column])} has the score "
            f"{scores[query, column]:g}; expected a finite one{least}."
        )
    return scores


def _refuse_repeats(one: _List, some: slice, row_ids: RowIds) -> None:
    rows = np.sort(one.rows[some], axis=1)
    twice = (rows[:, 1:] == rows[:, :-1]) & (rows[:, 1:] >= 0)
    if twice.any():
        query, column = np.argwhere(twice)[0]
        raise InputError(
            f"list {one.place}, query {some.start + query}: {_name(row_ids, rows[query, column])} is there "
            "twice; a list ranks each document once."
        )
