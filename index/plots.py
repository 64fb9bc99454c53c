"""A picture of an index: bytes by part, lengths of posting lists, and what an approximate search finds and takes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gossamer.index.info import IndexInfo

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_index(info: IndexInfo, lengths: NDArray[np.int64], path: str | Path) -> Path:
    """Draw an index into a file.

    Args:
        info: what the index says of itself.
        lengths: `[n_terms]`, documents of each term.
        path: a file whose suffix matplotlib knows, such as `.png` or `.svg`.

    Returns:
        The path.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.6), layout="constrained")
    parts, histogram, curve = figure.subplots(1, 3)
    _draw_parts(parts, info)
    _draw_lengths(histogram, lengths)
    _draw_curve(curve, info)
    figure.suptitle(f"{info.path.name}: {info.n_documents:,} documents, {info.nnz:,} postings")
    figure.savefig(path, dpi=120)
    return Path(path)


def length_classes(lengths: NDArray[np.int64]) -> list[tuple[str, int]]:
    """How many terms have no documents, 1 to 9, 10 to 99, and so on."""
    classes = [("0", int((lengths == 0).sum()))]
    low = 1
    while low <= lengths.max(initial=0):
        count = int(((lengths >= low) & (lengths < 10 * low)).sum())
        classes.append((f"{low:,} to {10 * low - 1:,}", count))
        low *= 10
    return classes


def _draw_parts(axis: Axes, info: IndexInfo) -> None:
    names = [name for name, size in info.bytes.items() if size]
    axis.barh(names[::-1], [info.bytes[name] / 1e6 for name in names[::-1]])
    axis.set_xlabel("MB on the disk")


def _draw_lengths(axis: Axes, lengths: NDArray[np.int64]) -> None:
    used = np.sort(lengths[lengths > 0])[::-1]
    if len(used):
        axis.loglog(np.arange(1, len(used) + 1), used)
    axis.set_xlabel("terms, most frequent first")
    axis.set_ylabel("documents of a term")
    axis.grid(alpha=0.3)


def _draw_curve(axis: Axes, info: IndexInfo) -> None:
    if not info.curve:
        axis.text(0.5, 0.5, "not calibrated", ha="center", transform=axis.transAxes)
        axis.set_axis_off()
        return
    axis.plot([point.query_us for point in info.curve], [point.recall for point in info.curve], marker="o")
    axis.set_xlabel("µs a query")
    axis.set_ylabel("recall shown in calibration")
    axis.grid(alpha=0.3)
