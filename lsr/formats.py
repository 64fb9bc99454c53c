"""Encoder folders: what we read.

Our own (see `gossamer.lsr.save`), those of sentence-transformers 5 and 6, and bare Hugging Face `…ForMaskedLM`
folders. Module classes are known by the last part of their name, since the part before it changed between
versions. Weights are safetensors; nothing is ever unpickled, and no code from a folder is run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from pydantic import ValidationError
from torch import Tensor

from gossamer.kernels.errors import FormatError, NotFoundError
from gossamer.lsr.encoder import Encoder, EncoderConfig, Precision, SparseEncoder
from gossamer.lsr.save import BM25, FORMAT_VERSION, OURS, POOLING, WEIGHTS
from gossamer.lsr.tokenizer import plain_tokenizer

_NO_LIMIT: Final = 512  # tokens, where neither model nor tokenizer states a limit


def load_encoder(
    name_or_path: str | os.PathLike[str], *, max_tokens: int | None = None, precision: Precision = "float32"
) -> Encoder:
    """Load an encoder of any kind.

    Args:
        name_or_path: A folder, or else `owner/name` of a repository on the Hugging Face hub, whose
            safetensors, JSON and text files are fetched.
        max_tokens: Cut texts here instead of where the folder says.
        precision: See `SparseEncoder`.

    Returns:
        A `SparseEncoder`, or a `Bm25Encoder` where one was saved.

    Raises:
        NotFoundError: There is no such folder, and no such repository can be reached.
        FormatError: The folder holds something that cannot be represented here; the message names it.
    """
    folder = Path(name_or_path)
    if not folder.is_dir():
        folder = _fetched(str(name_or_path))
    if (folder / BM25).is_file():
        from gossamer.lsr.bm25 import Bm25Encoder

        return Bm25Encoder.load(folder)
    return load_sparse_encoder(folder, max_tokens=max_tokens, precision=precision)


def _fetched(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise NotFoundError(f"there is no folder {name}: give an encoder's folder, or owner/name on the hub")
    patterns = ["*.safetensors", "*.json", "*.txt"]
    try:
        return Path(snapshot_download(name, allow_patterns=patterns))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise NotFoundError(
            f"there is no folder {name}, and the hub gave no repository of that name "
            f"({type(error).__name__}): check the name and the network"
        ) from error


def load_sparse_encoder(
    folder: Path, *, max_tokens: int | None = None, precision: Precision = "float32"
) -> SparseEncoder:
    """Load a masked-language-model encoder from a folder; see `load_encoder`."""
    if (folder / "modules.json").is_file():
        try:
            layout = _read_layout(folder)
        except (AttributeError, KeyError, TypeError) as error:
            raise FormatError(f"the files that describe {folder} are not as expected: {error!r}") from error
    elif (folder / "config.json").is_file():
        layout = _Layout(transformer=folder, settings={"query": "mlm"})
    else:
        raise FormatError(f"{folder} has neither modules.json nor config.json: it is no encoder's folder")
    model = _read_model(layout.transformer)
    tokenizer = _read_tokenizer(layout.transformer)
    limit = _token_limit(layout.transformer, tokenizer, model)
    settings = {"max_document_tokens": limit, "max_query_tokens": limit, **layout.settings}
    name = folder.resolve().name
    if (folder / OURS).is_file():
        name, settings = _read_ours(folder / OURS)
    if max_tokens is not None:
        settings |= {"max_document_tokens": max_tokens, "max_query_tokens": max_tokens}
    try:
        config = EncoderConfig(**settings)
    except ValidationError as error:
        raise FormatError(f"{folder}: {error}") from error
    table = None if layout.table is None else _read_table(layout.table, tokenizer)
    return SparseEncoder(model, tokenizer, config, table, name=name, precision=precision)


@dataclass(frozen=True)
class _Layout:
    """Where the parts of a folder are, and the settings found on the way."""

    transformer: Path
    settings: dict[str, Any]
    table: Path | None = None


def _read_layout(folder: Path) -> _Layout:
    modules = [(entry["type"], folder / entry["path"]) for entry in read_json(folder / "modules.json")]
    settings = _read_st_config(folder)
    table = None
    if [_kind(name) for name, _ in modules] == ["Router"]:
        table, modules = _read_router(folder)
        settings |= {"query": "table", "max_query_tokens": _query_limit(table)}
    else:
        settings |= {"query": "mlm"}
    if [_kind(name) for name, _ in modules] not in (["MLMTransformer", POOLING], ["Transformer", POOLING]):
        raise _unknown(folder, [name for name, _ in modules])
    return _Layout(modules[0][1], settings | _read_pooling(modules[1][1]), table)


def _read_router(folder: Path) -> tuple[Path, list[tuple[str, Path]]]:
    router = read_json(folder / "router_config.json")
    routes = {
        route: [(router["types"][place], folder / place) for place in places]
        for route, places in router["structure"].items()
    }
    query = routes.get("query", [])
    if set(routes) != {"query", "document"} or [_kind(name) for name, _ in query] != [
        "SparseStaticEmbedding"
    ]:
        raise _unknown(folder, [name for route in routes.values() for name, _ in route])
    return query[0][1], routes["document"]


def _kind(class_path: str) -> str:
    return class_path.rsplit(".", 1)[-1]


def _unknown(folder: Path, classes: list[str]) -> FormatError:
    return FormatError(
        f"{folder} is made of {', '.join(classes)}: supported are a masked language model with SpladePooling, "
        "and a Router with SparseStaticEmbedding for queries and these two for documents"
    )


def _read_pooling(folder: Path) -> dict[str, Any]:
    pooling = read_json(folder / "config.json")
    strategy, activation = pooling.get("pooling_strategy", "max"), pooling.get("activation_function", "relu")
    if strategy != "max" or activation not in ("relu", "log1p_relu"):
        raise FormatError(
            f"{folder}/config.json asks for pooling {strategy!r} and activation {activation!r}: supported are "
            "max, with relu or log1p_relu"
        )
    return {"activation": activation}


def _read_st_config(folder: Path) -> dict[str, Any]:
    path = folder / "config_sentence_transformers.json"
    found = read_json(path) if path.is_file() else {}
    prompts = found.get("prompts") or {}
    return {
        "query_prefix": prompts.get("query") or "",
        "document_prefix": prompts.get("document") or "",
        "max_query_terms": found.get("max_active_dims"),
        "max_document_terms": found.get("max_active_dims"),
    }


def _read_ours(path: Path) -> tuple[str, dict[str, Any]]:
    found = read_json(path)
    if found.get("format_version") != FORMAT_VERSION:
        raise FormatError(
            f"{path} has the format version {found.get('format_version')}, expected {FORMAT_VERSION}: it was "
            "written by another version of gossamer; use that one"
        )
    return str(found["name"]), dict(found["config"])


def _read_model(folder: Path) -> Any:
    from transformers import AutoConfig, AutoModelForMaskedLM

    if not any((folder / name).is_file() for name in (WEIGHTS, f"{WEIGHTS}.index.json")):
        pickled = sorted(path.name for path in folder.glob("*.bin"))
        remedy = "convert them to safetensors (a pickle can run any code)" if pickled else "add it"
        found = f", only pickled weights ({', '.join(pickled)})" if pickled else ""
        raise FormatError(f"{folder} has no {WEIGHTS}{found}: {remedy}")
    classes = read_json(folder / "config.json").get("architectures") or ["no architecture"]
    if not classes[0].endswith("ForMaskedLM"):
        raise FormatError(
            f"{folder} holds a {classes[0]}, expected a …ForMaskedLM: it has no word weights to give"
        )
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        with _no_progress_bars():
            model, report = AutoModelForMaskedLM.from_pretrained(
                folder,
                config=config,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                dtype=torch.float32,
                attn_implementation="sdpa",
                output_loading_info=True,
            )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise FormatError(f"{folder} cannot be read as {classes[0]}: {error}") from error
    if missing := sorted(report["missing_keys"]):
        raise FormatError(
            f"{folder}/{WEIGHTS} lacks {', '.join(missing[:5])}: it is not a whole {classes[0]}"
        )
    return model


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Reading a local file takes a moment; transformers shows a bar for it."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _read_tokenizer(folder: Path) -> Any:
    from tokenizers import normalizers
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise FormatError(f"{folder} has no tokenizer that can be read: {error}") from error
    if not getattr(tokenizer, "is_fast", False):
        raise FormatError(
            f"{folder} has the tokenizer {type(tokenizer).__name__}, expected one with tokenizer.json"
        )
    path = folder / "sentence_bert_config.json"
    if path.is_file() and read_json(path).get("do_lower_case"):
        backend = tokenizer.backend_tokenizer
        steps = [normalizers.Lowercase()] + ([backend.normalizer] if backend.normalizer is not None else [])
        backend.normalizer = normalizers.Sequence(steps)
    return tokenizer


def _token_limit(folder: Path, tokenizer: Any, model: Any) -> int:
    """Where sentence-transformers would cut: its own setting, else the tokenizer's and the model's."""
    path = folder / "sentence_bert_config.json"
    stated = read_json(path).get("max_seq_length") if path.is_file() else None
    positions = getattr(model.config, "max_position_embeddings", None) or _NO_LIMIT
    limit = min(int(stated or tokenizer.model_max_length), positions)
    return limit if limit > 0 else _NO_LIMIT


def _query_limit(folder: Path) -> int:
    limit = int(read_json(folder / "tokenizer_config.json").get("model_max_length") or _NO_LIMIT)
    return min(limit, 2**31 - 1)


def _read_table(folder: Path, tokenizer: Any) -> Tensor:
    from safetensors.torch import load_file

    if plain_tokenizer(_read_tokenizer(folder)).to_str() != plain_tokenizer(tokenizer).to_str():
        raise FormatError(f"{folder} has another tokenizer than the documents' side: both must be the same")
    config = read_json(folder / "config.json")
    if config.get("path"):
        weights = read_json(folder / Path(config["path"]).name)
        table = torch.zeros(len(tokenizer))
        numbers = tokenizer.convert_tokens_to_ids(list(weights))
        table[torch.tensor(numbers)] = torch.tensor(list(weights.values()), dtype=torch.float32)
        return table
    if not (folder / WEIGHTS).is_file():
        raise FormatError(f"{folder} has no {WEIGHTS} with the queries' weights: add it")
    weight_V: Tensor = load_file(folder / WEIGHTS)["weight"]
    return weight_V.float()


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        FormatError: The file is missing or is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FormatError(f"{path} is missing: the folder is incomplete") from error
    except ValueError as error:
        raise FormatError(f"{path} is no JSON ({error}): the folder is damaged") from error
