"""Why a document is a hit: the terms that matched, adding up to the score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gossamer.index.impacts import ImpactScale, quantise_queries
from gossamer.index.vectors import SparseVectors
from gossamer.kernels.errors import InputError
from gossamer.kernels.sparse_dot import Postings


@dataclass(frozen=True)
class Contribution:
    """What one term gave to a score.

    The products of all terms add up to the score: with `math.fsum`, rounded to float32, exactly (for float32
    impacts: added as float32 in the order given).

    Attributes:
        term: the dimension.
        query_weight: its weight in the query, as rounded for search.
        document_weight: its weight in the document, as stored.
        product: its part of the score.
    """

    term: int
    query_weight: float
    document_weight: float
    product: float


def explain_rows(
    query: SparseVectors,
    rows: Sequence[int],
    postings: Postings,
    positions: NDArray[np.int64],
    scale: ImpactScale,
) -> list[list[Contribution]]:
    """What each term of a query gave to the stored score of each row; terms ascending.

    Args:
        query: one query.
        rows: the documents.
        postings: of the index.
        positions: where each of `rows` stands in the postings.
        scale: of the index.

    Raises:
        InputError: there is not one query.
    """
    if query.n_rows != 1:
        raise InputError(f"an explanation takes one query, not {query.n_rows}.")
    scaled = quantise_queries(query, scale)
    step, unit = float(scaled.steps[0]), float(scaled.units[0])
    is_float = scale.kind == "float32"  # its products are rounded as the kernel rounds them
    windows, locals_ = np.divmod(positions, postings.window)
    by_window = [(window, np.flatnonzero(windows == window)) for window in np.unique(windows).tolist()]
    found: list[list[Contribution]] = [[] for _ in rows]
    for term, weight in zip(scaled.queries.terms.tolist(), scaled.queries.weights, strict=True):
        for window, places in by_window:
            run = postings.run(term, window)
            local = postings.local[run]
            at = np.searchsorted(local, locals_[places].astype(np.uint16))
            for place, entry in zip(places.tolist(), at.tolist(), strict=True):
                if entry == len(local) or local[entry] != locals_[place]:
                    continue
                impact = postings.impacts[run.start + entry]
                product = float(weight * impact) if is_float else int(weight) * int(impact) * unit
                document_weight = float(impact) * scale.step
                found[place].append(Contribution(term, float(weight) * step, document_weight, product))
    return found
