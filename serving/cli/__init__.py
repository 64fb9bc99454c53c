"""The command line: `gossamer lsr|recsys|index …`, `gossamer serve`, `gossamer demo`.

Commands only read options, call the same functions that a program would, and show what came back. Results go to
standard output, progress and errors to standard error; an error of ours is one line and exit status 1.
"""

from __future__ import annotations

import sys

import typer

from gossamer.kernels.errors import GossamerError
from gossamer.serving.cli import index, lsr, recsys, service
from gossamer.serving.cli.show import console

app = typer.Typer(
    name="gossamer",
    help="Search and recommendation from sparse vectors.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(lsr.app, name="lsr")
app.add_typer(recsys.app, name="recsys")
app.add_typer(index.app, name="index")
app.command()(service.serve)
app.command()(service.demo)


def main() -> None:
    """Run a command; an error of ours becomes one line."""
    try:
        app()
    except GossamerError as error:
        console.print(f"[bold red]error:[/] {type(error).__name__}: ", end="")
        console.print(str(error), markup=False, highlight=False)
        sys.exit(1)
