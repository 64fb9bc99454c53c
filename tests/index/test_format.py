"""The folder of an index keeps the contract of storage; the parts that the contract cannot reach."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from gossamer.index import folders
from gossamer.index.folders import draft_folder, recover
from gossamer.index.format import EncoderInfo, Manifest
from gossamer.index.inverted import InvertedIndex
from gossamer.kernels.errors import ExistsError
from tests.contracts.index_storage import StorageContract, build


class TestInvertedIndexFolder(StorageContract):
    pass


def test_the_manifest_round_trips_byte_for_byte(tmp_path: Path) -> None:
    build(tmp_path / "index")
    manifest = Manifest.read(tmp_path / "index")
    assert manifest.to_bytes() == (tmp_path / "index" / "manifest.json").read_bytes()
    named = manifest.model_copy(update={"encoder": EncoderInfo("ünï", "f", "t")})
    (tmp_path / "index" / "manifest.json").write_bytes(named.to_bytes())
    assert Manifest.read(tmp_path / "index") == named


def test_opening_waits_for_a_replacement_that_is_under_way(tmp_path: Path) -> None:
    target = tmp_path / "index"
    build(target)
    aside = folders._sibling(target, "old")
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(InvertedIndex.open(target).n_documents))
    with folders.exclusively(target):
        os.rename(target, aside)
        thread.start()
        time.sleep(0.05)
        assert found == []
        os.rename(aside, target)
    thread.join()
    assert found == [40]
    assert list(tmp_path.iterdir()) == [target]


def test_what_a_dead_process_put_aside_comes_back_or_goes(tmp_path: Path) -> None:
    target = tmp_path / "index"
    folders._sibling(target, "old").mkdir()
    recover(target)
    assert list(tmp_path.iterdir()) == [target]
    folders._sibling(target, "old").mkdir()
    with draft_folder(target, replace=True, replaceable=lambda _: True) as draft:
        (draft / "new").touch()
    assert list(tmp_path.rglob("*")) == [target, target / "new"]


def test_a_folder_that_appears_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    target = tmp_path / "index"
    drafting = draft_folder(target, replace=False, replaceable=lambda _: True)
    (drafting.__enter__() / "new").touch()
    target.mkdir()
    (target / "other").touch()
    with pytest.raises(ExistsError, match="exists"):
        drafting.__exit__(None, None, None)
    assert [entry.name for entry in target.iterdir()] == ["other"]
    assert list(tmp_path.iterdir()) == [target]


def test_replacements_at_once_end_with_one_of_them(tmp_path: Path) -> None:
    target = tmp_path / "index"
    errors: list[BaseException] = []

    def work(name: str) -> None:
        try:
            for _ in range(20):
                with draft_folder(target, replace=True, replaceable=lambda _: True) as draft:
                    (draft / name).touch()
        except BaseException as error:  # told to the test below
            errors.append(error)

    def look() -> None:
        for _ in range(200):
            recover(target)
            time.sleep(0.001)

    threads = [threading.Thread(target=work, args=(name,)) for name in "ab"] + [threading.Thread(target=look)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert [entry.name for entry in target.iterdir()] in (["a"], ["b"])
    assert list(tmp_path.iterdir()) == [target]
