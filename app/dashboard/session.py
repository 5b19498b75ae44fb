"""Who is looking: an API key in a cookie that scripts cannot read and other sites cannot have sent."""

from collections.abc import Callable, Coroutine
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import Depends, Request
from fastapi.routing import APIRoute
from starlette.responses import RedirectResponse, Response

from app.dashboard.pages import render
from app.dashboard.views import Viewer
from app.errors import ApiError, BadRequest, Unauthorized
from app.keys.authentication import SESSION_COOKIE, authenticate
from app.web.dependencies import Blobs, Database

_DAYS_30 = 30 * 24 * 3600
_WITHIN = frozenset({"same-origin", "none"})  # from a page of ours, or typed in


def get_viewer(request: Request, engine: Database, blobs: Blobs) -> Viewer:
    """The tenant whose key the cookie holds; raises `Unauthorized`."""
    return Viewer(engine, blobs, authenticate(engine, request.headers, request.cookies))


def came_from_here(request: Request) -> bool:
    """Whether no other site made the browser send this request."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in _WITHIN
    origin = request.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == request.url.netloc


def refuse_other_sites(request: Request) -> None:
    """Raises `BadRequest` for a form that another site sent."""
    if not came_from_here(request):
        raise BadRequest(
            "cross_site_request", "This form was sent by another site.", hint="Send it from here."
        )


def logged_in(request: Request, key: str) -> Response:
    """To the list of jobs, with the key in the cookie."""
    response = RedirectResponse("/", status_code=303)
    secure = request.url.scheme == "https"
    response.set_cookie(
        SESSION_COOKIE, key, max_age=_DAYS_30, httponly=True, samesite="strict", secure=secure
    )
    return response


def logged_out() -> Response:
    """To the login, without the cookie."""
    response = RedirectResponse("/login", status_code=303)
    response.delete_cookie(SESSION_COOKIE, httponly=True, samesite="strict")
    return response


class PageRoute(APIRoute):
    """A route whose errors are pages: the login for who is not known, else the problem in words."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The route's handler, guarded."""
        answer = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            try:
                return await answer(request)
            except Unauthorized:
                return _to_login(request)
            except ApiError as error:
                return render(request, "problem.html", {"problem": error.problem}, error.problem.status)

        return guarded


def _to_login(request: Request) -> Response:
    if request.headers.get("hx-request"):
        return Response(status_code=204, headers={"HX-Redirect": "/login"})
    return RedirectResponse("/login", status_code=303)


CurrentViewer = Annotated[Viewer, Depends(get_viewer)]
