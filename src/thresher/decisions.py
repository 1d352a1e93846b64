"""What people decided about rows: a log that only grows, one line a decision, which a later audit of the rows may read.

A row is known by its contents, not by its number, so decisions stay with their rows where others come and go. Each line
is on the disk before anybody is told so: what was decided is not lost by a kill, by a second window or by a second
reviewer. Of several decisions about a row the last one stands, and an undo takes away the last one that stands.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from thresher.errors import DataError
from thresher.files import told_of_disk

if sys.platform != "win32":
    import fcntl

log = logging.getLogger(__name__)

DECISIONS = "decisions.jsonl"
"""In a run directory."""

Verdict = Literal["keep", "relabel", "drop", "unsure", "undo"]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


class Decision(BaseModel):
    """One line of the log.

    ``keep`` says that the row is right as it was given, ``relabel`` that ``label`` is its right label instead, ``drop``
    that it is wrong and not to be mended, ``unsure`` that the reviewer cannot tell. ``row`` is its number in the file
    at the time, ``fingerprint`` what it is known by (:func:`fingerprints`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    row: int = Field(ge=0)
    fingerprint: str
    verdict: Verdict
    given: str | None = None
    label: str | None = None
    who: str = ""
    when: str = Field(default_factory=_now)
    note: str = ""
    together: str = ""

    @property
    def wrong(self) -> bool | None:
        """Whether the row is wrong; None where nobody can tell."""
        return {"keep": False, "relabel": True, "drop": True}.get(self.verdict)


def fingerprints(contents: Iterable[Sequence[str]]) -> list[str]:
    """What each row is known by: a hash of its texts and its label as given; of rows that are the same the second,
    third and so on have their number behind it.

    >>> fingerprints([("fine", "good"), ("fine", "bad"), ("fine", "good")])
    ['92577f1795e43a5e', '712087994afbe9bd', '92577f1795e43a5e-2']
    """
    found: list[str] = []
    seen = Counter[str]()
    for parts in contents:
        text = json.dumps(list(parts), ensure_ascii=True)
        one = hashlib.sha256(text.encode()).hexdigest()[:16]
        seen[one] += 1
        found.append(one if seen[one] == 1 else f"{one}-{seen[one]}")
    return found


class DecisionLog:
    """A file of decisions, ``decisions.jsonl``; several may write at once."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, decisions: Sequence[Decision]) -> None:
        """Write the decisions behind all others, together; they are on the disk when this returns.

        Raises :class:`RunError` where the disk refuses.
        """
        text = "".join(decision.model_dump_json() + "\n" for decision in decisions)
        with told_of_disk(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            opened = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                if sys.platform != "win32":
                    fcntl.flock(opened, fcntl.LOCK_EX)
                size = os.fstat(opened).st_size
                torn = size and os.pread(opened, 1, size - 1) != b"\n"  # a kill's half of a line ends here
                _write_all(opened, ("\n" * bool(torn) + text).encode())
                os.fsync(opened)
            finally:
                os.close(opened)

    def read(self) -> list[Decision]:
        """Every decision, in the order in which they were made; none where there is no file.

        A line that a kill or a full disk cut off is left out, with a warning. Raises :class:`DataError` where a line is
        whole and no decision.
        """
        found: list[Decision] = []
        cut = 0
        for number, line in enumerate(self._lines(), start=1):
            try:
                found.append(Decision.model_validate_json(line))
            except ValidationError as error:
                if _is_json(line):
                    what = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
                    raise DataError(f"{self.path}, line {number}: this is no decision ({what}).") from None
                cut += 1
        if cut:
            log.warning("%s: lines that were cut off are left out, %d of them.", self.path, cut)
        return found

    def _lines(self) -> list[str]:
        if not self.path.exists():
            return []
        with told_of_disk(self.path):
            text = self.path.read_bytes().decode("utf-8", errors="replace")
        return [line for line in text.split("\n") if line.strip()]


def standing(decisions: Iterable[Decision]) -> dict[str, Decision]:
    """The decision that stands about each row, by what it is known by.

    >>> made = [Decision(row=0, fingerprint="a", verdict=one) for one in ("keep", "drop", "undo")]
    >>> standing(made)["a"].verdict
    'keep'
    """
    stacks: dict[str, list[Decision]] = {}
    for decision in decisions:
        stack = stacks.setdefault(decision.fingerprint, [])
        if decision.verdict != "undo":
            stack.append(decision)
        elif stack:
            stack.pop()
    return {known: stack[-1] for known, stack in stacks.items() if stack}


def _write_all(opened: int, data: bytes) -> None:
    while data:
        data = data[os.write(opened, data) :]


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True
