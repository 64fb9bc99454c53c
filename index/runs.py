"""`RunFolder`: everything that one training run leaves behind.

    run/
      config.json            the resolved configuration, written first
      metrics.jsonl          one line a logged step
      checkpoints/step-000200/  tensors.safetensors + state.json; renamed into place when whole
      metrics.png            the curves

A run that was killed is opened again with the same configuration and goes on from its last checkpoint; metrics that
were logged after that checkpoint are cut off, so that the file reads as if nothing had happened.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from gossamer.kernels.errors import ConfigError, ExistsError, FormatError

if TYPE_CHECKING:
    import torch

_KEPT_CHECKPOINTS = 2


class RunFolder:
    """One run's folder: configuration, metrics, checkpoints, plot."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @classmethod
    def start(
        cls,
        path: str | Path,
        config: BaseModel,
        *,
        resume: bool = False,
        inputs: Mapping[str, str] | None = None,
    ) -> RunFolder:
        """Create a run, or go on with one.

        Args:
            path: the folder.
            config: the resolved configuration; a resumed run must have the same.
            resume: go on from the last checkpoint if the folder holds a run.
            inputs: fingerprints of what is learned from, by name; a resumed run must have the same, or it would
                mix two data sets (and test into training).

        Raises:
            ExistsError: if there is a run and `resume` is not set.
            ConfigError: if the run that is resumed was started with another configuration or other inputs.
        """
        run = cls(path)
        wanted = json.loads(config.model_dump_json()) | {f"input {k}": v for k, v in (inputs or {}).items()}
        if run._config.exists():
            if not resume:
                raise ExistsError(f"{run.path} holds a run already; resume it, or choose another folder.")
            stored = json.loads(run._config.read_text(encoding="utf-8"))
            changed = [key for key in wanted.keys() | stored.keys() if wanted.get(key) != stored.get(key)]
            if changed:
                raise ConfigError(
                    f"{run.path} was started with other values of {sorted(changed)}; use those, or another folder."
                )
            run._cut_metrics()
        else:
            run.path.mkdir(parents=True, exist_ok=True)
            _write(run._config, json.dumps(wanted, indent=2) + "\n")
        return run

    @property
    def _config(self) -> Path:
        return self.path / "config.json"

    @property
    def _metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    def log(self, step: int, **values: float) -> None:
        """Append one line of metrics."""
        with self._metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")

    def metrics(self) -> list[dict[str, float]]:
        """All logged lines."""
        if not self._metrics.exists():
            return []
        return [json.loads(line) for line in self._metrics.read_text(encoding="utf-8").splitlines()]

    def _cut_metrics(self) -> None:
        last = self.last_step()
        kept = []
        for line in self._metrics.read_text(encoding="utf-8").splitlines() if self._metrics.exists() else []:
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                break  # the kill hit in the middle of this line
            if entry["step"] <= last:
                kept.append(line + "\n")
        _write(self._metrics, "".join(kept))

    # -- checkpoints ----------------------------------------------------------------------------------

    def _checkpoints(self) -> list[Path]:
        return sorted((self.path / "checkpoints").glob("step-*"))

    def last_step(self) -> int:
        """The step of the last checkpoint; 0 where there is none."""
        found = self._checkpoints()
        return int(found[-1].name.removeprefix("step-")) if found else 0

    def save_checkpoint(
        self, step: int, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any] | None = None
    ) -> None:
        """Write a checkpoint; it appears whole or not at all. The newest two are kept."""
        from safetensors.torch import save_file

        final = self.path / "checkpoints" / f"step-{step:09d}"
        partial = final.with_name(f".{final.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        save_file(
            {name: t.detach().contiguous().cpu() for name, t in tensors.items()},
            partial / "tensors.safetensors",
        )
        _write(partial / "state.json", json.dumps({"step": step, **(state or {})}))
        if final.exists():
            shutil.rmtree(final)
        partial.replace(final)
        for old in self._checkpoints()[:-_KEPT_CHECKPOINTS]:
            shutil.rmtree(old)

    def load_checkpoint(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
        """Tensors and state of the last checkpoint, or None.

        Raises:
            FormatError: if the checkpoint cannot be read; the message says which and what to do.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        found = self._checkpoints()
        if not found:
            return None
        try:
            tensors = load_file(found[-1] / "tensors.safetensors")
            state = json.loads((found[-1] / "state.json").read_text(encoding="utf-8"))
        except (OSError, SafetensorError, json.JSONDecodeError) as error:
            raise FormatError(f"{found[-1]} cannot be read ({error}); delete it and go on.") from error
        return tensors, state

    # -- plot -----------------------------------------------------------------------------------------

    def plot(self) -> Path:
        """Draw every logged metric against the step into `metrics.png`."""
        from matplotlib.figure import Figure

        lines = self.metrics()
        names = [name for name in (lines[0] if lines else {}) if name != "step"]
        figure = Figure(figsize=(6, 2.2 * max(len(names), 1)), layout="constrained")
        for axis, name in zip(figure.subplots(max(len(names), 1), squeeze=False)[:, 0], names, strict=False):
            axis.plot([line["step"] for line in lines], [line.get(name) for line in lines])
            axis.set_ylabel(name.replace("_", " "))
            axis.grid(alpha=0.3)
        figure.supxlabel("step")
        target = self.path / "metrics.png"
        figure.savefig(target, dpi=110)
        return target


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
