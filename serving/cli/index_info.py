"""`gossamer index info`: what an index holds, as a table and as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gossamer.serving.cli.show import bytes_, out, table

if TYPE_CHECKING:
    from gossamer.index.format import DenseEffort, Effort
    from gossamer.index.inverted import InvertedIndex


def info(
    path: Annotated[Path, typer.Argument(help="Folder of the index.")],
    plot: Annotated[
        Path | None, typer.Option(help="Draw it into this file, too: .png, .svg or .pdf.")
    ] = None,
) -> None:
    """Show what an index holds and how large it is."""
    from gossamer.index.inverted import InvertedIndex
    from gossamer.index.plots import length_classes, plot_index

    index = InvertedIndex.open(path)
    show_info(index)
    lengths = index.posting_lengths()
    table("terms by the number of their documents", ("documents", "terms"), length_classes(lengths))
    if plot is not None:
        out.print(f"drawn into {plot_index(index.info(), lengths, plot)}", markup=False)


def show_info(index: InvertedIndex) -> None:
    """Print what an index says of itself."""
    info = index.info()
    rows: list[tuple[str, object]] = [
        ("documents", info.n_documents),
        ("deleted, not merged yet", info.n_deleted),
        ("segments", info.n_segments),
        ("changes since the build", info.generation),
        ("terms", info.n_terms),
        ("postings", info.nnz),
        ("non-zeros a document", info.nnz / max(info.n_documents, 1)),
        ("bytes a posting", f"{info.bytes_per_posting:.3f}"),
        *((f"{part} on disk", bytes_(size)) for part, size in info.bytes.items()),
        ("impacts", info.impacts),
        ("weight of one level", f"{info.step:.6g}"),
        ("largest rounding error", f"{info.largest_error:.6g}"),
        ("documents a window", info.window),
        ("dense terms", info.n_dense),
        *(
            (f"recall {point.recall:.4f}", f"{point.query_us:,.0f} µs a query, {_effort(point.effort)}")
            for point in info.curve or ()
        ),
        (
            "encoder",
            "–" if info.encoder is None else f"{info.encoder.name} ({info.encoder.fingerprint[:12]})",
        ),
        ("created", f"{info.created} by {info.created_by}"),
    ]
    table(str(info.path), ("", ""), rows)


def _effort(effort: Effort | DenseEffort | None) -> str:
    from gossamer.index.format import Effort

    if effort is None:
        return "exact"
    assert isinstance(effort, Effort)
    windows = "all windows" if effort.max_windows is None else f"{effort.max_windows:,} windows"
    return f"{effort.query_share:g} of the query, {effort.candidates_a_hit:g} candidates a hit, {windows}"
