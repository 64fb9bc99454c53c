"""`Collections`: engines by name. A collection is a folder that says in one small file what it answers from.

    COLLECTIONS/
      films/collection.toml
      notes/collection.toml, words/        made over HTTP: its indexes lie beside the file

Names are letters, digits, - and _; the one part of a path that a request ever says is such a name.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Final

from pydantic import TypeAdapter, ValidationError

from gossamer.kernels.errors import ConfigError, ExistsError, NotFoundError
from gossamer.serving.collection_config import CONFIG, CollectionConfig, RetrieverConfig
from gossamer.serving.engine import Engine, installed_version
from gossamer.serving.messages import Name
from gossamer.serving.opening import config_of, open_parts
from gossamer.serving.records import CollectionInfo, CreateRequest
from gossamer.serving.schemas import HealthResponse
from gossamer.serving.settings import Limits, ServeSettings

logger = logging.getLogger(__name__)

DEFAULT: Final = "default"
"""The collection of the settings' own folders, and the one that clients mean where they name none."""
_NAME: Final = TypeAdapter(Name)


class Collections:
    """Engines by name; safe to use from several threads.

    Args:
        engines: by name.
        settings: where collections lie, and what new ones may use; None where none are made.
        refresh_s: how often it is looked for what other processes have changed; None: as the settings say, if at all.

    Attributes:
        limits: What one request may ask for.
    """

    def __init__(
        self,
        engines: Mapping[str, Engine],
        *,
        settings: ServeSettings | None = None,
        refresh_s: float | None = None,
    ) -> None:
        self._engines = dict(engines)
        self._settings = settings
        self.limits = settings.limits if settings is not None else _limits(engines)
        self._changing = Lock()
        self._stopped = Event()
        if refresh_s is None and settings is not None:
            refresh_s = settings.refresh_s
        if refresh_s is not None:
            Thread(target=self._refresh, args=(refresh_s,), name="gossamer-refresh", daemon=True).start()

    @classmethod
    def open(cls, settings: ServeSettings) -> Collections:
        """Open every collection that the settings name.

        Raises:
            StorageError: A folder is not there, is damaged, or is newer than this version.
            MismatchError: An index was built with another encoder.
            ConfigError: A collection's file is wrong.
        """
        engines = {
            name: Engine(*open_parts(config, settings), limits=settings.limits)
            for name, config in configs_of(settings).items()
        }
        return cls(engines, settings=settings)

    def __getitem__(self, name: str) -> Engine:
        """The engine of a collection.

        Raises:
            NotFoundError: there is none of this name.
        """
        engine = self._engines.get(name)
        if engine is None:
            raise NotFoundError(f"there is no collection {name[:64]!r}; GET /collections lists them")
        return engine

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._engines))

    @property
    def n_waiting(self) -> tuple[int, int]:
        """Queries that wait for their turn, and documents that wait to be written, in all collections."""
        waiting = [engine.n_waiting for engine in list(self._engines.values())]
        return sum(queries for queries, _ in waiting), sum(documents for _, documents in waiting)

    def info(self, name: str) -> CollectionInfo:
        """What a collection answers from."""
        health = self[name].health()
        return CollectionInfo(name=name, search=health.search, recommend=health.recommend)

    def health(self) -> HealthResponse:
        """What is served by the collection `default`, where there is one."""
        if DEFAULT in self._engines:
            return self._engines[DEFAULT].health()
        return HealthResponse(status="ready", version=installed_version())

    def create(self, request: CreateRequest) -> CollectionInfo:
        """Make a collection without documents.

        Raises:
            ConfigError: this service has no folder for collections, or there is no such encoder.
            ExistsError: there is one of this name.
        """
        settings = self._settings
        if settings is None or settings.collections is None:
            raise ConfigError("this service makes no collections: set `collections` to a folder")
        encoders = {}
        for name, encoder in request.retrievers.items():
            if encoder not in settings.encoders:
                raise ConfigError(
                    f"retrievers.{name}: there is no encoder {encoder!r}; there are {sorted(settings.encoders)}"
                )
            encoders[name] = settings.encoders[encoder].absolute()
        with self._changing:
            if request.name in self._engines:
                raise ExistsError(
                    f"there is a collection {request.name!r} already; delete it, or choose another name"
                )
            folder = settings.collections / request.name
            config = CollectionConfig(
                retrievers={
                    name: RetrieverConfig(index=Path(name), encoder=encoder)
                    for name, encoder in encoders.items()
                },
                passages=request.passages,
            )
            config.make(folder)
            try:
                parts = open_parts(CollectionConfig.read(folder), settings)
            except BaseException:
                (
                    folder / CONFIG
                ).unlink()  # so that it can be made again, and the next start does not find it
                raise
            self._engines[request.name] = Engine(*parts, limits=settings.limits)
        return self.info(request.name)

    def drop(self, name: str) -> None:
        """Delete a collection that was made here, with its documents.

        Raises:
            NotFoundError: there is none of this name.
            ConfigError: it is that of the settings' own folders, or some of it lies elsewhere.
        """
        self[name]
        settings = self._settings
        if settings is None or settings.collections is None or _is_own(name, settings):
            raise ConfigError(f"{name!r} was not made here: take it out of the settings instead")
        folder = settings.collections / name
        with self._changing:
            engine = self[name]  # another may have dropped it meanwhile
            CollectionConfig.read(folder).refuse_outside(folder)
            del self._engines[name]
            engine.close()
            # the file first, so that what is left of a drop that was cut off is no collection
            (folder / CONFIG).unlink()
            shutil.rmtree(folder)

    def reload(self, name: str) -> CollectionInfo:
        """Read a collection's file anew, open what it names, and answer from that, while queries run.

        Raises:
            GossamerError: as `open`; then all stays as it is.
        """
        self[name]
        settings = self._settings
        if settings is None:
            raise ConfigError("this service was given an engine, not settings: there is nothing to read anew")
        with self._changing:
            engine = self[name]  # it may have been dropped meanwhile
            if settings.collections is None or _is_own(name, settings):
                config = config_of(settings)
            else:
                config = CollectionConfig.read(settings.collections / name)
            engine.replace(*open_parts(config, settings))
        return self.info(name)

    def close(self) -> None:
        """Answer and write what was taken, and end."""
        self._stopped.set()
        for engine in self._engines.values():
            engine.close()

    def _refresh(self, every_s: float) -> None:
        while not self._stopped.wait(every_s):
            for name, engine in list(self._engines.items()):
                try:
                    engine.refresh()
                except Exception as error:  # what was there still answers
                    logger.warning("collection %s could not be refreshed: %s", name, error)


