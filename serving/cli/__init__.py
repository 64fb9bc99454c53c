"""The command line: `gossamer lsr|recsys|index|vectors|keys …`, `gossamer evaluate|serve|deploy|demo`.

Commands only read options, call the same functions that a program would, and show what came back. Results go to
standard output, progress and errors to standard error; an error of ours is one line and exit status 1.
"""

from __future__ import annotations

import sys

import typer

from gossamer.kernels.errors import GossamerError
from gossamer.serving.cli.evaluate import evaluate
from gossamer.serving.cli.index import app as index
from gossamer.serving.cli.keys import app as keys
from gossamer.serving.cli.lsr import app as lsr
from gossamer.serving.cli.recsys import app as recsys
from gossamer.serving.cli.service import demo, deploy, serve
from gossamer.serving.cli.show import console
from gossamer.serving.cli.vectors import app as vectors

app = typer.Typer(
    name="gossamer",
    help="Search and recommendation from sparse vectors.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(lsr, name="lsr")
app.add_typer(recsys, name="recsys")
app.add_typer(index, name="index")
app.add_typer(vectors, name="vectors")
app.add_typer(keys, name="keys")
app.command()(evaluate)
app.command()(serve)
app.command()(deploy)
app.command()(demo)


def main() -> None:
    """Run a command; an error of ours becomes one line."""
    try:
        app()
    except GossamerError as error:
        console.print("error:", style="bold red", end=" ")
        console.print(f"{type(error).__name__}: {error}", highlight=False)
        sys.exit(1)
