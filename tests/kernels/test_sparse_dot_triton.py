"""The Triton kernels: interpreted on the CPU, and compiled for GPUs that need not be there."""

import gc
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("triton", reason="Triton is not installed; it exists for Linux only")

from gossamer.kernels import sparse_dot_triton, sparse_dot_upload
from gossamer.kernels.inversion import dense_terms_of
from gossamer.kernels.sparse_dot import Postings, Queries, sparse_dot_topk
from gossamer.kernels.sparse_dot_upload import bytes_a_posting
from tests.contracts.kernel_sparse_dot import (
    SparseDotContract,
    make_postings,
    make_queries,
    random_impacts,
    random_weights,
)

ROOT = Path(__file__).resolve().parents[2]


def check(
    queries: Queries,
    postings: Postings,
    k: int,
    *,
    allowed: npt.NDArray[np.bool_] | None = None,
    max_windows: int | None = None,
) -> None:
    found, expected = (
        sparse_dot_topk(queries, postings, k, allowed=allowed, max_windows=max_windows, backend=backend)
        for backend in ("triton", "reference")
    )
    np.testing.assert_array_equal(found.rows, expected.rows)
    np.testing.assert_array_equal(found.scores, expected.scores)


class TestTriton(SparseDotContract):
    backend = "triton"
    kinds = ("uint8", "int8")

    # Fewer queries than the contract has, which wants more than a CPU answers together: the interpreter is slow.
    @pytest.mark.parametrize("n_dense", [0, 1, 17])
    @pytest.mark.parametrize("k", [1, 10, 40])
    def test_dense_terms_change_nothing(self, n_dense: int, k: int) -> None:
        rng = np.random.default_rng(5)
        impacts_DV = random_impacts(rng, (200, 17), 0.3, "uint8")
        postings = make_postings(impacts_DV, 70, rng.permutation(200), n_dense)
        check(make_queries(np.abs(random_weights(rng, (5, 17), 0.4, "int8"))), postings, k)


