"""Which backend runs an op: what was asked for, or with `"auto"` the fastest that can run here."""

import ctypes
import os
from functools import cache
from importlib.util import find_spec
from typing import Literal

from gossamer.kernels.errors import BackendError, InputError

BACKENDS = ("auto", "reference", "numba", "triton")


def choose_backend(backend: str, *, gpu_can: bool) -> Literal["reference", "numba", "triton"]:
    """Resolve `"auto"`. Every other name is returned as it is: whether it can run here is for the op to find out.

    Args:
        backend: One of `BACKENDS`.
        gpu_can: Whether the op has a GPU path for the input at hand.

    Raises:
        InputError: There is no such backend.
        BackendError: The backend's package is not installed.
    """
    match backend:
        case "auto":
            return "triton" if gpu_can and cuda_is_available() else "numba"
        case "triton" if find_spec("triton") is None:
            raise BackendError(
                "backend 'triton' needs the package triton, which exists for Linux: run pip install -e '.[gpu]' in a "
                "checkout of gossamer, or choose backend 'numba'"
            )
        case "reference" | "numba" | "triton":
            return backend
    raise InputError(f"there is no backend {backend!r}; choose one of {', '.join(BACKENDS)}")


@cache
def cuda_is_available() -> bool:
    """Whether PyTorch and Triton can use a GPU. Imports PyTorch only where a driver is installed."""
    if find_spec("triton") is None:
        return False
    try:
        ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return False
    import torch

    return torch.cuda.is_available()
