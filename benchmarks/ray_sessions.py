"""Ray sessions of a cell: nothing of one is left when it ends."""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

from watching import anonymous_bytes_of, descendants

_ENDED_WITHIN_S = 30


@contextmanager
def own_ray(n_cpus: int) -> Iterator[None]:
    """A Ray session whose files are in a folder of its own, with a short path, as it has sockets in it.

    Raises:
        RuntimeError: some of its processes go on after it.
    """
    from gossamer.index.jobs import ray_session

    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as name:
        os.environ["RAY_TMPDIR"] = name
        started: list[int] = []
        with ray_session(n_cpus=n_cpus):
            try:
                yield
            finally:
                started += descendants(os.getpid())
        until = time.perf_counter() + _ENDED_WITHIN_S
        while anonymous_bytes_of(started):
            if time.perf_counter() > until:
                raise RuntimeError(f"of the processes {started} some go on after their Ray session")
            time.sleep(0.05)
