"""`gossamer serve`, `gossamer deploy` and `gossamer demo`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gossamer.kernels.errors import ConfigError
from gossamer.serving.cli.show import Address, Overrides, Preset, console

if TYPE_CHECKING:
    from gossamer.serving.settings import ServeSettings

Index = Annotated[Path | None, typer.Option(help="Index that answers searches.")]
Encoder = Annotated[Path | None, typer.Option(help="Encoder that the index was built with.")]
Recommender = Annotated[Path | None, typer.Option(help="Recommender folder.")]
Host = Annotated[str | None, typer.Option(help="Address to listen on.")]
Port = Annotated[int | None, typer.Option(help="TCP port; 0 takes a free one.")]


ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config", help="A service's TOML file, with all settings; paths in it are relative to it."
    ),
]


def serve(
    config: ConfigFile = None,
    preset: Preset = None,
    overrides: Overrides = None,
    index: Index = None,
    encoder: Encoder = None,
    recommender: Recommender = None,
    host: Host = None,
    port: Port = None,
) -> None:
    """Answer searches and recommendations over HTTP; the page is at /."""
    from gossamer.serving.server import serve as run

    settings = _settings(
        config,
        preset,
        overrides,
        index=index,
        encoder=encoder,
        recommender=recommender,
        host=host,
        port=port,
    )
    run(settings, on_start=lambda url: console.print(f"listening on {url}"))


def deploy(
    config: ConfigFile = None,
    preset: Preset = None,
    overrides: Overrides = None,
    index: Index = None,
    encoder: Encoder = None,
    recommender: Recommender = None,
    host: Host = None,
    port: Port = None,
    scale: Annotated[
        list[str] | None,
        typer.Option(
            "--scale", help="key=value over the preset's [deploy], such as routers=4; may be repeated."
        ),
    ] = None,
    address: Address = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Leave the service running on the cluster.")
    ] = False,
    down: Annotated[bool, typer.Option("--down", help="End the service that runs on the cluster.")] = False,
) -> None:
    """Serve as `gossamer serve` does, by Ray Serve on the processes and machines of a Ray cluster."""
    from gossamer.index.jobs import ray_session
    from gossamer.index.presets import load_preset
    from gossamer.serving import deploy as deployment

    if (detach or down) and address is None and not deployment.is_connected():
        raise ConfigError(
            "what is detached runs on a cluster, and ends there: give its --address, or RAY_ADDRESS."
        )
    if down:
        with ray_session(address):
            console.print("ended" if deployment.down() else "nothing was running")
        return
    settings = _settings(
        config, preset, overrides, index=index, encoder=encoder, recommender=recommender, host=host, port=port
    )
    scaled = load_preset(preset, deployment.DeployConfig, section="deploy", overrides=scale or [])
    with ray_session(address):
        console.print(f"listening on {deployment.deploy(settings, scaled)}")
        if not detach:
            deployment.wait_for_signal()
            deployment.down()


def _settings(
    config: Path | None, preset: str | None, overrides: list[str] | None, **given: object
) -> ServeSettings:
    """The preset's [serve], with what was given over it."""
    from gossamer.index.presets import load_preset
    from gossamer.serving.settings import ServeSettings

    told = [f"{key}={_toml(value)}" for key, value in given.items() if value is not None]
    told = [*(overrides or []), *told]
    if config is None:
        return load_preset(preset, ServeSettings, section="serve", overrides=told)
    if preset is None:
        return ServeSettings.read(config, overrides=told)
    raise ConfigError("--config and --preset are two ways to say the same: give one of them.")


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
