"""``thresher review``: the server, on this machine alone."""

from __future__ import annotations

import socket
import webbrowser
from collections.abc import Callable
from pathlib import Path

from thresher.errors import ConfigError
from thresher.results.decided import DecidedRun
from thresher.review.desk import Desk

HOST = "127.0.0.1"


def serve(folder: Path, who: str, port: int, *, blind: bool, open_browser: bool, tell: Callable[[str], None]) -> None:
    """Serve a finished run until Ctrl-C; ``tell`` hears the address. ``port`` 0 takes any that is free.

    Raises :class:`RunError` where the run is not finished, and :class:`ConfigError` where the port is taken or what the
    pages need is not installed.
    """
    try:
        import jinja2  # noqa: F401  # pyright: ignore[reportUnusedImport]
        import starlette  # noqa: F401  # pyright: ignore[reportUnusedImport]
        import uvicorn
    except ImportError:
        raise ConfigError("A review needs starlette, uvicorn and jinja2: pip install 'thresher[review]'.") from None
    from thresher.review.app import make_app
    from thresher.review.guard import new_token
    from thresher.review.room import Room

    listening = _listen(port)
    with listening:
        room = Room(Desk(DecidedRun.open(folder), who), blind=blind)
        taken, token = listening.getsockname()[1], new_token()
        hosts = (f"{HOST}:{taken}", f"localhost:{taken}")
        address = f"http://{HOST}:{taken}/{token}/"
        tell(address)
        if open_browser:
            webbrowser.open(address)
        config = uvicorn.Config(make_app(room, token, hosts), log_level="error", access_log=False, server_header=False)
        uvicorn.Server(config).run(sockets=[listening])


def _listen(port: int) -> socket.socket:
    try:
        return socket.create_server((HOST, port))
    except OSError as error:
        raise ConfigError(
            f"--port {port}: {error.strerror or error}; name another, or 0 for any that is free."
        ) from None
