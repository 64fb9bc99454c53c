"""The layout that packaging, Ray workers and linters rely on."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("kernels", "index", "lsr", "recsys", "serving", "configs")


def test_kernels_is_no_regular_package() -> None:
    assert not (ROOT / "kernels" / "__init__.py").exists(), (
        "it would shadow Hugging Face's `kernels` on Ray workers"
    )


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_folder_is_linked_and_typed(folder: str) -> None:
    link = ROOT / ".editable" / "gossamer" / folder
    assert link.is_symlink()
    assert link.resolve() == ROOT / folder
    assert (ROOT / folder / "py.typed").exists()
    assert folder == "kernels" or (ROOT / folder / "__init__.py").exists()


def _sources() -> list[Path]:
    return [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]


@pytest.mark.parametrize("path", _sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_are_short_and_unpickle_nothing(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 500, "one idea a module"
    tree = ast.parse(source)
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not imported & {"pickle", "dill", "joblib", "cloudpickle", "shelve"}
    assert "torch.load(" not in source
    assert "allow_pickle=True" not in source


def test_ray_is_imported_by_job_modules_only() -> None:
    for path in _sources():
        names = {
            name
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            for name in (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
        }
        if any(name == "ray" or name.startswith("ray.") for name in names):
            assert path.name in ("jobs.py", "deploy.py"), path
