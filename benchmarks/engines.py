"""Which sparse engine answers fastest on one core, and what does it lose for that?

Ours beside Seismic, SINDI, BMP and Lucene: the same float32 vectors and queries, one core, each engine's own
parameters swept (`sweeps.py`). A row is an operating point: µs a query, CPU and wall, one query a call from Python
unless said otherwise (median over runs of the mean over queries), and recall@10 against the float32 input, in which a
tie counts (`collection.py`). "exact" says of what a point promises the true best: of the input, or of the rounded
weights that are stored. Build seconds are from memory, in the form that the engine takes, to an index that is saved;
index MB are the files; peak MB is the whole process, documents included. Shown are the points that no other point of
the same engine beats in both time and recall, and all that are exact.

    make bench, or python benchmarks/engines.py [--collections real,topical-1m] [--engines ours,SINDI] [--quick]

BMP 0.2.8 never scores the last block that it visits, wraps 16-bit sums, and rounds a query to 32 levels: its
"exact" is of that rounded query; the summary counts as exact only what has a recall of .99. The collection `real` is
skipped where its files are absent.
"""

import argparse
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from cells import RESULTS, ROOT, TOO_LONG_S, Cell, print_table, run_cells
from collection import REAL_FILES, TOPICAL, Collection
from comparison import best_points, draw, summary
from measure import DATA, K
from sweeps import PACKAGES, SMALL, builds

MEASURE = Path(__file__).with_name("measure.py")
SOURCES = [f"benchmarks/{name}.py" for name in ("collection", "topical", "peers")]
OURS = [
    *(f"index/{path.name}" for path in sorted((ROOT / "index").glob("*.py")) if "lucene" not in path.name),
    *(f"kernels/{path.name}" for path in sorted((ROOT / "kernels").glob("sparse_dot*.py"))),
    *(f"kernels/{name}.py" for name in ("clustering", "inversion", "lanes", "refine", "rounding")),
]
LUCENE = ["benchmarks/lucene.py", "index/lucene_engine.py", "index/lucene_jvm.py"]
MEMORY_GB = 16.0


def main() -> None:
    options = _options()
    real = Path(options.real)
    DATA.mkdir(parents=True, exist_ok=True)
    for left in DATA.glob("tmp*"):  # by a cell that was stopped
        shutil.rmtree(left)
    outcomes: list[dict[str, Any]] = []
    for name in options.collections:
        if name == "real" and not (real / REAL_FILES[0]).exists():
            print("real: skipped, for its folder has no " + REAL_FILES[0])
            continue
        if name in TOPICAL:
            print(
                f"{name}: making it and its truth, unless they are there, takes {TOPICAL[name][0] * 3e-5:.0f} s"
            )
        documents = Collection.find(name, real, DATA)
        documents.prepare()
        cells = [
            cell for engine in options.engines for cell in _cells(engine, documents, real, options.quick)
        ]
        done = run_cells(
            [cell for _, cell in cells],
            memory_gb=MEMORY_GB,
            too_long_s=float("inf") if options.long else TOO_LONG_S,
        )
        labels = [label for label, _ in cells]
        outcomes += [{**outcome, "label": label} for outcome, label in zip(done, labels, strict=True)]
        _print(name, outcomes)
    if outcomes:
        print_table("Ours beside the best of the others, one query a call", summary(outcomes))
    if any("rows" in outcome for outcome in outcomes):
        draw(outcomes, RESULTS / "engines.png")
        print("curves: benchmarks/results/engines.png")


def _cells(engine: str, documents: Collection, real: Path, quick: bool) -> list[tuple[str, Cell]]:
    if engine in SMALL and documents.name == "topical-8m":
        return []
    missing = [package for package in PACKAGES[engine] if not _is_installed(package)]
    if missing:
        print(f"{engine}: skipped, for {', '.join(missing)} is not installed; `make bench` installs it")
        return []
    inputs = [real / file for file in REAL_FILES] if documents.name == "real" else []
    cells = []
    for build in builds(engine, quick=quick):
        params: dict[str, Any] = {"collection": documents.name, "real": str(real), "engine": engine}
        params |= {"build": dict(build.parameters), "points": list(build.points)}
        sources = SOURCES + {"ours": OURS, "Lucene": LUCENE}.get(engine, [])
        cost_s = build.cost_s(documents.n_documents, documents.nnz, documents.queries.n_rows)
        label = f"{engine}, {build.label}: about {cost_s:.0f} s"
        cell = Cell(MEASURE, "sweep", params, sources, inputs, cost_s, packages=PACKAGES[engine], label=label)
        cells.append((build.label, cell))
    return cells


def _is_installed(package: str) -> bool:
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False


def _print(name: str, outcomes: list[dict[str, Any]]) -> None:
    mine = [outcome for outcome in outcomes if outcome["collection"] == name]
    columns = ("build s CPU", "build s wall", "index MB", "peak MB", "not_run")
    built = [
        {"engine": outcome["engine"], "build": outcome["label"]}
        | {column: outcome[column] for column in columns if column in outcome}
        for outcome in mine
    ]
    print_table(f"{name}: indexes", built)
    print_table(f"{name}: the best {K}, one core", best_points(mine))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--real", default=ROOT.parent / "shared/data/vectors", help="folder of the files of `real`"
    )
    parser.add_argument("--collections", help="of real," + ",".join(TOPICAL))
    parser.add_argument("--engines", default=",".join(PACKAGES), help="of " + ",".join(PACKAGES))
    parser.add_argument("--quick", action="store_true", help="a small made-up collection and short sweeps")
    parser.add_argument("--long", action="store_true", help="also what takes more than 20 minutes")
    options = parser.parse_args()
    known = {"collections": ["real", *TOPICAL], "engines": list(PACKAGES)}
    if options.collections is None:
        options.collections = "topical-20k" if options.quick else "real,topical-1m,topical-8m"
    for option, names in known.items():
        chosen = getattr(options, option).split(",")
        unknown = sorted(set(chosen) - set(names))
        if unknown:
            parser.error(f"--{option}: {', '.join(unknown)} is none of {', '.join(names)}")
        setattr(options, option, chosen)
    return options


if __name__ == "__main__":
    main()
