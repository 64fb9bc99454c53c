"""What it takes to keep an index for years: changes, searches meanwhile, crashes, builds.

- ingest: documents a second where each batch is acknowledged on the disk, merges included, beside Lucene, whose
  `IndexWriter` commits each batch (`growing.py` says what it does less, and more);
- segments: what a query takes in many segments, over what it takes in one (CPU, one core, one query a call);
- meanwhile: wall ms a query while another thread adds and merges (it shares Python's lock and the cores);
- kills: writers killed at random moments, acknowledged changes that were lost (none may be), ms to open afterwards;
- faults: power cuts replayed and steps at which a disk failed, in the tests of `tests/index/test_crashes.py`;
- builds: seconds, and the growth of memory that is no file's, against the number of documents; beside Seismic and
  Lucene as `engines.py` builds them, one core each. Ours reads Parquet files, Lucene a file of text, Seismic arrays; a
  JVM's garbage counts until it is collected;
- plans: what `plan_build` says beforehand beside what a build took, with a budget of memory and without, with a
  calibration and without (it wants 50,000 documents, so --quick has none);
- workers: builds by Ray tasks, with one worker and with two; memory is that of all processes together.

    make bench, or python benchmarks/lifecycle.py [--quick] [--long]

The others are left out by --quick, and where their packages are absent. For eight million documents only ours is built.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from cells import RESULTS, ROOT, TOO_LONG_S, Cell, print_table, run_cells
from collection import REAL_FILES, Collection
from first_rows import DATA
from growing import GROWING
from sweeps import PACKAGES
from sweeps import builds as builds_of

CELLS = Path(__file__).with_name("lifecycle_cells.py")
SOURCES = [
    *(
        f"benchmarks/{name}.py"
        for name in ("collection", "topical", "first_rows", "killing", "growing", "watching")
    ),
    *(f"index/{path.name}" for path in sorted((ROOT / "index").glob("*.py"))),
    *(f"kernels/{path.name}" for path in sorted((ROOT / "kernels").glob("*.py"))),
]
PEERS_SOURCES = [
    *(
        f"benchmarks/{name}.py"
        for name in ("collection", "topical", "first_rows", "growing", "watching", "peers", "lucene")
    ),
    *(f"index/{name}.py" for name in ("lucene_engine", "lucene_jvm")),
]
INGEST = "ingest, each batch acknowledged"
MEMORY_GB = 16.0
_TERMS = 120  # of a made-up document


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
        if title == INGEST:
            _compare(outcomes[title])
        print_table(title, outcomes[title])
    _draw(outcomes, RESULTS / "lifecycle.png")
    print("curves: benchmarks/results/lifecycle.png")


def _cells(name: str, real: Path, *, quick: bool) -> dict[str, list[Cell]]:
    """Tables of cells, by title."""
    inputs = [real / file for file in REAL_FILES] if name == "real" else []
    n = 5_000 if quick else 200_000
    peers = [] if quick else _peers()

    def cell(function: str, cost_s: float, **params: Any) -> Cell:
        engine = params.get("engine", "ours")
        if "collection" in params:
            params["real"] = str(real)
        return Cell(
            CELLS,
            function,
            params,
            SOURCES if engine == "ours" else PEERS_SOURCES,
            inputs if params.get("collection") == "real" else [],
            cost_s,
            packages=PACKAGES[engine],
            label=f"{function}, {engine}: about {cost_s:.0f} s",
        )

    def ingest(engine: str, n_documents: int, batch: int) -> Cell:
        cost_s = 10 + 0.05 * n_documents / batch + 2e-4 * n_documents
        return cell("ingest", cost_s, engine=engine, collection=name, n_documents=n_documents, batch=batch)

    def build(engine: str, of: str, n_documents: int) -> Cell:
        parameters: dict[str, Any] = {}
        cost_s = 5 + 5e-5 * n_documents
        if engine != "ours":
            made = builds_of(engine, quick=False)[0]  # its default
            parameters, cost_s = dict(made.parameters), made.cost_s(n_documents, _TERMS * n_documents, 0)
        given = {"engine": engine, "collection": of, "n_documents": n_documents, "parameters": parameters}
        return cell("build", cost_s, **given)

    batches = [(50 if quick else 2_000, 1), (n // 5, 100), (n, 10_000)]
    counts = [1, 2, 4] if quick else [1, 2, 4, 8, 16, 32]
    sizes = [("topical-20k", 1_000), ("topical-20k", 5_000)]
    if not quick:
        sizes = [("topical-20k", 20_000), ("topical-1m", 100_000), ("topical-1m", 1_000_000)]
        sizes.append(("topical-8m", 8_000_000))
    both = ["ours", *(peer for peer in peers if peer in GROWING)]
    many = {"collection": name, "n_documents": n}
    return {
        INGEST: [ingest(engine, *batch) for batch in batches for engine in both],
        "a query in many segments": [
            cell("segments", 10 + n * 1e-3, **many, counts=counts, runs=3 if quick else 7)
        ],
        "a query meanwhile": [cell("meanwhile", 30, **many, seconds=0.5 if quick else 10.0)],
        "writers killed": [cell("recovery", 60, kills=5 if quick else 200)],
        "faults": [] if quick else [cell("faults", 60)],  # the tests run them anyway
        "builds": [
            build(engine, *size)
            for size in sizes
            for engine in ["ours", *(peers if size[0] != "topical-8m" else [])]
        ],
        "plans and budgets": _plans(cell, quick=quick),
        "Ray workers": [_spread(cell, *size) for size in sizes[1:]],
    }


def _plans(cell: Callable[..., Cell], *, quick: bool) -> list[Cell]:
    """Builds with a budget of a tenth of the input, and without one; also with a calibration, but for --quick."""
    if quick:
        of, cost_s = {"collection": "topical-20k", "n_documents": 20_000, "runs": 1}, 10
        ways: list[tuple[int | str | None, bool]] = [("least", False), (None, False)]
    else:
        of, cost_s = {"collection": "topical-1m", "n_documents": 1_000_000, "runs": 3}, 150
        ways = [(90, False), (None, False), (None, True)]
    return [
        cell("planned", cost_s, **of, budget_mb=budget_mb, calibrate=calibrate)
        for budget_mb, calibrate in ways
    ]


def _spread(cell: Callable[..., Cell], of: str, n_documents: int) -> Cell:
    """Builds with one worker and with two; once only where that takes minutes."""
    runs = 3 if n_documents <= 1_000_000 else 1
    cost_s = 15 + 5e-5 * n_documents * (runs + 1)
    return cell("workers", cost_s, collection=of, n_documents=n_documents, counts=[1, 2], runs=runs)


def _peers() -> list[str]:
    """The engines to compare with whose packages are there; says which are not."""
    found = []
    for engine in ("Seismic", "Lucene"):
        missing = [package for package in PACKAGES[engine] if not list(distributions(name=package))]
        if missing:
            print(f"{engine}: skipped, for {', '.join(missing)} is not installed; `make bench` installs it")
        else:
            found.append(engine)
    return found


def _rows(outcome: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A cell's rows, or itself as one, without what is the same in all."""
    hidden = {"real", "rows", "counts", "runs", "peak_mb", "took_s", "n_documents"}
    hidden |= {"parameters", "seconds", "budget_mb"}
    own = {key: value for key, value in outcome.items() if key not in hidden}
    return [{**own, **row} for row in outcome.get("rows", [{}])]


