from pathlib import Path

import pytest

from gossamer.recsys import imports, read_interactions
from gossamer.recsys.imports import imported_names, source_files, write_imports

SOURCE = b'''
"""Text that says: import this from here."""
import os, sys as system
import a.b
from typing import (  # a comment
    Any,
    Dict as D,  # another, with a comma
)
from . import near
from .relative import thing
from x.y import first, \\
    second
from whole import *
try:
    import json  # why
except ImportError: import nothing_here
    from late import one; more()
from the import of great things
importlib.import_module("hidden")
from bare import(only)
'''


def test_names_of_a_file() -> None:
    assert imported_names(SOURCE) == [
        "a.b",
        "bare.only",
        "json",
        "late.one",
        "os",
        "sys",
        "typing.Any",
        "typing.Dict",
        "whole",
        "x.y.first",
        "x.y.second",
    ]


def test_the_pattern_agrees_with_the_parser_on_real_files() -> None:
    import ast

    agreed = total = 0
    files = [file for user, _, file in source_files() if user.startswith("stdlib/asyncio/")]
    assert len(files) > 20
    for file in files:
        tree = ast.parse(file.read_bytes())
        wanted: set[str] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                wanted.update(name.name for name in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level:
                wanted.update(
                    str(node.module) if name.name == "*" else f"{node.module}.{name.name}"
                    for name in node.names
                )
        found = set(imported_names(file.read_bytes()))
        agreed, total = agreed + len(found & wanted), total + len(found | wanted)
    assert agreed / total > 0.98


def test_ids_name_no_machine() -> None:
    users = [(user, package) for user, package, _ in source_files()]
    assert len(users) == len({user for user, _ in users}) > 1_000
    assert all(user.split("/")[0] in ("stdlib", "site-packages") for user, _ in users)
    assert ("stdlib/json/decoder.py", "json") in users
    assert ("stdlib/abc.py", "abc") in users
    assert not [user for user, _ in users if user.startswith("stdlib/site-packages")]


def test_the_written_log_is_a_core_and_has_a_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [entry for entry in source_files() if entry[0].startswith("stdlib/")][:600]
    monkeypatch.setattr(imports, "source_files", lambda: iter(files))
    summary = write_imports(tmp_path / "log")
    again = write_imports(tmp_path / "again")
    assert summary.fingerprint == again.fingerprint
    log = read_interactions(summary.path, features=["package"])
    assert (log.n_users, log.n_items, len(log)) == (summary.n_users, summary.n_items, summary.n_interactions)
    assert log.matrix().sum(0).min() >= 5
    assert log.matrix().sum(1).min() >= 5
    assert log.user_feature("package").null_count == 0
    assert write_imports(tmp_path / "more", users=8).fingerprint != summary.fingerprint
