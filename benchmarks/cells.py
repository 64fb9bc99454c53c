"""Benchmarks as tables of cells: each cell a process of its own, its result kept until something it depends on changes.

A script lists its cells and calls `run_cells`, then `print_table`. A cell's function takes the cell's parameters and
returns a flat dictionary of numbers and words. It starts in a fresh process, so that its peak memory and its CPU time
are its own, and under a memory limit, so that one cell cannot take the machine down. A finished cell lies in
`results/` as a JSON file named by a hash of its code, input, parameters and the versions beneath; a run that was
stopped goes on where it was.
"""

import hashlib
import importlib.util
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
TOO_LONG_S = 20 * 60


@dataclass(frozen=True)
class Cell:
    """One measurement: `function(**params)` of a script, in a process of its own."""

    script: Path
    function: str
    params: Mapping[str, Any]
    """JSON values."""
    sources: Sequence[str] = ()
    """Files of the project, relative to its root, that the result depends on, beside the script."""
    inputs: Sequence[Path] = ()
    """Data files that the result depends on."""
    cost_s: float = 60.0
    """What it will take, roughly."""
    memory_gb: float | None = None
    """Its own limit, if it is not that of the others."""
    packages: Sequence[str] = ()
    """Distributions that the result depends on, beside those that all do."""
    label: str = ""
    """What is printed when it starts, if not all its parameters."""

    def key(self) -> str:
        """A hash of all that the result depends on."""
        digest = hashlib.sha256()
        names = ("numba", "numpy", "torch", *self.packages)
        packages = {name: version(name) for name in names} | {"python": platform.python_version()}
        digest.update(
            json.dumps([self.function, self.params, packages], sort_keys=True, default=str).encode()
        )
        for path in (self.script, *(ROOT / source for source in self.sources), *self.inputs):
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()[:16]


def run_cells(
    cells: Sequence[Cell],
    *,
    memory_gb: float = 8.0,
    too_long_s: float = TOO_LONG_S,
    results: Path = RESULTS,
) -> list[dict[str, Any]]:
    """Run what has no result yet, one cell after the other.

    Args:
        cells: what to measure.
        memory_gb: the limit of a cell that has none of its own.
        too_long_s: a cell that costs more is not run.
        results: where finished cells lie.

    Returns:
        For each cell its parameters, what its function returned, `peak_mb` (resident memory) and `took_s`; or its
        parameters and `not_run`, the reason.
    """
    results.mkdir(parents=True, exist_ok=True)
    paths = [results / f"{cell.script.stem}-{cell.function}-{cell.key()}.json" for cell in cells]
    todo = [
        cell
        for cell, path in zip(cells, paths, strict=True)
        if not path.exists() and cell.cost_s <= too_long_s
    ]
    minutes = sum(cell.cost_s for cell in todo) / 60
    print(f"{len(cells)} cells, {len(todo)} to run, about {minutes:.1f} minutes", flush=True)
    return [_outcome(cell, path, memory_gb, too_long_s) for cell, path in zip(cells, paths, strict=True)]


def _outcome(cell: Cell, path: Path, memory_gb: float, too_long_s: float) -> dict[str, Any]:
    if not path.exists():
        if cell.cost_s > too_long_s:
            return {**cell.params, "not_run": f"would take about {cell.cost_s / 60:.0f} minutes"}
        label = cell.label or f"{cell.function} {json.dumps(cell.params, default=str)}"
        print(f"  {label}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            request, answer = Path(folder) / "request.json", Path(folder) / "answer.json"
            limit_gb = memory_gb if cell.memory_gb is None else cell.memory_gb
            request.write_text(
                json.dumps(
                    [str(cell.script), cell.function, dict(cell.params), limit_gb, str(answer)], default=str
                )
            )
            command = [sys.executable, __file__, str(request)]
            done = subprocess.run(command, check=False, stderr=subprocess.PIPE, text=True)
            if done.returncode != 0:  # not kept, so that the next run tries again
                return {**cell.params, "not_run": _reason(done.stderr) or f"exit status {done.returncode}"}
            record = {"params": dict(cell.params), "machine": _machine(), **json.loads(answer.read_text())}
        half = path.with_suffix(".tmp")
        half.write_text(json.dumps(record, indent=1, default=str) + "\n")
        half.replace(path)
    record = json.loads(path.read_text())
    return {**record["params"], **record["result"], "peak_mb": record["peak_mb"], "took_s": record["took_s"]}


def _reason(stderr: str) -> str:
    """The last line that says what went wrong; some runtimes go on with a backtrace and advice."""
    said = stderr.partition("stack backtrace:")[0]
    lines = [line for line in said.splitlines() if line.strip() and not line.startswith("note:")]
    return lines[-1] if lines else ""


def _run_here(request: Path) -> None:
    """The child's side: set the limit, load the script, call the function, leave the answer in a file."""
    script, function, params, memory_gb, answer = json.loads(request.read_text())
    limit = int(memory_gb * 2**30)
    # not RLIMIT_AS: address space, such as that of a mapped file, is no memory in use
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    sys.path[:0] = [str(ROOT), str(Path(script).parent)]
    spec = importlib.util.spec_from_file_location(Path(script).stem, script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    began = time.perf_counter()
    result = getattr(module, function)(**params)
    took_s = round(time.perf_counter() - began, 3)
    answered = {"result": result, "peak_mb": peak_mb(), "took_s": took_s}
    Path(answer).write_text(json.dumps(answered, default=str))


def peak_mb() -> float:
    """The most memory that this process has had resident, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count the parent's memory at the time of the fork
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return round(int(line.split()[1]) / 2**10, 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)


def _machine() -> str:
    """The processor's name, as far as the system tells."""
    cpu_info = Path("/proc/cpuinfo")
    lines = cpu_info.read_text().splitlines() if cpu_info.exists() else []
    return next(
        (line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def print_table(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print outcomes, a column for each name that occurs, numbers to three significant digits or so."""
    from rich.console import Console
    from rich.table import Table

    names = list(dict.fromkeys(name for row in rows for name in row))
    table = Table(title=title)
    for name in names:
        table.add_column(
            name, justify="left" if any(isinstance(row.get(name), str) for row in rows) else "right"
        )
    for row in rows:
        table.add_row(*(_text(row.get(name, "")) for name in names))
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


if __name__ == "__main__":
    _run_here(Path(sys.argv[1]))
