"""The largest anonymous memory of a process while something runs in it.

Another process looks, a hundred times a second, as an engine may hold Python's lock all the time.
"""

import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from os import getpid
from pathlib import Path


@contextmanager
def peak_of_anonymous() -> Iterator[list[int]]:
    """A list whose one number is, after the block, its peak in bytes; 0 where the system does not tell."""
    command = [sys.executable, "-S", __file__, str(getpid())]
    peak = [0]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as watcher:
        assert watcher.stdout is not None
        watcher.stdout.readline()  # it has begun
        yield peak
        peak[0] = int(watcher.communicate()[0])


def _watch(process: str) -> int:
    """Look until somebody closes our input."""
    status, peak = Path("/proc") / process / "status", 0
    print(flush=True)
    while not select.select([sys.stdin], [], [], 0.01)[0]:
        lines = status.read_text().splitlines() if status.exists() else []
        peak = max([peak, *(int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))])
    return peak * 1024


if __name__ == "__main__":
    print(_watch(sys.argv[1]))