def configs_of(settings: ServeSettings) -> dict[str, CollectionConfig]:
    """What each collection that the settings name answers from.

    Raises:
        ConfigError: A collection's file is wrong.
    """
    configs: dict[str, CollectionConfig] = {}
    if _is_own(DEFAULT, settings):
        configs[DEFAULT] = config_of(settings)
    for folder in _folders(settings.collections):
        if folder.name in configs:
            raise ConfigError(f"{folder}: {DEFAULT!r} are the settings' own folders; choose another name.")
        configs[folder.name] = CollectionConfig.read(folder)
    return configs


def _is_own(name: str, settings: ServeSettings) -> bool:
    """Whether a collection is that of the settings' own folders."""
    return name == DEFAULT and (settings.index is not None or settings.recommender is not None)


def _limits(engines: Mapping[str, Engine]) -> Limits:
    return next((engine.limits for engine in engines.values()), Limits())


def _folders(root: Path | None) -> list[Path]:
    if root is None:
        return []
    root.mkdir(parents=True, exist_ok=True)
    folders = sorted(path.parent for path in root.glob(f"*/{CONFIG}"))
    for folder in folders:
        try:
            _NAME.validate_python(folder.name)
        except ValidationError:
            raise ConfigError(
                f"{folder}: collections are called by lower-case letters, digits, - and _; rename the folder."
            ) from None
    return folders
