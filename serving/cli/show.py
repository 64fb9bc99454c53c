"""What the commands share on the screen: options, progress, tables."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

console = Console(stderr=True, markup=False)
out = Console(width=None if sys.stdout.isatty() else 120)  # a file is as wide as its tables

Preset = Annotated[str | None, typer.Option("--preset", "-p", help="A preset by name, or a TOML file.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="key=value over the preset; may be repeated.")
]
Address = Annotated[
    str | None,
    typer.Option(envvar="RAY_ADDRESS", help="Ray cluster; without one, a local session is started."),
]
Workers = Annotated[int, typer.Option(min=1, help="Ray workers, which share each batch.")]
Local = Annotated[bool, typer.Option("--local", help="Run in this process, without Ray.")]
Replace = Annotated[bool, typer.Option("--replace", help="Replace what is there.")]

OnStep = Callable[[int, int], None]


@contextmanager
def progress(title: str) -> Iterator[Callable[..., None]]:
    """A bar; call what it yields with (done, total), and with `note=` for a text behind it."""
    columns = (
        TextColumn("{task.description:<28}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("eta"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as bars:
        task = bars.add_task(title, total=None, note="")

        def update(done: int, total: int, note: str = "") -> None:
            bars.update(task, completed=done, total=total, note=note)

        yield update


def follow_metrics(update: Callable[..., None], total: int) -> Callable[[dict[str, float]], None]:
    """A metrics callback that moves a bar and shows the newest values behind it."""

    def show(line: dict[str, float]) -> None:
        values = "  ".join(f"{name} {value:.4g}" for name, value in line.items() if name != "step")
        update(int(line["step"]), total, note=values)

    return show


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table to standard output; numbers to the right."""
    # Text, not markup: what stands in brackets in a document is shown, not obeyed.
    grid = Table(title=Text(title), title_justify="left", title_style="bold")
    body = [[_cell(value) for value in row] for row in rows]
    for number, column in enumerate(columns):
        numeric = all(_is_number(row[number]) for row in body)
        grid.add_column(column, justify="right" if numeric and number else "left")
    for row in body:
        grid.add_row(*(Text(value) for value in row))
    out.print(grid)


def _cell(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) < 1 else f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _is_number(text: str) -> bool:
    return text == "–" or text[:1].isdigit() or text[:1] in "+-.<"


def bytes_(n_bytes: float) -> str:
    """A size for people."""
    for unit in ("B", "KB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} TB"
