"""Who may ask for what: API keys with roles, in a file that holds their digests only.

A key is 256 random bits, so a plain SHA-256 of it cannot be guessed backwards, and needs no salt or slow hash as a
password would. The file is read again when it changes, so that a key which was revoked stops to work.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import logging
import os
import secrets
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Annotated, Final, Literal, TypeAlias

from fastapi import Depends, Request
from fastapi.security import HTTPBearer
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from gossamer.index.disk import replace_file
from gossamer.kernels.errors import (
    ConfigError,
    ExistsError,
    ForbiddenError,
    NotFoundError,
    ServiceError,
    UnauthenticatedError,
)
from gossamer.serving.errors import describe, kind_of
from gossamer.serving.messages import Name
from gossamer.serving.middleware import error_response

logger = logging.getLogger(__name__)

Role: TypeAlias = Literal["read", "write", "admin"]
"""Each may do what those before it may: ask; change documents and interactions; make, delete and reload collections."""
ROLES: Final[tuple[Role, ...]] = ("read", "write", "admin")
_PREFIX: Final = "gsm_"  # so that a key which leaks is known for what it is
_LOOK_EVERY_S: Final = 1.0


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Key(_Frozen):
    """A key as the file knows it.

    Attributes:
        name: whose it is.
        role: what it may.
        sha256: its digest, in hexadecimal digits.
        created: when, as ISO 8601 in UTC.
    """

    name: Name
    role: Role
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    created: str


class _File(_Frozen):
    keys: tuple[Key, ...] = ()


def read_keys(path: Path) -> tuple[Key, ...]:
    """The keys of a file.

    Raises:
        ConfigError: it is not there, or is no such file.
    """
    try:
        return _File.model_validate_json(path.read_bytes()).keys
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read ({error.strerror}): make it by `gossamer keys add`."
        ) from error
    except ValidationError as error:
        raise ConfigError(f"{path} is no file of keys: {describe(error.errors())}.") from error


def add_key(path: Path, name: str, role: Role) -> str:
    """Make a key and write its digest to a file, which is made if it is not there, readable by its owner alone.

    Returns:
        The key. Nobody can tell it again.

    Raises:
        ConfigError: the file is another one, or the name is none.
        ExistsError: there is a key of this name.
    """
    key = _PREFIX + secrets.token_urlsafe(32)
    try:
        made = Key(name=name, role=role, sha256=_digest(key), created=datetime.now(UTC).isoformat())
    except ValidationError as error:
        raise ConfigError(f"{name!r}, {role!r}: {describe(error.errors())}.") from error
    with _changing(path):
        known = read_keys(path) if path.exists() else ()
        if any(key.name == name for key in known):
            raise ExistsError(f"there is a key called {name!r} in {path}; revoke it, or choose another name")
        _write(path, (*known, made))
    return key


def revoke_key(path: Path, name: str) -> None:
    """Take a key out of a file; services that use the file stop to know it within seconds.

    Raises:
        ConfigError: it is no file of keys.
        NotFoundError: there is no key of this name.
    """
    with _changing(path):
        known = read_keys(path)
        left = tuple(key for key in known if key.name != name)
        if len(left) == len(known):
            raise NotFoundError(
                f"there is no key called {name!r} in {path}; there are {[key.name for key in known]}"
            )
        _write(path, left)


class Keys:
    """The keys of a file, as they are now; safe to use from several threads.

    Raises:
        ConfigError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._looking = Lock()
        self._looked, self._state = time.monotonic(), _state(path)
        self._keys = read_keys(path)

    def find(self, given: str) -> Key | None:
        """The key that was given; None if there is none such. Takes as long whichever it is."""
        digest, found = _digest(given), None
        for key in self._current():
            if hmac.compare_digest(key.sha256, digest):
                found = key
        return found

    def _current(self) -> tuple[Key, ...]:
        with self._looking:
            if time.monotonic() - self._looked > _LOOK_EVERY_S:
                self._looked, state = time.monotonic(), _state(self._path)
                if state != self._state:
                    try:
                        self._keys, self._state = read_keys(self._path), state
                    except ConfigError as error:  # half edited, say: nobody is let in or out by that
                        logger.warning("the keys stay as they were: %s", error)
            return self._keys


