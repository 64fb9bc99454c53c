"""Exact top-k of sparse dot products, from an inverted index.

A query's score for a document is the sum, over the terms that both have, of query weight times stored impact.
On the integer kinds (int16 weights, uint8 or int8 impacts) it is an int32 sum, so it depends neither on order nor
on the backend, and all backends agree bit for bit. On the float32 kind products are rounded and then added in
ascending order of term; it runs on the CPU only.

A document is a hit if it has a posting for one of the query's terms, whatever its score. Hits are ordered by
score descending, then row ascending.
"""

from typing import Literal, NamedTuple, TypeAlias

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


class Postings(NamedTuple):
    """An inverted index in windows of consecutive documents, sorted by (window, term, document).

    Never written to after it is made: the arrays may be read-only maps of files, and a backend may keep a copy of
    them on its device.
    """

    n_documents: int
    n_terms: int
    window: int
    """Documents in a window, at most 65,536, so that a document's number within it takes two bytes."""
    bases: npt.NDArray[np.int64]
    """int64 [n_windows + 1]: where each window's postings start."""
    offsets: npt.NDArray[np.uint32]
    """uint32 [n_windows, n_terms + 1]: where each term's run starts, relative to its window's base."""
    local: npt.NDArray[np.uint16]
    """uint16 [nnz]: document - window number * window; strictly ascending within a run."""
    impacts: npt.NDArray[np.uint8 | np.int8 | np.float32]
    """uint8, int8 or float32 [nnz]."""


class TopK(NamedTuple):
    """The k best hits of each query; past the last one the row is -1 and the score the smallest of its type."""

    rows: npt.NDArray[np.int64]
    """int64 [Q, K]."""
    scores: npt.NDArray[np.int32 | np.float32]
    """int32 or float32 [Q, K]."""


def empty_top_k(n_queries: int, k: int, impacts: npt.NDArray[np.generic]) -> TopK:
    """Room for the answers to `n_queries` queries, filled with the values that mean "no hit"."""
    rows = np.full((n_queries, k), -1, np.int64)
    if impacts.dtype == np.float32:
        return TopK(rows, np.full((n_queries, k), -np.inf, np.float32))
    return TopK(rows, np.full((n_queries, k), np.iinfo(np.int32).min, np.int32))


def read_keys(keys_QN: npt.NDArray[np.int64], k: int, impacts: npt.NDArray[np.generic]) -> TopK:
    """Turn the fast paths' keys, integers that rise with a hit's rank, into rows and scores.

    Args:
        keys_QN: `(score << 32) | (LAST_ROW - row)`, in any order; `NO_KEY` where there is no hit. A float32 score
            stands there as its bits, all but the sign inverted if it is negative.
        k: Columns wanted, at least N.
        impacts: Tells the kind.
    """
    top = empty_top_k(len(keys_QN), k, impacts)
    keys_QN = np.sort(keys_QN, axis=1)[:, ::-1]
    query, rank = (keys_QN != NO_KEY).nonzero()
    keys = keys_QN[query, rank]
    scores = (keys >> 32).astype(np.int32)
    if top.scores.dtype == np.float32:
        scores = np.where(scores < 0, scores ^ 0x7FFFFFFF, scores).view(np.float32)
    top.rows[query, rank] = LAST_ROW - (keys & LAST_ROW)
    top.scores[query, rank] = scores
    return top


def sparse_dot_topk(
    queries: Queries,
    postings: Postings,
    k: int,
    *,
    allowed: npt.NDArray[np.bool_] | None = None,
    backend: Backend = "auto",
    n_threads: int = 1,
) -> TopK:
    """Find the k documents with the largest dot product for each query.

    Args:
        queries: Q queries; int16 weights for uint8 and int8 impacts, float32 weights for float32 impacts.
        postings: The documents. Its arrays' values are trusted; their types and sizes are checked.
        k: Hits wanted per query; may be more than there are documents.
        allowed: bool [n_documents]; documents where it is False are no hits.
        backend: `"auto"` takes Triton where a GPU is present and the kind is an integer one, else Numba. A backend
            that is named runs or raises: nothing else is tried in its place.
        n_threads: Threads over which the Numba backend spreads the queries. The answer does not depend on it.

    Returns:
        The hits, `[Q, k]`: score descending, then row ascending.

    Raises:
        InputError: An array has the wrong type or size, or a query has a term that the postings do not know.
        BackendError: The backend cannot run here, or not for this kind.
    """
    _check(queries, postings, k, allowed, n_threads)
    is_float = postings.impacts.dtype == np.float32
    match choose_backend(backend, gpu_can=not is_float):
        case "reference":
            return sparse_dot_topk_reference(queries, postings, k, allowed=allowed)
        case "numba":
            from gossamer.kernels.sparse_dot_numba import sparse_dot_topk_numba

            return sparse_dot_topk_numba(queries, postings, k, allowed, n_threads)
        case "triton":
            if is_float:
                raise BackendError(
                    "backend 'triton' has no float32 kind: on a GPU the order of its sums, and so the scores, would "
                    "vary. Use integer impacts, or backend 'numba'."
                )
            from gossamer.kernels.sparse_dot_triton import sparse_dot_topk_triton

            return sparse_dot_topk_triton(queries, postings, k, allowed)


