"""`gossamer keys add|list|revoke`: the API keys of a service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gossamer.serving.cli.show import console, out
from gossamer.serving.keys import Role, add_key, read_keys, revoke_key

app = typer.Typer(help="API keys of a service: add, list, revoke.", no_args_is_help=True)

File = Annotated[Path, typer.Argument(help="File of the keys, which `serve --keys` names.")]
Name = Annotated[
    str, typer.Argument(help="What the key is called, in logs too: lower-case letters, digits, - and _.")
]


@app.command()
def add(
    file: File,
    name: Name,
    role: Annotated[
        Role, typer.Option(help="What it may do; each role may what those before it may.")
    ] = "read",
) -> None:
    """Make a key and print it, this once: the file has only its hash."""
    secret = add_key(file, name, role)
    out.print(secret, markup=False, highlight=False)
    console.print(f"{name} may {role}. Keep the key: it is not shown again.", markup=False)


@app.command("list")
def list_keys(file: File) -> None:
    """Show the keys' names, roles and days."""
    for key in read_keys(file):
        out.print(f"{key.name}\t{key.role}\t{key.created:%Y-%m-%d}", markup=False, highlight=False)


@app.command()
def revoke(file: File, name: Name) -> None:
    """Take a key out; running services refuse it a second later."""
    revoke_key(file, name)
    console.print(f"{name} is revoked", markup=False)
