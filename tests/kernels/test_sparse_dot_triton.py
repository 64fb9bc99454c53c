"""The Triton kernels: interpreted on the CPU, and compiled for GPUs that need not be there."""

import gc
import os
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("triton", reason="Triton is not installed; it exists for Linux only")

from gossamer.kernels.sparse_dot import sparse_dot_topk
from tests.contracts.kernel_sparse_dot import (
    SparseDotContract,
    make_postings,
    make_queries,
    random_impacts,
    random_weights,
)


class TestTriton(SparseDotContract):
    backend = "triton"
    kinds = ("uint8", "int8")


def run_without_interpreter(code: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a process where Triton compiles: one process cannot both interpret and compile."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"TRITON_DEFAULT_FP_FUSION": "0", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment, check=False, capture_output=True, text=True, timeout=300)


def test_batches_smaller_than_all_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    from gossamer.kernels import sparse_dot_triton

    monkeypatch.setattr(sparse_dot_triton, "CACHE_BYTES", 5 * 16 * 3)  # three queries at a time
    rng = np.random.default_rng(0)
    postings = make_postings(random_impacts(rng, (50, 9), 0.4, "int8"), 16)
    queries = make_queries(random_weights(rng, (8, 9), 0.4, "int8"))
    found = sparse_dot_topk(queries, postings, 5, backend="triton")
    expected = sparse_dot_topk(queries, postings, 5, backend="reference")
    np.testing.assert_array_equal(found.rows, expected.rows)
    np.testing.assert_array_equal(found.scores, expected.scores)


def test_postings_stay_on_the_device_while_they_live() -> None:
    from gossamer.kernels import sparse_dot_triton

    sparse_dot_triton._UPLOADS.clear()
    postings = make_postings(np.ones((3, 2), np.uint8), 2)
    queries = make_queries(np.ones((1, 2), np.int16))
    sparse_dot_topk(queries, postings, 1, backend="triton")
    (first,) = sparse_dot_triton._UPLOADS.values()
    sparse_dot_topk(queries, postings, 1, backend="triton")
    (second,) = sparse_dot_triton._UPLOADS.values()
    assert first["impacts"] is second["impacts"]
    del postings
    gc.collect()
    assert not sparse_dot_triton._UPLOADS


def test_without_a_gpu_it_refuses_and_auto_takes_numba() -> None:
    done = run_without_interpreter("""
import numpy as np
from gossamer.kernels.backends import choose_backend
from gossamer.kernels.errors import BackendError
from gossamer.kernels.sparse_dot import Postings, Queries, sparse_dot_topk

postings = Postings(
    1, 1, 1, np.array([0, 1]), np.array([[0, 1]], np.uint32), np.zeros(1, np.uint16), np.ones(1, np.uint8)
)
queries = Queries(np.array([0, 1]), np.zeros(1, np.int32), np.ones(1, np.int16))
assert choose_backend("auto", gpu_can=True) == "numba"
try:
    sparse_dot_topk(queries, postings, 1, backend="triton")
except BackendError as error:
    print(error)
""")
    assert done.returncode == 0, done.stderr
    assert "needs a CUDA GPU" in done.stdout


COMPILE = """
import subprocess, sys, tempfile
from pathlib import Path
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from gossamer.kernels.sparse_dot_triton import add_runs, take_keys

kernels = {
    add_runs: ("*i32 *u8 *i32 *i32 *i16 *u32 *u16 IMPACTS i32", {"BLOCK": 256}),
    take_keys: ("*i32 *u8 *i1 *i64 i32 i32 i32", {"MASKED": True, "BLOCK": 1024}),
}
tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
for kernel, (types, constants) in kernels.items():
    for kind in ("*u8", "*i8") if "IMPACTS" in types else ("",):
        names = [name for name in kernel.arg_names if name not in constants]
        signature = dict(zip(names, types.replace("IMPACTS", kind).split(), strict=True))
        signature |= dict.fromkeys(constants, "constexpr")
        for capability in (80, 90):
            source = ASTSource(kernel, signature, constexprs=constants)
            built = triton.compile(source, target=GPUTarget("cuda", capability, 32))
            assert f".target sm_{capability}" in built.asm["ptx"]
            with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
                file.write(built.asm["cubin"])
                file.flush()
                command = [tools / "cuobjdump", "--dump-resource-usage", file.name]
                usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            print(kernel.fn.__name__, kind, capability, next(x for x in usage.splitlines() if "REG:" in x).strip())
"""


def test_kernels_compile_for_gpus_without_spilling() -> None:
    done = run_without_interpreter(COMPILE)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 6, done.stdout
    for line in lines:
        assert " STACK:0 " in line, line  # spilled registers would live there
        assert " LOCAL:0 " in line, line
