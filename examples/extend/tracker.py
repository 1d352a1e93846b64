"""A tracker of your own: one JSON line an event, in the run's folder.

    python examples/extend/tracker.py

Registered, it is ``AuditConfig(log_to="jsonlines")``; by an entry point in the group ``thresher.trackers`` also
``--log-to jsonlines``.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thresher.extend import TRACKERS, TrackerKind


class JsonLines:
    """A tracker is told parameters once, numbers as they come, and when it is over."""

    def __init__(self, folder: Path, name: str) -> None:
        self._stream = (folder / "events.jsonl").open("w", encoding="utf-8")
        self._write(run=name)

    def parameters(self, values: Mapping[str, Any]) -> None:
        """What the run was told."""
        self._write(parameters=dict(values))

    def numbers(self, values: Mapping[str, float], step: int | None = None) -> None:
        """A step of curves, or results of the whole run."""
        self._write(step=step, **values)

    def close(self, *, failed: bool = False) -> None:
        """Nothing comes after."""
        self._write(failed=failed)
        self._stream.close()

    def _write(self, **event: Any) -> None:
        self._stream.write(json.dumps(event, default=str) + "\n")


# ``package`` names what must be installed, where that is more than Thresher depends on.
JSON_LINES = TrackerKind(JsonLines)


if __name__ == "__main__":
    from thresher.track import tracking

    TRACKERS.register("jsonlines", JSON_LINES)
    with tempfile.TemporaryDirectory() as folder:
        with tracking("jsonlines", Path(folder)) as tracker:
            tracker.parameters({"seed": 0})
            tracker.numbers({"train_loss": 0.5}, 1)
        print((Path(folder) / "events.jsonl").read_text(), end="")  # noqa: T201
