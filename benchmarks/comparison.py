"""What the outcomes of `engines.py` say: the points worth looking at, the ratios, the picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

GOOD = 0.99
COLOURS = {"ours": "C3", "Seismic": "C0", "SINDI": "C2", "BMP": "C1", "Lucene": "C4"}
_BEST_SHOWN = 1e-4
"""A recall beyond 1 minus this is drawn there."""

Row = dict[str, Any]


def points(outcomes: Sequence[Row]) -> list[Row]:
    """All operating points, with their engine and the label of their build."""
    return [
        {"engine": outcome["engine"], "build": outcome["label"], **row}
        for outcome in outcomes
        for row in outcome.get("rows", [])
    ]


def best_points(outcomes: Sequence[Row]) -> list[Row]:
    """For each engine, by recall: the undominated points of one query a call; those that are exact; whole batches."""
    rows = points(outcomes)
    shown = [
        row for row in rows if row["exact"] or row["a call"] != "1" or row in undominated(rows, row["engine"])
    ]
    order = list(COLOURS)
    return sorted(shown, key=lambda row: (order.index(row["engine"]), row["a call"] != "1", row["recall"]))


def undominated(rows: Sequence[Row], engine: str) -> list[Row]:
    """Points of one query a call that no other of the engine beats in both time and recall, by time."""
    best: list[Row] = []
    for row in sorted(rows, key=lambda row: (row["µs CPU"], -row["recall"])):
        is_better = not best or row["recall"] > best[-1]["recall"]
        if row["engine"] == engine and row["a call"] == "1" and is_better:
            best.append(row)
    return best


def summary(outcomes: Sequence[Row]) -> list[Row]:
    """A row a collection: how many times as fast ours is as the best of the others, and its cost beside Seismic's."""
    result = []
    for name in dict.fromkeys(outcome["collection"] for outcome in outcomes):
        mine = [outcome for outcome in outcomes if outcome["collection"] == name]
        rows = [row for row in points(mine) if row["a call"] == "1"]
        good = [row for row in rows if row["recall"] >= GOOD]
        row = {"collection": name}
        for kind in ("input", "stored"):  # BMP is exact for a query that it has rounded too coarsely
            row |= _faster(f"exact on {kind}", [found for found in good if found["exact"] == kind])
        row |= _faster(f"recall ≥ {GOOD}", good)
        result.append(row | _against_seismic(mine, good))
    return result


def _faster(what: str, rows: Sequence[Row]) -> Row:
    ours, others = (
        min(
            (row for row in rows if (row["engine"] == "ours") == is_ours),
            key=lambda row: row["µs CPU"],
            default=None,
        )
        for is_ours in (True, False)
    )
    columns: Row = {f"{what}: ours µs": "" if ours is None else ours["µs CPU"], f"{what}: best other": ""}
    if others is not None:
        columns[f"{what}: best other"] = f"{others['engine']} {others['µs CPU']:,.0f}"
    if ours is not None and others is not None:
        columns[f"{what}: times as fast"] = others["µs CPU"] / ours["µs CPU"]
    return columns


def _against_seismic(outcomes: Sequence[Row], good: Sequence[Row]) -> Row:
    """Bytes and build seconds of ours as shares of those of Seismic's build that is fastest at a good recall."""
    fastest = min(
        (row for row in good if row["engine"] == "Seismic"), key=lambda row: row["µs CPU"], default=None
    )
    built = {(outcome["engine"], outcome["label"]): outcome for outcome in outcomes if "rows" in outcome}
    ours = next((outcome for (engine, _), outcome in built.items() if engine == "ours"), None)
    if fastest is None or ours is None:
        return {}
    seismic = built["Seismic", fastest["build"]]
    return {
        f"{what} of Seismic's": ours[column] / seismic[column]
        for what, column in (("bytes", "index MB"), ("build", "build s CPU"))
    }


def draw(outcomes: Sequence[Row], path: Path) -> None:
    """Recall against µs a query: a panel a collection, a curve an engine; a star is exact."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    names = list(dict.fromkeys(outcome["collection"] for outcome in outcomes if "rows" in outcome))
    figure = Figure(figsize=(6 * len(names), 5), layout="constrained")
    for panel, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        rows = points([outcome for outcome in outcomes if outcome["collection"] == name])
        for engine, colour in COLOURS.items():
            curve = undominated(rows, engine)
            exact = [row for row in rows if row["engine"] == engine and row["exact"] and row["a call"] == "1"]
            lost, took = (
                [max(1 - row["recall"], _BEST_SHOWN) for row in curve],
                [row["µs CPU"] for row in curve],
            )
            panel.plot(lost, took, ".-", color=colour, label=engine if curve else None)
            lost, took = (
                [max(1 - row["recall"], _BEST_SHOWN) for row in exact],
                [row["µs CPU"] for row in exact],
            )
            panel.plot(lost, took, "*", color=colour, markersize=12)
        panel.set(
            title=name, xscale="log", yscale="log", xlabel="recall@10", ylabel="µs CPU a query, one core"
        )
        ticks = [0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.001, _BEST_SHOWN]
        panel.set_xticks(ticks, ["≥ .9999" if tick == _BEST_SHOWN else f"{1 - tick:g}" for tick in ticks])
        panel.set_xlim(0.3, _BEST_SHOWN / 1.5)
        panel.minorticks_off()
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.yaxis.set_major_formatter("{x:,.0f}")
        panel.grid(alpha=0.3)
        panel.legend()
    figure.savefig(path, dpi=120)
