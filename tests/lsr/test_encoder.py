from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from gossamer.kernels.errors import ConfigError
from gossamer.lsr.backbone import BackboneConfig, lexical_start
from gossamer.lsr.encoder import EncoderConfig, SparseEncoder
from gossamer.lsr.heads import idf_table
from gossamer.lsr.tokenizer import train_tokenizer
from tests.contracts.encoder import TEXTS, EncoderContract, assert_close

SMALL = BackboneConfig(layers=1, width=32, heads=2, mlp_width=32, max_tokens=128)


@cache
def parts(texts: tuple[str, ...]) -> tuple[Any, Any]:
    tokenizer = train_tokenizer(texts, vocabulary_size=200)
    model = lexical_start(SMALL, tokenizer)
    torch.manual_seed(1)
    for layer in model.model.layers:  # as if trained: tokens change each other
        torch.nn.init.normal_(layer.attn.Wo.weight, std=0.3)
        torch.nn.init.normal_(layer.mlp.Wo.weight, std=0.3)
    return model, tokenizer


def make(texts: list[str], **settings: Any) -> SparseEncoder:
    model, tokenizer = parts(tuple(texts))
    lengths = {"max_query_tokens": 16, "max_document_tokens": 64}
    config = EncoderConfig(**(lengths | settings))
    table = None
    if config.query == "table":
        table = idf_table(tokenizer(texts)["input_ids"], len(tokenizer))
    return SparseEncoder(model, tokenizer, config, table)


class TestMlm(EncoderContract):
    def make(self, texts: list[str]) -> SparseEncoder:
        return make(texts, query="mlm")


class TestTable(EncoderContract):
    def make(self, texts: list[str]) -> SparseEncoder:
        return make(texts, query="table")


@pytest.mark.parametrize("query", ["mlm", "table"])
def test_texts_and_tensors_give_the_same_vectors(query: str) -> None:
    encoder = make(TEXTS, query=query)
    with torch.no_grad():
        queries_BV = encoder.model.encode_queries_tensor(*encoder.pad(encoder.tokenize_queries(TEXTS)))
        documents_BV = encoder.model.encode_documents_tensor(*encoder.pad(encoder.tokenize_documents(TEXTS)))
    np.testing.assert_allclose(encoder.encode_queries(TEXTS).to_scipy().toarray(), queries_BV, atol=1e-5)
    np.testing.assert_allclose(encoder.encode_documents(TEXTS).to_scipy().toarray(), documents_BV, atol=1e-5)


def test_long_texts_are_cut() -> None:
    encoder = make(TEXTS)
    short = make(TEXTS, max_document_tokens=8, max_query_tokens=2)
    text = "the quick brown fox jumps over the lazy dog"
    cut = encoder.tokenizer.decode(encoder.tokenizer(text)["input_ids"][:8])
    assert short.encode_documents([text]).equals(short.encode_documents([cut]))
    assert short.encode_queries([text]).nnz == 2


def test_only_the_largest_weights_are_kept() -> None:
    whole, few = make(TEXTS), make(TEXTS, max_document_terms=3, max_query_terms=2)
    assert few.encode_documents(TEXTS).equals(whole.encode_documents(TEXTS).top(3))
    assert few.encode_queries(TEXTS).equals(whole.encode_queries(TEXTS).top(2))


def test_prefixes() -> None:
    encoder = make(TEXTS, query_prefix="fox ", document_prefix="dog ")
    plain = make(TEXTS)
    assert encoder.encode_queries(["index"]).equals(plain.encode_queries(["fox index"]))
    assert encoder.encode_documents(["index"]).equals(plain.encode_documents(["dog index"]))


def test_half_precision_is_near() -> None:
    model, tokenizer = parts(tuple(TEXTS))
    config = EncoderConfig(query="mlm", max_query_tokens=16, max_document_tokens=64)
    half = SparseEncoder(model, tokenizer, config, precision="bfloat16")
    vectors = half.encode_documents(TEXTS)
    assert_close(make(TEXTS, query="mlm").encode_documents(TEXTS), vectors, 0.05)
    assert vectors.values.dtype == np.float32


def test_a_negative_table_gives_signed_queries() -> None:
    model, tokenizer = parts(tuple(TEXTS))
    table = torch.full((len(tokenizer),), -1.0)
    queries = SparseEncoder(model, tokenizer, EncoderConfig(max_document_tokens=64), table).encode_queries(
        ["fox dog"]
    )
    assert queries.signed
    assert queries.values.tolist() == [-1.0, -1.0]


def test_after_a_step_the_table_is_not_negative() -> None:
    model, tokenizer = parts(tuple(TEXTS))
    table = torch.full((len(tokenizer),), -1.0)
    encoder = SparseEncoder(model, tokenizer, EncoderConfig(max_document_tokens=64), table)
    encoder.model.after_step()
    assert encoder.encode_queries(TEXTS).nnz == 0


def test_the_fingerprint_follows_the_weights_and_the_settings() -> None:
    encoder = make(TEXTS)
    before = encoder.info
    assert make(TEXTS, max_document_tokens=32).info.fingerprint != before.fingerprint
    assert make(TEXTS, max_document_tokens=32).info.tokenizer_fingerprint == before.tokenizer_fingerprint
    assert encoder.model.query_table is not None
    with torch.no_grad():
        encoder.model.query_table.weight[7] += 1e-3
    assert encoder.info.fingerprint != before.fingerprint


def test_table_and_settings_must_go_together() -> None:
    model, tokenizer = parts(tuple(TEXTS))
    with pytest.raises(ConfigError, match="is missing"):
        SparseEncoder(model, tokenizer, EncoderConfig(max_document_tokens=64))
    with pytest.raises(ConfigError, match="was given"):
        SparseEncoder(model, tokenizer, EncoderConfig(query="mlm", max_document_tokens=64), torch.ones(3))
    with pytest.raises(ConfigError, match="shape"):
        SparseEncoder(model, tokenizer, EncoderConfig(max_document_tokens=64), torch.ones(100_000))


def test_texts_longer_than_the_model_are_refused() -> None:
    model, tokenizer = parts(tuple(TEXTS))
    with pytest.raises(ConfigError, match="128 positions"):
        SparseEncoder(model, tokenizer, EncoderConfig(query="mlm", max_document_tokens=129))


def test_terms_beyond_the_tokenizer_have_numbers_for_names() -> None:
    assert make(TEXTS).term(1_000_000) == "[1000000]"
