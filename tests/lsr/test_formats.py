"""Folders of sentence-transformers and Hugging Face: the same weights must give the same vectors there and here."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, BertModel

from gossamer.kernels.errors import FormatError, NotFoundError
from gossamer.lsr.encoder import SparseEncoder
from gossamer.lsr.formats import load_encoder, load_sparse_encoder
from tests.contracts.encoder import TEXTS
from tests.lsr.test_encoder import make

LONG = "fox dog index " * 200


@pytest.fixture(scope="session")
def formats(shared_data: Path) -> Path:
    return shared_data / "formats"


def same_as_sentence_transformers(folder: Path, encoder: SparseEncoder) -> None:
    st = pytest.importorskip("sentence_transformers")
    theirs = st.SparseEncoder(str(folder), device="cpu")
    texts = [*TEXTS, LONG]
    for ours, name in (
        (encoder.encode_queries(texts), "encode_query"),
        (encoder.encode_documents(texts), "encode_document"),
    ):
        other = getattr(theirs, name)(texts, convert_to_tensor=True).to_dense().numpy()
        assert ours.nnz > 0
        np.testing.assert_allclose(ours.to_scipy().toarray(), other, atol=1e-4)


@pytest.mark.parametrize("query", ["mlm", "table"])
@pytest.mark.parametrize("activation", ["relu", "log1p_relu"])
def test_what_we_write_is_the_same_in_sentence_transformers(
    tmp_path: Path, query: str, activation: str
) -> None:
    lengths = {"max_query_tokens": 16, "max_document_tokens": 64 if query == "table" else 16}
    encoder = make(TEXTS, query=query, activation=activation, document_prefix="text: ", **lengths)
    encoder.save(tmp_path / "model")
    same_as_sentence_transformers(tmp_path / "model", encoder)


@pytest.mark.parametrize("name", ["splade-v5", "inference-free-v5", "splade-bare-hf"])
def test_what_others_wrote_is_the_same_here(formats: Path, name: str) -> None:
    encoder = load_sparse_encoder(formats / name)
    assert encoder.config.query == ("table" if name == "inference-free-v5" else "mlm")
    assert encoder.name == name
    same_as_sentence_transformers(formats / name, encoder)


@pytest.mark.parametrize("name", ["splade-v5", "inference-free-v5", "splade-bare-hf"])
def test_read_and_written_again(formats: Path, tmp_path: Path, name: str) -> None:
    encoder = load_sparse_encoder(formats / name)
    encoder.save(tmp_path / "again")
    again = load_sparse_encoder(tmp_path / "again")
    assert again.info == encoder.info
    same_as_sentence_transformers(tmp_path / "again", encoder)


@pytest.mark.parametrize("query", ["mlm", "table"])
def test_version_6_folders(tmp_path: Path, query: str) -> None:
    st = pytest.importorskip("sentence_transformers")
    encoder = make(TEXTS, query=query, max_query_tokens=16, max_document_tokens=16)
    encoder.save(tmp_path / "v5")
    st.SparseEncoder(str(tmp_path / "v5"), device="cpu").save(str(tmp_path / "v6"), create_model_card=False)
    assert ".modules." in (tmp_path / "v6" / "modules.json").read_text(encoding="utf-8")
    loaded = load_sparse_encoder(tmp_path / "v6")
    assert loaded.encode_documents(TEXTS).equals(encoder.encode_documents(TEXTS))
    assert loaded.encode_queries(TEXTS).equals(encoder.encode_queries(TEXTS))
    assert loaded.config == encoder.config


@pytest.mark.parametrize(
    ("name", "said"),
    [("csr-v6", "SparseAutoEncoder"), ("colbert-pylate", "Dense"), ("multi-vector-v6", "MultiVectorMask")],
)
def test_other_kinds_are_refused_by_name(formats: Path, name: str, said: str) -> None:
    with pytest.raises(FormatError, match=said):
        load_encoder(formats / name)


def test_the_files_we_write(tmp_path: Path) -> None:
    make(TEXTS, query="table", max_document_terms=5, max_query_terms=5).save(tmp_path / "model")
    files = {
        str(path.relative_to(tmp_path / "model"))
        for path in (tmp_path / "model").rglob("*")
        if path.is_file()
    }
    assert files == {
        "modules.json",
        "router_config.json",
        "config_sentence_transformers.json",
        "sparse_config.json",
        "document_0_MLMTransformer/config.json",
        "document_0_MLMTransformer/model.safetensors",
        "document_0_MLMTransformer/sentence_bert_config.json",
        "document_0_MLMTransformer/tokenizer.json",
        "document_0_MLMTransformer/tokenizer_config.json",
        "document_1_SpladePooling/config.json",
        "query_0_SparseStaticEmbedding/config.json",
        "query_0_SparseStaticEmbedding/model.safetensors",
        "query_0_SparseStaticEmbedding/tokenizer.json",
        "query_0_SparseStaticEmbedding/tokenizer_config.json",
    }
    tokenizer = json.loads((tmp_path / "model/document_0_MLMTransformer/tokenizer_config.json").read_text())
    assert tokenizer["tokenizer_class"] == "PreTrainedTokenizerFast"  # transformers 4 refuses what 5 writes
    pooling = json.loads((tmp_path / "model/document_1_SpladePooling/config.json").read_text())
    assert "word_embedding_dimension" in pooling  # version 5 refuses version 6's key
    assert (
        json.loads((tmp_path / "model/config_sentence_transformers.json").read_text())["max_active_dims"] == 5
    )


def test_sentence_transformers_keeps_as_many_terms(tmp_path: Path) -> None:
    st = pytest.importorskip("sentence_transformers")
    encoder = make(TEXTS, query="mlm", max_document_terms=5, max_query_terms=5, max_query_tokens=64)
    encoder.save(tmp_path / "model")
    theirs = st.SparseEncoder(str(tmp_path / "model"), device="cpu").encode_document(TEXTS).to_dense().numpy()
    np.testing.assert_allclose(encoder.encode_documents(TEXTS).to_scipy().toarray(), theirs, atol=1e-4)


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A bare Hugging Face folder with a random BERT, LayerNorm stored under its old names, decoder tied."""
    from safetensors.torch import load_file, save_file

    tokenizer = make(TEXTS).tokenizer
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    model = BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=40, **sizes))
    torch.nn.init.normal_(model.cls.predictions.bias, std=0.5)
    model.save_pretrained(tmp_path / "bare")
    tokenizer.save_pretrained(tmp_path / "bare")
    weights = tmp_path / "bare" / "model.safetensors"
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor
        for name, tensor in load_file(weights).items()
    }
    assert any(name.endswith("gamma") for name in old)
    save_file(old, weights, metadata={"format": "pt"})
    return tmp_path / "bare"


