"""A text on one line, for people."""

from __future__ import annotations

import re
from collections.abc import Sequence

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def one_line(text: str | Sequence[str], width: int = 160, *, end: bool = False) -> str:
    """A text, or several, on one line, without what a terminal would obey.

    Cut after ``width`` characters, or with ``end`` before the last ``width``.
    """
    parts = [text] if isinstance(text, str) else text
    line = " | ".join(" ".join(_CONTROL.sub(" ", part).split()) for part in parts)
    if len(line) <= width:
        return line
    return "..." + line[3 - width :] if end else line[: width - 3] + "..."
