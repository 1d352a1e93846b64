"""What is damaged in a run directory is taken away, with what stands for a stage that made it, and so is made again."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from thresher.checksums import digests_of, is_damaged, known_in, record
from thresher.files import files_in, make_anew, remove

log = logging.getLogger(__name__)

ROUNDS = "rounds"
"""Folder of all trainings but the first."""

GRADIENTS = "gradients"
"""Folder of what a stage takes away when it ends."""

DRAWN_ONCE = frozenset({"canaries.safetensors", "drawn.json"})
"""What may be drawn again only as it was: everything else in the folder was made from it."""

_TOLD_ANEW = frozenset({"summary.json", "seconds.json", "report.html"})
"""What is written again by every call, with other seconds."""

SCORED = "candidates.parquet"
"""What a round writes last: the stage of influence and scores looks for it alone."""

_BEFORE_SCORED = frozenset(
    {
        *("influence.zarr", "queries.safetensors", "predictions.safetensors", "cancellation.parquet"),
        *("opinions.safetensors", "judged.json"),
    }
)
"""What the same stage leaves: it is gone through again for any of them."""

_OF_MODEL = frozenset({"features.safetensors", "features_second.safetensors", "as_it_came.safetensors"})
_OF_ROWS = frozenset({"copies.safetensors", SCORED, "all_scores.parquet", "scores.parquet"})
_ALONE = _OF_MODEL | _OF_ROWS | DRAWN_ONCE | _TOLD_ANEW
_WHOLE = frozenset({"training", "model", "search", "influence.zarr"})
"""Folders that are made again as a whole."""

_OURS = _ALONE | _WHOLE | _BEFORE_SCORED | {GRADIENTS, "retrained"}


def restore(folder: Path) -> None:
    """Read every file that was written in a run directory, once, and take away what is not as it was written."""
    known, taken = known_in(folder), dict[Path, None]()
    record(file for file in files_in(folder) if _inner(folder, file)[0] in _OURS and not digests_of(file))  # by a kill
    for file in [folder / name for name in known]:
        if is_damaged(file):
            inner = _inner(folder, file)
            place = file.parents[len(inner) - 1]
            if file.exists() or inner[0] != GRADIENTS:
                taken |= dict.fromkeys(_take(place, inner))
    for path in taken:
        log.warning("%s: is damaged or gone, and is made again.", path)


def _inner(folder: Path, file: Path) -> list[str]:
    """The name of a file within its training's folder, part by part."""
    parts = list(file.relative_to(folder).parts)
    return parts[2:] if parts[0] == ROUNDS and len(parts) > 2 else parts


def _take(place: Path, inner: Sequence[str]) -> list[Path]:
    """Take away what a damaged file stands for; the paths to tell of, none of what no stage would make."""
    first = inner[0]
    if first in _ALONE or first in _WHOLE or first in _BEFORE_SCORED:
        found = [place / first]
        if first == "training":  # what was saved of it
            _remove(place / "model")
        if first in _BEFORE_SCORED:
            _remove(place / SCORED)
    elif first == GRADIENTS:
        found = [place.joinpath(*inner)]
    elif first == "retrained":
        found = [place.joinpath(*inner[:2])]
    else:
        return []
    for path in found:
        _remove(path)
    return found


def _remove(path: Path) -> None:
    if path.name in _TOLD_ANEW:
        remove(path)
    else:
        make_anew(path, forget=path.name not in DRAWN_ONCE)
