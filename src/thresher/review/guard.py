"""Who may ask: this machine's own browser, with the token in the address; and what its pages may do.

A page from elsewhere that guesses the port has not the token; one whose name was made to point here (DNS rebinding) has
another Host; a form that it sends has another Origin. Pages load nothing from elsewhere and run no script but ours.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable

from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def new_token() -> str:
    """What nobody can guess."""
    return secrets.token_urlsafe(24)


class Guard(BaseHTTPMiddleware):
    """Refuses whoever is not meant, with as little as possible; puts :data:`HEADERS` on every answer.

    Args:
        app: What is guarded.
        token: The first part of every path.
        hosts: Names and ports by which the server may be asked for, such as ``127.0.0.1:8000``.
    """

    def __init__(self, app: ASGIApp, token: str, hosts: tuple[str, ...]) -> None:
        super().__init__(app)
        self._token, self._hosts = token, hosts

    async def dispatch(self, request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        """Answer a request, or refuse it."""
        answer = PlainTextResponse("", 404) if self._refused(request) else await call_next(request)
        answer.headers.update(HEADERS)
        return answer

    def _refused(self, request: Request) -> bool:
        if request.headers.get("host") not in self._hosts:
            return True
        origin = request.headers.get("origin")
        if origin is not None and origin not in {f"http://{host}" for host in self._hosts}:
            return True
        if request.method == "POST" and origin is None:
            return True
        first = request.url.path.lstrip("/").partition("/")[0]
        return not secrets.compare_digest(first.encode(), self._token.encode())