def _compare(rows: Sequence[dict[str, Any]]) -> None:
    """Add to each row of ours how many times as many documents a second it has as Lucene has."""
    speed = "documents a second"
    others = {row["batch"]: row[speed] for row in rows if row["engine"] == "Lucene" and speed in row}
    for row in rows:
        if row["engine"] == "ours" and speed in row and row["batch"] in others:
            row["ours / Lucene"] = row[speed] / others[row["batch"]]


def _draw(outcomes: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.6), layout="constrained")
    ingest, segments, builds = figure.subplots(1, 3)
    panels = [
        (ingest, INGEST, "batch", ["documents a second"]),
        (segments, "a query in many segments", "segments", ["exact / one", "recall .99 / one"]),
        (builds, "builds", "documents", ["s wall", "anonymous MB"]),
    ]
    for axis, title, x, columns in panels:
        rows = [row for row in outcomes[title] if "not_run" not in row]
        for engine in dict.fromkeys(row.get("engine", "ours") for row in rows):
            mine = [row for row in rows if row.get("engine", "ours") == engine]
            for column in columns:
                label = f"{engine}, {column}"
                axis.loglog([row[x] for row in mine], [row[column] for row in mine], marker="o", label=label)
        axis.set_title(title)
        axis.set_xlabel(x)
        axis.legend(fontsize=7)
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
