"""`gossamer keys`: who may use a service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gossamer.serving.cli.show import console, out, table

app = typer.Typer(help="Make, list and revoke the keys of a service.", no_args_is_help=True)

File = Annotated[Path, typer.Argument(help="The file of keys that the service's settings name.")]


@app.command()
def add(
    file: File,
    name: Annotated[str, typer.Argument(help="Whose it is.")],
    role: Annotated[str, typer.Option(help="read, write or admin.")] = "read",
) -> None:
    """Make a key, and print it: this once, as the file holds its digest only."""
    from gossamer.kernels.errors import ConfigError
    from gossamer.serving.access import ROLES, add_key

    known = next((one for one in ROLES if one == role), None)
    if known is None:
        raise ConfigError(f"there is no role {role!r}; there are {', '.join(ROLES)}.")
    key = add_key(file, name, known)
    console.print(f"the key of {name}, who may {role}; it is not shown again:")
    out.print(key, highlight=False, markup=False)


@app.command("list")
def list_keys(file: File) -> None:
    """Names, roles and dates."""
    from gossamer.serving.access import read_keys

    table(str(file), ("name", "role", "made"), [(key.name, key.role, key.created) for key in read_keys(file)])


@app.command()
def revoke(file: File, name: Annotated[str, typer.Argument(help="Whose key.")]) -> None:
    """Take a key out; services stop to know it within seconds."""
    from gossamer.serving.access import revoke_key

    revoke_key(file, name)
    console.print(f"{name} is no longer let in")
