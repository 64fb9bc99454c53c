"""What a service is made of and what it allows: plain values, read from a file or a preset, frozen."""

from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal, Self, TypeAlias, TypedDict

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

from gossamer.kernels.errors import ConfigError, TooLargeError
from gossamer.serving.messages import Name


class Limits(BaseModel):
    """The largest request that is answered; anything over is refused as `too_large`.

    The engine holds all but `max_body_bytes`, so that a request meets the same limits in the process and over HTTP.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_body_bytes: PositiveInt = 1 << 20
    """Bytes in the body of one HTTP request."""
    max_k: PositiveInt = 1_000
    """Hits or items asked for at once."""
    max_depth: PositiveInt = 10_000
    """The last hit of a page: offset and k together, times the queries of a call."""
    max_batch: PositiveInt = 64
    """Queries in one call."""
    max_hits: PositiveInt = 2_000
    """Hits that one call may ask for: its queries, times k."""
    max_query_chars: PositiveInt = 4_096
    """Characters in one query."""
    max_history: PositiveInt = 1_000
    """Items in the history of one recommendation."""
    max_documents: PositiveInt = 1_000
    """Documents in one write; bulk writes are cut into such."""
    max_columns: PositiveInt = 256
    """Metadata columns of all documents of a collection; each is a part of every hit."""
    body_timeout_s: PositiveFloat = 30.0
    """How long a body may take to arrive; of a bulk write, each part of it."""
    max_in_flight: PositiveInt = 256
    """HTTP requests that are answered or wait at once; more are told to come back."""
    max_waiting: PositiveInt = 1_024
    """Queries, and documents to be written, that may wait for their turn in a collection."""

    def check(self, limit: str, value: int, what: str) -> None:
        """Refuse `value` where it is over the limit of that name.

        Raises:
            TooLargeError: It is; the message says what, how much, and how much is allowed.
        """
        allowed = getattr(self, limit)
        if value > allowed:
            raise TooLargeError(
                f"{what} is {value:,}, and this service allows {allowed:,}: ask for less, or raise limits.{limit}"
            )


Style: TypeAlias = Literal["text", "json", "off"]


class Batching(TypedDict):
    """How queries are batched; see `Pipeline`."""

    batch_wait_s: float | None
    max_batch: int
    max_waiting: int


def is_loopback(host: str) -> bool:
    """Whether a host, by name or address, is this machine itself."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def refuse_open(host: str, keys: Path | None) -> None:
    """Raises: ConfigError: others can reach an address, and there are no keys."""
    if keys is None and not is_loopback(host):
        raise ConfigError(
            f"host is {host}, which others can reach, and there are no keys: make one by `gossamer keys add keys.json "
            "NAME --role admin` and set `keys` to that file, or listen on 127.0.0.1"
        )


def known_hosts(host: str) -> tuple[str, ...]:
    """The names by which a service that listens at `host` is called: any ("*"), unless that is loopback."""
    return (host, "localhost", "127.0.0.1", "::1", "testserver") if is_loopback(host) else ("*",)


class ServeSettings(BaseModel):
    """Which folders a service opens, and where it listens."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    index: Path | None = None
    """Folder of the index that answers searches in the collection `default`; of any kind."""
    encoder: Path | None = None
    """Folder of the encoder that the index was built with; without one, queries are sent as vectors."""
    recommender: Path | None = None
    """Folder of the recommender that answers recommendations in the collection `default`."""
    clicks: Path | None = None
    """Folder of the interactions that come in for it; made if it is not there. Without one, none are taken."""
    collections: Path | None = None
    """Folder of further collections: each is a folder with a `collection.toml`; new ones are made there."""
    encoders: dict[Name, Path] = Field(default_factory=dict)
    """Folders of encoders that new collections may name."""
    keys: Path | None = None
    """File of the keys that may be used, made by `gossamer keys add`. Without one everything is allowed, and the
    service listens on loopback only."""
    host: str = "127.0.0.1"
    """Address to listen on; another than loopback takes `keys`."""
    port: int = Field(default=8080, ge=0, le=65_535)
    """TCP port; 0 takes a free one."""
    allowed_hosts: tuple[str, ...] | None = None
    """Names (without a port) that requests may call this service by; others are refused, so that no page of another
    site can reach it by a name that it has pointed here. "*" is any; None: those of loopback if `host` is one, else
    any."""
    cors_origins: tuple[str, ...] = ()
    """Origins, such as `https://app.example`, whose pages may ask from a browser; none by default."""
    tls_certificate: Path | None = None
    """PEM file of the certificate and those above it; then the service speaks HTTPS only."""
    tls_key: Path | None = None
    """PEM file of the certificate's private key."""
    log: Style = "text"
    """Lines on standard error, one a request: `text`, `json` or `off`."""
    slow_query_ms: PositiveFloat | None = None
    """Also log what took a search longer than so much, stage by stage."""
    log_queries: bool = False
    """Let that line say the query, too."""
    traces: bool = False
    """Make OpenTelemetry spans of requests and their stages; takes the extra `otel`, and its SDK set up."""
    batch_wait_ms: Annotated[float, Field(ge=0, le=1_000)] | None = 0.0
    """How long a batch of queries waits for more; at 0, what comes while one is worked on is the next. None: each query
    is answered alone, in a thread of its own."""
    n_threads: PositiveInt = 1
    """Threads of one search."""
    refresh_s: PositiveFloat = 1.0
    """How often it is looked for what other processes have changed in the indexes."""
    shutdown_timeout_s: PositiveFloat = 10.0
    """How long requests in flight may take to finish after a stop signal."""
    limits: Limits = Limits()

    @classmethod
    def read(cls, path: str | Path, *, overrides: Sequence[str] = ()) -> Self:
        """Read a service's file, such as `service.toml`; paths in it are relative to it.

        Args:
            path: the file, in TOML, with these settings at its top level.
            overrides: `key=value` over the file's; see `load_preset`.

        Raises:
            ConfigError: it cannot be read, or a key or a value is wrong; the message names the nearest right one.
        """
        from gossamer.index.presets import load_config  # not when a client is imported

        return load_config(path, cls, overrides=overrides)

    @model_validator(mode="after")
    def _has_something_to_serve(self) -> Self:
        if self.encoder is not None and self.index is None:
            raise ValueError("encoder is set and index is not: a search needs both folders")
        if self.index is None and self.recommender is None and self.collections is None:
            raise ValueError("nothing to serve: set index and encoder, or recommender, or collections")
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate, tls_key: give both or none")
        if "*" in self.cors_origins:
            raise ValueError("cors_origins: name the origins; * would let any page ask")
        return self

    @property
    def batching(self) -> Batching:
        """What a pipeline is told."""
        wait_s = None if self.batch_wait_ms is None else self.batch_wait_ms / 1e3
        return {
            "batch_wait_s": wait_s,
            "max_batch": self.limits.max_batch,
            "max_waiting": self.limits.max_waiting,
        }
