"""What a running service does: answers a second and their times, writes meanwhile, and what a kill loses.

The service is a process of its own, with a core to itself where there are two; clients share another. A client asks,
waits and asks again, over loopback. Figures are of the whole: network stack, HTTP, JSON, batching, search.

- answers: single queries by 1, 8 and 32 clients; sent as vectors, as words weighted by a table, and as words through
  a transformer (2 layers, 128 wide, 30,522 terms, untrained: its speed is that of a trained one); with batches of up
  to 64, and of one;
- overhead: what HTTP adds to the engine's own time;
- meanwhile: 8 clients while documents are written and merged, and while the index is swapped again and again;
- mixed: minutes of reads and writes, and memory;
- kills: a service that is killed while it is written to; acknowledged writes that are gone afterwards (none may be);
- replicas: the same of a deployment on Ray Serve, whose replicas of each kind are killed while it is asked and written;
- beside: words in real texts, by our BM25 encoder, and by forty lines of FastAPI and bm25s (`bm25s_server.py`).

    make bench, or python benchmarks/serving.py [--quick]
"""

import argparse
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from cells import ROOT, Cell, print_table, run_cells
from collection import REAL_FILES

CELLS = Path(__file__).with_name("serving_cells.py")
DEPLOYED_CELLS = Path(__file__).with_name("deployed_cells.py")
SOURCES = [
    *(
        f"benchmarks/{name}.py"
        for name in (
            "collection",
            "topical",
            "first_rows",
            "loading",
            "bm25s_server",
            "ray_sessions",
            "watching",
        )
    ),
    *(
        path.relative_to(ROOT).as_posix()
        for folder in ("index", "kernels", "serving", "lsr")
        for path in sorted((ROOT / folder).glob("*.py"))
    ),
]
HIDDEN = {
    "real",
    "rows",
    "seconds",
    "peak_mb",
    "took_s",
    "n_documents",
    "corpus",
    "limit",
    "seed",
    "collection",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--real", default=ROOT.parent / "shared/data", help="folder of the real data")
    parser.add_argument("--quick", action="store_true", help="a small made-up collection and few seconds")
    options = parser.parse_args()
    real = Path(options.real)
    for title, cells in _cells(real, quick=options.quick).items():
        outcomes = run_cells(cells, memory_gb=8.0)
        rows = [row for outcome in outcomes for row in _rows(outcome)]
        if "bm25s" in title:
            _compare(rows)
        print_table(title, rows)


def _cells(real: Path, *, quick: bool) -> dict[str, list[Cell]]:
    vectors = real / "vectors"
    name = "topical-20k" if quick or not (vectors / REAL_FILES[0]).exists() else "real"
    n = 2_000 if quick else 20_000 if name != "real" else 500_000
    seconds = 0.5 if quick else 10.0
    counts = [1, 8] if quick else [1, 8, 32]
    inputs = [vectors / file for file in REAL_FILES] if name == "real" else []
    of: dict[str, Any] = {"collection": name, "real": str(vectors), "n_documents": n}

    def cell(function: str, cost_s: float, script: Path = CELLS, **params: Any) -> Cell:
        packages = ("uvicorn", "fastapi")
        label = f"{function}: about {cost_s:.0f} s"
        return Cell(script, function, params, SOURCES, inputs, cost_s, packages=packages, label=label)

    ways = [("vector", True), ("neural", True)] if quick else [
        (kind, batching) for kind in ("vector", "table", "neural") for batching in (True, False)
    ]  # fmt: skip
    tables = {
        "answers": [
            cell(
                "answers",
                30 + 4 * seconds,
                kind=kind,
                **of,
                batching=batching,
                clients=counts,
                seconds=seconds,
            )
            for kind, batching in ways
        ],
        "what HTTP adds": [cell("overhead", 30, **of, runs=2 if quick else 7)],
        "8 clients meanwhile": [cell("meanwhile", 20 + 4 * seconds, **of, seconds=seconds)],
        "reads and writes for long": [cell("mixed", 320, **of, seconds=1.5 if quick else 300.0)],
        "services killed": [cell("kills", 60, n_kills=1 if quick else 20, seed=0)],
    }
    if list(distributions(name="grpcio-reflection")):
        given: dict[str, Any] = {
            "n_documents": n if quick else 20_000,
            "n_kills": 1 if quick else 5,
            "seed": 0,
        }
        tables["replicas killed"] = [cell("replicas", 60 if quick else 180, DEPLOYED_CELLS, **given)]
    else:
        print("replicas killed: skipped, as the extra `serve` is not installed")
    tables["beside FastAPI and bm25s"] = _beside(real, counts, seconds, cell, quick=quick)
    return {title: cells for title, cells in tables.items() if cells}


def _beside(real: Path, counts: list[int], seconds: float, cell: Any, *, quick: bool) -> list[Cell]:
    corpus = real / "text/wordnet-glosses/corpus.jsonl"
    if not corpus.exists():
        print(f"beside bm25s: skipped, for there is no {corpus}")
        return []
    engines = ["ours"]
    if list(distributions(name="bm25s")):
        engines.append("bm25s")
    else:
        print("bm25s: skipped, for it is not installed; `make bench` installs it")
    limit = 2_000 if quick else 10**9
    return [
        cell("beside", 60, engine=engine, corpus=str(corpus), limit=limit, clients=counts, seconds=seconds)
        for engine in engines
    ]


def _rows(outcome: dict[str, Any]) -> list[dict[str, Any]]:
    own = {key: value for key, value in outcome.items() if key not in HIDDEN | {"clients"}}
    return [{**own, **row} for row in outcome.get("rows", [{}])]


def _compare(rows: list[dict[str, Any]]) -> None:
    """Add to each row of ours how many times as many answers a second it has."""
    speed = "answers a second"
    theirs = {row["clients"]: row[speed] for row in rows if row["engine"] == "bm25s" and speed in row}
    for row in rows:
        if row["engine"] == "ours" and speed in row and row["clients"] in theirs:
            row["ours / theirs"] = row[speed] / theirs[row["clients"]]


if __name__ == "__main__":
    main()
