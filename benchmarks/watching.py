"""The largest anonymous memory of processes while something runs in them.

Another process looks, a hundred times a second, as an engine may hold Python's lock all the time.
"""

import os
import select
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def peak_of_anonymous(processes: Sequence[int] = ()) -> Iterator[list[int]]:
    """A list whose one number is, after the block, its peak in bytes; 0 where the system does not tell.

    Args:
        processes: whose memory is added up; this one's alone unless given.
    """
    command = [sys.executable, "-S", __file__, *map(str, processes or [os.getpid()])]
    peak = [0]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as watcher:
        assert watcher.stdout is not None
        watcher.stdout.readline()  # it has begun
        yield peak
        peak[0] = int(watcher.communicate()[0])


def anonymous_bytes_of(processes: Sequence[int]) -> int:
    """Resident memory that is no file's, of all of them; one that has ended has none."""
    total = 0
    for process in processes:
        try:
            lines = Path(f"/proc/{process}/status").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))
    return total * 1024


def descendants(process: int) -> list[int]:
    """The processes that a process has started, and those that they have; none where the system does not tell."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            after_name = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if after_name[0] != "Z":
            parents[int(path.parent.name)] = int(after_name[1])
    found = [process]
    for older in found:
        found += [child for child, parent in parents.items() if parent == older]
    return found[1:]


def _watch(processes: Sequence[int]) -> int:
    """Look until somebody closes our input."""
    peak = 0
    print(flush=True)
    while not select.select([sys.stdin], [], [], 0.01)[0]:
        peak = max(peak, anonymous_bytes_of(processes))
    return peak


if __name__ == "__main__":
    print(_watch([int(process) for process in sys.argv[1:]]))
