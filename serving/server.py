"""Running the service: `serve` as a process of its own, `RunningService` beside other code."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from types import FrameType, TracebackType
from typing import Self

import uvicorn

from gossamer.kernels.errors import ConfigError, NotReadyError
from gossamer.serving.app import create_app
from gossamer.serving.collections import Collections
from gossamer.serving.engine import Engine
from gossamer.serving.loading import Loading
from gossamer.serving.logs import configure
from gossamer.serving.settings import ServeSettings, refuse_open


def serve(settings: ServeSettings, *, on_start: Callable[[str], None] | None = None) -> None:
    """Serve until a signal says stop; requests in flight are finished first.

    Args:
        settings: What to serve, and where.
        on_start: Called with the URL once the port is taken; loading goes on meanwhile.

    Raises:
        ConfigError: The address cannot be listened on.
        GossamerError: A folder could not be opened, or two do not belong together; the service has stopped.
    """
    refuse_open(settings.host, settings.keys)
    configure(settings.log)

    def stop() -> None:
        server.should_exit = True

    app = create_app(settings, on_failure=stop)
    server = _server(app, settings)
    listener = _listen(settings.host, settings.port)
    if on_start is not None:
        on_start(_url(listener, server))
    server.run(sockets=[listener])
    if app.state.loading.error is not None:
        raise app.state.loading.error


class RunningService:
    """A service in a thread of this process, at a free port: for tests, notebooks and the demo.

    Use it as a context manager; leaving it finishes the requests in flight and closes the port.

    Args:
        source: As for `create_app`.
        host: Address to listen on.
        port: TCP port; 0 takes a free one.

    Attributes:
        app: The application, to look at its state.
        url: Where it listens, once entered.
    """

    def __init__(
        self, source: Engine | Collections | ServeSettings, *, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        self.app = create_app(source, host=host)
        self.url = ""
        self._address = host, port
        settings = source if isinstance(source, ServeSettings) else None
        refuse_open(host, None if settings is None else settings.keys)
        self._server = _server(self.app, settings)
        self._thread: Thread | None = None

    def __enter__(self) -> Self:
        listener = _listen(*self._address)
        self.url = _url(listener, self._server)
        self._thread = Thread(
            target=self._server.run, kwargs={"sockets": [listener]}, name="gossamer-service", daemon=True
        )
        self._thread.start()
        return self  # the port is open already: what arrives before the server runs waits in the backlog

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self.wait()

    def wait(self, timeout_s: float | None = None) -> None:
        """Block until the service has stopped, or for so long.

        Raises:
            NotReadyError: The service was never started.
        """
        if self._thread is None:
            raise NotReadyError("the service has not been started: use it in a `with` statement")
        self._thread.join(timeout_s)


class _Server(uvicorn.Server):
    """Says that it is not ready any more as soon as it is told to stop."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        loading: Loading = self.config.app.state.loading  # type: ignore[union-attr] # which `create_app` made
        loading.is_stopping = True
        super().handle_exit(sig, frame)


def _server(app: object, settings: ServeSettings | None) -> uvicorn.Server:
    shutdown_timeout_s = 10.0 if settings is None else settings.shutdown_timeout_s
    config = uvicorn.Config(
        app,  # type: ignore[arg-type] # FastAPI is an ASGI application, in other words than uvicorn's
        log_level="warning",
        access_log=False,
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=max(1, round(shutdown_timeout_s)),
    )
    if settings is not None and settings.tls_certificate is not None:
        config.ssl_certfile, config.ssl_keyfile = settings.tls_certificate, settings.tls_key
        try:
            _refuse_password(settings.tls_key)
            config.load()
        except OSError as error:  # as ssl.SSLError is
            raise ConfigError(
                f"{settings.tls_certificate} and {settings.tls_key} are no certificate with its key ({error}): "
                "give the two PEM files"
            ) from error
    return _Server(config)


def _refuse_password(key: Path | None) -> None:
    """Raises: ConfigError: OpenSSL would ask for a password on the terminal, and wait."""
    if key is not None and b"ENCRYPTED" in key.read_bytes():
        raise ConfigError(
            f"{key} has a password, which nobody is there to type: write the key without one (`openssl pkey -in KEY "
            "-out PLAIN`) into a file that the service alone can read"
        )


def free_port(host: str) -> int:
    """A TCP port that nothing listens on just now."""
    with socket.create_server((host, 0), family=_family(host)) as server:
        return int(server.getsockname()[1])


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _listen(host: str, port: int) -> socket.socket:
    try:
        listener = socket.create_server((host, port), family=_family(host), backlog=2048)
    except OSError as error:
        raise ConfigError(
            f"{host}:{port} cannot be listened on ({error.strerror or error}): choose another host or port, or 0 for "
            "a free port"
        ) from error
    # Accepted connections inherit this. asyncio sets it only on sockets that name their protocol; without it, an
    # answer's body waits some 40 ms for the client to acknowledge its headers.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _url(listener: socket.socket, server: uvicorn.Server) -> str:
    host, port = listener.getsockname()[:2]
    scheme = "https" if server.config.is_ssl else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
