"""Audits of a few rows with a tiny model: where they are, what they are asked for, and the commands that start them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from folders import answers, encoder_folder, generator_folder, reviews, write_rows
from thresher.cli import app
from thresher.errors import ThresherError

SEEDS = {"train": 1, "validation": 2, "test": 3}


@dataclass(frozen=True)
class Audits:
    """The audits of a test module, ``AUDITS``; the fixtures ``place`` and ``finished`` are made of it.

    ``rows`` says how many a file has; ``asked`` what all audits are asked for, and ``finished`` the first one besides.
    """

    rows: Mapping[str, int]
    asked: Mapping[str, Any]
    finished: Mapping[str, Any] = field(default_factory=dict[str, Any])
    generate: bool = False

    def make(self, folder: Path) -> Path:
        """Fill the folder with a model and files of rows."""
        (generator_folder if self.generate else encoder_folder)(self._model(folder))
        for part, count in self.rows.items():
            write_rows(folder / f"{part}.jsonl", (answers if self.generate else reviews)(count, SEEDS[part]))
        return folder

    def options(self, place: Path, output: Path, **more: Any) -> dict[str, Any]:
        """What an audit of the ``place`` is asked for."""
        files = {part: str(place / f"{part}.jsonl") for part in self.rows}
        return {"model": str(self._model(place)), **files, "output": str(output), **self.asked, **more}

    def _model(self, folder: Path) -> Path:
        return folder / ("model" if self.generate else "encoder")


def flags(given: Mapping[str, Any]) -> list[str]:
    """The options as a command takes them."""
    arguments: list[str] = []
    for name, value in given.items():
        flag = f"--{name.replace('_', '-')}"
        arguments += [flag] if value is True else [flag, str(value)]
    return arguments


def refused(arguments: list[str]) -> str:
    """The message of the user's mistake that a command raises (``main`` prints it and exits with 2)."""
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, ThresherError), result.output
    return str(result.exception)
