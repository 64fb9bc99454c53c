"""Encoder folders: what we write.

The layout of sentence-transformers 5, by hand, which its versions 5 and 6 both load, with `sparse_config.json`
beside it for what only we know. (Version 6's own layout cannot be read by version 5.) A folder appears whole or not
at all.
"""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gossamer.index.folders import draft_folder
from gossamer.lsr.tokenizer import SPECIAL_TOKENS, plain_tokenizer

if TYPE_CHECKING:
    from torch import Tensor

    from gossamer.lsr.encoder import EncoderConfig, SparseEncoder

OURS: Final = "sparse_config.json"
BM25: Final = "bm25.json"
FORMAT_VERSION: Final = 1
WEIGHTS: Final = "model.safetensors"
POOLING: Final = "SpladePooling"
_QUERY, _DOCUMENT = "query_0_SparseStaticEmbedding", "document_0_MLMTransformer"
_CLASS: Final = "sentence_transformers.sparse_encoder.models"


def save_encoder(encoder: SparseEncoder, path: Path, *, replace: bool = False) -> None:
    """Write an encoder's folder; it appears whole or not at all.

    Args:
        encoder: What to write. Float32 weights are written as they are.
        path: The new folder.
        replace: Whether an encoder that is there already may be replaced.

    Raises:
        ExistsError: Something is there and may not be replaced, or is no encoder.
    """
    with encoder_folder(path, replace=replace) as folder:
        if encoder.model.query_table is None:
            _write_transformer(encoder, folder)
            _write_pooling(encoder, folder / f"1_{POOLING}")
            modules = [("", f"{_CLASS}.MLMTransformer"), (f"1_{POOLING}", f"{_CLASS}.{POOLING}")]
        else:
            _write_router(encoder, folder)
            modules = [("", "sentence_transformers.models.Router")]
        listed = [
            {"idx": number, "name": str(number), "path": place, "type": kind}
            for number, (place, kind) in enumerate(modules)
        ]
        write_json(folder / "modules.json", listed)
        write_json(folder / "config_sentence_transformers.json", _st_config(encoder.config))
        own = {"format_version": FORMAT_VERSION, "name": encoder.name, "config": encoder.config.model_dump()}
        write_json(folder / OURS, own)


def _write_transformer(encoder: SparseEncoder, folder: Path) -> None:
    from safetensors.torch import save_file

    folder.mkdir(exist_ok=True)
    model = encoder.model.document.model
    model.config.architectures = [type(model).__name__]
    config = json.loads(model.config.to_json_string(use_diff=False))
    if config["model_type"] == "modernbert" and "sliding_attention" not in config["layer_types"]:
        config["global_attn_every_n_layers"] = 1  # how transformers 4 says that all layers see everything
    write_json(folder / "config.json", config)
    tensors: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() not in seen:  # a tied tensor is stored once
            tensors[name] = tensor.detach().cpu().contiguous()
            seen.add(tensor.data_ptr())
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    _write_tokenizer(encoder, folder, encoder.config.max_document_tokens)
    settings = {"max_seq_length": encoder.config.max_document_tokens, "do_lower_case": False}
    write_json(folder / "sentence_bert_config.json", settings)


def _write_tokenizer(encoder: SparseEncoder, folder: Path, max_tokens: int) -> None:
    plain_tokenizer(encoder.tokenizer).save(str(folder / "tokenizer.json"))
    special = {name: getattr(encoder.tokenizer, name) for name in SPECIAL_TOKENS}
    config = {
        # transformers 5 would write "TokenizersBackend" here, which 4 refuses; both know this one
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_tokens,
        **{name: token for name, token in special.items() if token is not None},
    }
    write_json(folder / "tokenizer_config.json", config)


def _write_pooling(encoder: SparseEncoder, folder: Path) -> None:
    folder.mkdir()
    settings = {
        "pooling_strategy": encoder.config.pooling,
        "activation_function": encoder.config.activation,
        "word_embedding_dimension": encoder.n_terms,
    }
    write_json(folder / "config.json", settings)


def _write_router(encoder: SparseEncoder, folder: Path) -> None:
    from safetensors.torch import save_file

    assert encoder.model.query_table is not None
    pooling = f"document_1_{POOLING}"
    classes = {_QUERY: "SparseStaticEmbedding", _DOCUMENT: "MLMTransformer", pooling: POOLING}
    router = {
        "types": {place: f"{_CLASS}.{kind}.{kind}" for place, kind in classes.items()},
        "structure": {"query": [_QUERY], "document": [_DOCUMENT, pooling]},
        "parameters": {"default_route": "document", "allow_empty_key": True},
    }
    write_json(folder / "router_config.json", router)
    _write_transformer(encoder, folder / _DOCUMENT)
    _write_pooling(encoder, folder / pooling)
    (folder / _QUERY).mkdir()
    _write_tokenizer(encoder, folder / _QUERY, encoder.config.max_query_tokens)
    weight_V = encoder.model.query_table.weight.detach().cpu().contiguous()
    save_file({"weight": weight_V}, folder / _QUERY / WEIGHTS, metadata={"format": "pt"})
    write_json(folder / _QUERY / "config.json", {"frozen": False})


def _st_config(config: EncoderConfig) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "model_type": "SparseEncoder",
        "__version__": {"sentence_transformers": "5.0.0", "transformers": "4.50.3", "pytorch": "2.6.0"},
        "prompts": {"query": config.query_prefix, "document": config.document_prefix},
        "default_prompt_name": None,
        "similarity_fn_name": "dot",
    }
    if config.max_document_terms is not None and config.max_document_terms == config.max_query_terms:
        settings["max_active_dims"] = config.max_document_terms
    return settings


def encoder_folder(path: Path, *, replace: bool) -> AbstractContextManager[Path]:
    """A draft folder that takes its place at `path` when the block ends without an error."""
    return draft_folder(path, replace=replace, replaceable=_is_ours)


def _is_ours(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (OURS, BM25))


def write_json(path: Path, value: Any) -> None:
    """Write JSON with sorted keys, so that equal values are equal files."""
    path.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
