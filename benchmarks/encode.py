"""How many documents a second does `SparseEncoder` encode, beside sentence-transformers with the same weights?

One core: the process is pinned to one, and every thread pool has one thread. Each cell loads one folder in both
libraries, checks that the vectors agree, and then times them in turn, several times; the median counts. CPU time is
reported, so that other work on the machine matters less. The texts are docstrings of the standard library.
`--model` takes any folder that both can read; without it, folders are built on the spot: the project's small default
(2 layers, 192 wide), and a 6-layer, 384-wide BERT with 30,522 terms, of random weights with the decoder's bias set so
that a document has about 150 non-zeros, as trained encoders have.

    python benchmarks/encode.py [--model FOLDER] [--quick]
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cells import Cell, print_table, run_cells

HERE = Path(__file__)
SOURCES = ["lsr/encoder.py", "lsr/heads.py", "lsr/tokenizer.py", "lsr/formats.py", "kernels/splade_head.py"]
NON_ZEROS = 150
SHOWN = (
    "model",
    "n_terms",
    "nnz",
    "theirs",
    "ours",
    "ours_bf16",
    "ratio",
    "ratio_bf16",
    "diff",
    "diff_bf16",
    "not_run",
)


def compare(model: str, max_tokens: int, n_documents: int, runs: int, batch_size: int) -> dict[str, Any]:
    """Documents per second of CPU time on one core, and how far the vectors are apart."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    os.environ |= {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    import torch
    from sentence_transformers import SparseEncoder as Theirs

    from gossamer.lsr.formats import load_sparse_encoder

    torch.set_num_threads(1)
    corpus = docstrings()
    texts = corpus[:: len(corpus) // n_documents][:n_documents]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(model)
        if not folder.is_dir():
            folder = Path(temporary) / "model"
            BUILDERS[model](corpus, max_tokens).save(folder)
        plain = load_sparse_encoder(folder, max_tokens=max_tokens)
        half = load_sparse_encoder(folder, max_tokens=max_tokens, precision="bfloat16")
        theirs = Theirs(str(folder), device="cpu")
        theirs.max_seq_length = max_tokens
    engines: dict[str, Callable[[], Any]] = {
        "theirs": lambda: theirs.encode_document(texts, batch_size=batch_size, show_progress_bar=False),
        "ours": lambda: plain.encode_documents(texts, batch_size=batch_size),
        "ours_bf16": lambda: half.encode_documents(texts, batch_size=batch_size),
    }
    vectors, seconds = _timed(engines, runs)
    expected = vectors["theirs"].to_dense().numpy()
    speed = {name: len(texts) / statistics.median(times) for name, times in seconds.items()}
    return {
        "n_terms": plain.n_terms,
        "nnz": vectors["ours"].nnz / len(texts),
        **speed,
        "ratio": speed["ours"] / speed["theirs"],
        "ratio_bf16": speed["ours_bf16"] / speed["theirs"],
        "diff": float(abs(vectors["ours"].to_scipy().toarray() - expected).max()),
        "diff_bf16": float(abs(vectors["ours_bf16"].to_scipy().toarray() - expected).max()),
    }


def _timed(engines: dict[str, Callable[[], Any]], runs: int) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """Run all engines in turn, once to warm up and `runs` times for the clock."""
    vectors: dict[str, Any] = {}
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    for turn in range(runs + 1):
        for name, encode in engines.items():
            began = time.process_time()
            vectors[name] = encode()
            if turn:
                seconds[name].append(time.process_time() - began)
    return vectors, seconds


def docstrings() -> list[str]:
    """The docstrings of the standard library, each with its name and signature."""
    from gossamer.lsr.docstrings import read_docstrings

    return [f"{found.name}{found.signature} {found.sentence} {found.rest}" for found in read_docstrings()]


def small(texts: list[str], max_tokens: int) -> Any:
    """The project's default backbone before training."""
    from gossamer.lsr.backbone import BackboneConfig, lexical_start
    from gossamer.lsr.tokenizer import train_tokenizer

    tokenizer = train_tokenizer(texts, vocabulary_size=8_192)
    model = lexical_start(BackboneConfig(), tokenizer)
    return _symmetric(model, tokenizer, max_tokens)


def bert(texts: list[str], max_tokens: int) -> Any:
    """The size of MiniLM with BERT's vocabulary, random weights."""
    import torch
    from transformers import BertConfig, BertForMaskedLM

    from gossamer.lsr.tokenizer import train_tokenizer

    tokenizer = train_tokenizer(texts, vocabulary_size=8_192)
    torch.manual_seed(0)
    sizes = {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6, "num_attention_heads": 12}
    model = BertForMaskedLM(BertConfig(vocab_size=30_522, max_position_embeddings=512, **sizes)).eval()
    encoder = _symmetric(model, tokenizer, max_tokens)
    with (
        torch.inference_mode()
    ):  # how large the logits are is not known before; shift them to the wanted sparsity
        peaks_BV = encoder.model.encode_documents_tensor(
            *encoder.pad(encoder.tokenize_documents(texts[::500]))
        )
        level = (
            torch.expm1(peaks_BV.flatten()).kthvalue(int(peaks_BV.numel() * (1 - NON_ZEROS / 30_522))).values
        )
    with torch.no_grad():
        model.cls.predictions.bias -= level
    return encoder


def _symmetric(model: Any, tokenizer: Any, max_tokens: int) -> Any:
    from gossamer.lsr.encoder import EncoderConfig, SparseEncoder

    config = EncoderConfig(query="mlm", max_query_tokens=max_tokens, max_document_tokens=max_tokens)
    return SparseEncoder(model, tokenizer, config)


BUILDERS = {"small": small, "bert-6x384": bert}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="folder of an encoder that both libraries read")
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--quick", action="store_true", help="fewer documents and runs")
    arguments = parser.parse_args()
    n_documents, runs = (32, 1) if arguments.quick else (512, 5)
    cells = [
        Cell(
            script=HERE,
            function="compare",
            params={
                "model": model,
                "max_tokens": arguments.max_tokens,
                "n_documents": n_documents,
                "runs": runs,
                "batch_size": arguments.batch_size,
            },
            sources=SOURCES,
            inputs=sorted(path for path in Path(model).rglob("*") if path.is_file()),
            cost_s=60 if arguments.quick else 600,
        )
        for model in ([arguments.model] if arguments.model else BUILDERS)
    ]
    title = f"Documents per second of CPU time, one core, {n_documents} documents, median of {runs} runs"
    print_table(
        title, [{name: value for name, value in row.items() if name in SHOWN} for row in run_cells(cells)]
    )


if __name__ == "__main__":
    main()
