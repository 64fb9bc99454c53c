"""The model of the GPU's work: counted against a plain count, and its figures against their limits."""

import numpy as np
import pytest

from gossamer.kernels.gpu_model import H100, SPLADE_8M, count_work, modelled
from tests.contracts.kernel_sparse_dot import make_postings, make_queries, random_impacts


def test_counts_without_bounds_are_all_postings() -> None:
    rng = np.random.default_rng(0)
    impacts_DV = random_impacts(rng, (130, 9), 0.4, "uint8")
    postings = make_postings(impacts_DV, 40)._replace(bounds=None)
    weights_QV = np.zeros((2, 9), np.int16)
    weights_QV[0, [1, 4]] = 3
    weights_QV[1, [2]] = 1
    work = count_work(postings, make_queries(weights_QV), 5)
    touched = (impacts_DV != 0).sum(axis=0)
    assert work.postings == work.all_postings == (touched[1] + touched[4] + touched[2]) / 2
    assert (work.windows, work.n_windows, work.terms, work.dense_terms) == (4, 4, 1.5, 0)


def test_bounds_leave_windows_and_blocks_out() -> None:
    impacts_DV = np.ones((320, 2), np.uint8)
    impacts_DV[64:96] = 200
    postings = make_postings(impacts_DV, 32, np.arange(320), n_dense=1)
    work = count_work(postings, make_queries(np.array([[3, 4]], np.int16)), 5)
    assert (work.windows, work.postings, work.live_blocks, work.candidates) == (1, 32, 1, 32)
    assert (work.terms, work.dense_terms, work.all_postings) == (1, 1, 640)


@pytest.mark.parametrize("batch", [1, 16, 64, 256, 2_000])
@pytest.mark.parametrize("key", list(SPLADE_8M))
def test_figures_stay_within_their_limits(key: tuple[int, bool], batch: int) -> None:
    work = SPLADE_8M[key]
    figures = modelled(work, H100, batch)
    assert figures.sums_bytes <= 24 * 2**20
    assert figures.dram_bytes < figures.l2_bytes
    assert figures.least_ms == max(figures.atomics_ms, figures.l2_ms, figures.dram_ms, figures.launch_ms)
    twice = modelled(work.scaled(2), H100, batch)
    assert twice.atomics == pytest.approx(2 * figures.atomics)
    assert twice.dram_bytes <= 2.001 * figures.dram_bytes
