"""What of an index is mapped and in memory, and its picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gossamer.index import memory
from gossamer.index.inverted import BuildConfig, InvertedIndex
from gossamer.index.memory import MappedMemory, anonymous_bytes
from gossamer.index.plots import length_classes, plot_index
from tests.contracts.oracle import random_vectors


@pytest.fixture
def index(tmp_path: Path) -> InvertedIndex:
    vectors = random_vectors(np.random.default_rng(0), 300, 40, 0.2)
    return InvertedIndex.build(tmp_path / "i", vectors, config=BuildConfig(window=64))


def test_mapped_files_are_told_from_memory_of_its_own(index: InvertedIndex) -> None:
    held = index.memory()
    if held is None:
        pytest.skip("needs /proc/self/smaps, which is absent here")
    on_disk = sum(file.stat().st_size for file in (index.path / "segments").rglob("*") if file.is_file())
    assert 0 <= held.resident_bytes <= held.mapped_bytes
    assert on_disk <= held.mapped_bytes + 4096
    for segment in index.segments:  # reading makes it resident
        segment.postings.local.sum()
    now = index.memory()
    assert now is not None
    assert now.resident_bytes > 0
    assert MappedMemory.of(index.path.parent / "elsewhere") == MappedMemory(0, 0)


def test_what_the_system_does_not_tell_is_none(index: InvertedIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (anonymous_bytes() or 1) > 0
    monkeypatch.setattr(memory, "_MAPS", Path("/nowhere"))
    monkeypatch.setattr(memory, "_STATUS", Path("/nowhere"))
    assert index.memory() is None
    assert anonymous_bytes() is None


def test_lengths_of_posting_lists_are_counted(index: InvertedIndex) -> None:
    terms = np.concatenate([index.vectors().row(row)[0] for row in range(index.n_rows)])
    lengths = index.posting_lengths()
    np.testing.assert_array_equal(lengths, np.bincount(terms, minlength=40))
    assert sum(count for _, count in length_classes(lengths)) == 40
    assert length_classes(np.array([0, 1, 9, 10, 345])) == [
        ("0", 1),
        ("1 to 9", 2),
        ("10 to 99", 1),
        ("100 to 999", 1),
    ]


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_an_index_is_drawn(index: InvertedIndex, tmp_path: Path, suffix: str) -> None:
    before = plot_index(index.info(), index.posting_lengths(), tmp_path / f"before{suffix}").stat().st_size
    index.calibrate()
    after = plot_index(index.info(), index.posting_lengths(), tmp_path / f"after{suffix}").stat().st_size
    assert before != after


def test_an_empty_index_is_drawn(tmp_path: Path) -> None:
    empty = InvertedIndex.build(tmp_path / "i", random_vectors(np.random.default_rng(0), 0, 5))
    assert plot_index(empty.info(), empty.posting_lengths(), tmp_path / "e.png").exists()
