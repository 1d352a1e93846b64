"""The text of a row, part by part, as a page shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from thresher.lines import plain_lines

FOLDED = 1200
"""Characters of a text that are shown before it is unfolded."""


@dataclass(frozen=True)
class Passage:
    """A part of a row's text under its ``title``; long ones are ``folded``."""

    title: str
    text: str

    @property
    def folded(self) -> bool:
        """Whether only its beginning is shown at first."""
        return len(self.text) > FOLDED


def passages_of(about: Mapping[str, Any]) -> tuple[Passage, ...]:
    """The text of a row, as a task describes it."""
    texts: list[tuple[str, Any]] = []
    if "text" in about:
        parts: Sequence[str] = about["text"]
        texts = [("", parts[0])] if len(parts) == 1 else [("first", parts[0]), ("second", parts[1])]
    else:
        texts = [(name, about[name]) for name in ("prompt", "completion") if name in about]
    return tuple(Passage(title, plain_lines(str(text))) for title, text in texts)