@pytest.fixture
def small_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs that see 16 postings or 32 documents, so that a small index takes many."""
    for name, size in {"BLOCK": 16, "SPAN": 32, "TILE": 32}.items():
        monkeypatch.setattr(sparse_dot_triton, name, size)


@pytest.mark.usefixtures("small_programs")
@pytest.mark.parametrize("kind", ["uint8", "int8"])
def test_long_runs_are_split_over_programs(kind: str) -> None:
    rng = np.random.default_rng(2)
    impacts_DV = random_impacts(rng, (170, 4), 0.9, kind)
    impacts_DV[:, 3] = 0
    impacts_DV[:3, 3] = 1  # a short run beside them
    postings = make_postings(impacts_DV, 130, rng.permutation(170), 1)
    weights_QV = random_weights(rng, (3, 4), 0.9, kind)
    queries = make_queries(weights_QV)
    index = sparse_dot_upload.uploaded(postings, sparse_dot_triton._device())
    programs = sparse_dot_triton._Entries.of(queries, index, lazy=False).programs
    assert programs[:, 4].max() == -(-int(index.longest.max()) // 32) > 3
    assert len(programs) == programs[programs[:, 3] == 0, 4].sum()
    for k in (1, 20, 200):
        check(queries, postings, k)


def test_programs_of_the_size_that_a_gpu_runs() -> None:
    rng = np.random.default_rng(6)
    postings = make_postings(random_impacts(rng, (2_300, 3), 0.95, "uint8"), 2_200, n_dense=1)
    assert sparse_dot_upload.uploaded(postings, sparse_dot_triton._device()).longest.max() > 2_048
    check(make_queries(np.array([[3, 5, 900], [0, 7, 0]], np.int16)), postings, 60)
    check(make_queries(np.array([[3, -5, 900]], np.int16)), postings, 60, allowed=rng.random(2_300) < 0.5)


@pytest.mark.parametrize("kind", ["uint8", "int8"])
def test_batches_smaller_than_all_queries(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(
        sparse_dot_triton, "CACHE_BYTES", 5 * 32 * 3
    )  # three queries at a time, or four windows
    rng = np.random.default_rng(0)
    postings = make_postings(random_impacts(rng, (90, 9), 0.4, kind), 16)
    check(make_queries(random_weights(rng, (8, 9), 0.4, kind)), postings, 5)
    check(make_queries(random_weights(rng, (1, 9), 0.9, kind)), postings, 5)


def test_sums_fit_in_the_cache() -> None:
    for window in (1, 4_096, 8_192, 65_536):
        for above_zero in (True, False):
            size = sparse_dot_triton._batch_size(window, 1_000, above_zero)
            each = sparse_dot_triton._sum_bytes(above_zero) * sparse_dot_triton._width(window)
            assert size * each <= 24 * 2**20
    assert sparse_dot_triton._batch_size(8_192, 1_000, True) >= 256


@pytest.mark.parametrize("kind", ["uint8", "int8"])
def test_too_many_candidates_are_visited_again(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """The later a document, the better: each window passes whole, until its turn alone."""
    visits = []
    visit = sparse_dot_triton._Batch._visit

    def noted(batch: Any, begin: int, end: int, mask: Any) -> None:
        visits.append((begin, end))
        visit(batch, begin, end, mask)

    monkeypatch.setattr(sparse_dot_triton._Batch, "_visit", noted)
    impacts_DV = np.minimum(np.arange(160) // 2 + 1, 127).astype(kind)[:, None]
    postings = make_postings(impacts_DV, 10, np.arange(160))._replace(bounds=None)
    check(make_queries(np.array([[2]], np.int16)), postings, 3)
    assert [pair for pair in visits if pair[1] - pair[0] > 5] == [(4, 16), (4, 10), (10, 16)]
    assert (4, 7) in visits  # 30 of 35 places: enough


def test_windows_and_blocks_are_left_out() -> None:
    """Rows of dense terms are not read where their bounds say that no document can be among the best."""
    impacts_DV = np.ones((320, 2), np.uint8)
    impacts_DV[64:96] = 200
    postings = make_postings(impacts_DV, 32, np.arange(320), n_dense=1)
    assert postings.bounds is not None
    postings.bounds.dense[0, 96:] = 77  # would be wrong scores, were they read
    found = sparse_dot_topk(make_queries(np.array([[3, 4]], np.int16)), postings, 5, backend="triton")
    assert found.rows.tolist() == [[64, 65, 66, 67, 68]]
    assert found.scores.tolist() == [[1_400] * 5]


@pytest.mark.parametrize("bounded", [True, False])
def test_a_posting_of_zero_is_a_hit(bounded: bool) -> None:
    postings = make_postings(np.array([[1, 3], [2, 0], [0, 4], [5, 6]], np.uint8), 2)
    postings.impacts[[0, 4]] = 0
    if not bounded:
        postings = postings._replace(bounds=None)
    queries = make_queries(np.array([[1, 2], [4, 0]], np.int16))
    check(queries, postings, 4)
    check(queries, postings, 4, max_windows=1 if bounded else None)


def test_positive_and_negative_queries_in_one_call() -> None:
    rng = np.random.default_rng(9)
    postings = make_postings(random_impacts(rng, (70, 6), 0.5, "uint8"), 20, rng.permutation(70))
    weights_QV = random_weights(rng, (5, 6), 0.6, "uint8")
    weights_QV[[1, 3], 2] = -4_000
    check(make_queries(weights_QV), postings, 8, allowed=rng.random(70) < 0.6)


@pytest.mark.parametrize("seed", range(20))
def test_odd_shapes(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Everything at once: windows, batches, ties, masks, signs, few windows, and programs of several sizes."""
    rng = np.random.default_rng(seed)
    sizes = {"BLOCK": 16, "SPAN": 32, "TILE": 32} if seed % 2 else {}
    for name, size in (sizes | {"CACHE_BYTES": int(rng.choice([400, 1_500, 2**24]))}).items():
        monkeypatch.setattr(sparse_dot_triton, name, size)
    kind = str(rng.choice(["uint8", "int8"]))
    n_documents, n_terms, window = (int(rng.integers(1, size)) for size in (120, 9, 70))
    impacts_DV = random_impacts(rng, (n_documents, n_terms), rng.random(), kind)
    weights_QV = random_weights(rng, (3, n_terms), rng.random(), "uint8" if seed % 3 else kind)
    if seed % 4 == 0:  # many ties
        impacts_DV, weights_QV = np.sign(impacts_DV), np.sign(weights_QV)
    n_dense = int(rng.integers(0, n_terms + 1))
    postings = make_postings(impacts_DV, max(window, 8), rng.permutation(n_documents), n_dense)
    allowed = rng.random(n_documents) < 0.6 if seed % 5 == 0 else None
    max_windows = 2 if postings.bounds is not None and (weights_QV >= 0).all() and seed % 2 else None
    k = int(rng.choice([1, 5, 40, 200]))
    check(make_queries(weights_QV), postings, k, allowed=allowed, max_windows=max_windows)


