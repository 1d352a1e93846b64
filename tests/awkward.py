"""Text that markup, a terminal or an eye would obey, and what must not be left of it where it is shown."""

from __future__ import annotations

import unicodedata

DIRECTIONS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
LINK = "\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\"
EVIL = f"[/b] [/red] [bold]x :warning: \x1b[31m {LINK} \x9b2J \u202eno \x00\nerror: forged"
SEEN = "[/b] [/red] [bold]x :warning: \\x1b[31m " + LINK.replace("\x1b", "\\x1b") + " \\x9b2J \\u202eno \\x00"


NAME = EVIL.replace("\x00", "")  # the one that no argument of a command can hold


def obeyed(text: str) -> set[str]:
    """What of a text is no text but a command, a line's end, a direction or half a character; its own lines' ends."""
    found = {c for c in text if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")}
    return (found | {c for c in text if unicodedata.bidirectional(c) in DIRECTIONS}) - {"\n"}


def harmless(shown: str) -> str:
    """What was shown, if it holds nothing but text, and no line of it is another's."""
    assert not obeyed(shown), f"{obeyed(shown)} in {shown!r}"
    assert not [line for line in shown.splitlines() if line.startswith("error: forged")]
    return shown


def words(shown: str) -> str:
    """The words of what was shown, however it was broken into lines."""
    return " ".join(shown.split())
