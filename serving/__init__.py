"""The query engine, its HTTP service, the clients and the command line.

Public names are imported on first use: a script that only wants `Client` never loads torch, Arrow or Ray.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gossamer.serving.app import create_app as create_app
    from gossamer.serving.client import AsyncClient as AsyncClient
    from gossamer.serving.client import Client as Client
    from gossamer.serving.engine import Engine as Engine
    from gossamer.serving.server import RunningService as RunningService
    from gossamer.serving.server import serve as serve
    from gossamer.serving.settings import Limits as Limits
    from gossamer.serving.settings import ServeSettings as ServeSettings
    from gossamer.serving.stage import SearchStage as SearchStage

_HOME = {
    "AsyncClient": "client",
    "Client": "client",
    "Engine": "engine",
    "Limits": "settings",
    "RunningService": "server",
    "SearchStage": "stage",
    "ServeSettings": "settings",
    "create_app": "app",
    "serve": "server",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
