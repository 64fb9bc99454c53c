from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from gossamer.kernels.errors import InputError
from gossamer.lsr.data import read_pairs
from gossamer.lsr.pairs import TokenPairs, spool_pairs, tokenize_pairs


def lengths(texts: object) -> list[list[int]]:
    """A tokenizer: each word's length is its token."""
    return [[len(word) for word in str(text).split()] for text in texts]  # type: ignore[attr-defined]


def make(n: int, *, negatives: bool = False) -> TokenPairs:
    columns = {"query": [f"{'q' * (row + 1)}" for row in range(n)], "document": ["d d"] * n}
    if negatives:
        columns["negative"] = [f"n {'n' * (row + 1)}" for row in range(n)]
    return TokenPairs(tokenize_pairs(pa.table(columns), lengths, lengths))


@pytest.mark.parametrize(("n", "batch_size"), [(10, 4), (7, 7), (3, 8)])
def test_every_epoch_takes_every_row_once(n: int, batch_size: int) -> None:
    pairs = make(n)
    rows = np.concatenate([pairs.rows(5, step, batch_size) for step in range(4 * n)])
    for epoch in range(4):
        assert sorted(rows[epoch * n : (epoch + 1) * n]) == list(range(n))
    assert not np.array_equal(rows[:n], rows[n : 2 * n]) or n < 4


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    forward, backward = make(50), make(50)
    expected = [forward.rows(1, step, 16) for step in range(9)]
    for step in reversed(range(9)):
        np.testing.assert_array_equal(backward.rows(1, step, 16), expected[step])
    assert not np.array_equal(forward.rows(2, 0, 16), expected[0])


def test_shares_make_up_the_batch() -> None:
    pairs = make(20, negatives=True)
    whole = pairs.batch(0, 3, 7)
    parts = [pairs.batch(0, 3, 7, share) for share in (slice(0, 3), slice(3, 7))]
    assert [*parts[0].queries, *parts[1].queries] == list(whole.queries)
    assert [*parts[0].negatives, *parts[1].negatives] == list(whole.negatives)
    for part in parts:
        np.testing.assert_array_equal(part.query_keys, whole.query_keys)
        np.testing.assert_array_equal(part.document_keys, whole.document_keys)
    assert len(whole.document_keys) == 14


def test_equal_texts_have_equal_keys() -> None:
    batch = make(6).batch(0, 0, 6)
    assert len(set(batch.document_keys)) == 1
    assert len(set(batch.query_keys)) == 6


def test_pairs_without_a_token_are_left_out() -> None:
    table = pa.table({"query": ["a", "", "b"], "document": ["", "c", "d e"]})
    assert tokenize_pairs(table, lengths, lengths).column("document").to_pylist() == [[1, 1]]


def test_negatives_in_some_rows_only_are_refused() -> None:
    table = pa.table({"query": ["a", "b"], "document": ["c", "d"], "negative": ["e", None]})
    with pytest.raises(InputError, match="1 of 2 training pairs have no negative"):
        TokenPairs(tokenize_pairs(table, lengths, lengths))


def test_no_pairs_are_refused() -> None:
    with pytest.raises(InputError, match="no training pairs"):
        make(0)


def test_pairs_are_spooled_to_a_mapped_file(collection: Path, tmp_path: Path) -> None:
    pairs = spool_pairs(read_pairs(collection), tmp_path / "sub" / "pairs.arrow", lengths, lengths)
    assert len(pairs) == 60
    assert not pairs.has_negatives
    assert pairs.table.column("query")[0].as_py() == [3, 5, 6]  # "the otter sleeps"
