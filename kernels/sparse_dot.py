"""Exact top-k of sparse dot products, from an inverted index.

A query's score for a document is the sum, over the terms that both have, of query weight times stored impact.
On the integer kinds (int16 weights, uint8 or int8 impacts) it is an int32 sum, so it depends neither on order nor
on the backend, and all backends agree bit for bit. On the float32 kind products are rounded and then added in
ascending order of term; it runs on the CPU only.

A document is a hit if it has a posting for one of the query's terms, whatever its score. Hits are ordered by
score descending, then row ascending.
"""

import weakref
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from gossamer.kernels.backends import choose_backend
from gossamer.kernels.errors import BackendError, InputError

Backend: TypeAlias = Literal["auto", "reference", "numba", "triton"]

MAX_WINDOW = 65_536
LAST_ROW = 2**32 - 1  # with the score, a row has to fit into 64 bits
NO_KEY = -(2**63)


class Queries(NamedTuple):
    """A batch of Q sparse queries, as the rows of a CSR matrix."""

    indptr: npt.NDArray[np.int64]
    """int64 [Q + 1]: where each query's terms start."""
    terms: npt.NDArray[np.int32]
    """int32 [nnz]: strictly ascending within a query."""
    weights: npt.NDArray[np.int16 | np.float32]
    """int16 or float32 [nnz]. For int16 the caller sees to it that no sum of products leaves ±(2³¹ - 1)."""


class Bounds(NamedTuple):
    """What lets documents be left out unseen, for uint8 impacts and positive weights.

    No stored impact may be 0: with bounds such a posting is as good as none, without them it makes its document a hit.
    This is not checked, as it would take a look at every posting; an index stores none.

    A *block* is 32 neighbouring documents of a window; a window has `ceil(window / 32)` of them, the last one filled up
    with documents that have no terms. A *dense* term has a row with a byte for every document beside its postings:
    adding up such a row takes a document a tenth of the time that a posting takes.
    """

    window_max: npt.NDArray[np.uint8]
    """uint8 [n_lists, n_windows]: the largest impact of a term in a window."""
    dense_terms: npt.NDArray[np.int32]
    """int32 [n_dense]: numbers of lists, ascending."""
    dense: npt.NDArray[np.uint8]
    """uint8 [n_dense, n_windows * blocks * 32]: the impact of each document, 0 where it lacks the term."""
    block_max: npt.NDArray[np.uint8]
    """uint8 [n_dense, n_windows * blocks]: the largest byte of each block."""


