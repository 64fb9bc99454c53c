"""The code of `index/README.md`, run as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gossamer.index.inverted import InvertedIndex

README = (Path(__file__).resolve().parents[2] / "index" / "README.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def test_the_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for code in blocks("python"):
        exec(compile(code, "index/README.md", "exec"), {})
    index = InvertedIndex.open("changing")
    assert index.documents.ids.to_pylist() == ["c", "a"]
    for code in blocks("python no-run"):
        compile(code, "index/README.md", "exec")
