"""Indexes of each version of the format are read by later versions; `tests/golden/make.py` made them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from gossamer.index.dense import DenseIndex
from gossamer.index.format import VERSION
from gossamer.index.inverted import InvertedIndex
from tests.golden import make

GOLDEN = Path(make.__file__).parent
CLASSES: dict[str, Any] = {"inverted": InvertedIndex, "dense": DenseIndex}
FOLDERS = sorted(path.name for path in GOLDEN.iterdir() if path.is_dir() and path.name[0] != "_")


def test_there_is_one_of_this_version() -> None:
    assert {f"{kind}-{VERSION}" for kind in CLASSES} <= set(FOLDERS)


@pytest.mark.parametrize("name", FOLDERS)
def test_an_old_folder_answers_as_it_did_and_can_be_changed(name: str, tmp_path: Path) -> None:
    kind = name.partition("-")[0]
    vectors = make.sparse if kind == "inverted" else make.dense
    expected = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    shutil.copytree(GOLDEN / name, tmp_path / name)
    index = CLASSES[kind].open(tmp_path / name)
    index.verify()
    queries: Any = vectors(100, 103)
    queries = queries if kind == "inverted" else queries.values
    assert make.answers(index, queries) == expected
    index.update(vectors(30, 33), documents=make.documents(30, 33))
    index.merge(1)
    index.verify()
    assert len(index) == len(expected["ids"])
    assert CLASSES[kind].open(tmp_path / name).documents.rows_of(["d32"]).tolist() == [len(index) - 1]
