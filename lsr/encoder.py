"""Text encoders: what they all offer, and the learned one."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, PositiveInt
from torch import Tensor, nn

from gossamer.index.format import EncoderInfo
from gossamer.index.vectors import SparseVectors
from gossamer.kernels.errors import ConfigError, InputError
from gossamer.lsr.heads import Activation, MlmHead, TableHead
from gossamer.lsr.spans import TermSpans
from gossamer.lsr.tokenizer import TextTokenizer, plain_tokenizer

Precision = Literal["float32", "bfloat16"]


@runtime_checkable
class Encoder(Protocol):
    """Texts to sparse vectors. Queries and documents may be encoded differently; they share the vocabulary."""

    @property
    def n_terms(self) -> int:
        """Size of the vocabulary: the columns of every vector."""

    @property
    def info(self) -> EncoderInfo:
        """Name and fingerprints, by which an index knows its encoder again."""

    def encode_queries(self, texts: Sequence[str], *, batch_size: int = 32) -> SparseVectors:
        """One row a query, in the given order; a text without any known term gives an empty row."""

    def encode_documents(self, texts: Sequence[str], *, batch_size: int = 32) -> SparseVectors:
        """One row a document, in the given order."""

    def term(self, number: int) -> str:
        """The text of a term, to show to people."""

    def term_spans(self, text: str) -> TermSpans:
        """Where a text says which terms, all of it, however long; safe to call while others encode."""

    def save(self, path: str | os.PathLike[str], *, replace: bool = False) -> None:
        """Write a folder that `load_encoder` reads."""


class EncoderConfig(BaseModel):
    """How texts become vectors. The default reads documents with a transformer and queries with a table."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    query: Literal["mlm", "table"] = "table"
    """`table`: a learned weight for each term present. `mlm`: the documents' own transformer."""
    activation: Activation = "relu"
    """`relu`: log1p(relu(x)). `log1p_relu`: one more logarithm on top."""
    pooling: Literal["max"] = "max"
    max_query_tokens: PositiveInt = 64
    max_document_tokens: PositiveInt = 256
    max_query_terms: PositiveInt | None = None
    """Keep only so many of the largest weights; None keeps all."""
    max_document_terms: PositiveInt | None = None
    query_prefix: str = ""
    document_prefix: str = ""


class SparseModel(nn.Module):
    """The part of a `SparseEncoder` that learns: token numbers in, `y_BV` out, with gradients.

    Attributes:
        document: The head that reads documents (and queries, where there is no table).
        query_table: The queries' table, or None.
    """

    def __init__(self, document: MlmHead, query_table: TableHead | None = None) -> None:
        super().__init__()
        self.document = document
        self.query_table = query_table

    def encode_documents_tensor(
        self, ids_BL: Tensor, mask_BL: Tensor, *, matmul_dtype: torch.dtype | None = None
    ) -> Tensor:
        """Weights `y_BV` of a batch of documents."""
        y_BV: Tensor = self.document(ids_BL, mask_BL, matmul_dtype=matmul_dtype)
        return y_BV

    def encode_queries_tensor(
        self, ids_BL: Tensor, mask_BL: Tensor, *, matmul_dtype: torch.dtype | None = None
    ) -> Tensor:
        """Weights `y_BV` of a batch of queries."""
        if self.query_table is None:
            return self.encode_documents_tensor(ids_BL, mask_BL, matmul_dtype=matmul_dtype)
        y_BV: Tensor = self.query_table(ids_BL, mask_BL)
        return y_BV

    def after_step(self) -> None:
        """What must hold after every optimiser step: no weight of the table is negative."""
        if self.query_table is not None:
            self.query_table.clamp()


