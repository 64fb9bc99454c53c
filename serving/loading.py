"""`Loading`: collections on their way up, and what to say until it is there."""

from __future__ import annotations

import logging
from collections.abc import Callable
from threading import Thread

from gossamer.kernels.errors import GossamerError, NotReadyError
from gossamer.serving.collections import DEFAULT, Collections
from gossamer.serving.engine import Engine
from gossamer.serving.settings import ServeSettings

logger = logging.getLogger(__name__)


class Loading:
    """Collections that are opened in the background, so that the service can say so meanwhile.

    Args:
        source: Ready collections, a ready engine, or the settings to open them with.
        on_failure: Called, in the loading thread, when they could not be opened.
    """

    def __init__(
        self,
        source: Engine | Collections | ServeSettings,
        *,
        on_failure: Callable[[], None] | None = None,
    ) -> None:
        self._source = source
        self._collections = _ready(source)
        self._on_failure = on_failure
        self.error: Exception | None = None
        self.is_stopping = False

    def start(self) -> None:
        """Open them in a thread that does not keep the process alive."""
        if self._collections is None:
            Thread(target=self._open, name="gossamer-loading", daemon=True).start()

    def close(self) -> None:
        """Let go of what was opened here; what was taken is answered and written first."""
        if self._collections is not None and isinstance(self._source, ServeSettings):
            self._collections.close()

    @property
    def is_over(self) -> bool:
        """Whether they are ready, or never will be."""
        return self._collections is not None or self.error is not None

    @property
    def collections(self) -> Collections:
        """The collections.

        Raises:
            NotReadyError: They are still loading, or could not be opened.
        """
        if self._collections is not None:
            return self._collections
        if self.error is None:
            raise NotReadyError("the service is still loading: try again in a moment")
        reason = str(self.error) if isinstance(self.error, GossamerError) else "its log says why"
        raise NotReadyError(f"the service could not load: {reason}")

    def _open(self) -> None:
        assert isinstance(self._source, ServeSettings)  # start() has seen to it
        try:
            self._collections = Collections.open(self._source)
        except Exception as error:
            logger.exception("the service could not load")
            self.error = error
            if self._on_failure is not None:
                self._on_failure()


def _ready(source: Engine | Collections | ServeSettings) -> Collections | None:
    if isinstance(source, Engine):
        return Collections({DEFAULT: source})
    return source if isinstance(source, Collections) else None
