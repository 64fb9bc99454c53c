"""`Loading`: an engine on its way up, and what to say until it is there."""

from __future__ import annotations

import logging
from collections.abc import Callable
from threading import Thread

from gossamer.kernels.errors import GossamerError, NotReadyError
from gossamer.serving.engine import Engine
from gossamer.serving.settings import ServeSettings

logger = logging.getLogger(__name__)


class Loading:
    """An engine that is opened in the background, so that the service can say so meanwhile.

    Args:
        source: A ready engine, or the settings to open one with.
        on_failure: Called, in the loading thread, when the engine could not be opened.
    """

    def __init__(
        self, source: Engine | ServeSettings, *, on_failure: Callable[[], None] | None = None
    ) -> None:
        self._source = source
        self._engine = source if isinstance(source, Engine) else None
        self._on_failure = on_failure
        self.error: Exception | None = None

    def start(self) -> None:
        """Open the engine in a thread that does not keep the process alive."""
        if self._engine is None:
            Thread(target=self._open, name="gossamer-loading", daemon=True).start()

    @property
    def is_over(self) -> bool:
        """Whether the engine is ready, or never will be."""
        return self._engine is not None or self.error is not None

    @property
    def engine(self) -> Engine:
        """The engine.

        Raises:
            NotReadyError: It is still loading, or could not be opened.
        """
        if self._engine is not None:
            return self._engine
        if self.error is None:
            raise NotReadyError("the service is still loading: try again in a moment")
        reason = str(self.error) if isinstance(self.error, GossamerError) else "its log says why"
        raise NotReadyError(f"the service could not load: {reason}")

    def _open(self) -> None:
        assert isinstance(self._source, ServeSettings)  # start() has seen to it
        try:
            self._engine = Engine.open(self._source)
        except Exception as error:
            logger.exception("the service could not load")
            self.error = error
            if self._on_failure is not None:
                self._on_failure()
