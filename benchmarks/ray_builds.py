"""How much faster Ray workers build an index: wall time by number of workers, on one session.

python benchmarks/ray_builds.py VECTORS FOLDER
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from gossamer.index.inverted import BuildConfig
from gossamer.index.jobs import build_job, ray_session


def seconds_by_workers(
    vectors: Path, folder: Path, workers: Sequence[int] = (1, 2), repeats: int = 2
) -> dict[int, float]:
    """The fastest of some builds with each number of workers, in seconds; the session and its workers are warm.

    Args:
        vectors: Parquet file or folder; of several files, or row groups of 262,144 rows.
        folder: where an index is built and replaced.
        workers: how many to try.
        repeats: builds with each.
    """
    config = BuildConfig(calibrate=False)
    best: dict[int, float] = {}
    with ray_session(n_cpus=max(workers)):
        build_job(folder, vectors, n_workers=max(workers), config=config, replace=True)
        for _ in range(repeats):
            for count in workers:
                start = time.perf_counter()
                build_job(folder, vectors, n_workers=count, config=config, replace=True)
                best[count] = min(best.get(count, float("inf")), time.perf_counter() - start)
    return best


if __name__ == "__main__":
    found = seconds_by_workers(Path(sys.argv[1]), Path(sys.argv[2]))
    for count, seconds in found.items():
        print(f"{count} workers: {seconds:.1f} s, {found[1] / seconds:.2f} times as fast as one")
