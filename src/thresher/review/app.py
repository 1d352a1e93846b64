"""The pages: what a browser asks for, and the templates that answer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from thresher.errors import ConfigError, ThresherError
from thresher.lines import one_line, plain
from thresher.report.look import LOOK
from thresher.review.guard import Guard
from thresher.review.room import Room
from thresher.review.selection import KINDS, ORDERS, PAGE, STATES, Selection

EXCERPT = 160
LONGEST_NOTE = 2000
LONGEST_FORM = 100_000


def make_app(room: Room, token: str, hosts: tuple[str, ...]) -> Starlette:
    """The application under review's address, ``/TOKEN/``."""
    pages = _Pages(room)
    routes = [
        Route("/", pages.whole),
        Route("/list", pages.rows),
        Route("/row/{row:int}", pages.card),
        Route("/row/{row:int}/why", pages.why),
        Route("/row/{row:int}/layers.svg", pages.layers),
        Route("/causes", pages.causes),
        Route("/decide", pages.decide, methods=["POST"]),
        Route("/undo", pages.undo, methods=["POST"]),
        Route("/static/look.css", _look),
        Mount("/static", StaticFiles(directory=Path(__file__).parent / "static")),
    ]
    return Starlette(
        routes=[Mount(f"/{token}", routes=routes)],
        middleware=[Middleware(Guard, token=token, hosts=hosts)],
        exception_handlers={ThresherError: _sentence},
    )


async def _look(_: Request) -> Response:
    return FileResponse(LOOK)


async def _sentence(_: Request, error: Exception) -> Response:
    return PlainTextResponse(plain(str(error)), 400)


class _Pages:
    """Answers, each from what is on the desk at the time; plain functions, which Starlette runs in threads."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._templates = Environment(
            loader=PackageLoader("thresher.review"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.globals.update({"orders": ORDERS, "states": STATES, "kinds": KINDS})  # pyright: ignore
        self._templates.filters |= {"plain": plain, "excerpt": lambda text: one_line(str(text), EXCERPT)}

    def whole(self, request: Request) -> Response:
        """The page, with the list; the first row follows."""
        asked = Selection.read(request.query_params)
        return self._answer("page.html", self._listed(asked) | {"name": self._room.name})

    def rows(self, request: Request) -> Response:
        """The list alone."""
        return self._answer("list.html", self._listed(Selection.read(request.query_params)))

    def card(self, request: Request) -> Response:
        """A row."""
        asked = Selection.read(request.query_params)
        return self._answer("card.html", self._shown(request.path_params["row"], asked))

    def why(self, request: Request) -> Response:
        """Why a row is suspected."""
        row = request.path_params["row"]
        return self._answer("why.html", {"why": self._room.why(row), "row": row})

    def layers(self, request: Request) -> Response:
        """The row's rank along the layers, as a picture."""
        return Response(self._room.layers(request.path_params["row"]), media_type="image/svg+xml")

    def causes(self, request: Request) -> Response:
        """What suspicious rows share."""
        asked = Selection.read(request.query_params)
        return self._answer("causes.html", {"causes": self._room.worst_causes(), "asked": asked})

    async def decide(self, request: Request) -> Response:
        """Write a decision, and show the next row."""
        return await run_in_threadpool(self._decide, await _fields(request))

    async def undo(self, request: Request) -> Response:
        """Take back the last decision, and show its row."""
        return await run_in_threadpool(self._undo, await _fields(request))

    def _decide(self, given: Mapping[str, str]) -> Response:
        asked = Selection.read(given)
        rows = self._meant(given, asked)
        note = given.get("note", "")[:LONGEST_NOTE]
        self._room.decide(rows, given.get("verdict", ""), given.get("label"), note)
        return self._moved(asked, self._room.next_row(asked, rows[-1] if rows else None))

    def _undo(self, given: Mapping[str, str]) -> Response:
        asked, rows = Selection.read(given), self._room.desk.undo()
        return self._moved(asked, rows[0] if rows else self._room.next_row(asked, None))

    def _meant(self, given: Mapping[str, str], asked: Selection) -> list[int]:
        """The row that a decision is about, or with ``all`` every row of the selection."""
        if given.get("all"):
            return self._room.rows(asked).tolist()
        if not given.get("row", "").isdecimal():
            raise ConfigError("row: write the number of a row.")
        return [int(given["row"])]

    def _moved(self, asked: Selection, row: int | None) -> Response:
        """The row to look at now, and beside it the list and where the review stands."""
        return self._answer("moved.html", self._listed(asked) | self._shown(row, asked))

    def _shown(self, row: int | None, asked: Selection) -> dict[str, Any]:
        card = None if row is None else self._room.card(row)
        return {"card": card, "asked": asked, "labels": self._room.desk.labels}

    def _listed(self, asked: Selection) -> dict[str, Any]:
        rows = self._room.rows(asked)
        page = rows[asked.page * PAGE : (asked.page + 1) * PAGE]
        scores, decided = self._room.desk.scores, self._room.desk.decided
        lines = [
            {
                "row": row,
                "rank": int(scores.at[row, "rank"]),
                "text": scores.at[row, "text"],
                "label": scores.at[row, "label"] if "label" in scores else None,
                "probability": self._room.probability(row),
                "decision": decided.get(row),
            }
            for row in page.tolist()
        ]
        pages = int(np.ceil(len(rows) / PAGE))
        standing = self._room.desk.standing
        return {"asked": asked, "lines": lines, "matching": len(rows), "pages": pages, "standing": standing}

    def _answer(self, template: str, values: Mapping[str, Any]) -> Response:
        return HTMLResponse(self._templates.get_template(template).render(values))


async def _fields(request: Request) -> dict[str, str]:
    """What a form sends, as browsers write it in an address. Raises :class:`ConfigError` for more than a form holds."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > LONGEST_FORM:
            raise ConfigError("This is more than the review takes at once.")
    return dict(parse_qsl(body.decode("utf-8", errors="replace"), keep_blank_values=True))
