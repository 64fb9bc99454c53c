"""Made-up collections whose terms hang together, as those of a learned sparse encoder do.

Uniform random terms flatter nobody: no document is near a query, no bound prunes, no cluster forms. Here 64 topics
have 64 subtopics ("leaves") each; the popularity of both follows Zipf. The whole vocabulary, a topic and a leaf are
three *sources*: each ranks some terms of its own in random order, and a draw takes rank r with probability
proportional to 1 / (r + shift). A term weighs what it is worth in its source (leaves most, low ranks more) times
lognormal noise: mostly small weights, up to 3.5.

Below the leaves stand *prototypes*, one for 50 documents: 120 terms, 25 % drawn from the vocabulary, 30 % from the
topic, 45 % from the leaf. A document belongs to a prototype: it takes 15 to 50 % of its terms from there, with noise on
the weights, and draws the others afresh from the prototype's three sources, one document in five also from a second
leaf; so neighbours are not exchangeable. A query is such a draw of some 40 terms, those of its prototype rather the
important ones. Its scores fall from rank to rank about as those of real SPLADE vectors do.

Rows are a pure function of (seed, number of documents, row), so a shard can be made again alone; weights are half
precision, so every engine is given the same numbers. About 15 µs a document on one core.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

N_TERMS = 30_522
SHARD_ROWS = 250_000
SEED = 7
PER_PROTOTYPE = 50
PROTOTYPE_TERMS = 120
N_TOPICS = N_LEAVES = 64
TOPIC_TERMS, LEAF_TERMS = 2_000, 250
SHIFTS = (1.5, 4.0, 6.0)
"""Of the vocabulary, a topic and a leaf; a small one makes a steep head."""
_PROTOTYPE, _DOCUMENT, _QUERY = 1, 2, 3
"""The streams of random numbers."""


@dataclass(frozen=True)
class _Sources:
    """The terms of each source by rank, and whom they serve."""

    vocabulary: NDArray[np.uint16]
    topics: NDArray[np.uint16]
    leaves: NDArray[np.uint16]
    leaf_popularity: NDArray[np.float64]
    """Cumulative, over all leaves of all topics."""

    def arrays(self) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
        """As the kernels take them."""
        return self.vocabulary, self.topics, self.leaves, self.leaf_popularity


@dataclass(frozen=True)
class _Prototypes:
    leaf: NDArray[np.int64]
    terms: NDArray[np.uint16]
    weights: NDArray[np.float32]


def write_topical(folder: Path, n_documents: int, n_queries: int) -> None:
    """Write the shards that are missing and the queries as .npy files: `NAME-indptr`, `-indices`, `-values`."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {f"shard-{number:03d}": number for number in range(-(-n_documents // SHARD_ROWS))}
    missing = {
        name: number for name, number in wanted.items() if not (folder / f"{name}-values.npy").exists()
    }
    if not missing and (folder / "queries-values.npy").exists():
        return
    sources = _sources()
    prototypes = _prototypes(sources, max(1, n_documents // PER_PROTOTYPE))
    for name, number in missing.items():
        first = number * SHARD_ROWS
        rows = min(SHARD_ROWS, n_documents - first)
        _save(folder, name, _draw(sources, prototypes, _DOCUMENT, first, rows))
    _save(folder, "queries", _draw(sources, prototypes, _QUERY, 0, n_queries))


def _save(folder: Path, name: str, rows: tuple[NDArray[Any], NDArray[Any], NDArray[Any]]) -> None:
    for part, array in zip(("indptr", "indices", "values"), rows, strict=True):  # the values' file comes last
        half = folder / f"{name}-{part}.tmp.npy"
        np.save(half, array)
        half.replace(folder / f"{name}-{part}.npy")


def _sources() -> _Sources:
    rng = np.random.default_rng(SEED)
    popularity = np.outer(1 / (np.arange(N_TOPICS) + 3.0), 1 / (np.arange(N_LEAVES) + 3.0)).ravel()
    return _Sources(
        rng.permutation(N_TERMS).astype(np.uint16),
        np.stack([rng.permutation(N_TERMS)[:TOPIC_TERMS] for _ in range(N_TOPICS)]).astype(np.uint16),
        np.stack([rng.permutation(N_TERMS)[:LEAF_TERMS] for _ in popularity]).astype(np.uint16),
        np.cumsum(popularity / popularity.sum()),
    )


def _prototypes(sources: _Sources, count: int) -> _Prototypes:
    leaf = np.empty(count, np.int64)
    terms = np.empty((count, PROTOTYPE_TERMS), np.uint16)
    weights = np.empty((count, PROTOTYPE_TERMS), np.float32)
    _draw_prototypes(SEED, sources.arrays(), leaf, terms, weights)
    return _Prototypes(leaf, terms, weights)


def _draw(
    sources: _Sources, prototypes: _Prototypes, stream: int, first: int, rows: int
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """CSR of documents or queries `first` to `first + rows`."""
    shape, room = ((120, 40), 220) if stream == _DOCUMENT else ((40, 15), 70)
    indptr = np.zeros(rows + 1, np.int64)
    indices, values = np.empty(rows * room, np.uint16), np.empty(rows * room, np.float32)
    end = _draw_rows(
        (SEED, stream, first),
        shape,
        sources.arrays(),
        (prototypes.leaf, prototypes.terms, prototypes.weights),
        (indptr, indices, values),
    )
    return indptr, indices[:end], values[:end].astype(np.float16)


# -- kernels -------------------------------------------------------------------------------------------------


@numba.njit(inline="always")  # type: ignore[untyped-decorator]
def _next(state: NDArray[np.uint64]) -> np.uint64:
    """The next 64 random bits (splitmix64)."""
    state[0] += np.uint64(0x9E3779B97F4A7C15)
    bits = state[0]
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.uint64 = bits ^ (bits >> np.uint64(31))
    return mixed


@numba.njit(inline="always")  # type: ignore[untyped-decorator]
def _start(state: NDArray[np.uint64], seed: int, stream: int, row: int) -> None:
    """Begin the numbers of a row."""
    state[0] = np.uint64(seed * 8 + stream)
    state[0] = _next(state) ^ np.uint64(row)
    state[0] = _next(state)


@numba.njit(inline="always")  # type: ignore[untyped-decorator]
def _uniform(state: NDArray[np.uint64]) -> float:
    return float(_next(state) >> np.uint64(11)) / 9007199254740992.0


@numba.njit(inline="always")  # type: ignore[untyped-decorator]
def _noise(state: NDArray[np.uint64], sigma: float) -> float:
    """Lognormal, nearly: four uniform numbers of 16 bits, summed, are normal enough."""
    bits = _next(state)
    total = 0.0
    for place in range(4):
        total += float((bits >> np.uint64(16 * place)) & np.uint64(0xFFFF))
    return float(np.exp(sigma * (total / 65536.0 - 2.0) * 1.7320508))


@numba.njit(inline="always")  # type: ignore[untyped-decorator]
def _rank(state: NDArray[np.uint64], shift: float, count: int) -> int:
    """A rank below `count` with probability proportional to 1 / (rank + shift), by the inverse distribution."""
    return min(count - 1, int(shift * ((count + shift) / shift) ** _uniform(state) - shift))


@numba.njit  # type: ignore[untyped-decorator]
def _from_sources(
    state: NDArray[np.uint64],
    vocabulary: NDArray[np.uint16],
    topics: NDArray[np.uint16],
    leaves: NDArray[np.uint16],
    leaf: int,
) -> tuple[int, float]:
    """A term of the leaf's three sources, and its weight."""
    which = _uniform(state)
    if which < 0.25:
        rank = _rank(state, SHIFTS[0], vocabulary.size)
        term, worth = vocabulary[rank], 0.25 * (1 + rank / 3000.0) ** 0.5  # rare words say more
    elif which < 0.55:
        rank = _rank(state, SHIFTS[1], TOPIC_TERMS)
        term, worth = topics[leaf // N_LEAVES, rank], 0.7 * (1 + rank / 30.0) ** -0.25
    else:
        rank = _rank(state, SHIFTS[2], LEAF_TERMS)
        term, worth = leaves[leaf, rank], 1.1 * (1 + rank / 15.0) ** -0.4
    return int(term), min(3.5, max(0.01, worth * _noise(state, 0.6)))


@numba.njit  # type: ignore[untyped-decorator]
def _draw_prototypes(
    seed: int, sources: Any, leaf: NDArray[np.int64], terms: NDArray[np.uint16], weights: NDArray[np.float32]
) -> None:
    vocabulary, topics, leaves, leaf_popularity = sources
    state, owner = np.zeros(1, np.uint64), np.full(N_TERMS, -1)
    for row in range(leaf.size):
        _start(state, seed, _PROTOTYPE, row)
        leaf[row] = min(np.searchsorted(leaf_popularity, _uniform(state)), leaf_popularity.size - 1)
        filled = 0
        while filled < PROTOTYPE_TERMS:
            term, weight = _from_sources(state, vocabulary, topics, leaves, leaf[row])
            if owner[term] != row:
                owner[term] = row
                terms[row, filled], weights[row, filled] = term, weight
                filled += 1


@numba.njit  # type: ignore[untyped-decorator]
def _draw_rows(
    place_of_first: tuple[int, int, int],
    shape: tuple[int, int],
    sources: Any,
    prototypes: Any,
    filled_in: Any,
) -> int:
    """Fill CSR rows; `shape` is the middle and the half width of their lengths. Returns the end."""
    seed, stream, first = place_of_first
    indptr, indices, values = filled_in
    vocabulary, topics, leaves, leaf_popularity = sources
    leaf_of, terms, weights = prototypes
    middle, half_width = shape
    state, weight_of = np.zeros(1, np.uint64), np.zeros(N_TERMS, np.float32)
    # a bit a term: no term twice, and ascending order without a sort
    taken = np.zeros(N_TERMS // 64 + 1, np.uint64)
    end = 0
    for row in range(indptr.size - 1):
        _start(state, seed, stream, first + row)
        prototype = int(_uniform(state) * leaf_of.size)
        second = leaf_of[prototype]
        if stream == _DOCUMENT and _uniform(state) < 0.2:
            second = min(np.searchsorted(leaf_popularity, _uniform(state)), leaf_popularity.size - 1)
        length = middle + int(half_width * (_uniform(state) + _uniform(state) - 1.0))
        from_prototype = 0.15 + 0.35 * _uniform(state) if stream == _DOCUMENT else 0.3
        filled = 0
        while filled < length:
            if _uniform(state) < from_prototype:
                place = int(_uniform(state) * PROTOTYPE_TERMS)
                other = int(_uniform(state) * PROTOTYPE_TERMS)
                if stream == _QUERY and weights[prototype, other] > weights[prototype, place]:
                    place = other
                term = int(terms[prototype, place])
                weight = min(3.5, max(0.01, weights[prototype, place] * _noise(state, 0.3)))
            else:
                leaf = second if _uniform(state) < 0.4 else leaf_of[prototype]
                term, weight = _from_sources(state, vocabulary, topics, leaves, leaf)
            word, bit = term >> 6, np.uint64(1) << np.uint64(term & 63)
            if taken[word] & bit == 0:
                taken[word] |= bit
                weight_of[term] = weight
                filled += 1
        for word in range(taken.size):
            bits = taken[word]
            taken[word] = 0
            for place in range(64 if bits else 0):
                if (bits >> np.uint64(place)) & np.uint64(1):
                    indices[end] = word * 64 + place
                    values[end] = weight_of[word * 64 + place]
                    end += 1
        indptr[row + 1] = end
    return end
