"""Clicks as they come: what is acknowledged is there for all who read, and damage has a name."""

from __future__ import annotations

import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gossamer.index.disk import using
from gossamer.kernels.errors import (
    BusyError,
    CorruptError,
    ExistsError,
    FormatError,
    InputError,
    NotFoundError,
    RecordError,
    StorageError,
)
from gossamer.recsys import LiveInteractions
from tests.contracts.disks import Failing, Recorder


def opened(path: Path, compact_bytes: int = 1 << 20) -> LiveInteractions:
    return LiveInteractions.open(path, create=True, compact_bytes=compact_bytes)


def files(path: Path) -> list[str]:
    return sorted(file.name for file in path.iterdir() if file.name.endswith(".log"))


def test_clicks_are_there_for_all_who_read(tmp_path: Path) -> None:
    with opened(tmp_path / "live") as live:
        reader = LiveInteractions.open(tmp_path / "live")
        assert (live.position, reader.position, reader.refresh()) == (0, 0, False)
        assert live.append([("ann", "x", 5.0), ("bob", "x", 6)]) == 2
        assert live.append([("ann", "y", 7)]) == 3
        assert live.append([]) == 3
        assert live.items_of("ann") == ["x", "y"]
        assert live.items_of("nobody") == []
        assert reader.items_of("ann") == []
        assert reader.reached(3)
        assert not reader.reached(4)
        assert reader.items_of("ann") == ["x", "y"]
        assert live.append([("ann", "x", 9)]) == 4
        assert reader.refresh()
        assert not reader.refresh()
        assert not live.refresh()
        assert reader.items_of("ann") == ["y", "x"], "the last one is at the end"
    again = LiveInteractions.open(tmp_path / "live")
    assert (again.position, again.items_of("ann"), again.items_of("bob")) == (4, ["y", "x"], ["x"])
    rows = again.interactions().table.to_pylist()
    assert [(row["user"], row["item"], row["time"]) for row in rows] == [
        ("bob", "x", 6),
        ("ann", "y", 7),
        ("ann", "x", 9),
    ]
    assert repr(again).endswith("4 clicks)")


def test_ids_may_be_any_text(tmp_path: Path) -> None:
    odd = ["a\nb", "\r\n", " ", '"', "\u2028", "né", "🦆", "00000000 {}", "\x00"]
    with opened(tmp_path / "live") as live:
        live.append([(user, item) for user in odd for item in odd])
        live.compact()
        live.append([("a\nb", "z")])
    again = LiveInteractions.open(tmp_path / "live")
    assert all(again.items_of(user) == odd for user in odd[1:])
    assert again.items_of("a\nb") == [*odd, "z"]


@pytest.mark.parametrize(
    ("click", "said"),
    [
        (("u",), r"click 1 is \('u',\); expected"),
        ("ui", "click 1 is 'ui'"),
        (5, "click 1 is 5"),
        (("u", ""), "the item is ''"),
        ((3, "i"), "the user is 3"),
        (("\ud800", "i"), "valid Unicode"),
        (("u", "i", float("nan")), "the time is nan"),
        (("u", "i", "5"), "the time is '5'"),
        (("u", "i", True), "the time is True"),
        (("u", "i", 10**400), "the time is 1000"),
    ],
)
def test_a_bad_click_is_named_and_none_is_written(tmp_path: Path, click: object, said: str) -> None:
    with opened(tmp_path / "live") as live:
        with pytest.raises(RecordError, match=said):
            live.append([("u", "i"), click])  # type: ignore[list-item]
        assert live.position == 0
        assert files(live.path) == []


