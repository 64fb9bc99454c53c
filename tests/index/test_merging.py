"""Which segments are merged when, and what that costs."""

from __future__ import annotations

import pytest

from gossamer.index.format import PostingsRecord, SegmentRecord
from gossamer.index.merging import MergePolicy


def segment(n_rows: int, n_deleted: int = 0) -> SegmentRecord:
    data = PostingsRecord(nnz=1, window=32, n_dense=0, step=1.0, largest_error=0.0, forward=None)
    return SegmentRecord(
        folder="0", n_rows=n_rows, first_number=0, gaps=False, n_deleted=n_deleted, deletions=None, data=data
    )


def grown(batches: list[int], policy: MergePolicy) -> tuple[list[int], int]:
    """The segments that additions leave, and the documents that merges wrote."""
    sizes: list[int] = []
    written = 0
    for batch in batches:
        sizes.append(batch)
        while (span := policy.due([segment(size) for size in sizes])) is not None:
            first, last = span
            written += sum(sizes[first:last])
            sizes[first:last] = [sum(sizes[first:last])]
    return sizes, written


@pytest.mark.parametrize("batch", [1, 100, 10_000])
def test_a_document_is_written_about_once_a_level(batch: int) -> None:
    n_batches = 4_000 if batch < 10_000 else 400
    sizes, written = grown([batch] * n_batches, MergePolicy())
    total = batch * n_batches
    assert sum(sizes) == total
    assert written <= 16 * total  # within the lowest level each eighth document comes with those before it
    assert len(sizes) <= 7 * 6


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
