"""Who is asking, decided before a byte of the body is read."""

from collections.abc import Callable, Mapping

from anyio import to_thread
from sqlalchemy import Engine
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from app.errors import Unauthorized
from app.keys import service

SESSION_COOKIE = "rankfold_session"


def authenticate(engine: Engine, headers: Mapping[str, str], cookies: Mapping[str, str]) -> str:
    """The id of the key that a request carries: a bearer token, or the dashboard's cookie, which holds it.

    Header names are lower case. Raises `Unauthorized`. A header that is there is what counts: a wrong one is
    not saved by a good cookie.
    """
    secret = cookies.get(SESSION_COOKIE, "")
    if "authorization" in headers:
        scheme, _, secret = headers["authorization"].partition(" ")
        secret = secret.strip() if scheme.lower() == "bearer" else ""
    key_id = service.verify(engine, secret) if secret else None
    if key_id is None:
        raise Unauthorized(
            "unauthorized",
            "This needs a valid API key." if not secret else "This API key is unknown or was revoked.",
            hint="Send the header `Authorization: Bearer KEY`.",
            headers={"WWW-Authenticate": "Bearer"},
        )
    return key_id


class Authentication:
    """Lets only requests with a valid key through, or those whose path `public` approves.

    The key's id is then `request.state.key_id`. Raises `Unauthorized` for the others.
    """

    def __init__(self, app: ASGIApp, *, public: Callable[[str], bool]) -> None:
        self._app = app
        self._public = public

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or self._public(scope["path"]):
            await self._app(scope, receive, send)
            return
        request = HTTPConnection(scope)
        engine = scope["app"].state.engine
        request.state.key_id = await to_thread.run_sync(
            authenticate, engine, request.headers, request.cookies
        )
        await self._app(scope, receive, send)
