"""faiss (Douze et al., "The Faiss library", 2024), where it is installed: it comes with the extra `dense` or `gpu`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from threading import Lock
from typing import Any, Final, Literal, TypeAlias

from gossamer.kernels.errors import BackendError, InputError

Device: TypeAlias = Literal["cpu", "cuda"]
GPU: Final = Lock()
"""To be held while faiss works on a GPU: its memory there is not made for threads."""


def faiss_library() -> Any:
    """The module; it is typed loosely, as its classes are generated.

    Raises:
        BackendError: it is not installed.
    """
    try:
        return import_module("faiss")
    except ImportError as error:
        raise BackendError(
            "dense vectors are searched by faiss, which is not installed here: pip install 'gossamer[dense]', or "
            f"'gossamer[gpu]' for its build for NVIDIA GPUs, never both ({error})."
        ) from error


@contextmanager
def faiss_threads(n_threads: int) -> Iterator[Any]:
    """The module, which uses so many threads for what this thread asks of it until the block ends."""
    faiss = faiss_library()
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(n_threads)  # of this thread's calls: OpenMP keeps the number for each thread
    try:
        yield faiss
    finally:
        faiss.omp_set_num_threads(before)


def check_device(device: Device) -> None:
    """Raises: InputError, BackendError: there is no such device, or faiss cannot use one here."""
    if device == "cpu":
        return
    if device != "cuda":
        raise InputError(f"there is no device={device!r}; it is 'cpu' or 'cuda'.")
    faiss = faiss_library()
    if not hasattr(faiss, "StandardGpuResources") or faiss.get_num_gpus() == 0:
        raise BackendError(
            "device='cuda' was asked for, and this faiss sees no GPU: it takes an NVIDIA GPU and pip install "
            "'gossamer[gpu]' in the place of 'gossamer[dense]'. Or search with device='cpu'."
        )
