"""Stages of the demo: each has a name, a time and a result that is kept."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gossamer.kernels.errors import ExistsError

_FILE = "results.json"


class Stages:
    """Results of finished stages.

    Attributes:
        folder: where stages put their files.
        seconds: how long each finished stage took.
    """

    def __init__(self, folder: Path, key: str, done: dict[str, Any]) -> None:
        self.folder = folder
        self._key = key
        self._done = done

    @classmethod
    def start(cls, folder: Path, *, key: str) -> Stages:
        """Make the folder, or go on in it.

        Args:
            folder: the folder.
            key: of everything that the results depend on.

        Raises:
            ExistsError: if the folder holds something else, or results under another key.
        """
        file = folder / _FILE
        if file.is_file():
            stored = json.loads(file.read_text(encoding="utf-8"))
            if stored["key"] != key:
                raise ExistsError(
                    f"{folder} holds a demo of another version; remove it, or name another with --out."
                )
            return cls(folder, key, stored["done"])
        if folder.exists() and any(folder.iterdir()):
            raise ExistsError(f"{folder} is not empty and holds no demo; name another folder with --out.")
        folder.mkdir(parents=True, exist_ok=True)
        stages = cls(folder, key, {})
        stages._write()
        return stages

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds by stage."""
        return {name: entry["seconds"] for name, entry in self._done.items()}

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """The result of a stage: the kept one, or that of calling `make`; JSON values."""
        if name not in self._done:
            started = time.perf_counter()
            result = make()
            self._done[name] = {"seconds": time.perf_counter() - started, "result": result}
            self._write()
        return self._done[name]["result"]

    def pictures(self) -> list[Path]:
        """The curves that training runs drew."""
        return sorted(self.folder.rglob("metrics.png"))

    def _write(self) -> None:
        partial = self.folder / f".{_FILE}.partial"
        partial.write_text(
            json.dumps({"key": self._key, "done": self._done}, indent=1) + "\n", encoding="utf-8"
        )
        partial.replace(self.folder / _FILE)