def test_only_folders_of_clicks_are_opened(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no clicks at"):
        LiveInteractions.open(tmp_path / "live")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(ExistsError, match="something else"):
        LiveInteractions.open(tmp_path / "other", create=True)
    for text in ('{"format": "gossamer-live", "version": 2}', '{"format": "x", "version": 1}', "[]", "{"):
        (tmp_path / "other" / "live.json").write_text(text)
        with pytest.raises(FormatError, match="not of a folder of clicks"):
            LiveInteractions.open(tmp_path / "other")


def test_there_is_one_writer(tmp_path: Path) -> None:
    with opened(tmp_path / "live") as live, opened(tmp_path / "live") as other:
        other.lock_timeout_s = 0
        live.append([("u", "a")])
        with pytest.raises(BusyError, match="one writer at a time"):
            other.append([("u", "b")])
        with pytest.raises(BusyError):
            other.compact()
        assert other.items_of("u") == []
        live.close()
        assert other.append([("u", "c")]) == 2, "which knows what the one before wrote"
        assert other.items_of("u") == ["a", "c"]
        live.lock_timeout_s = 0
        with pytest.raises(BusyError):
            live.append([("u", "d")])
        assert live.refresh()
        assert live.items_of("u") == ["a", "c"]


def test_threads_that_wait_go_into_one_write(tmp_path: Path) -> None:
    recorder = Recorder()
    started = threading.Barrier(9)

    with using(recorder), opened(tmp_path / "live") as live, ThreadPoolExecutor(8) as pool:
        live.append([("first", "x")])

        def append(number: int) -> int:
            started.wait()
            return live.append([(f"u{number}", "a"), (f"u{number}", "b")])

        with live._files:  # as a write that takes its time does
            told = [pool.submit(append, number) for number in range(8)]
            started.wait()
            while len(live._waiting) < 8:
                threading.Event().wait(0.001)
        positions = [future.result(timeout=30) for future in told]
    assert sorted(positions) == list(range(3, 18, 2))
    again = LiveInteractions.open(tmp_path / "live")
    assert again.position == 17
    assert all(again.items_of(f"u{number}") == ["a", "b"] for number in range(8))
    flushes = [op for op in recorder.ops if op[0] == "flush file" and "clicks" in op[1].name]
    assert len(flushes) == 2


def test_what_has_grown_becomes_histories(tmp_path: Path) -> None:
    with opened(tmp_path / "live", compact_bytes=2_000) as live:
        reader = LiveInteractions.open(tmp_path / "live")
        for number in range(300):
            live.append([(f"u{number % 3}", f"i{number % 7}", number)])
            assert reader.reached(number + 1)
            assert reader.items_of(f"u{number % 3}")[-1] == f"i{number % 7}"
        total = sum((live.path / name).stat().st_size for name in files(live.path))
        assert total < 6_000, "there are 21 pairs, however often they are repeated"
        assert len(files(live.path)) <= 2
    again = LiveInteractions.open(tmp_path / "live")
    for user in ("u0", "u1", "u2"):
        assert again.items_of(user) == live.items_of(user) == reader.items_of(user)
        assert len(again.items_of(user)) == 7
    assert again.interactions().table.equals(live.interactions().table)


def test_what_a_training_has_read_is_forgotten(tmp_path: Path) -> None:
    with opened(tmp_path / "live") as live:
        live.append([("ann", "a"), ("ann", "b"), ("bob", "a")])
        reader = LiveInteractions.open(tmp_path / "live")
        read = live.position
        live.append([("ann", "a"), ("eve", "c")])
        with pytest.raises(InputError, match="there are 5 clicks"):
            live.forget(6)
        live.forget(read)
        assert (live.items_of("ann"), live.items_of("bob"), live.items_of("eve")) == (["a"], [], ["c"])
        live.forget(1)  # which is forgotten already
        live.append([("bob", "d")])
        assert reader.refresh()
        for one in (live, reader, LiveInteractions.open(tmp_path / "live")):
            assert one.position == 6
            assert [one.items_of(user) for user in ("ann", "bob", "eve")] == [["a"], ["d"], ["c"]]
        live.forget(6)
        assert len(live.interactions()) == 0
        assert reader.refresh()
        assert reader.items_of("ann") == []
        assert live.append([("ann", "z")]) == 7
    assert LiveInteractions.open(tmp_path / "live").items_of("ann") == ["z"]


def three(path: Path) -> Path:
    """Histories of two clicks, then a file of two, then one of one."""
    with opened(path) as live:
        live.append([("u", "a"), ("v", "b")])
        live.compact()
        live.append([("u", "c")])
        live.append([("u", "d")])
    with opened(path) as live:
        live.append([("u", "e")])
    assert [name.partition("-")[0] for name in files(path)] == ["clicks", "clicks", "histories"]
    return path


@pytest.mark.parametrize("tail", [b"00000000 {", b"\0" * 50, b"x\n", b"\n", b"\xff\r\n\r"])
def test_a_torn_end_is_cut_off(tmp_path: Path, tail: bytes) -> None:
    path = three(tmp_path / "live")
    last = path / files(path)[1]
    whole = last.read_bytes()
    last.write_bytes(whole + tail)
    reader = LiveInteractions.open(path)
    assert reader.items_of("u") == ["a", "c", "d", "e"]
    with opened(path) as live:
        live.append([("u", "f")])
    assert last.read_bytes() == whole
    assert reader.refresh()
    assert reader.items_of("u") == LiveInteractions.open(path).items_of("u") == ["a", "c", "d", "e", "f"]


def test_a_torn_only_line_is_cut_off(tmp_path: Path) -> None:
    path = three(tmp_path / "live")
    last = path / files(path)[1]
    last.write_bytes(last.read_bytes()[:-1])
    reader = LiveInteractions.open(path)
    assert (reader.position, reader.items_of("u")) == (4, ["a", "c", "d"])
    with opened(path) as live:
        assert live.append([("u", "f")]) == 5
    assert LiveInteractions.open(path).items_of("u") == ["a", "c", "d", "f"]


def test_damage_is_named_wherever_it_is(tmp_path: Path) -> None:
    path = three(tmp_path / "live")
    first, second, histories = (path / name for name in files(path))
    for file in (first, histories):
        whole = file.read_bytes()
        for place in range(0, len(whole), 7):
            file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            with pytest.raises(CorruptError, match=file.name):
                LiveInteractions.open(path)
        file.write_bytes(whole[: whole.index(b"\n") + 1])
        with pytest.raises(CorruptError, match="missing"):
            LiveInteractions.open(path)
        file.write_bytes(whole)
    whole = first.read_bytes()
    first.unlink()
    with pytest.raises(CorruptError, match=r"clicks from 3 to 4 are missing before clicks-0+5\.log"):
        LiveInteractions.open(path)
    first.write_bytes(whole)
    kept = histories.read_bytes()
    histories.unlink()
    with pytest.raises(CorruptError, match="clicks from 1 to 2 are missing"):
        LiveInteractions.open(path)
    histories.write_bytes(kept)
    second.write_bytes(b"x" + second.read_bytes()[1:] + second.read_bytes())
    with pytest.raises(CorruptError, match="the line at byte 0 is damaged"):
        LiveInteractions.open(path)


def test_a_writer_refuses_what_was_damaged_since(tmp_path: Path) -> None:
    path = three(tmp_path / "live")
    with opened(path) as live:
        (path / files(path)[0]).write_bytes(b"")
        for _ in range(2):
            with pytest.raises(CorruptError, match="clicks from 3 to 4 are missing"):
                live.append([("u", "x")])
        assert live.items_of("u") == ["a", "c", "d", "e"]


def test_a_reader_forgets_what_was_taken_back(tmp_path: Path) -> None:
    """It had read a line whose flush then failed."""
    with opened(tmp_path / "live") as live:
        live.append([("u", "a")])
        reader = LiveInteractions.open(tmp_path / "live")
        with using(Failing(0)), pytest.raises(StorageError, match="send these again"):
            live.append([("u", "lost")])
        assert reader.refresh()
        assert reader.items_of("u") == ["a", "lost"]
        assert live.items_of("u") == ["a"]
        assert live.append([("u", "b")]) == 2
        reader.refresh()
        assert reader.items_of("u") == live.items_of("u") == ["a", "b"]


def test_many_writers_one_after_the_other_leave_few_files(tmp_path: Path) -> None:
    for number in range(70):
        with opened(tmp_path / "live") as live:
            live.append([("u", str(number))])
    assert len(files(tmp_path / "live")) < 10
    assert LiveInteractions.open(tmp_path / "live").items_of("u") == [str(number) for number in range(70)]


def _append_and_stop(path: Path, told: multiprocessing.SimpleQueue[int]) -> None:
    live = LiveInteractions.open(path)
    for number in range(1_000_000):
        told.put(live.append([("u", str(number))]))


def test_a_writer_may_be_killed(tmp_path: Path) -> None:
    opened(tmp_path / "live")
    context = multiprocessing.get_context("spawn")
    told: multiprocessing.SimpleQueue[int] = context.SimpleQueue()
    writer = context.Process(target=_append_and_stop, args=(tmp_path / "live", told))
    writer.start()
    position = [told.get() for _ in range(50)][-1]
    writer.kill()
    writer.join()
    with opened(tmp_path / "live") as live:
        there = LiveInteractions.open(tmp_path / "live").items_of("u")
        assert there == [str(number) for number in range(len(there))]
        assert len(there) >= position
        assert live.append([("u", "next")]) == len(there) + 1