def test_a_bare_folder(bare: Path) -> None:
    encoder = load_sparse_encoder(bare)
    assert encoder.config.max_document_tokens == 40
    assert load_sparse_encoder(bare, max_tokens=7).config.max_document_tokens == 7
    same_as_sentence_transformers(bare, encoder)


def test_weights_that_would_be_unpickled_are_refused(bare: Path) -> None:
    (bare / "model.safetensors").rename(bare / "pytorch_model.bin")
    with pytest.raises(FormatError, match="convert them to safetensors"):
        load_encoder(bare)


def test_half_a_model_is_refused(bare: Path, tmp_path: Path) -> None:
    config = json.loads((bare / "config.json").read_text())
    BertModel(BertConfig(**{k: config[k] for k in config if k != "architectures"})).save_pretrained(
        tmp_path / "trunk"
    )
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(bare / name, tmp_path / "trunk")
    with pytest.raises(FormatError, match="BertModel, expected a …ForMaskedLM"):
        load_encoder(tmp_path / "trunk")
    shutil.copy(bare / "config.json", tmp_path / "trunk")
    with pytest.raises(FormatError, match=r"lacks cls\.predictions"):
        load_encoder(tmp_path / "trunk")


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("1_SpladePooling/config.json", '{"pooling_strategy": "sum"}', "'sum'"),
        ("1_SpladePooling/config.json", '{"activation_function": "tanh"}', "'tanh'"),
        ("modules.json", "[", "no JSON"),
        ("modules.json", '[{"idx": 0}]', "not as expected"),
        ("modules.json", "[1]", "not as expected"),
        ("sparse_config.json", '{"format_version": 2}', "another version"),
        ("config.json", '{"model_type": "bert"}', "no architecture"),
        ("config.json", '{"model_type": "flying", "architectures": ["FlyingForMaskedLM"]}', "flying"),
    ],
)
def test_what_cannot_be_represented_is_refused(tmp_path: Path, file: str, text: str, said: str) -> None:
    make(TEXTS, query="mlm").save(tmp_path / "model")
    (tmp_path / "model" / file).write_text(text, encoding="utf-8")
    with pytest.raises(FormatError, match=said):
        load_encoder(tmp_path / "model")


def test_two_tokenizers_are_refused(tmp_path: Path) -> None:
    make(TEXTS).save(tmp_path / "model")
    other = make([*TEXTS, "more words than before"])
    other.tokenizer.save_pretrained(tmp_path / "model" / "query_0_SparseStaticEmbedding")
    with pytest.raises(FormatError, match="another tokenizer"):
        load_encoder(tmp_path / "model")


def test_a_table_by_name_of_token(tmp_path: Path) -> None:
    encoder = make(TEXTS)
    encoder.save(tmp_path / "model")
    query = tmp_path / "model" / "query_0_SparseStaticEmbedding"
    (query / "config.json").write_text('{"path": "idf.json"}', encoding="utf-8")
    (query / "idf.json").write_text('{"fox": 2.5, "dog": 1.5}', encoding="utf-8")
    (query / "model.safetensors").unlink()
    queries = load_sparse_encoder(tmp_path / "model").encode_queries(["the fox and the dog"])
    assert sorted(queries.values.tolist()) == [1.5, 2.5]


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no folder"):
        load_encoder(tmp_path / "nowhere")
    with pytest.raises(FormatError, match=r"neither modules.json nor config.json"):
        load_encoder(tmp_path)


def test_names_of_the_hub_are_fetched_without_code_or_pickles(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    make(TEXTS).save(tmp_path / "snapshot")
    asked: list[Any] = []

    def snapshot_download(name: str, *, allow_patterns: list[str]) -> str:
        asked.append((name, allow_patterns))
        return str(tmp_path / "snapshot")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    load_encoder("someone/model")
    assert asked == [("someone/model", ["*.safetensors", "*.json", "*.txt"])]


def test_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> str:
        raise ConnectionError("offline")

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    with pytest.raises(NotFoundError, match="check the name and the network"):
        load_encoder("someone/model")
