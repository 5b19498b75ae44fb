"""The dashboard's addresses. They check the cookie themselves: strangers go to the login, not away."""

from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Form, Query, Request
from sqlalchemy import Engine
from starlette.responses import RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from app.dashboard.pages import FOLDER, render
from app.dashboard.session import (
    CurrentViewer,
    PageRoute,
    came_from_here,
    logged_in,
    logged_out,
    refuse_other_sites,
)
from app.errors import Unauthorized
from app.keys.authentication import authenticate
from app.web.dependencies import Database
from app.web.ids import PublicId

Cursor = Annotated[str | None, Query()]
OwnForm = Depends(refuse_other_sites)

router = APIRouter(route_class=PageRoute, include_in_schema=False)


def owns(path: str) -> bool:
    """Whether a path is the dashboard's, which looks after its visitors itself."""
    return path in {"/", "/login", "/logout"} or path.startswith(("/jobs", "/static/"))


def install(app: FastAPI) -> None:
    """Add the pages and their files to the application."""
    app.include_router(router)
    app.mount("/static", StaticFiles(directory=FOLDER / "static"), name="static")


@router.get("/")
def jobs(request: Request, viewer: CurrentViewer, cursor: Cursor = None) -> Response:
    """The list of jobs; htmx gets the table alone."""
    name = "_jobs.html" if request.headers.get("hx-request") else "jobs.html"
    return render(request, name, {"listing": viewer.listing(cursor), "cursor": cursor})


@router.get("/jobs/{id}")
def job(request: Request, id_: PublicId, viewer: CurrentViewer) -> Response:
    """One job; htmx gets its state alone, and the whole page anew when the job has ended."""
    opened = viewer.job(id_)
    if not request.headers.get("hx-request"):
        return render(request, "job.html", {"opened": opened})
    response = render(request, "_state.html", {"opened": opened})
    if opened.job.status.final:
        response.headers["HX-Refresh"] = "true"
    return response


@router.post("/jobs/{id}/cancel", dependencies=[OwnForm])
def cancel(id_: PublicId, viewer: CurrentViewer) -> Response:
    """Cancel a job and show it again."""
    viewer.cancel(id_)
    return RedirectResponse(f"/jobs/{id_}", status_code=303)


@router.get("/login")
def login(request: Request, engine: Database, key: Annotated[str, Query()] = "") -> Response:
    """The form; or, by the link that the service prints at its first start, straight in.

    The key leaves the address at once. A link on another site only leads to the form: it could otherwise make
    people work with a foreign key.
    """
    if key and came_from_here(request):
        return _enter(request, engine, key)
    return render(request, "login.html", {"refused": False})


@router.post("/login", dependencies=[OwnForm])
def enter(request: Request, engine: Database, key: Annotated[str, Form()] = "") -> Response:
    """Check the key of the form."""
    return _enter(request, engine, key.strip())


@router.post("/logout", dependencies=[OwnForm])
def leave() -> Response:
    """Forget the key."""
    return logged_out()


def _enter(request: Request, engine: Engine, key: str) -> Response:
    try:
        authenticate(engine, {"authorization": f"Bearer {key}"}, {})
    except Unauthorized:
        return render(request, "login.html", {"refused": True}, 401)
    return logged_in(request, key)
