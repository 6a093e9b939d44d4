"""What browsers and programs may ask the dashboard for.

::

    GET  /?token=…                         the page, and a cookie
    GET  /PATH/                            the page again
    GET  /PATH/events?call=3               server-sent events: all calls, and details of one
    GET  /PATH/state?call=3                the same once, as JSON
    POST /PATH/calls/3/cancel              end a call
    POST /PATH/calls/3/workers/1/stack     where a worker is
    POST /PATH/calls/3/workers/1/end       end a worker, and so its task
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from parallel_core.dashboard.feed import Feed
from parallel_core.dashboard.page import page
from parallel_core.dashboard.programs import Answer, Programs
from parallel_core.dashboard.security import Guard, Secrets, page_headers, plain_headers

MOST_BROWSERS = 32
_TOO_MANY = (
    f"{MOST_BROWSERS} browsers look at this dashboard already: close one of them, and load this "
    "page again.\n"
)


def make_app(feed: Feed, programs: Programs, opened_by: Secrets, host: str, port: int) -> ASGIApp:
    """Return the application."""
    base = f"/{opened_by.path}/"
    of_worker = f"{base}calls/{{call:int}}/workers/{{worker:int}}"

    async def show_page(request: Request) -> Response:
        if feed.browsers >= MOST_BROWSERS:
            return PlainTextResponse(_TOO_MANY, 503, plain_headers())
        nonce = secrets.token_urlsafe(16)
        response = Response(page(nonce, base), 200, page_headers(nonce), "text/html")
        response.set_cookie(
            guard.cookie_name, opened_by.cookie, path=base, httponly=True, samesite="strict"
        )
        return response

    async def show_events(request: Request) -> Response:
        if feed.browsers >= MOST_BROWSERS:
            return PlainTextResponse(_TOO_MANY, 503, plain_headers())
        headers = {**plain_headers(), "X-Accel-Buffering": "no"}
        events = feed.follow(_number(request))
        return StreamingResponse(events, 200, headers, "text/event-stream")

    async def show_state(request: Request) -> Response:
        text = feed.snapshot(_number(request))
        return Response(text, 200, plain_headers(), "application/json")

    async def cancel(request: Request) -> Response:
        return _told(await programs.command(request.path_params["call"], "cancel"))

    async def show_stack(request: Request) -> Response:
        call, worker = request.path_params["call"], request.path_params["worker"]
        return _told(await programs.command(call, "stack", worker))

    async def end_worker(request: Request) -> Response:
        call, worker = request.path_params["call"], request.path_params["worker"]
        return _told(await programs.command(call, "end", worker))

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        programs.start()
        ticking = asyncio.create_task(feed.run())
        try:
            yield
        finally:
            feed.stop()
            programs.stop()
            await ticking

    routes = [
        Route("/", show_page, methods=["GET"]),
        Route(base, show_page, methods=["GET"]),
        Route(f"{base}events", show_events, methods=["GET"]),
        Route(f"{base}state", show_state, methods=["GET"]),
        Route(f"{base}calls/{{call:int}}/cancel", cancel, methods=["POST"]),
        Route(f"{of_worker}/stack", show_stack, methods=["POST"]),
        Route(f"{of_worker}/end", end_worker, methods=["POST"]),
    ]
    guard = Guard(Starlette(routes=routes, lifespan=lifespan), opened_by, host, port)
    return guard


def _number(request: Request) -> int | None:
    """Return the number of the call that a browser looks at."""
    given = request.query_params.get("call", "")
    return int(given) if given.isascii() and given.isdigit() and len(given) < 10 else None


def _told(answer: Answer) -> Response:
    return JSONResponse({"done": answer.is_done, "text": answer.text}, 200, plain_headers())
