"""API keys in a file: JSON with each key's name, role and SHA-256. Roles are read < write < admin.

A key is 256 random bits, so nobody guesses it and no table has its hash: a plain hash keeps it as well as a slow one,
which is for passwords, would.
"""

from __future__ import annotations

import fcntl
import hmac
import logging
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Final, Literal, Self, get_args

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from gossamer.index.disk import replace_file
from gossamer.kernels.errors import ConfigError, ExistsError, NotFoundError
from gossamer.serving.errors import describe
from gossamer.serving.messages import Name

logger = logging.getLogger(__name__)

Role = Literal["read", "write", "admin"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)
"""Each may do what those before it may."""
_PREFIX: Final = "gsm_"  # by which scanners of published code know a key
_LOOK_EVERY_S: Final = 1.0


class Key(BaseModel):
    """A key, without the key itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    role: Role
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    created: AwareDatetime

    def may(self, role: Role) -> bool:
        """Whether it may do what needs this role."""
        return ROLES.index(self.role) >= ROLES.index(role)


class _KeyFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    keys: tuple[Key, ...] = ()

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [key.name for key in self.keys]
        if len(set(names)) < len(names):
            raise ValueError("two keys have one name")
        return self


def read_keys(path: Path) -> tuple[Key, ...]:
    """The keys of a file.

    Raises:
        ConfigError: it is not there, or is no file of keys.
    """
    remedy = f"make one with `gossamer keys add {path} NAME --role admin`"
    try:
        return _KeyFile.model_validate_json(path.read_bytes()).keys
    except OSError as error:
        raise ConfigError(f"{path}: the keys cannot be read ({error.strerror or error}); {remedy}") from error
    except ValidationError as error:
        faults = describe(error.errors(include_url=False, include_context=False, include_input=False))
        raise ConfigError(f"{path} is no file of keys ({faults}); mend it, or {remedy}") from None


def add_key(path: Path, name: str, role: Role) -> str:
    """Make a key, and the file if it is not there. The key is returned and kept nowhere.

    Raises:
        ExistsError: there is a key of this name.
        ConfigError: the name is none, or the file is no file of keys.
    """
    secret = _PREFIX + secrets.token_urlsafe(32)
    try:
        new = Key(
            name=name, role=role, sha256=_digest(secret), created=datetime.now(UTC).replace(microsecond=0)
        )
    except ValidationError as error:
        raise ConfigError(f"key {name[:64]!r}: {describe(error.errors(include_input=False))}") from None
    with _changing(path):
        keys = read_keys(path) if path.exists() else ()
        if any(key.name == name for key in keys):
            raise ExistsError(f"{path} has a key called {name!r} already: revoke it, or choose another name")
        _write(path, (*keys, new))
    return secret


def revoke_key(path: Path, name: str) -> None:
    """Take a key out of the file; running services refuse it a second later.

    Raises:
        NotFoundError: there is no key of this name.
        ConfigError: the file is no file of keys.
    """
    with _changing(path):
        keys = read_keys(path)
        rest = tuple(key for key in keys if key.name != name)
        if len(rest) == len(keys):
            raise NotFoundError(
                f"{path} has no key called {name[:64]!r}; it has {[key.name for key in keys]}"
            )
        _write(path, rest)


class Keys:
    """The keys of a file, which is read again when it changes; safe to use from several threads.

    Raises:
        ConfigError: the file is not there, or is no file of keys.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp = self._stamp_now()
        self._keys = read_keys(path)
        self._looked = time.monotonic()

    def find(self, secret: str) -> Key | None:
        """The key that this is; None if it is not known. All are looked at, so that time tells nothing."""
        self._look()
        digest = _digest(secret)
        found = None
        for key in self._keys:
            if hmac.compare_digest(key.sha256, digest):
                found = key
        return found

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._looked < _LOOK_EVERY_S:
            return
        self._looked = now
        stamp = self._stamp_now()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._keys = read_keys(self._path)
        except ConfigError as error:
            logger.error("the keys stay as they were: %s", error)  # noqa: TRY400 # the message says it all

    def _stamp_now(self) -> tuple[int, int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino


def _digest(secret: str) -> str:
    return sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def _write(path: Path, keys: tuple[Key, ...]) -> None:
    replace_file(path, _KeyFile(keys=keys).model_dump_json(indent=2).encode() + b"\n", mode=0o600)


@contextmanager
def _changing(path: Path) -> Iterator[None]:
    """One after another, so that no change brings back what another has revoked."""
    try:
        folder = os.open(path.absolute().parent, os.O_RDONLY)
    except OSError as error:
        raise ConfigError(
            f"{path.parent}: {error.strerror or error}; choose a folder that is there"
        ) from error
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)
