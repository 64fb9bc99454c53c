"""What does the tiled SPLADE head save, in time and memory, beside the plain one?

    python benchmarks/splade_head.py [--quick] [--threads 2]

Random states and weights; the bias is such that a document has about a tenth of the vocabulary, as early in training.
Times are medians of several runs. Memory is what the first forward and backward pass add to the process's peak.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

from cells import Cell, peak_mb, print_table, run_cells

ENGINES = {  # name: (tiled, type of the logits)
    "plain": (False, None),
    "plain bf16": (False, "bfloat16"),
    "tiled": (True, None),
    "tiled bf16": (True, "bfloat16"),
}
SHAPES = {"quick": (8, 64, 192, 8_192), "small": (32, 128, 192, 8_192), "large": (32, 128, 384, 30_522)}


def measure(shape: str, padding: str, engine: str, threads: int, runs: int) -> dict[str, Any]:
    """Time inference, forward and backward of one head on one batch."""
    import torch

    from gossamer.kernels.splade_head import splade_head, splade_head_reference

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    n_documents, n_tokens, width, n_terms = SHAPES[shape]
    tiled, dtype = ENGINES[engine]
    head = splade_head if tiled else splade_head_reference
    matmul_dtype = None if dtype is None else getattr(torch, dtype)
    hidden = torch.randn(n_documents, n_tokens, width, requires_grad=True)
    lengths = torch.randint(10, n_tokens + 1, (n_documents, 1)) if padding == "ragged" else n_tokens
    mask = torch.arange(n_tokens) < torch.as_tensor(lengths).expand(n_documents, 1)
    weight = (torch.randn(n_terms, width) * width**-0.5).requires_grad_()
    bias = torch.full((n_terms,), -3.0, requires_grad=True)
    inputs = (hidden, mask, weight, bias)

    before = peak_mb()
    y_BV = head(*inputs, matmul_dtype=matmul_dtype)
    grad_BV = torch.randn_like(y_BV)
    torch.autograd.grad(y_BV, (hidden, weight, bias), grad_BV, retain_graph=True)
    added = peak_mb() - before

    def infer() -> None:
        with torch.no_grad():
            head(*inputs, matmul_dtype=matmul_dtype)

    return {
        "terms": int((y_BV > 0).sum()) // n_documents,
        **_times("infer", infer, runs),
        **_times("forward", lambda: head(*inputs, matmul_dtype=matmul_dtype), runs),
        **_times(
            "backward",
            lambda: torch.autograd.grad(y_BV, (hidden, weight, bias), grad_BV, retain_graph=True),
            runs,
        ),
        "added_mb": round(added, 1),
    }


def _times(name: str, call: Callable[[], object], runs: int) -> dict[str, float]:
    call()
    wall, cpu = [], []
    for _ in range(runs):
        began, began_cpu = time.perf_counter(), time.process_time()
        call()
        wall.append(time.perf_counter() - began)
        cpu.append(time.process_time() - began_cpu)
    return {f"{name}_ms": statistics.median(wall) * 1e3, f"{name}_cpu_ms": statistics.median(cpu) * 1e3}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a smaller shape, three runs")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    shapes, runs = (["quick"], 3) if arguments.quick else (["small", "large"], 5)
    cells = [
        Cell(
            script=Path(__file__).resolve(),
            function="measure",
            params={"shape": s, "padding": p, "engine": e, "threads": arguments.threads, "runs": runs},
            sources=("kernels/splade_head.py",),
            cost_s={"quick": 5, "small": 15, "large": 60}[s],
        )
        for s, p, e in product(shapes, ("full", "ragged"), ENGINES)
    ]
    rows = run_cells(cells)
    hidden = ("threads", "runs", "peak_mb", "took_s")
    for row in rows:
        row["shape"] = "×".join(map(str, SHAPES[row["shape"]]))
    print_table(
        f"SPLADE head, B×L×H×V, {arguments.threads} threads",
        [{name: value for name, value in row.items() if name not in hidden} for row in rows],
    )


if __name__ == "__main__":
    main()
