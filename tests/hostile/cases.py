"""Inputs that no command may accept, made by kind and number: each is somebody's slip, or somebody's malice.

A kind is a function of a :class:`Bench`; it lays wrong files there, and returns the arguments of a command that must
refuse them in one sentence. ``NONSENSE`` has all kinds; :func:`case` makes the one of a number, always the same.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from folders import reviews

Kind = Callable[["Bench"], list[str]]
NONSENSE: dict[str, Kind] = {}


@dataclass(frozen=True)
class Bench:
    """Where a case is made: chance, a folder of its own, and sound things beside it, none of which may be changed.

    ``model``, ``classifier``, ``adapter`` and a finished ``run`` are folders; ``parts`` files of rows by part.
    """

    rng: random.Random
    folder: Path
    model: Path
    classifier: Path
    adapter: Path
    run: Path
    parts: dict[str, Path]

    def rows(self) -> list[dict[str, Any]]:
        """Sound training rows, to be spoiled."""
        return reviews(48, 1)

    def audit(self, *more: object, **options: object) -> list[str]:
        """Arguments of a sound audit, but for these options; one that is None is left out."""
        given = {"model": self.model, **{part: self.parts[part] for part in ("train", "validation")}}
        given |= {"output": self.folder / "out"} | options
        pairs = [(f"--{name.replace('_', '-')}", str(value)) for name, value in given.items() if value is not None]
        return ["audit", *map(str, more), *(part for pair in pairs for part in pair), "--dry-run"]

    def write(self, name: str, content: str | bytes) -> Path:
        """A file in the folder of the case."""
        file = self.folder / name
        file.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
        return file

    def lines(self, rows: list[Any]) -> list[str]:
        """Rows as lines of JSON; a text stands for itself."""
        return [row if isinstance(row, str) else json.dumps(row) for row in rows]

    def any(self, *values: Any) -> Any:
        """One of the values."""
        return self.rng.choice(values)


def nonsense(kind: Kind) -> Kind:
    """Put a kind into ``NONSENSE``."""
    NONSENSE[kind.__name__] = kind
    return kind


def case(number: int, benches: Callable[[random.Random], Bench]) -> tuple[str, list[str]]:
    """The name of the kind, and the arguments, of a number: kinds take turns, and chance differs in each turn."""
    kinds = list(NONSENSE)
    name = kinds[number % len(kinds)]
    return name, NONSENSE[name](benches(random.Random(number)))


def spoiled(text: bytes, rng: random.Random) -> Iterator[bytes]:
    """A file cut off, overwritten in places, and with something in it that does not belong there; without end."""
    while True:
        way, place = rng.randrange(4), rng.randrange(len(text) + 1)
        if way == 0:
            yield text[:place]
        elif way == 1:
            yield text[:place] + rng.randbytes(rng.randint(1, 9)) + text[place + rng.randint(0, 9) :]
        elif way == 2:
            end = place + rng.randint(1, 40)
            yield text[:place] + text[end:]
        else:
            odd = (
                b'"',
                b"{",
                b"}",
                b"[",
                b"]",
                b"null",
                b"\xff",
                b"\x00",
                b"\n",
                b"1e999",
                b"&a",
                b"*a",
                b"- ",
                b"\\ud800",
            )
            yield text[:place] + b"".join(rng.choices(odd, k=rng.randint(1, 4))) + text[place:]
