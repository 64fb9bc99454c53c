"""Running the service: `serve` as a process of its own, `RunningService` beside other code."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from threading import Thread
from types import TracebackType
from typing import Self

import uvicorn
from uvicorn.config import LOGGING_CONFIG

from gossamer.kernels.errors import ConfigError, NotReadyError
from gossamer.serving.app import create_app
from gossamer.serving.collections import Collections
from gossamer.serving.engine import Engine
from gossamer.serving.logs import show_logs
from gossamer.serving.settings import HttpSettings, ServeSettings


def serve(settings: ServeSettings, *, on_start: Callable[[str], None] | None = None) -> None:
    """Serve until a signal says stop; requests in flight are finished first.

    Args:
        settings: What to serve, and where.
        on_start: Called with the URL once the port is taken; loading goes on meanwhile.

    Raises:
        ConfigError: The address cannot be listened on, or others could reach it and there are no keys; or a file of
            keys or of TLS is bad.
        GossamerError: A folder could not be opened, or two do not belong together; the service has stopped.
    """
    if settings.log != "off":
        show_logs(settings.log)

    def stop() -> None:
        server.should_exit = True

    app = create_app(settings, on_failure=stop)
    server = _server(app, settings, shutdown_timeout_s=settings.shutdown_timeout_s)
    listener = _listen(settings.host, settings.port)
    if on_start is not None:
        on_start(_url(listener, settings))
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
        http: Who may ask, and how; by default the settings' own.

    Raises:
        ConfigError: As `serve`.

    Attributes:
        app: The application, to look at its state.
        url: Where it listens, once entered.
    """

    def __init__(
        self,
        source: Engine | Collections | ServeSettings,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        http: HttpSettings | None = None,
    ) -> None:
        self._http = http or (source if isinstance(source, ServeSettings) else HttpSettings())
        self.app = create_app(source, http=self._http, host=host)
        self.url = ""
        self._address = host, port
        self._server = _server(self.app, self._http, shutdown_timeout_s=10.0)
        self._thread: Thread | None = None

    def __enter__(self) -> Self:
        listener = _listen(*self._address)
        self.url = _url(listener, self._http)
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


def _server(app: object, http: HttpSettings, *, shutdown_timeout_s: float) -> uvicorn.Server:
    _check_tls(http)
    config = uvicorn.Config(
        app,  # type: ignore[arg-type] # FastAPI is an ASGI application, in other words than uvicorn's
        log_level="warning",
        access_log=False,
        log_config=LOGGING_CONFIG if http.log == "off" else None,
        server_header=False,
        ws="none",
        ssl_certfile=http.tls_certificate,
        ssl_keyfile=http.tls_key,
        timeout_graceful_shutdown=max(1, round(shutdown_timeout_s)),
    )
    return uvicorn.Server(config)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise ConfigError(
            f"{host}:{port} cannot be listened on ({error.strerror or error}): choose another host or port, or 0 for "
            "a free port"
        ) from error
    # Accepted connections inherit this. asyncio sets it only on sockets that name their protocol; without it, an
    # answer's body waits some 40 ms for the client to acknowledge its headers.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _check_tls(http: HttpSettings) -> None:
    if http.tls_certificate is None:
        return
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(
            http.tls_certificate, http.tls_key, password=""
        )  # else it would ask the terminal
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"tls_certificate {http.tls_certificate} and tls_key {http.tls_key} cannot be used ({error}): give "
            "PEM files of one pair, the key without a password"
        ) from error


def _url(listener: socket.socket, http: HttpSettings) -> str:
    host, port = listener.getsockname()[:2]
    scheme = "http" if http.tls_certificate is None else "https"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