def test_postings_stay_on_the_device_while_they_live() -> None:
    sparse_dot_upload._UPLOADS.clear()
    postings = make_postings(np.ones((3, 2), np.uint8), 2)
    queries = make_queries(np.ones((1, 2), np.int16))
    sparse_dot_topk(queries, postings, 1, backend="triton")
    (first,) = sparse_dot_upload._UPLOADS.values()
    sparse_dot_topk(queries, postings, 1, backend="triton")
    (second,) = sparse_dot_upload._UPLOADS.values()
    assert first.impacts is second.impacts
    sparse_dot_topk(queries, postings._replace(bounds=None), 1, backend="triton")
    assert [index.dense is None for index in sparse_dot_upload._UPLOADS.values()] == [False, True]
    del postings
    gc.collect()
    assert not sparse_dot_upload._UPLOADS


def test_at_most_four_bytes_a_posting() -> None:
    rng = np.random.default_rng(1)
    shares_V = np.minimum(0.6, 20 / np.arange(1, 1_501))
    impacts_DV = np.where(rng.random((10_000, 1_500)) < shares_V, rng.integers(1, 256, 1_500), 0).astype("u1")
    lengths = (impacts_DV != 0).sum(axis=0)
    dense_terms = dense_terms_of(lengths, 10_000, 10_000, 0.6)
    postings = make_postings(impacts_DV, 4_096, np.arange(10_000), len(dense_terms))
    assert len(dense_terms) > 30
    index = sparse_dot_upload.uploaded(postings, sparse_dot_triton._device())
    assert index.n_bytes / len(postings.local) == pytest.approx(bytes_a_posting(postings), abs=1e-3)
    assert 3 < bytes_a_posting(postings) <= 4


# -- without the interpreter ---------------------------------------------------------------------------------


def run_without_interpreter(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a process where Triton compiles: one process cannot both interpret and compile."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"TRITON_DEFAULT_FP_FUSION": "0", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=environment, check=False, capture_output=True, text=True, timeout=300)


def test_without_a_gpu_it_refuses_and_auto_takes_numba() -> None:
    code = """
import numpy as np
from gossamer.kernels.backends import choose_backend
from gossamer.kernels.errors import BackendError
from gossamer.kernels.sparse_dot import Postings, Queries, sparse_dot_topk

postings = Postings(
    1, 1, 1, np.array([0, 1]), np.array([[0, 1]], np.uint32), np.zeros(1, np.uint16), np.ones(1, np.uint8),
    np.zeros(1, np.uint32),
)
queries = Queries(np.array([0, 1]), np.zeros(1, np.int32), np.ones(1, np.int16))
assert choose_backend("auto", gpu_can=True) == "numba"
try:
    sparse_dot_topk(queries, postings, 1, backend="triton")
except BackendError as error:
    print(error)
"""
    done = run_without_interpreter("-c", code)
    assert done.returncode == 0, done.stderr
    assert "needs a CUDA GPU" in done.stdout


def test_kernels_compile_as_the_readme_says() -> None:
    """No spills, vectorised loads, few registers; and the table is what comes out today, but for a few registers."""
    done = run_without_interpreter(str(ROOT / "benchmarks" / "gpu_kernels.py"))
    assert done.returncode == 0, done.stderr
    header, _, *rows = read_table(done.stdout)
    assert len(rows) == 16
    for kernel, variant, gpu, registers, spilled, shared, loads, adds in rows:
        row = f"{kernel} {variant} {gpu}"
        assert spilled == "0", row
        assert int(registers) <= 96, row
        assert int(shared) <= 16 * 1_024, row
        if kernel == "`add_runs`":
            assert loads == "1 × v4, 1 × v2", row  # 8 document numbers and 8 impacts a thread
            assert adds == "8 × red", row
        else:
            assert loads.startswith("2 × v4"), row  # 8 sums a thread
            assert ("1 × v2" in loads) == ("dense" in variant or "any sign" in variant), row
    printed = read_table((ROOT / "kernels" / "README.md").read_text())
    assert header in printed, "kernels/README.md lacks the table of `python benchmarks/gpu_kernels.py`"
    for cells in rows:
        kept = [other for other in printed if other[:3] == cells[:3]]
        assert [other[4:] for other in kept] == [cells[4:]], f"run benchmarks/gpu_kernels.py again: {cells}"
        assert abs(int(kept[0][3]) - int(cells[3])) <= 8, f"run benchmarks/gpu_kernels.py again: {cells}"


def read_table(text: str) -> list[list[str]]:
    """The cells of each line of a Markdown table."""
    return [re.split(r" *\| *", line.strip("| ")) for line in text.splitlines() if line.startswith("|")]
