"""`.npy` files that are written piece by piece are what NumPy writes, and are read strictly."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gossamer.index.arrays import ArrayWriter, map_array, new_array
from gossamer.kernels.errors import FormatError


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "uint32", "int64", "float32"])
@pytest.mark.parametrize("row_shape", [(), (3,)])
@pytest.mark.parametrize("lengths", [[], [0], [2, 0, 5]])
def test_numpy_reads_it(tmp_path: Path, dtype: str, row_shape: tuple[int, ...], lengths: list[int]) -> None:
    pieces = [np.arange(n * int(np.prod(row_shape))).reshape(n, *row_shape).astype(dtype) for n in lengths]
    with ArrayWriter(tmp_path / "a.npy", dtype, row_shape) as writer:
        for piece in pieces:
            writer.append(piece)
    expected = np.concatenate([np.zeros((0, *row_shape), dtype), *pieces])
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy", allow_pickle=False), expected)
    mapped = map_array(tmp_path / "a.npy", dtype, expected.shape)
    np.testing.assert_array_equal(mapped, expected)
    assert mapped.dtype == dtype
    assert type(mapped) is np.ndarray
    assert not mapped.flags.writeable


@pytest.mark.parametrize("piece", [np.zeros(2), np.zeros((2, 2), np.uint8)])
def test_other_types_and_shapes_are_refused(tmp_path: Path, piece: np.ndarray[Any, Any]) -> None:
    with (
        ArrayWriter(tmp_path / "a.npy", np.uint8) as writer,
        pytest.raises(TypeError, match="expected uint8"),
    ):
        writer.append(piece)


@pytest.mark.parametrize(("dtype", "shape"), [("int8", (4,)), ("uint8", (3,)), ("uint8", (4, 1))])
def test_an_array_that_is_not_as_stated_is_refused(
    tmp_path: Path, dtype: str, shape: tuple[int, ...]
) -> None:
    with ArrayWriter(tmp_path / "a.npy", np.uint8) as writer:
        writer.append(np.zeros(4, np.uint8))
    with pytest.raises(FormatError, match=r"a\.npy does not hold"):
        map_array(tmp_path / "a.npy", dtype, shape)


def test_pickles_are_never_read(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([print], dtype=object), allow_pickle=True)
    with pytest.raises(FormatError):
        map_array(tmp_path / "a.npy", object, (1,))


def test_what_is_not_finished_cannot_be_read(tmp_path: Path) -> None:
    with suppress(RuntimeError), ArrayWriter(tmp_path / "a.npy", np.uint8) as writer:
        writer.append(np.zeros(4, np.uint8))
        raise RuntimeError
    with pytest.raises(FormatError):
        map_array(tmp_path / "a.npy", np.uint8, (4,))


def test_an_array_of_known_size_is_zeros_and_can_be_written_anywhere(tmp_path: Path) -> None:
    array = new_array(tmp_path / "a.npy", np.uint16, (3, 4))
    assert not array.any()
    array[2, 1] = 7
    del array
    mapped = map_array(tmp_path / "a.npy", np.uint16, (3, 4))
    assert mapped[2, 1] == 7
    assert mapped.sum() == 7
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), mapped)
    assert new_array(tmp_path / "b.npy", np.int64, (0, 5)).shape == (0, 5)
    assert map_array(tmp_path / "b.npy", np.int64, (0, 5)).shape == (0, 5)


def test_a_full_disk_is_an_error_and_no_signal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full, raising=False)
    with pytest.raises(OSError, match="No space"):
        new_array(tmp_path / "a.npy", np.uint8, (10,))


def test_an_array_without_entries_has_no_file(tmp_path: Path) -> None:
    assert new_array(tmp_path / "a.npy", np.uint16, (0, 4)).shape == (0, 4)
    assert list(tmp_path.iterdir()) == []
    mapped = map_array(tmp_path / "a.npy", np.uint16, (0, 4))
    assert mapped.shape == (0, 4)
    assert mapped.dtype == np.uint16
    assert not mapped.flags.writeable
