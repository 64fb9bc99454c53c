"""Who may ask what: a request's key is looked up before its body is read, and routes say which role they need."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Final

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from gossamer.kernels.errors import ForbiddenError
from gossamer.serving.errors import kind_named
from gossamer.serving.keys import ROLES, Key, Keys, Role
from gossamer.serving.middleware import error_response

_PUBLIC: Final = ("/", "/healthz", "/readyz", "/openapi.json")
_PUBLIC_BELOW: Final = "/static/"
_ANYBODY: Final = Key(name="anybody", role="admin", sha256="0" * 64, created=datetime.fromtimestamp(0, UTC))
"""Whoever asks a service without keys; as no secret is ever compared with it, its hash is nobody's."""


class Authenticated:
    """Notes whose key a request has, before its body is read, and refuses those without one.

    Without keys anybody may do anything, but no page of another site may: a browser says which site a request comes
    from, and lets a page send some of them unasked. With keys no page can send one that it does not know.
    """

    def __init__(self, app: ASGIApp, *, keys: Keys | None, origins: tuple[str, ...] = ()) -> None:
        self._app = app
        self._keys, self._origins = keys, origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer those who may ask."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        headers = Headers(scope=scope)
        state = scope.setdefault("state", {})
        state["key"] = None
        if self._keys is None:
            if scope["method"] not in ("GET", "HEAD") and self._is_foreign(headers):
                message = (
                    "a page of another site sent this: set keys, or add the page's origin to cors_origins"
                )
                return await error_response(kind_named("forbidden"), message)(scope, receive, send)
            state["key"] = _ANYBODY
            return await self._app(scope, receive, send)
        scheme, _, secret = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            state["key"] = self._keys.find(secret.strip())
        if state["key"] is None and (scheme or not _is_public(scope)):
            message = (
                "this key is not known: it may have been revoked"
                if scheme
                else "no key was given: send one as `Authorization: Bearer gsm_…`"
            )
            return await error_response(kind_named("unauthenticated"), message)(scope, receive, send)
        return await self._app(scope, receive, send)

    def _is_foreign(self, headers: Headers) -> bool:
        origin = headers.get("origin")
        is_own = origin is None or origin.partition("://")[2] == headers.get(
            "host"
        )  # if a browser says no more
        site = headers.get("sec-fetch-site", "same-origin" if is_own else "cross-site")
        return site in ("cross-site", "same-site") and origin not in self._origins


def requires(role: Role) -> Any:
    """What a route depends on that only keys of this role may use."""

    async def check(
        request: Request, _: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)]
    ) -> None:
        key: Key = request.state.key  # by `Authenticated`, which lets nobody through without one
        if not key.may(role):
            raise ForbiddenError(
                f"the key {key.name!r} has the role {key.role!r}, and this needs {role!r}: ask for such a key"
            )

    return Depends(check)


_BEARER: Final = HTTPBearer(
    auto_error=False,
    scheme_name="key",
    description="An API key; none is needed where the service has no keys.",
)
READ, WRITE, ADMIN = ([requires(role)] for role in ROLES)


def _is_public(scope: Scope) -> bool:
    path: str = scope["path"].removeprefix(scope.get("root_path", ""))
    return path in _PUBLIC or path.startswith(_PUBLIC_BELOW)
