"""What it takes to keep an index for years: changes, searches meanwhile, crashes, builds.

- ingest: documents a second where each batch is acknowledged on the disk, merges included;
- segments: what a query takes in many segments, over what it takes in one (CPU, one core, one query a call);
- meanwhile: wall ms a query while another thread adds and merges (it shares Python's lock and the cores);
- kills: writers killed at random moments, acknowledged changes that were lost (none may be), ms to open afterwards;
- faults: power cuts replayed and steps at which a disk failed, in the tests of `tests/index/test_crashes.py`;
- builds: seconds, and the growth of memory that is no file's, against the number of documents.

    make bench, or python benchmarks/lifecycle.py [--quick] [--long]
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cells import RESULTS, ROOT, TOO_LONG_S, Cell, print_table, run_cells
from collection import REAL_FILES, Collection
from lifecycle_cells import DATA

CELLS = Path(__file__).with_name("lifecycle_cells.py")
SOURCES = [
    *(f"benchmarks/{name}.py" for name in ("collection", "topical", "killing")),
    *(f"index/{path.name}" for path in sorted((ROOT / "index").glob("*.py"))),
    *(f"kernels/{path.name}" for path in sorted((ROOT / "kernels").glob("*.py"))),
]
MEMORY_GB = 16.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--real", default=ROOT.parent / "shared/data/vectors", help="folder of the real files"
    )
    parser.add_argument("--quick", action="store_true", help="a small made-up collection and few steps")
    parser.add_argument("--long", action="store_true", help="also what takes more than 20 minutes")
    options = parser.parse_args()
    real = Path(options.real)
    name = "topical-20k" if options.quick or not (real / REAL_FILES[0]).exists() else "real"
    if name != "real" and not options.quick:
        print(f"the real collection is skipped, for {real} has no {REAL_FILES[0]}")
    DATA.mkdir(parents=True, exist_ok=True)
    tables = _cells(name, real, quick=options.quick)
    for collection in sorted(
        {cell.params.get("collection", name) for cells in tables.values() for cell in cells}
    ):
        Collection.find(collection, real, DATA)  # made here, so that no cell's time has it
    too_long_s = float("inf") if options.long else TOO_LONG_S
    outcomes = {}
    for title, cells in tables.items():
        done = run_cells(cells, memory_gb=MEMORY_GB, too_long_s=too_long_s)
        outcomes[title] = [row for outcome in done for row in _rows(outcome)]
        print_table(title, outcomes[title])
    _draw(outcomes, RESULTS / "lifecycle.png")
    print("curves: benchmarks/results/lifecycle.png")


def _cells(name: str, real: Path, *, quick: bool) -> dict[str, list[Cell]]:
    """Tables of cells, by title."""
    inputs = [real / file for file in REAL_FILES] if name == "real" else []
    n = 5_000 if quick else 200_000
    given: dict[str, Any] = {"collection": name, "real": str(real)}

    def cell(function: str, cost_s: float, **params: Any) -> Cell:
        of_input = inputs if params.get("collection") == "real" else []
        return Cell(
            CELLS, function, params, SOURCES, of_input, cost_s, label=f"{function}, about {cost_s:.0f} s"
        )

    batches = [(1, 100 if quick else 2_000), (100, n // 5), (10_000, n)]
    counts = [1, 2, 4] if quick else [1, 2, 4, 8, 16, 32]
    sizes = [("topical-20k", 5_000), ("topical-20k", 20_000)]
    if not quick:
        sizes += [("topical-1m", 100_000), ("topical-1m", 1_000_000), ("topical-8m", 8_000_000)]
    return {
        "ingest, each batch acknowledged": [
            cell("ingest", 10 + 0.05 * n_b / batch + 2e-4 * n_b, **given, n_documents=n_b, batch=batch)
            for batch, n_b in batches
        ],
        "a query in many segments": [
            cell("segments", 10 + n * 1e-3, **given, n_documents=n, counts=counts, runs=3 if quick else 7)
        ],
        "a query meanwhile": [
            cell("meanwhile", 30, **given, n_documents=n, seconds=1.0 if quick else 10.0),
        ],
        "writers killed": [cell("recovery", 60, kills=10 if quick else 200)],
        "faults": [] if quick else [cell("faults", 60)],  # the tests run them anyway
        "builds": [
            cell(
                "build",
                5 + documents * 5e-5,
                collection=of,
                real=str(real),
                n_documents=documents,
                reorder=True,
            )
            for of, documents in sizes
        ],
    }


def _rows(outcome: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A cell's rows, or itself as one, without what is the same in all."""
    hidden = {"real", "rows", "counts", "runs", "peak_mb", "took_s", "n_documents", "reorder", "seconds"}
    own = {key: value for key, value in outcome.items() if key not in hidden}
    return [{**own, **row} for row in outcome.get("rows", [{}])]


def _draw(outcomes: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.6), layout="constrained")
    ingest, segments, builds = figure.subplots(1, 3)
    panels = [
        (ingest, "ingest, each batch acknowledged", "batch", ["documents a second"]),
        (segments, "a query in many segments", "segments", ["exact / one", "recall .99 / one"]),
        (builds, "builds", "documents", ["s wall", "anonymous MB"]),
    ]
    for axis, title, x, columns in panels:
        rows = [row for row in outcomes[title] if "not_run" not in row]
        for column in columns:
            axis.loglog([row[x] for row in rows], [row[column] for row in rows], marker="o", label=column)
        axis.set_title(title)
        axis.set_xlabel(x)
        axis.legend()
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
