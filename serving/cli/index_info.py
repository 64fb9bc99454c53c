"""`gossamer index info`: what an index holds, as a table and as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol, cast

import typer

from gossamer.serving.cli.show import bytes_, out, table

if TYPE_CHECKING:
    from gossamer.index.format import DenseEffort, Effort, EncoderInfo, OperatingPoint
    from gossamer.index.info import DenseInfo, IndexInfo, ShardedInfo
    from gossamer.index.lucene_format import LuceneInfo


def info(
    path: Annotated[Path, typer.Argument(help="Folder of the index.")],
    plot: Annotated[
        Path | None, typer.Option(help="Draw it into this file, too: .png, .svg or .pdf.")
    ] = None,
) -> None:
    """Show what an index holds and how large it is."""
    from gossamer.index.inverted import InvertedIndex
    from gossamer.index.open import open_index
    from gossamer.index.plots import length_classes, plot_index
    from gossamer.index.sharded import ShardedIndex
    from gossamer.kernels.errors import ConfigError

    index = open_index(path)
    if plot is not None and not isinstance(index, InvertedIndex):
        raise ConfigError(
            f"{path} cannot be drawn, as it is no inverted index; leave out --plot, or draw a shard."
        )
    show_info(cast(_Informed, index))  # as every kind is
    if not isinstance(index, InvertedIndex | ShardedIndex):
        return
    lengths = index.posting_lengths()
    table("terms by the number of their documents", ("documents", "terms"), length_classes(lengths))
    if plot is not None and isinstance(index, InvertedIndex):
        out.print(f"drawn into {plot_index(index.info(), lengths, plot)}", markup=False)


class _Informed(Protocol):
    def info(self) -> IndexInfo | DenseInfo | LuceneInfo | ShardedInfo:
        """What it says of itself."""


def show_info(index: _Informed) -> None:
    """Print what an index says of itself; of shards, also what the largest says."""
    from gossamer.index.info import DenseInfo, IndexInfo, ShardedInfo

    info = index.info()
    if isinstance(info, ShardedInfo):
        sizes = [shard.n_documents for shard in info.shards]
        rows: list[tuple[str, object]] = [
            ("documents", info.n_documents),
            ("shards", f"{len(sizes)}, of {min(sizes):,} to {max(sizes):,} documents"),
            *((f"{part} on disk", bytes_(size)) for part, size in info.bytes.items()),
        ]
        table(str(info.path), ("", ""), rows)
        info = max(info.shards, key=lambda shard: shard.n_documents)
    if isinstance(info, IndexInfo):
        _show_inverted(info)
    elif isinstance(info, DenseInfo):
        _show_dense(info)
    else:
        _show_lucene(info)


def _show_inverted(info: IndexInfo) -> None:
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
        *_origin(info.curve, info.encoder, info.created, info.created_by),
    ]
    table(str(info.path), ("", ""), rows)


def _show_dense(info: DenseInfo) -> None:
    rows: list[tuple[str, object]] = [
        ("documents", info.n_documents),
        ("deleted, not merged yet", info.n_deleted),
        ("segments", f"{info.n_segments}, {info.n_structures} with a structure"),
        ("changes since the build", info.generation),
        ("dimensions", info.n_dims),
        *((f"{part} on disk", bytes_(size)) for part, size in info.bytes.items()),
        ("metric", info.metric),
        ("structure", info.structure.kind),
        *_origin(info.curve, info.encoder, info.created, info.created_by),
    ]
    table(str(info.path), ("", ""), rows)


def _show_lucene(info: LuceneInfo) -> None:
    rows: list[tuple[str, object]] = [
        ("documents", info.n_documents),
        ("terms", info.n_terms),
        ("postings", info.nnz),
        *((f"{part} on disk", bytes_(size)) for part, size in info.bytes.items()),
        ("weight of one level", f"{info.step:.6g}"),
        ("largest rounding error", f"{info.largest_error:.6g}"),
        ("scored by", info.config.kind),
        *_origin(None, info.encoder, info.created, info.created_by),
    ]
    table(str(info.path), ("", ""), rows)


def _origin(
    curve: tuple[OperatingPoint, ...] | None, encoder: EncoderInfo | None, created: str, created_by: str
) -> list[tuple[str, object]]:
    return [
        *(
            (f"recall {point.recall:.4f}", f"{point.query_us:,.0f} µs a query, {_effort(point.effort)}")
            for point in curve or ()
        ),
        ("encoder", "–" if encoder is None else f"{encoder.name} ({encoder.fingerprint[:12]})"),
        ("created", f"{created} by {created_by}"),
    ]


def _effort(effort: Effort | DenseEffort | None) -> str:
    from gossamer.index.format import Effort

    if effort is None:
        return "exact"
    if not isinstance(effort, Effort):
        share = "all lists" if effort.nprobe is None else f"{effort.nprobe} lists"
        kept = share if effort.ef_search is None else f"{effort.ef_search} candidates on the way"
        return f"{kept}, {effort.candidates_a_hit:g} candidates a hit"
    windows = "all windows" if effort.max_windows is None else f"{effort.max_windows:,} windows"
    return f"{effort.query_share:g} of the query, {effort.candidates_a_hit:g} candidates a hit, {windows}"
