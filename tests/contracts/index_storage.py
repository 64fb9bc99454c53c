"""What every index on a disk must do: appear whole or not at all, and tell when it is not as it was written."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest

from gossamer.index.inverted import BuildConfig, InvertedIndex
from gossamer.index.vectors import SparseVectors
from gossamer.kernels.errors import CorruptError, ExistsError, FormatError, NotFoundError, StorageError
from tests.contracts.oracle import random_vectors

_ROOT = Path(__file__).resolve().parents[2]


def some_vectors(seed: int = 0, n_rows: int = 40) -> SparseVectors:
    return random_vectors(np.random.default_rng(seed), n_rows, 15, 0.5)


def build(path: Path, n_rows: int = 40, *, replace: bool = False) -> InvertedIndex:
    vectors = some_vectors(n_rows=n_rows)
    table = pa.table({"id": vectors.ids, "text": ["some text"] * n_rows, "year": list(range(n_rows))})
    return InvertedIndex.build(path, vectors, documents=table, config=BuildConfig(window=16), replace=replace)


class StorageContract:
    """An index of 40 documents under `path`; a subclass replaces what stands before the suite."""

    n_files: ClassVar[int] = 16
    version: ClassVar[int] = 3
    module: ClassVar[str] = "tests.contracts.index_storage"
    """Where a process that is to be killed finds `build`."""

    def build(self, path: Path, n_rows: int = 40, *, replace: bool = False) -> Any:
        return build(path, n_rows, replace=replace)

    def build_with(self, path: Path, documents: Any) -> Any:
        return InvertedIndex.build(path, some_vectors(), documents=documents)

    def open(self, path: Path) -> Any:
        return InvertedIndex.open(path)

    def queries(self) -> Any:
        """40 queries."""
        return some_vectors()

    def unfit(self, body: dict[str, Any]) -> None:
        """Make the manifest say what the files do not."""
        body["index"].update(n_terms=16)

    # -- the suite

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        self.build(tmp_path / "index")
        return tmp_path / "index"

    def files(self, path: Path) -> list[Path]:
        found = sorted(file for file in path.rglob("*") if file.is_file())
        assert len(found) == self.n_files
        return found

    # -- what was altered is found

    def test_every_altered_byte_is_found_by_name(self, path: Path) -> None:
        rng = np.random.default_rng(0)
        for file in self.files(path):
            whole = file.read_bytes()
            for at in [0, len(whole) - 1, *rng.integers(0, len(whole), 5).tolist()]:
                file.write_bytes(whole[:at] + bytes([whole[at] ^ 0x20]) + whole[at + 1 :])
                with pytest.raises(StorageError, match=file.name):
                    self.open(path).verify()
            file.write_bytes(whole)
        self.open(path).verify()

    def test_every_truncated_file_is_refused_on_opening(self, path: Path) -> None:
        for file in self.files(path):
            whole = file.read_bytes()
            for length in (0, len(whole) // 2, len(whole) - 1):
                file.write_bytes(whole[:length])
                with pytest.raises(StorageError, match=file.name):
                    self.open(path)
            file.write_bytes(whole + b"\0")
            with pytest.raises(StorageError, match=file.name):
                self.open(path)
            file.write_bytes(whole)
        self.open(path)

    def test_every_missing_file_is_refused_on_opening(self, path: Path) -> None:
        for file in self.files(path):
            file.rename(path / "away")
            with pytest.raises(FormatError, match=file.name):
                self.open(path)
            (path / "away").rename(file)

    def test_a_newer_format_is_refused(self, path: Path) -> None:
        newer = self.version + 1
        self.edit(path, lambda body: body.update(version=newer))
        with pytest.raises(
            FormatError,
            match=f"format version {newer}, and this gossamer reads {self.version}: it is newer; upgrade",
        ):
            self.open(path)

    @pytest.mark.parametrize("version", [0, "1", None])
    def test_an_unknown_version_is_refused(self, path: Path, version: Any) -> None:
        self.edit(path, lambda body: body.update(version=version))
        with pytest.raises(FormatError, match="build the index anew"):
            self.open(path)

    def test_what_the_manifest_says_is_checked(self, path: Path) -> None:
        self.edit(path, lambda body: body.update(generation=41))
        with pytest.raises(CorruptError, match=r"manifest\.json was altered"):
            self.open(path)

    def test_unknown_keys_in_a_sound_manifest_are_refused(self, path: Path) -> None:
        self.edit(path, lambda body: body.update(extra=1), sound=True)
        with pytest.raises(FormatError, match="extra"):
            self.open(path)

    def test_a_sound_manifest_that_does_not_fit_is_refused(self, path: Path) -> None:
        self.edit(path, self.unfit, sound=True)
        with pytest.raises(FormatError, match="does not hold"):
            self.open(path)

    def edit(self, path: Path, change: Callable[[dict[str, Any]], object], *, sound: bool = False) -> None:
        """Rewrite the manifest; where it shall be sound, with the right checksum."""
        from gossamer.index import manifests

        file = path / "manifest.json"
        body = json.loads(file.read_bytes())
        change(body)
        if sound:
            file.write_bytes(manifests.seal(body, format_=body["format"], version=body["version"]))
        else:
            file.write_text(json.dumps(body, indent=1, sort_keys=True) + "\n")

    def test_something_else_is_no_index(self, tmp_path: Path) -> None:
        with pytest.raises(NotFoundError, match="there is no index at"):
            self.open(tmp_path / "nowhere")
        with pytest.raises(FormatError, match=r"no manifest\.json"):
            self.open(tmp_path)
        (tmp_path / "manifest.json").write_text('{"name": "a web page"}')
        with pytest.raises(FormatError, match="does not describe a gossamer-"):
            self.open(tmp_path)

    # -- replacing

    def test_nothing_is_replaced_unasked(self, path: Path) -> None:
        with pytest.raises(ExistsError, match="replace=True"):
            self.build(path, 30)
        assert self.open(path).n_documents == 40

    def test_replacing_leaves_only_the_new_one(self, path: Path) -> None:
        old = self.open(path)
        assert self.build(path, 30, replace=True).n_documents == 30
        assert [entry.name for entry in path.parent.iterdir()] == ["index"]
        assert old.search(self.queries(), 3).rows.shape == (40, 3)  # who has it open goes on reading it

    def test_only_an_index_is_replaced(self, tmp_path: Path) -> None:
        (tmp_path / "home").mkdir()
        (tmp_path / "home" / "manifest.json").write_text("{}")
        (tmp_path / "file").write_text("precious")
        for name in ("home", "file"):
            with pytest.raises(ExistsError, match="of another kind"):
                self.build(tmp_path / name, replace=True)
        assert (tmp_path / "file").read_text() == "precious"

    def test_a_damaged_index_can_be_replaced(self, path: Path) -> None:
        next(path.rglob("ids.arrow")).unlink()
        assert self.build(path, 30, replace=True).n_documents == 30

    def test_an_empty_folder_and_missing_parents_are_no_obstacle(self, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        self.build(tmp_path / "empty")
        self.build(tmp_path / "a" / "b" / "c")

    def test_a_link_is_followed(self, path: Path) -> None:
        link = path.with_name("link")
        link.symlink_to(path, target_is_directory=True)
        self.build(link, 30, replace=True)
        assert link.is_symlink()
        assert self.open(path).n_documents == self.open(link).n_documents == 30

    # -- failures and kills

    @pytest.mark.parametrize("replace", [False, True])
    @pytest.mark.parametrize("call", ["fsync", "rename"])
    def test_a_failure_at_any_step_leaves_old_or_new(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, replace: bool
    ) -> None:
        path, real, failures = tmp_path / "index", getattr(os, call), 0
        for fatal in range(40):
            for left in tmp_path.iterdir():
                shutil.rmtree(left)
            if replace:
                self.build(path)
            calls = iter(range(1000))

            def failing(*args: Any, calls: Any = calls, fatal: int = fatal) -> Any:
                if next(calls) == fatal:
                    raise OSError(28, "the disk is full")
                return real(*args)

            with monkeypatch.context() as patch:
                patch.setattr(os, call, failing)
                try:
                    self.build(path, 30, replace=replace)
                except OSError:
                    failures += 1
                else:
                    assert self.open(path).n_documents == 30
                    break
            if replace or path.exists():
                index = self.open(path)
                index.verify()
                assert index.n_documents in ((40, 30) if replace else (30,))
            assert not [entry for entry in tmp_path.iterdir() if ".draft-" in entry.name and replace is False]
        else:
            pytest.fail(f"the build calls os.{call} more often than this test tries")
        assert failures >= (1 if call == "rename" else 10)

    def test_an_error_in_the_input_leaves_nothing(self, tmp_path: Path) -> None:
        def batches() -> Any:
            yield pa.record_batch({"id": ["d0", "d1"]})
            raise RuntimeError("the reader failed")

        with pytest.raises(RuntimeError, match="the reader failed"):
            self.build_with(tmp_path / "index", batches())
        assert list(tmp_path.iterdir()) == []

    def test_a_killed_build_leaves_nothing_that_opens(self, tmp_path: Path) -> None:
        """Killed at the writing, at a flush, and between the two renames of a replacement, by SIGKILL."""
        path = tmp_path / "index"
        killed_by(self.module, path, "record_files", 0, replace=False)
        assert not path.exists()
        assert len(list(tmp_path.iterdir())) == 1, "the draft of the dead process"
        with pytest.raises(NotFoundError):
            self.open(path)
        self.build(path)
        assert list(tmp_path.iterdir()) == [path], "the next build removed it"

        killed_by(self.module, path, "os.fsync", 3, replace=True)
        assert self.open(path).n_documents == 40

        killed_by(self.module, path, "os.rename", 1, replace=True)  # after the old one went aside
        assert not path.exists()
        assert self.open(path).n_documents == 40, "opening puts the old one back"
        self.open(path).verify()

        killed_by(self.module, path, "os.rename", 2, replace=True)  # after the new one came in
        assert self.open(path).n_documents == 30
        self.build(path, 20, replace=True)
        assert list(tmp_path.iterdir()) == [path]

    def test_the_draft_of_a_living_build_is_left_alone(self, tmp_path: Path) -> None:
        def batches() -> Any:
            drafts = list(tmp_path.iterdir())
            self.build(tmp_path / "index", 30)  # another build, meanwhile
            assert set(drafts) < set(tmp_path.iterdir())
            yield pa.record_batch({"id": some_vectors().ids})

        with pytest.raises(ExistsError):
            self.build_with(tmp_path / "index", batches())
        assert self.open(tmp_path / "index").n_documents == 30


def killed_by(module: str, path: Path, call: str, fatal: int, *, replace: bool) -> None:
    """Build 30 documents in a process of its own that is killed at the given call of a function."""
    code = f"""
        import os, signal
        from pathlib import Path
        from {module} import build
        from gossamer.index import creation
        owner = {"os" if call.startswith("os.") else "creation"}
        name = {call.removeprefix("os.")!r}
        real, calls = getattr(owner, name), iter(range(1000))
        def dying(*args):
            if next(calls) == {fatal}:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args)
        setattr(owner, name, dying)
        build(Path({str(path)!r}), 30, replace={replace})
    """
    environment = {**os.environ, "PYTHONPATH": f"{_ROOT / '.editable'}{os.pathsep}{_ROOT}"}
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        check=False,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == -signal.SIGKILL, result.stderr
