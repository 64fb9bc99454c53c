"""`gossamer serve` and `gossamer demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gossamer.serving.cli.show import Overrides, Preset, console


def serve(
    preset: Preset = None,
    overrides: Overrides = None,
    index: Annotated[Path | None, typer.Option(help="Index that answers searches.")] = None,
    encoder: Annotated[Path | None, typer.Option(help="Encoder that the index was built with.")] = None,
    recommender: Annotated[Path | None, typer.Option(help="Recommender folder.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="TCP port; 0 takes a free one.")] = None,
    keys: Annotated[Path | None, typer.Option(help="File of API keys; see `gossamer keys add`.")] = None,
) -> None:
    """Answer searches and recommendations over HTTP; the page is at /."""
    from gossamer.index.presets import load_preset
    from gossamer.serving.server import serve as run
    from gossamer.serving.settings import ServeSettings

    given = {
        "index": index,
        "encoder": encoder,
        "recommender": recommender,
        "host": host,
        "port": port,
        "keys": keys,
    }
    told = [f"{key}={_toml(value)}" for key, value in given.items() if value is not None]
    settings = load_preset(preset, ServeSettings, section="serve", overrides=[*(overrides or []), *told])
    if "log" not in settings.model_fields_set:
        settings = settings.model_copy(update={"log": "text"})
    run(settings, on_start=lambda url: console.print(f"listening on {url}"))


def demo(
    folder: Annotated[
        Path, typer.Option("--out", help="Where everything is kept; a second run goes on there.")
    ] = Path("demo-output"),
    port: Annotated[int, typer.Option(help="TCP port of the service; 0 takes a free one.")] = 8080,
    serve_after: Annotated[
        bool, typer.Option("--serve/--no-serve", help="Leave the service running at the end.")
    ] = True,
) -> None:
    """Train both models on data that is on this machine, serve them, and print what was measured."""
    from gossamer.serving.demo import run_demo

    run_demo(folder, port=port, serve_after=serve_after)


def _toml(value: object) -> str:
    return (
        str(value)
        if isinstance(value, int)
        else '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'
    )