class Postings(NamedTuple):
    """An inverted index, sorted by (term, position), its documents in windows of consecutive positions.

    Never written to after it is made: the arrays may be read-only maps of files, and a backend may keep a copy of
    them on its device.
    """

    n_documents: int
    n_terms: int
    window: int
    """Documents in a window, at most 65,536, so that a document's number within it takes two bytes."""
    bases: npt.NDArray[np.int64]
    """int64 [n_lists + 1]: where each term's list of postings starts."""
    offsets: npt.NDArray[np.uint32]
    """uint32 [n_lists, n_windows + 1]: where each window's run starts, relative to its list's base."""
    local: npt.NDArray[np.uint16]
    """uint16 [nnz]: position - window number * window; strictly ascending within a run."""
    impacts: npt.NDArray[np.uint8 | np.int8 | np.float32]
    """uint8, int8 or float32 [nnz]."""
    rows: npt.NDArray[np.uint32]
    """uint32 [n_documents]: the row of the document at each position; every row once."""
    bounds: Bounds | None = None
    """For uint8 impacts, where they are worth their bytes."""
    terms: npt.NDArray[np.int32] | None = None
    """int32 [n_lists]: the term of each list, ascending; None where every term of the vocabulary has its list."""

    @property
    def n_windows(self) -> int:
        """Windows of documents; the last may be shorter."""
        return -(-self.n_documents // self.window)

    @property
    def n_lists(self) -> int:
        """Lists of postings: as many as there are terms, unless only those that occur have one."""
        return self.n_terms if self.terms is None else len(self.terms)

    def run(self, term: int, window: int) -> slice:
        """The postings of a term in a window."""
        number = term
        if self.terms is not None:
            number = int(np.searchsorted(self.terms, term))
            if number == len(self.terms) or self.terms[number] != term:
                return slice(0, 0)
        start, stop = self.bases[number] + self.offsets[number, window : window + 2].astype(np.int64)
        return slice(int(start), int(stop))


class Mask(NamedTuple):
    """Which documents may be hits; `mask_of` makes it."""

    allowed: npt.NDArray[np.bool_]
    """bool [n_documents], by row."""
    open_blocks: npt.NDArray[np.bool_]
    """bool [n_windows * blocks], see `Bounds`: whether a block has any; empty where all are looked into."""


class TopK(NamedTuple):
    """The k best hits of each query; past the last one the row is -1 and the score the smallest of its type."""

    rows: npt.NDArray[np.int64]
    """int64 [Q, K]."""
    scores: npt.NDArray[np.int32 | np.float32]
    """int32 or float32 [Q, K]."""


_NO_BLOCKS = np.empty(0, np.bool_)
_NO_BLOCKS.flags.writeable = False


def mask_of(allowed: npt.NDArray[np.bool_], postings: Postings, *, blocks: bool | None = None) -> Mask:
    """What `sparse_dot_topk` makes of `allowed`; for one that serves many calls it can be made once.

    Args:
        allowed: bool [n_documents], by row; not written to afterwards.
        postings: what will be searched.
        blocks: whether to find the blocks without such documents, which takes a pass over all documents; None does so
            if fewer than half of the documents are left.

    Raises:
        InputError: `allowed` has the wrong type or size.
    """
    _check_array("allowed", allowed, "bool", (postings.n_documents,))
    if blocks is None:
        blocks = bool(2 * np.count_nonzero(allowed) < postings.n_documents)
    if not blocks or postings.bounds is None:
        return Mask(allowed, _NO_BLOCKS)
    from gossamer.kernels.sparse_dot_keys import find_open_blocks

    return Mask(allowed, find_open_blocks(allowed, postings.rows, postings.window))


def empty_top_k(n_queries: int, k: int, impacts: npt.NDArray[np.generic]) -> TopK:
    """Room for the answers to `n_queries` queries, filled with the values that mean "no hit"."""
    rows = np.full((n_queries, k), -1, np.int64)
    if impacts.dtype == np.float32:
        return TopK(rows, np.full((n_queries, k), -np.inf, np.float32))
    return TopK(rows, np.full((n_queries, k), np.iinfo(np.int32).min, np.int32))


def read_keys(keys_QN: npt.NDArray[np.int64], k: int, *, is_float: bool) -> TopK:
    """Turn the fast paths' keys, integers that rise with a hit's rank, into rows and scores.

    Args:
        keys_QN: `(score << 32) | (LAST_ROW - row)`, in any order; `NO_KEY` where there is no hit. A float32 score
            stands there as its bits, all but the sign inverted if it is negative.
        k: Columns wanted: the best keys, or all and the values that mean "no hit".
        is_float: Whether scores are float32, else they are int32.
    """
    from gossamer.kernels.sparse_dot_keys import read

    rows, scores = read(keys_QN, k, is_float)
    return TopK(rows, scores.view(np.float32) if is_float else scores)


def sparse_dot_topk(
    queries: Queries,
    postings: Postings,
    k: int,
    *,
    allowed: npt.NDArray[np.bool_] | Mask | None = None,
    max_windows: int | None = None,
    backend: Backend = "auto",
    n_threads: int = 1,
) -> TopK:
    """Find the k documents with the largest dot product for each query.

    Args:
        queries: Q queries; int16 weights for uint8 and int8 impacts, float32 weights for float32 impacts.
        postings: The documents. Its arrays' values are trusted; their types and sizes are checked.
        k: Hits wanted per query; may be more than there are documents.
        allowed: bool [n_documents]; rows where it is False are no hits. What `mask_of` made of it is taken, too.
        max_windows: Look only into so many windows for each query, those with the largest sums of weight times
            `window_max` (of equal ones the first). Wants bounds and weights above zero; None looks into all.
        backend: `"auto"` takes Triton where a GPU is present and the kind is an integer one, else Numba. A backend
            that is named runs or raises: nothing else is tried in its place.
        n_threads: Threads over which the Numba backend spreads the queries. The answer does not depend on it.

    Returns:
        The hits, `[Q, k]`: score descending, then row ascending.

    Raises:
        InputError: An array has the wrong type or size, or a query has a term that the postings do not know.
        BackendError: The backend cannot run here, or not for this kind.
    """
    _check(queries, postings, k, n_threads, max_windows)
    mask = mask_of(allowed, postings) if isinstance(allowed, np.ndarray) else allowed
    if mask is not None:
        _check_mask(mask, postings)
    return answer(queries, postings, k, mask, max_windows, backend, n_threads)


def answer(  # noqa: PLR0917
    queries: Queries,
    postings: Postings,
    k: int,
    mask: Mask | None,
    max_windows: int | None,
    backend: Backend,
    n_threads: int,
) -> TopK:
    """`sparse_dot_topk` for a caller that has made sure of its arguments, as for one query that takes its time, too."""
    is_float = postings.impacts.dtype == np.float32
    if postings.terms is not None:  # from here on, terms are numbers of lists
        from gossamer.kernels.sparse_dot_keys import by_list

        queries = Queries(*by_list(*queries, postings.terms))
        postings = postings._replace(n_terms=postings.n_lists, terms=None)
    match choose_backend(backend, gpu_can=not is_float):
        case "reference":
            return sparse_dot_topk_reference(queries, postings, k, mask, max_windows)
        case "numba":
            from gossamer.kernels.sparse_dot_numba import sparse_dot_topk_numba

            return sparse_dot_topk_numba(queries, postings, k, mask, max_windows, n_threads)
        case "triton":
            if is_float:
                raise BackendError(
                    "backend 'triton' has no float32 kind: on a GPU the order of its sums, and so the scores, would "
                    "vary. Use integer impacts, or backend 'numba'."
                )
            from gossamer.kernels.sparse_dot_triton import sparse_dot_topk_triton

            return sparse_dot_topk_triton(queries, postings, k, mask, max_windows)


def sparse_dot_topk_reference(
    queries: Queries,
    postings: Postings,
    k: int,
    mask: Mask | None,
    max_windows: int | None,
) -> TopK:
    """The plain version of `sparse_dot_topk`: one query at a time, a sum for every document, a full sort."""
    top = empty_top_k(len(queries.indptr) - 1, k, postings.impacts)
    sum_type = np.float32 if postings.impacts.dtype == np.float32 else np.int64
    for q in range(len(top.rows)):
        sums: npt.NDArray[np.float32 | np.int64] = np.zeros(postings.n_documents, sum_type)
        touched = np.zeros(postings.n_documents, np.bool_)
        entries = slice(queries.indptr[q], queries.indptr[q + 1])
        terms, weights = queries.terms[entries], queries.weights[entries].astype(sum_type)
        windows = best_windows(terms, weights, postings, max_windows)
        for term, weight in zip(terms.tolist(), weights, strict=True):
            for window in windows:
                run = postings.run(term, window)
                rows = postings.rows[window * postings.window + postings.local[run].astype(np.int64)]
                sums[rows] += weight * postings.impacts[run].astype(sum_type)
                touched[rows] = True
        hits = np.flatnonzero(touched if mask is None else touched & mask.allowed)
        best = hits[np.lexsort((hits, np.negative(sums[hits])))[:k]]
        top.rows[q, : len(best)] = best
        top.scores[q, : len(best)] = sums[best]
    return top


def best_windows(
    terms: npt.NDArray[np.int32],
    weights: npt.NDArray[np.generic],
    postings: Postings,
    max_windows: int | None,
) -> list[int]:
    """The windows that a query looks into, ascending; see `sparse_dot_topk`."""
    if max_windows is None or postings.bounds is None or max_windows >= postings.n_windows:
        return list(range(postings.n_windows))
    bounds = weights.astype(np.int64) @ postings.bounds.window_max[terms].astype(np.int64)
    return sorted(np.argsort(-bounds, kind="stable")[:max_windows].tolist())


_KINDS = {"uint8": "int16", "int8": "int16", "float32": "float32"}  # of impacts: of query weights


def _check(
    queries: Queries,
    postings: Postings,
    k: int,
    n_threads: int,
    max_windows: int | None,
) -> None:
    """Refuse what the kernels, which check nothing, could not take. Costs time in the queries' size only."""
    if k < 1:
        raise InputError(f"k is {k}; ask for at least 1 hit")
    if n_threads < 1:
        raise InputError(f"n_threads is {n_threads}; give at least 1")
    if max_windows is not None:
        _check_max_windows(max_windows, queries, postings)
    check_postings(postings)
    kind = postings.impacts.dtype.name
    _check_array("queries.indptr", queries.indptr, "int64", None)
    _check_array("queries.terms", queries.terms, "int32", None)
    _check_array("queries.weights", queries.weights, _KINDS[kind], queries.terms.shape)
    _check_terms(queries, postings.n_terms)
    if kind == "float32" and not np.isfinite(queries.weights).all():
        entry = np.flatnonzero(~np.isfinite(queries.weights))[0]
        query = int(np.searchsorted(queries.indptr, entry, side="right")) - 1
        raise InputError(f"query {query} has a weight that is not finite: {queries.weights[entry]}")


def _check_terms(queries: Queries, n_terms: int) -> None:
    from gossamer.kernels.sparse_dot_keys import first_fault

    indptr, terms = queries.indptr, queries.terms
    fault, query, entry = first_fault(indptr, terms, n_terms)
    if fault == "indptr":
        raise InputError(f"queries.indptr must rise from 0 to the number of terms, {len(terms)}")
    if fault == "unknown":
        raise InputError(
            f"query {query} has term {terms[entry]}, but the postings have terms 0 to {n_terms - 1}; encode queries "
            "and documents with one vocabulary"
        )
    if fault == "order":
        raise InputError(
            f"the terms of query {query} are not strictly ascending; sort them and add up duplicates"
        )


def _check_max_windows(max_windows: int, queries: Queries, postings: Postings) -> None:
    if max_windows < 1:
        raise InputError(f"max_windows is {max_windows}; look into at least 1")
    if postings.bounds is None:
        raise InputError("max_windows wants postings with bounds, and these have none; leave it out")
    if (queries.weights <= 0).any():
        raise InputError("max_windows wants query weights above zero, and there are others; leave it out")


def _check_mask(mask: Mask, postings: Postings) -> None:
    n_blocks = postings.n_windows * -(-postings.window // 32)
    _check_array("allowed", mask.allowed, "bool", (postings.n_documents,))
    if len(mask.open_blocks):
        _check_array("allowed.open_blocks", mask.open_blocks, "bool", (n_blocks,))


_SOUND: dict[int, tuple[Any, ...]] = {}


def check_postings(postings: Postings) -> None:
    """Check postings at their first use; what was checked is remembered as long as their impacts live."""
    impacts = postings.impacts
    key = id(impacts)
    others = (*postings[:6], *postings[7:])
    known = _SOUND.get(key)
    if known is not None and all(one is other for one, other in zip(known, others, strict=True)):
        return
    _check_all(postings)
    if known is None:
        weakref.finalize(impacts, _SOUND.pop, key, None)
    _SOUND[key] = (
        others  # the objects themselves, so that none of them can make room for another of its address
    )


def _check_all(postings: Postings) -> None:
    if not 1 <= postings.window <= MAX_WINDOW:
        raise InputError(f"postings.window is {postings.window}; a window holds 1 to {MAX_WINDOW} documents")
    if postings.n_documents > LAST_ROW:
        raise InputError(
            f"postings hold {postings.n_documents} documents; cut them into shards of at most {LAST_ROW}"
        )
    kind = postings.impacts.dtype.name
    if kind not in _KINDS:
        raise InputError(f"postings.impacts is {kind}; expected one of {', '.join(_KINDS)}")
    if postings.terms is not None:
        _check_array("postings.terms", postings.terms, "int32", None)
    _check_array("postings.bases", postings.bases, "int64", (postings.n_lists + 1,))
    _check_array("postings.offsets", postings.offsets, "uint32", (postings.n_lists, postings.n_windows + 1))
    _check_array("postings.local", postings.local, "uint16", None)
    _check_array("postings.impacts", postings.impacts, kind, postings.local.shape)
    _check_array("postings.rows", postings.rows, "uint32", (postings.n_documents,))
    if postings.bases[0] != 0 or postings.bases[-1] != len(postings.local):
        raise InputError(f"postings.bases must rise from 0 to the number of postings, {len(postings.local)}")
    if postings.bounds is not None:
        _check_bounds(postings.bounds, postings)


def _check_bounds(bounds: Bounds, postings: Postings) -> None:
    if postings.impacts.dtype != np.uint8:
        raise InputError(f"postings.bounds go with uint8 impacts, not with {postings.impacts.dtype.name}")
    blocks = postings.n_windows * -(-postings.window // 32)
    n_dense = len(bounds.dense_terms)
    _check_array("bounds.window_max", bounds.window_max, "uint8", (postings.n_lists, postings.n_windows))
    _check_array("bounds.dense_terms", bounds.dense_terms, "int32", (n_dense,))
    _check_array("bounds.dense", bounds.dense, "uint8", (n_dense, blocks * 32))
    _check_array("bounds.block_max", bounds.block_max, "uint8", (n_dense, blocks))


def _check_array(
    name: str, array: npt.NDArray[np.generic], dtype: str, shape: tuple[int, ...] | None
) -> None:
    if array.dtype != np.dtype(dtype):
        raise InputError(f"{name} is {array.dtype.name}; expected {dtype}")
    if array.shape != shape and (shape is not None or array.ndim != 1):
        raise InputError(f"{name} has shape {array.shape}; expected {shape or 'one dimension'}")