class _Check(HTTPBearer):
    """Lets those in whose key may do something; as a class of FastAPI's it stands in the OpenAPI document."""

    def __init__(self, role: Role) -> None:
        super().__init__(auto_error=False, scheme_name="key", description="A key of `gossamer keys add`.")
        self._role = role

    async def __call__(self, request: Request) -> None:  # type: ignore[override] # what was given stays here
        keys: Keys | None = request.app.state.keys
        if keys is None:
            return
        key = _known(keys, _given(request.headers))
        request.state.key_name = key.name
        if ROLES.index(key.role) < ROLES.index(self._role):
            raise ForbiddenError(
                f"the key {key.name!r} may {key.role}, and this takes one that may {self._role}"
            )


READ: Final = [Depends(_Check("read"))]
WRITE: Final = [Depends(_Check("write"))]
ADMIN: Final = [Depends(_Check("admin"))]


class Strangers:
    """Refuses, before their bodies are read, requests that could change something and come from nobody who may ask.

    With keys that is who has none; a page of another site has none, as keys are not in cookies. Without keys it is such
    a page: browsers let pages send some requests to any address, this machine's own among them.
    """

    def __init__(self, app: ASGIApp, *, keys: Keys | None, origins: Collection[str] = ()) -> None:
        self._app, self._keys, self._origins = app, keys, origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer who may ask."""
        if scope["type"] == "http" and scope["method"] not in ("GET", "HEAD"):
            try:
                self._check(Headers(scope=scope))
            except ServiceError as error:
                return await error_response(kind_of(error), str(error))(scope, receive, send)
        return await self._app(scope, receive, send)

    def _check(self, headers: Headers) -> None:
        if self._keys is not None:
            _known(self._keys, _given(headers))
            return
        origin = headers.get("origin")
        is_own = origin is None or origin.partition("://")[2] == headers.get(
            "host"
        )  # if a browser says no more
        site = headers.get("sec-fetch-site", "same-origin" if is_own else "cross-site")
        if site in ("cross-site", "same-site") and origin not in self._origins:
            raise ForbiddenError(
                "a page of another site sent this: add its origin to cors_origins, or set keys for those who may ask"
            )


def may_read(request: Request) -> bool:
    """Whether somebody may be told what is served; no failure if not."""
    keys: Keys | None = request.app.state.keys
    if keys is None:
        return True
    given = _given(request.headers)
    return given is not None and keys.find(given) is not None


def _given(headers: Headers) -> str | None:
    scheme, _, given = headers.get("authorization", "").partition(" ")
    return given.strip() if scheme.lower() == "bearer" else None


def _known(keys: Keys, given: str | None) -> Key:
    if not given:
        raise UnauthenticatedError("this service asks for a key: send `Authorization: Bearer gsm_…`")
    key = keys.find(given)
    if key is None:
        raise UnauthenticatedError("this service does not know that key: it may have been revoked")
    return key


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()


def _state(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0, 0)
    return found.st_ino, found.st_size, found.st_mtime_ns


@contextmanager
def _changing(path: Path) -> Iterator[None]:
    """One after another, so that no change brings back what another has revoked."""
    try:
        folder = os.open(path.absolute().parent, os.O_RDONLY)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written ({error.strerror}): choose a folder that is there"
        ) from error
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _write(path: Path, keys: tuple[Key, ...]) -> None:
    body = json.dumps(_File(keys=keys).model_dump(), indent=1) + "\n"
    before = os.umask(0o077)
    try:
        replace_file(path, body.encode())
    finally:
        os.umask(before)