class SparseEncoder:
    """A learned sparse encoder over a Hugging Face masked language model.

    Args:
        model: A `…ForMaskedLM`; the encoder takes it over (see `MlmHead`).
        tokenizer: Its fast tokenizer.
        config: How texts become vectors.
        query_table: float `[n_terms]`, the queries' weights, where `config.query` is `table`; a shorter one is
            filled up with zeros.
        name: What people call it; stands in `info`.
        precision: `bfloat16` computes in half the bits where a text is encoded (not in training).

    Attributes:
        model: The `SparseModel`, for training.

    Raises:
        ConfigError: Table and config do not go together, or texts may be longer than the model's positions.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        config: EncoderConfig | None = None,
        query_table: Tensor | None = None,
        *,
        name: str = "sparse-encoder",
        precision: Precision = "float32",
    ) -> None:
        config = config or EncoderConfig()
        document = MlmHead(model, config.activation)
        _check_lengths(model, config)
        self.model = SparseModel(document, _table(config, query_table, document.n_terms))
        self.tokenizer = tokenizer
        self.config = config
        self.name = name
        self.precision = precision
        self.n_terms = document.n_terms
        specials = config.query == "mlm"
        self._queries = TextTokenizer(tokenizer, max_tokens=config.max_query_tokens, special_tokens=specials)
        self._documents = TextTokenizer(tokenizer, max_tokens=config.max_document_tokens, special_tokens=True)
        self._whole = plain_tokenizer(tokenizer)
        self.model.eval()

    # -- texts to token numbers -----------------------------------------------------------------------

    def tokenize_queries(self, texts: Sequence[str]) -> list[list[int]]:
        """Token numbers of each query, cut at `max_query_tokens`."""
        return self._queries(_prefixed(texts, self.config.query_prefix))

    def tokenize_documents(self, texts: Sequence[str]) -> list[list[int]]:
        """Token numbers of each document, cut at `max_document_tokens`."""
        return self._documents(_prefixed(texts, self.config.document_prefix))

    def pad(self, tokens: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Token lists as int64 tensors `(ids_BL, mask_BL)` on the encoder's device."""
        ids_BL, mask_BL = self._documents.pad(tokens)
        return torch.from_numpy(ids_BL).to(self.device), torch.from_numpy(mask_BL).to(self.device)

    # -- texts to vectors -----------------------------------------------------------------------------

    def encode_queries(self, texts: Sequence[str], *, batch_size: int = 32) -> SparseVectors:
        """Encode queries; see `Encoder`."""
        tokens = self.tokenize_queries(texts)
        if self.model.query_table is None:
            return _top(self._encode(tokens, batch_size), self.config.max_query_terms)
        return _top(self._look_up(tokens), self.config.max_query_terms)

    def encode_documents(self, texts: Sequence[str], *, batch_size: int = 32) -> SparseVectors:
        """Encode documents; see `Encoder`."""
        return _top(self._encode(self.tokenize_documents(texts), batch_size), self.config.max_document_terms)

    def _look_up(self, tokens: list[list[int]]) -> SparseVectors:
        assert self.model.query_table is not None
        weight_V = self.model.query_table.weight.detach().cpu().numpy()
        present = [np.unique(np.asarray(row, np.int64)) for row in tokens]
        terms = [row[weight_V[row] != 0] for row in present]
        flat = np.concatenate([*terms, np.empty(0, np.int64)])
        signed = bool((weight_V < 0).any())
        return SparseVectors(
            _indptr([row.size for row in terms]), flat, weight_V[flat], self.n_terms, signed=signed
        )

    def _encode(self, tokens: list[list[int]], batch_size: int) -> SparseVectors:
        """Batches of texts of like length, longest first, so that little padding is computed."""
        if batch_size < 1:
            raise InputError(f"batch_size is {batch_size}; it must be at least 1")
        order = sorted(range(len(tokens)), key=lambda row: len(tokens[row]), reverse=True)
        batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
        parts = [self._encode_batch([tokens[row] for row in batch]) for batch in batches]
        empty = SparseVectors(
            np.zeros(1, np.int64), np.empty(0, np.int64), np.empty(0, np.float32), self.n_terms
        )
        back = np.empty(len(order), np.int64)
        back[order] = np.arange(len(order))
        return SparseVectors.concat([*parts, empty])[back]

    def _encode_batch(self, tokens: list[list[int]]) -> SparseVectors:
        half = torch.bfloat16 if self.precision == "bfloat16" else None
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, torch.bfloat16, enabled=half is not None),
        ):
            y_BV = self.model.encode_documents_tensor(*self.pad(tokens), matmul_dtype=half)
            rows, terms = torch.nonzero(y_BV, as_tuple=True)
            weights = y_BV[rows, terms].float()
        counts = torch.bincount(rows, minlength=len(tokens))
        return SparseVectors(
            _indptr(counts.tolist()), terms.cpu().numpy(), weights.cpu().numpy(), self.n_terms
        )

    # -- the rest -------------------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    def to(self, device: torch.device | str) -> SparseEncoder:
        """Move the weights; returns the same encoder."""
        self.model.to(device)
        return self

    @property
    def info(self) -> EncoderInfo:
        """Name and fingerprints; the weights are hashed on every access, so keep the answer."""
        tokenizer = hashlib.sha256(plain_tokenizer(self.tokenizer).to_str().encode()).hexdigest()
        digest = hashlib.sha256(f"{tokenizer} {self.config.model_dump_json()}".encode())
        for name, value in _architecture(self.model.document.model):
            digest.update(f"{name}={value}\n".encode())
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return EncoderInfo(self.name, digest.hexdigest(), tokenizer)

    def term(self, number: int) -> str:
        """The word piece with this number; `##` marks one that continues a word."""
        piece = self.tokenizer.convert_ids_to_tokens(number) if number < len(self.tokenizer) else None
        return piece if piece is not None else f"[{number}]"

    def term_spans(self, text: str) -> TermSpans:
        """The word pieces of a text, none cut off; see `Encoder`."""
        encoding = self._whole.encode(text, add_special_tokens=False)
        return TermSpans.of(encoding.offsets, encoding.ids)

    def save(self, path: str | os.PathLike[str], *, replace: bool = False) -> None:
        """Write the folder in sentence-transformers' version 5 layout; see `gossamer.lsr.save`."""
        from gossamer.lsr.save import save_encoder

        save_encoder(self, Path(path), replace=replace)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> SparseEncoder:
        """Read a folder; see `gossamer.lsr.formats.load_encoder`, which also loads other kinds of encoder."""
        from gossamer.lsr.formats import load_sparse_encoder

        return load_sparse_encoder(Path(path))


