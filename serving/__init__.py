"""The query engine, its HTTP service, the clients and the command line.

Public names are imported on first use: a script that only wants `Client` never loads torch, Arrow or Ray.
"""

from importlib import import_module
from typing import Any

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
__all__ = [
    "AsyncClient",
    "Client",
    "Engine",
    "Limits",
    "RunningService",
    "SearchStage",
    "ServeSettings",
    "create_app",
    "serve",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
