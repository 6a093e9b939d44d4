"""Who may ask the dashboard for anything.

A page on loopback can be reached by any page that the user's browser shows, and by every user of
the machine. So each request must name this server as its host, which defeats DNS rebinding; must
not come from the page of another site; and must bring the token: once in the address, which gets
the browser a cookie, or as ``Authorization: Bearer``. Commands are POST requests, and need an
``Origin`` as well if they come with a cookie.

Cookies do not know ports, so a browser would send ours to other servers of this machine, too. It is
for one path alone, which nobody else knows.
"""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import socket
from http.cookies import CookieError, SimpleCookie
from typing import NamedTuple
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

_NO_TOKEN = (
    "This dashboard opens with the address that `parallel-core dashboard` has printed: it holds a "
    "token.\n"
)
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}


class Secrets(NamedTuple):
    """What opens a dashboard."""

    token: str  #: in the address that is printed
    cookie: str
    path: str  #: of everything but the first page

    @staticmethod
    def make() -> Secrets:
        """Return new ones."""
        token, cookie = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        return Secrets(token, cookie, secrets.token_urlsafe(12))

    def has_token(self, given: str) -> bool:
        """Whether the token is right."""
        return hmac.compare_digest(given.encode(), self.token.encode())

    def has_cookie(self, given: str) -> bool:
        """Whether the cookie is right."""
        return hmac.compare_digest(given.encode(), self.cookie.encode())


class Guard:
    """Lets through to `app` what may pass; the server is bound to `host` and `port`."""

    def __init__(self, app: ASGIApp, opened_by: Secrets, host: str, port: int) -> None:
        self._app = app
        self._secrets = opened_by
        self._port = port
        self.cookie_name = f"parallel-core-dashboard-{port}"
        self._names = {"127.0.0.1", "localhost", "[::1]", host.lower()}
        self._is_open = not is_loopback(host)
        if self._is_open:
            self._names.add(socket.gethostname().lower())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        refusal = self._refusal(request)
        if refusal is not None:
            status, words = refusal
            response: Response = PlainTextResponse(words, status, _HEADERS)
            await response(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _refusal(self, request: Request) -> tuple[int, str] | None:
        """Return status and words if a request may not pass."""
        if request.method not in ("GET", "POST"):
            return 405, "Only GET and POST are known here.\n"
        if not self._is_here(request.headers.get("host", "")):
            return 403, "This dashboard has another name.\n"
        origin = request.headers.get("origin")
        if origin is not None and not self._is_own(origin):
            return 403, "Other sites may not use this dashboard.\n"
        path = request.url.path
        opens = path == "/" and self._secrets.has_token(token_of(request))
        site = request.headers.get("sec-fetch-site", "none")
        if site not in ("none", "same-origin") and not (
            opens and request.headers.get("sec-fetch-mode") == "navigate"
        ):
            return 403, "Other sites may not use this dashboard.\n"
        if opens and request.method == "GET":
            return None
        if self._has_bearer(request):
            return None
        if not self._secrets.has_cookie(_cookie_of(request, self.cookie_name)):
            return 401, _NO_TOKEN
        if request.method == "POST" and origin is None:
            return 403, "A command needs an Origin.\n"
        return None

    def _has_bearer(self, request: Request) -> bool:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and self._secrets.has_token(given.strip())

    def _is_own(self, origin: str) -> bool:
        scheme, _, host = origin.partition("://")
        return scheme == "http" and self._is_here(host)

    def _is_here(self, host: str) -> bool:
        """Whether a request was meant for this server, by its host and port."""
        name, _, port = host.rpartition(":")
        if port != str(self._port):
            return False
        if name.lower() in self._names:
            return True
        if not self._is_open:
            return False
        try:  # a name may come from anywhere; an address in numbers needs no name server
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return False
        return True


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that is bound to `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def token_of(request: Request) -> str:
    """Return the token in the address of a request; empty if there is none."""
    found = parse_qs(request.url.query).get("token", [""])
    return found[0]


def page_headers(nonce: str) -> dict[str, str]:
    """Return the headers of a page whose scripts and styles have that `nonce`."""
    policy = (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    return {**_HEADERS, "Content-Security-Policy": policy}


def plain_headers() -> dict[str, str]:
    """Return the headers of everything else."""
    return dict(_HEADERS)


def _cookie_of(request: Request, name: str) -> str:
    try:
        found = SimpleCookie(request.headers.get("cookie", ""))
    except CookieError:
        return ""
    return found[name].value if name in found else ""
