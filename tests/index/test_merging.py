"""Which segments are merged when, and what that costs."""

from __future__ import annotations

import numpy as np
import pytest

from gossamer.index.format import PostingsRecord, SegmentRecord
from gossamer.index.merging import MergePolicy


def segment(n_rows: int, n_deleted: int = 0) -> SegmentRecord:
    data = PostingsRecord(nnz=1, window=32, n_dense=0, step=1.0, largest_error=0.0, forward=None)
    return SegmentRecord(
        folder="0", n_rows=n_rows, first_number=0, gaps=False, n_deleted=n_deleted, deletions=None, data=data
    )


def grown(batches: list[int], policy: MergePolicy) -> tuple[int, int]:
    """The most segments that additions leave at a time, and the documents that merges wrote."""
    sizes: list[int] = []
    written = most = 0
    for batch in batches:
        sizes.append(batch)
        while (span := policy.due([segment(size) for size in sizes])) is not None:
            first, last = span
            written += sum(sizes[first:last])
            sizes[first:last] = [sum(sizes[first:last])]
        most = max(most, len(sizes))
    assert sum(sizes) == sum(batches)
    return most, written


MIXED = np.random.default_rng(0).choice([1, 10, 100, 1_000, 10_000], 1_000).tolist()


@pytest.mark.parametrize(
    "batches", [[1] * 4_000, [100] * 4_000, [10_000] * 400, MIXED, [1_000_000, *[1] * 2_000]]
)
def test_additions_leave_few_segments_and_are_not_written_often(batches: list[int]) -> None:
    most, written = grown(batches, MergePolicy())
    added = sum(batch for batch in batches if batch < 1_000_000)
    assert written <= 16 * added
    assert most <= 20


def test_a_large_segment_is_not_written_again_for_a_few_small_ones() -> None:
    policy = MergePolicy()
    assert policy.due([segment(5_000_000), *[segment(1)] * 7]) is None
    assert policy.due([segment(5_000_000), *[segment(1)] * 8]) == (1, 9)
    assert policy.due([segment(5_000_000)] * 8) == (0, 8)
    assert policy.due([segment(9_000_000)] * 9) is None, "larger than any that is merged"


def test_a_large_segment_among_small_ones_parts_them() -> None:
    policy = MergePolicy()
    assert policy.due([*[segment(1)] * 5, segment(1_000_000), *[segment(1)] * 5]) is None
    mixed = [segment(size) for _ in range(8) for size in (1, 5_000)]
    assert policy.due(mixed) == (0, 16)


def test_a_segment_with_many_deleted_documents_is_written_anew() -> None:
    policy = MergePolicy()
    assert policy.due([segment(1_000, 250), segment(1_000)]) is None
    assert policy.due([segment(1_000), segment(1_000, 251)]) == (1, 2)
