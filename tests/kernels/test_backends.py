"""What `"auto"` means, and that a named backend is never exchanged."""

import subprocess
import sys

import pytest

from gossamer.kernels import backends
from gossamer.kernels.backends import choose_backend
from gossamer.kernels.errors import BackendError, InputError


@pytest.mark.parametrize(
    ("gpu", "gpu_can", "expected"), [(True, True, "triton"), (True, False, "numba"), (False, True, "numba")]
)
def test_auto(monkeypatch: pytest.MonkeyPatch, gpu: bool, gpu_can: bool, expected: str) -> None:
    monkeypatch.setattr(backends, "cuda_is_available", lambda: gpu)
    assert choose_backend("auto", gpu_can=gpu_can) == expected


@pytest.mark.parametrize("name", ["reference", "numba"])
def test_a_named_backend_stays(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(backends, "cuda_is_available", lambda: True)
    assert choose_backend(name, gpu_can=True) == name


def test_a_missing_package_and_an_unknown_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "find_spec", lambda name: None)
    with pytest.raises(BackendError, match="needs the package triton"):
        choose_backend("triton", gpu_can=True)
    with pytest.raises(InputError, match="no backend 'cuda'; choose one of auto, reference, numba, triton"):
        choose_backend("cuda", gpu_can=True)


def test_a_search_on_the_cpu_imports_no_torch() -> None:
    code = """
import sys
import numpy as np
from gossamer.kernels.sparse_dot import Postings, Queries, sparse_dot_topk
arrays = np.array([0, 1]), np.array([[0, 1]], "u4"), np.zeros(1, "u2"), np.ones(1, "u1"), np.zeros(1, "u4")
postings = Postings(1, 1, 1, *arrays)
queries = Queries(np.array([0, 1]), np.zeros(1, "i4"), np.ones(1, "i2"))
assert "numba" not in sys.modules
assert sparse_dot_topk(queries, postings, 1, backend="numba").rows.tolist() == [[0]]
assert "torch" not in sys.modules
assert "triton" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