def _check_lengths(model: Any, config: EncoderConfig) -> None:
    positions = getattr(model.config, "max_position_embeddings", None)
    longest = max(config.max_document_tokens, config.max_query_tokens if config.query == "mlm" else 0)
    if positions is not None and 0 < positions < longest:
        raise ConfigError(
            f"texts of {longest} tokens, but the model has {positions} positions: lower max_document_tokens "
            "or max_query_tokens"
        )


def _table(config: EncoderConfig, weight_V: Tensor | None, n_terms: int) -> TableHead | None:
    if (weight_V is not None) != (config.query == "table"):
        given = "was given" if weight_V is not None else "is missing"
        raise ConfigError(f"query_table {given}, but config.query is {config.query!r}: change one of the two")
    if weight_V is None:
        return None
    if weight_V.ndim != 1 or len(weight_V) > n_terms:
        raise ConfigError(f"query_table has the shape {tuple(weight_V.shape)}, expected [{n_terms}]")
    return TableHead(torch.nn.functional.pad(weight_V.detach(), (0, n_terms - len(weight_V))))


def _prefixed(texts: Sequence[str], prefix: str) -> Sequence[str]:
    if isinstance(texts, str):
        raise InputError("texts is a single string; give a list of texts")
    return [prefix + text for text in texts] if prefix else texts


def _top(vectors: SparseVectors, k: int | None) -> SparseVectors:
    return vectors if k is None else vectors.top(k)


def _indptr(counts: Sequence[int]) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(np.asarray(counts, np.int64))])


def _architecture(model: Any) -> Iterator[tuple[str, Any]]:
    """What changes vectors and cannot be told from the weights."""
    yield "class", type(model).__name__
    for name in ("num_attention_heads", "hidden_act", "hidden_activation", "layer_types", "local_attention"):
        yield name, getattr(model.config, name, None)
