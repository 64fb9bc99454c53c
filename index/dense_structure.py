"""What finds candidates in a segment of dense vectors: made by faiss, kept in a file, read when it is first needed.

faiss trusts the files that it reads, so a file's checksum is compared before faiss sees it. What is read stays a view
of the mapped file where faiss can do with one.

Vectors are brought to at most length 1 for a structure, all by the same factor, and queries to length 1: the order of
inner products is the same, and half floats hold them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from gossamer.index.dense_config import Flat, Hnsw, IvfPq, Structure
from gossamer.index.dense_vectors import norms, rows_at_once
from gossamer.index.disk import disk
from gossamer.index.faiss_library import GPU, Device, faiss_library, faiss_threads
from gossamer.index.format import DenseEffort, DenseSettings
from gossamer.index.manifests import FileRecord
from gossamer.kernels.errors import BackendError, CorruptError, FormatError, InputError

STRUCTURE = "structure.faiss"
_TRAINED_A_LIST = 64  # faiss advises 30 to 256
_TRAINED_A_CODE = (
    256  # rows for each value that a number of a compressed vector can have: all that faiss uses
)
_CLASSES = {"hnsw": "IndexHNSWSQ", "ivf_pq": "IndexIVFPQ"}


def has_structure(n_rows: int, settings: DenseSettings) -> bool:
    """Whether a segment of so many rows gets one."""
    kind = settings.structure
    fewest = 2**kind.bits if isinstance(kind, IvfPq) else 1
    return not isinstance(kind, Flat) and n_rows >= max(settings.flat_below, fewest)


def write_structure(
    path: Path, values: NDArray[np.float32], settings: DenseSettings, largest_norm: float
) -> None:
    """Make the structure of a segment, and write it.

    Args:
        path: the file.
        values: float32 `[N, D]`, which may be mapped.
        settings: of the index.
        largest_norm: of a row.
    """
    with faiss_threads(settings.build_threads) as faiss:
        index = _untrained(faiss, len(values), settings)
        n_dims, unit = index.d, np.float64(largest_norm or 1.0)
        if not index.is_trained:
            sample = some_rows(len(values), _n_trained(len(values), settings))
            index.train(_fitted(values[sample] / unit, n_dims))
        step = rows_at_once(n_dims)
        for first in range(0, len(values), step):
            index.add(_fitted(values[first : first + step] / unit, n_dims))
        data = faiss.serialize_index(index)
    with disk().create(path) as file:
        file.write(data.data)


def some_rows(n_rows: int, n_wanted: int) -> NDArray[np.int64]:
    """A sample of row numbers, ascending; always the same."""
    if n_wanted >= n_rows:
        return np.arange(n_rows)
    return np.sort(np.random.default_rng(0).choice(n_rows, n_wanted, replace=False))


def _untrained(faiss: Any, n_rows: int, settings: DenseSettings) -> Any:
    product = faiss.METRIC_INNER_PRODUCT
    match settings.structure:
        case Hnsw(m=m, ef_construction=ef_construction):
            halves = faiss.ScalarQuantizer.QT_fp16
            graph = faiss.IndexHNSWSQ(settings.n_dims, halves, m, product)
            graph.hnsw.efConstruction = ef_construction
            return graph
        case IvfPq() as lists:
            n_dims, parts = padded(settings)
            centroids = faiss.IndexFlatIP(n_dims)
            index = faiss.IndexIVFPQ(centroids, n_dims, lists.lists_for(n_rows), parts, lists.bits, product)
            index.cp.spherical = settings.metric == "cosine"
            for clustering in (index.cp, index.pq.cp):
                clustering.min_points_per_centroid = (
                    1  # as few as there are, without a warning on the terminal
                )
            return index
    raise AssertionError(settings.structure)


def _n_trained(n_rows: int, settings: DenseSettings) -> int:
    assert isinstance(settings.structure, IvfPq)
    of_lists = _TRAINED_A_LIST * settings.structure.lists_for(n_rows)
    return int(max(of_lists, _TRAINED_A_CODE * 2**settings.structure.bits))


def padded(settings: DenseSettings) -> tuple[int, int]:
    """Dimensions in a structure, and the parts they are cut into: zeros are added until all parts are as wide."""
    kind = settings.structure
    parts = kind.parts_for(settings.n_dims) if isinstance(kind, IvfPq) else 1
    return -(-settings.n_dims // parts) * parts, parts


def _fitted(rows: NDArray[np.float64], n_dims: int) -> NDArray[np.float32]:
    fitted = np.zeros((len(rows), n_dims), np.float32)
    fitted[:, : rows.shape[1]] = rows
    return fitted


class StructureFile:
    """The structure of a segment.

    It is mapped at once, so that the file may go, and read when it is first asked for candidates.

    Args:
        path: the file.
        record: its size and checksum.
        n_rows: rows of its segment.
        settings: of the index.
    """

    def __init__(self, path: Path, record: FileRecord, n_rows: int, settings: DenseSettings) -> None:
        self._path, self._record = path, record
        self._n_rows, self._settings = n_rows, settings
        self._bytes = np.memmap(path, np.uint8, "r") if record.size else np.zeros(0, np.uint8)

    def candidates(
        self,
        queries: NDArray[np.float32],
        n_wanted: int,
        effort: DenseEffort,
        allowed: NDArray[np.bool_] | None,
        *,
        n_threads: int,
        device: Device = "cpu",
    ) -> NDArray[np.int64]:
        """Rows `[Q, n_wanted]` that may be hits, -1 where no more were found.

        Args:
            queries: float32 `[Q, D]`.
            n_wanted: how many.
            effort: how much is looked at; more, where `allowed` leaves out much.
            allowed: bool `[n_rows]`; others are no candidates. None for all.
            n_threads: threads; the answer does not depend on them.
            device: "cuda" runs on a GPU or raises.

        Raises:
            CorruptError, FormatError: the file is not as it was written.
            BackendError: the structure cannot be searched on a GPU, or not with a mask.
        """
        lengths = norms(queries)
        lengths[lengths == 0] = 1
        asked = _fitted(queries / lengths[:, None], padded(self._settings)[0])
        wider = 1.0 if allowed is None else len(allowed) / max(int(allowed.sum()), 1)
        with faiss_threads(n_threads) as faiss:
            if device == "cuda":
                return self._on_gpu(asked, n_wanted, effort, allowed)
            chosen = None
            if allowed is not None:
                chosen = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
            if effort.nprobe is not None:
                nprobe = min(math.ceil(effort.nprobe * wider), self._on_cpu.nlist)
                parameters = faiss.SearchParametersIVF(sel=chosen, nprobe=nprobe)
            else:
                assert effort.ef_search is not None
                kept = min(math.ceil(max(effort.ef_search, n_wanted) * wider), self._n_rows)
                parameters = faiss.SearchParametersHNSW(sel=chosen, efSearch=kept)
            _, rows = self._on_cpu.search(asked, n_wanted, params=parameters)
        return np.asarray(rows, np.int64)

    @cached_property
    def _on_cpu(self) -> Any:
        if hashlib.sha256(self._bytes.data).hexdigest() != self._record.sha256:
            raise CorruptError(
                f"{self._path} was altered: its bytes differ from its checksum. Build the index anew."
            )
        faiss = faiss_library()
        try:
            reader = faiss.ZeroCopyIOReader(faiss.swig_ptr(self._bytes), len(self._bytes))
            index = faiss.read_index(reader)
        except RuntimeError as error:
            raise FormatError(
                f"{self._path} cannot be read by this faiss ({error}); build the index anew."
            ) from error
        expected = _CLASSES[self._settings.structure.kind], self._n_rows, padded(self._settings)[0]
        if (type(index).__name__, index.ntotal, index.d) != expected:
            raise FormatError(f"{self._path} is not the structure of its segment; build the index anew.")
        return index

    def _on_gpu(
        self,
        asked: NDArray[np.float32],
        n_wanted: int,
        effort: DenseEffort,
        allowed: NDArray[np.bool_] | None,
    ) -> NDArray[np.int64]:
        if effort.nprobe is None or allowed is not None:
            raise BackendError(
                "on a GPU faiss searches no graph, and no lists with a filter or deleted documents; search with "
                "device='cpu', or exactly."
            )
        parameters = faiss_library().SearchParametersIVF(nprobe=effort.nprobe)
        with GPU:
            _, index = self._gpu
            _, rows = index.search(asked, n_wanted, params=parameters)
        return np.asarray(rows, np.int64)

    @cached_property
    def _gpu(self) -> Any:
        """Memory on the GPU, and the structure in it."""
        faiss = faiss_library()
        resources, options = faiss.StandardGpuResources(), faiss.GpuClonerOptions()
        options.useFloat16 = (
            True  # of its tables, which are too large in float32 for more than 56 numbers a vector
        )
        return resources, faiss.index_cpu_to_gpu(resources, 0, self._on_cpu, options)


def check_effort(effort: DenseEffort, structure: Structure) -> None:
    """Raises: InputError: an effort is not for this structure."""
    match structure:
        case Flat():
            raise InputError("this index is flat: its searches are exact, so leave out effort.")
        case Hnsw():
            wanted, other = "ef_search", "nprobe"
        case IvfPq():
            wanted, other = "nprobe", "ef_search"
    if getattr(effort, wanted) is None or getattr(effort, other) is not None:
        raise InputError(
            f"the effort of an index of the structure {structure.kind!r} has {wanted}, not {other}."
        )


_OPEN: WeakValueDictionary[tuple[Path, str], StructureFile] = WeakValueDictionary()


def map_structure(
    folder: Path, files: Mapping[str, FileRecord], prefix: str, n_rows: int, settings: DenseSettings
) -> StructureFile:
    """The structure in a segment's folder; the one that is in use, where one is.

    Raises:
        FormatError: the manifest does not name its file.
    """
    path, record = folder / STRUCTURE, files.get(f"{prefix}/{STRUCTURE}")
    if record is None:
        raise FormatError(f"the manifest does not name {path}; build the index anew.")
    key = path, record.sha256
    structure = _OPEN.get(key)
    if structure is None:
        structure = _OPEN[key] = StructureFile(path, record, n_rows, settings)
    return structure
