"""`IndexInfo` and `DenseInfo`: what an index says about itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from gossamer.index.dense_config import Metric, Structure
from gossamer.index.format import EncoderInfo, Manifest, OperatingPoint
from gossamer.index.impacts import Kind
from gossamer.index.manifests import FileRecord


@dataclass(frozen=True)
class _Info:
    """What an index holds, and how large it is.

    Attributes:
        path: its folder.
        n_documents: number of documents.
        n_deleted: deleted documents that no merge has left behind yet.
        n_segments: number of segments.
        generation: how often it was changed.
        bytes: bytes on the disk by part; of every kind "ids" and "documents".
        curve: what `recall=` chooses from; None if the index was never calibrated.
        encoder: what made the vectors, if it was said.
        created: when, as ISO 8601 in UTC.
        created_by: which gossamer built it.
    """

    path: Path
    n_documents: int
    n_deleted: int
    n_segments: int
    generation: int
    bytes: dict[str, int]
    curve: tuple[OperatingPoint, ...] | None
    encoder: EncoderInfo | None
    created: str
    created_by: str

    @classmethod
    def _of(cls, path: Path, manifest: Manifest, parts: dict[str, tuple[str, ...]], **own: Any) -> Self:
        return cls(
            path=path,
            n_documents=manifest.n_documents,
            n_deleted=sum(segment.n_deleted for segment in manifest.segments),
            n_segments=len(manifest.segments),
            generation=manifest.generation,
            bytes=_sizes(manifest.files, parts),
            curve=manifest.curve,
            encoder=manifest.encoder,
            created=manifest.created,
            created_by=manifest.created_by,
            **own,
        )


@dataclass(frozen=True)
class IndexInfo(_Info):
    """What an inverted index holds, and how large it is, beside what `_Info` says.

    Attributes:
        bytes: also "postings" (local numbers and impacts), "offsets" (and the order of documents), "bounds" (largest
            impacts, and the rows of dense terms), "forward" (weights as given).
        n_terms: size of the vocabulary.
        nnz: number of postings.
        impacts: type of a stored weight.
        step: the weight that one level of it stands for; this and the next three: the largest of any segment.
        largest_error: the largest difference between a weight and what is stored for it.
        window: documents in a window.
        n_dense: terms that have a row with a byte a document.
    """

    n_terms: int
    nnz: int
    impacts: Kind
    step: float
    largest_error: float
    window: int
    n_dense: int

    @property
    def bytes_per_posting(self) -> float:
        """Of postings and offsets together; 0 if there are none."""
        return (self.bytes["postings"] + self.bytes["offsets"]) / self.nnz if self.nnz else 0.0

    @classmethod
    def of(cls, path: Path, manifest: Manifest) -> IndexInfo:
        """What a manifest says."""
        data = [segment.postings for segment in manifest.segments]
        return cls._of(
            path,
            manifest,
            _PARTS,
            n_terms=manifest.inverted.n_terms,
            nnz=sum(record.nnz for record in data),
            impacts=manifest.inverted.impacts,
            step=max((record.step for record in data), default=1.0),
            largest_error=max((record.largest_error for record in data), default=0.0),
            window=max((record.window for record in data), default=0),
            n_dense=max((record.n_dense for record in data), default=0),
        )


@dataclass(frozen=True)
class DenseInfo(_Info):
    """What a dense index holds, and how large it is, beside what `_Info` says.

    Attributes:
        bytes: also "vectors" (as given), "structure" (of faiss).
        n_structures: segments that have a structure; others are searched exactly.
        n_dims: dimensions of a vector.
        metric: what a score is.
        structure: what finds candidates.
    """

    n_structures: int
    n_dims: int
    metric: Metric
    structure: Structure

    @classmethod
    def of(cls, path: Path, manifest: Manifest) -> DenseInfo:
        """What a manifest says."""
        settings = manifest.dense
        return cls._of(
            path,
            manifest,
            _DENSE_PARTS,
            n_structures=sum(segment.dense.structure for segment in manifest.segments),
            n_dims=settings.n_dims,
            metric=settings.metric,
            structure=settings.structure,
        )


_DOCUMENT_PARTS = {"ids": ("ids", "order", "numbers", "deleted"), "documents": ("columns",)}
_PARTS = {
    "postings": ("local", "impacts"),
    "offsets": ("terms", "bases", "offsets", "rows"),
    "bounds": ("window_max", "dense_terms", "dense", "block_max"),
    "forward": (),
    **_DOCUMENT_PARTS,
}
_DENSE_PARTS = {"vectors": ("vectors",), "structure": ("structure",), **_DOCUMENT_PARTS}


def _sizes(files: dict[str, FileRecord], parts: dict[str, tuple[str, ...]]) -> dict[str, int]:
    part_of = {stem: part for part, stems in parts.items() for stem in stems}
    sizes = dict.fromkeys(parts, 0)
    for name, record in files.items():
        path = Path(name)
        part = "forward" if path.parent.name == "forward" else part_of[path.stem.partition("-")[0]]
        sizes[part] += record.size
    return sizes


@dataclass(frozen=True)
class ShardedInfo:
    """What the shards of an index hold, and how large they are.

    Attributes:
        path: the folder.
        kind: of the shards.
        n_documents: number of documents.
        n_deleted: deleted documents that no merge has left behind yet.
        n_segments: number of segments.
        generation: how often shards were changed.
        bytes: bytes on the disk of all shards, by what they hold.
        shards: what each says about itself.
    """

    path: Path
    kind: str
    n_documents: int
    n_deleted: int
    n_segments: int
    generation: int
    bytes: dict[str, int]
    shards: tuple[Any, ...]

    @classmethod
    def of(cls, path: Path, kind: str, shards: Sequence[Any]) -> ShardedInfo:
        """All together."""
        return cls(
            path=path,
            kind=kind,
            n_documents=sum(shard.n_documents for shard in shards),
            n_deleted=sum(shard.n_deleted for shard in shards),
            n_segments=sum(shard.n_segments for shard in shards),
            generation=sum(shard.generation for shard in shards),
            bytes={part: sum(shard.bytes[part] for shard in shards) for part in shards[0].bytes},
            shards=tuple(shards),
        )
