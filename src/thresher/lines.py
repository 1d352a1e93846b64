"""Texts as people are shown them: on one line, and without what a terminal, a page or an eye would obey unseen."""

from __future__ import annotations

import re
from collections.abc import Sequence

_UNSEEN = re.compile(
    "(\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{3,6}\U000e007f)"  # a flag as of Scotland, which is seen
    "|["
    "\x00-\x1f\x7f-\x9f"  # what terminals obey, and what ends a line
    "\u2028\u2029"  # more that ends a line
    "\u202a-\u202e\u2066-\u206f"  # what turns the order of letters round
    "\ufeff\ufff9-\ufffb"  # a mark of byte order, and what hides a note between the lines
    "\U000e0000-\U000e007f"  # a second ASCII that nobody sees
    "\ud800-\udfff"  # halves of a character, which no stream of UTF-8 takes
    "]"
)


def plain(text: str) -> str:
    r"""A text as one line that can be looked at and cannot do anything.

    What comes from rows, labels, file names and other libraries may hold codes that a terminal obeys, line breaks that
    forge a line of ours, or marks that let a text read otherwise than it is. Each is shown as Python writes it
    (``\x1b``, ``\n``, ``\u202e``). Letters of every script, whichever way they run, their marks and joiners, and emoji
    stay as they are; so does what this function has returned.

    Args:
        text: Any text.

    Returns:
        The text without a control character, a line break, a mark that changes the direction, or half a character.
    """
    return _UNSEEN.sub(lambda found: found[1] or ascii(found[0])[1:-1], text)


def plain_lines(text: str) -> str:
    """:func:`plain` for what is meant to have several lines, such as a trace: they stay."""
    return "\n".join(map(plain, text.splitlines()))


def one_line(text: str | Sequence[str], width: int = 160, *, end: bool = False) -> str:
    """A text of the user's, or several, on one :func:`plain` line, every run of white space as one blank.

    Cut after ``width`` characters, or with ``end`` before the last ``width``.
    """
    parts = [text] if isinstance(text, str) else text
    line = " | ".join(plain(" ".join(part.split())) for part in parts)
    if len(line) <= width:
        return line
    return "..." + line[3 - width :] if end else line[: width - 3] + "..."