def sparse_dot_topk_reference(
    queries: Queries, postings: Postings, k: int, *, allowed: npt.NDArray[np.bool_] | None = None
) -> TopK:
    """The plain version of `sparse_dot_topk`: one query at a time, a sum for every document, a full sort."""
    top = empty_top_k(len(queries.indptr) - 1, k, postings.impacts)
    sum_type = np.float32 if postings.impacts.dtype == np.float32 else np.int64
    for q in range(len(top.rows)):
        sums: npt.NDArray[np.float32 | np.int64] = np.zeros(postings.n_documents, sum_type)
        touched = np.zeros(postings.n_documents, np.bool_)
        for entry in range(queries.indptr[q], queries.indptr[q + 1]):
            term, weight = queries.terms[entry], queries.weights[entry].astype(sum_type)
            for window, base in enumerate(postings.bases[:-1].tolist()):
                run = slice(
                    base + int(postings.offsets[window, term]), base + int(postings.offsets[window, term + 1])
                )
                documents = window * postings.window + postings.local[run].astype(np.int64)
                sums[documents] += weight * postings.impacts[run].astype(sum_type)
                touched[documents] = True
        hits = np.flatnonzero(touched if allowed is None else touched & allowed)
        best = hits[np.lexsort((hits, np.negative(sums[hits])))[:k]]
        top.rows[q, : len(best)] = best
        top.scores[q, : len(best)] = sums[best]
    return top


_KINDS = {"uint8": "int16", "int8": "int16", "float32": "float32"}  # of impacts: of query weights


def _check(
    queries: Queries, postings: Postings, k: int, allowed: npt.NDArray[np.bool_] | None, n_threads: int
) -> None:
    """Refuse what the kernels, which check nothing, could not take. Costs time in the queries' size only."""
    if k < 1:
        raise InputError(f"k is {k}; ask for at least 1 hit")
    if n_threads < 1:
        raise InputError(f"n_threads is {n_threads}; give at least 1")
    _check_postings(postings)
    kind = postings.impacts.dtype.name
    _check_array("queries.indptr", queries.indptr, "int64", None)
    _check_array("queries.terms", queries.terms, "int32", None)
    _check_array("queries.weights", queries.weights, _KINDS[kind], queries.terms.shape)
    if allowed is not None:
        _check_array("allowed", allowed, "bool", (postings.n_documents,))
    indptr, terms = queries.indptr, queries.terms
    if len(indptr) == 0 or indptr[0] != 0 or indptr[-1] != len(terms) or (np.diff(indptr) < 0).any():
        raise InputError(f"queries.indptr must rise from 0 to the number of terms, {len(terms)}")
    unknown = np.flatnonzero((terms < 0) | (terms >= postings.n_terms))
    if len(unknown):
        query = int(np.searchsorted(indptr, unknown[0], side="right")) - 1
        raise InputError(
            f"query {query} has term {terms[unknown[0]]}, but the postings have terms 0 to "
            f"{postings.n_terms - 1}; encode queries and documents with one vocabulary"
        )
    falls = np.diff(terms) <= 0
    starts = indptr[1:-1]
    falls[starts[(starts > 0) & (starts < len(terms))] - 1] = (
        False  # from one query to the next terms may fall
    )
    if falls.any():
        query = int(np.searchsorted(indptr, np.flatnonzero(falls)[0], side="right")) - 1
        raise InputError(
            f"the terms of query {query} are not strictly ascending; sort them and add up duplicates"
        )
    if kind == "float32" and not np.isfinite(queries.weights).all():
        entry = np.flatnonzero(~np.isfinite(queries.weights))[0]
        query = int(np.searchsorted(indptr, entry, side="right")) - 1
        raise InputError(f"query {query} has a weight that is not finite: {queries.weights[entry]}")


def _check_postings(postings: Postings) -> None:
    if not 1 <= postings.window <= MAX_WINDOW:
        raise InputError(f"postings.window is {postings.window}; a window holds 1 to {MAX_WINDOW} documents")
    if postings.n_documents > LAST_ROW:
        raise InputError(
            f"postings hold {postings.n_documents} documents; cut them into shards of at most {LAST_ROW}"
        )
    kind = postings.impacts.dtype.name
    if kind not in _KINDS:
        raise InputError(f"postings.impacts is {kind}; expected one of {', '.join(_KINDS)}")
    n_windows = -(-postings.n_documents // postings.window)
    _check_array("postings.bases", postings.bases, "int64", (n_windows + 1,))
    _check_array("postings.offsets", postings.offsets, "uint32", (n_windows, postings.n_terms + 1))
    _check_array("postings.local", postings.local, "uint16", None)
    _check_array("postings.impacts", postings.impacts, kind, postings.local.shape)
    if postings.bases[0] != 0 or postings.bases[-1] != len(postings.local):
        raise InputError(f"postings.bases must rise from 0 to the number of postings, {len(postings.local)}")
    if (postings.offsets[:, 0] != 0).any() or (postings.offsets[:, -1] != np.diff(postings.bases)).any():
        raise InputError(
            "postings.offsets does not fit postings.bases: a window's runs must fill it from end to end"
        )


def _check_array(
    name: str, array: npt.NDArray[np.generic], dtype: str, shape: tuple[int, ...] | None
) -> None:
    if array.dtype != np.dtype(dtype):
        raise InputError(f"{name} is {array.dtype.name}; expected {dtype}")
    if array.shape != shape and (shape is not None or array.ndim != 1):
        raise InputError(f"{name} has shape {array.shape}; expected {shape or 'one dimension'}")
