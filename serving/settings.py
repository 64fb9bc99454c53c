"""What a service is made of and what it allows: plain values, read from a preset, frozen."""

from ipaddress import ip_address
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

from gossamer.kernels.errors import TooLargeError


class Limits(BaseModel):
    """The largest request that is answered; anything over is refused as `too_large`.

    The engine holds all but `max_body_bytes`, so that a request meets the same limits in the process and over HTTP.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_body_bytes: PositiveInt = 1 << 20
    """Bytes in the body of one HTTP request."""
    max_k: PositiveInt = 1_000
    """Hits or items asked for at once."""
    max_batch: PositiveInt = 64
    """Queries in one call."""
    max_hits: PositiveInt = 2_000
    """Hits that one call may ask for: its queries, times k."""
    max_query_chars: PositiveInt = 4_096
    """Characters in one query."""
    max_history: PositiveInt = 1_000
    """Items in the history of one recommendation."""

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


def is_loopback(host: str) -> bool:
    """Whether a host, by name or address, is this machine itself."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def known_hosts(host: str) -> tuple[str, ...]:
    """The names by which a service that listens at `host` is called: any ("*"), unless that is loopback."""
    return (host, "localhost", "127.0.0.1", "::1", "testserver") if is_loopback(host) else ("*",)


class ServeSettings(BaseModel):
    """Which folders a service opens, and where it listens."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    index: Path | None = None
    """Folder of the index that answers searches; needs `encoder`."""
    encoder: Path | None = None
    """Folder of the encoder that the index was built with."""
    recommender: Path | None = None
    """Folder of the recommender that answers recommendations."""
    host: str = "127.0.0.1"
    """Address to listen on; there is no access control yet, so leave it at loopback or put a proxy before it."""
    port: int = Field(default=8080, ge=0, le=65_535)
    """TCP port; 0 takes a free one."""
    allowed_hosts: tuple[str, ...] | None = None
    """Names (without a port) that requests may call this service by; others are refused, so that no page of another
    site can reach it by a name that it has pointed here. "*" is any; None: those of loopback if `host` is one, else
    any."""
    shutdown_timeout_s: PositiveFloat = 10.0
    """How long requests in flight may take to finish after a stop signal."""
    limits: Limits = Limits()

    @model_validator(mode="after")
    def _has_something_to_serve(self) -> Self:
        if (self.index is None) != (self.encoder is None):
            given, missing = ("index", "encoder") if self.encoder is None else ("encoder", "index")
            raise ValueError(f"{given} is set and {missing} is not: a search needs both folders")
        if self.index is None and self.recommender is None:
            raise ValueError("nothing to serve: set index and encoder, or recommender, or all three")
        return self
