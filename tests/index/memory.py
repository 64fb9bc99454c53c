"""What a call allocates at most: growth of anonymous resident memory, as the system counts it from outside."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import textwrap
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]


def peak_growth(before: str, call: str) -> int:
    """Run code in a process of its own; bytes that `call` had at most beyond what was there after `before`.

    Mapped files do not count, as the system takes their pages back when it needs them.
    """
    code = f"{textwrap.dedent(before)}\nprint(flush=True)\ninput()\n{textwrap.dedent(call)}\n"
    environment = {**os.environ, "PYTHONPATH": f"{_ROOT / '.editable'}{os.pathsep}{_ROOT}"}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=pipe, stdout=pipe, stderr=pipe, env=environment, text=True
    ) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.readline()
        status = Path(f"/proc/{running.pid}/status")
        start = peak = _anonymous(status)
        running.stdin.write("\n")
        running.stdin.flush()
        while not _ended(running):
            peak = max(peak, _anonymous(status))
        assert running.returncode == 0, running.stderr.read()
    return peak - start


def _ended(running: subprocess.Popen[str]) -> bool:
    """Whether it has ended; looks for a millisecond, which leaves the core to what is measured."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        running.wait(0.001)
    return running.returncode is not None


def _anonymous(status: Path) -> int:
    for line in status.read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0  # it has ended
