"""What is damaged in a run directory is taken away, with what stands for a stage that made it, and so is made again."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from thresher.checksums import digests_of, expect, is_damaged, known_in, record
from thresher.files import files_in, remove

log = logging.getLogger(__name__)

ROUNDS = "rounds"
"""Folder of all trainings but the first."""

SCRATCH = frozenset({"gradients", "sums"})
"""What a stage takes away when it ends."""

DRAWN_ONCE = frozenset({"canaries.safetensors", "drawn.json"})
"""What may be drawn again only as it was: everything else in the folder was made from it."""

_TOLD_ANEW = frozenset({"summary.json", "seconds.json"})
"""What is written again by every call, with other seconds."""

# What is taken away where a file or folder of a training is damaged, beside that itself: the stage looks for it.
_HANGING: Mapping[str, tuple[str, ...]] = {
    "cancellation.parquet": ("predictions.safetensors",),
    "opinions.safetensors": ("candidates.parquet",),
    "judged.json": ("candidates.parquet",),
    "influence.progress.json": ("influence.zarr",),
}
_OF_MODEL = frozenset({"features.safetensors", "as_it_came.safetensors", "predictions.safetensors"})
_OF_ROWS = frozenset({"copies.safetensors", "candidates.parquet", "all_scores.parquet", "scores.parquet"})
_ALONE = _OF_MODEL | _OF_ROWS | DRAWN_ONCE | _TOLD_ANEW
_WHOLE = frozenset({"training", "model", "search", "sums"})
"""Folders that are made again as a whole."""

_OURS = _ALONE | _WHOLE | {*_HANGING, "influence.zarr", "gradients", "retrained"}


def restore(folder: Path, *, looked: bool) -> None:
    """Read every file that was written in a run directory, once, and take away what is not as it was written.

    ``looked`` says that the run is a first look, whose predictions come with its candidates.
    """
    known, taken = known_in(folder), dict[Path, None]()
    record(file for file in files_in(folder) if _inner(folder, file)[0] in _OURS and not digests_of(file))  # by a kill
    for file in [folder / name for name in known]:
        if is_damaged(file):
            inner = _inner(folder, file)
            place = file.parents[len(inner) - 1]
            if file.exists() or inner[0] not in SCRATCH:
                taken |= dict.fromkeys(_take(place, inner, looked=looked))
    for progress in folder.rglob("influence.progress.json"):
        if not progress.with_name("influence.zarr").is_dir():  # which was taken away, by a person or a study
            remove(progress)
    for path in taken:
        log.warning("%s: is damaged or gone, and is made again.", path)


def _inner(folder: Path, file: Path) -> list[str]:
    """The name of a file within its training's folder, part by part."""
    parts = list(file.relative_to(folder).parts)
    return parts[2:] if parts[0] == ROUNDS and len(parts) > 2 else parts


def _take(place: Path, inner: Sequence[str], *, looked: bool) -> list[Path]:
    """Take away what a damaged file stands for; the paths to tell of, none of what no stage would make."""
    first = inner[0]
    if first == "influence.zarr":
        _take_module(place, inner)
        return [place / first]
    if first in _WHOLE:
        found = [place / first]
        if first == "training":  # what was saved of it
            _remove(place / "model")
    elif first == "gradients":
        found = [place.joinpath(*inner)]
    elif first == "retrained":
        found = [place.joinpath(*inner[:2])]
    elif first in _HANGING or first in _ALONE:
        found = [place / first]
        for other in (*_HANGING.get(first, ()), *(("candidates.parquet",) if looked else ())):
            _remove(place / other)
    else:
        return []
    for path in found:
        _remove(path)
    return found


def _take_module(place: Path, inner: Sequence[str]) -> None:
    """Go back to before the damaged module; where it is no module's, the tensor is laid out anew."""
    from thresher.influences.tensor import TensorFile

    tensor = TensorFile(place / inner[0])
    module = inner[3] if len(inner) == 6 and tensor.path.is_dir() and tensor.laid_out else ""
    if module.isdecimal():
        expect(place.joinpath(*inner))
        tensor.go_back(int(module))
    else:
        expect(tensor.path)
        tensor.remove()


def _remove(path: Path) -> None:
    if path.name not in _TOLD_ANEW:
        expect(path)
    remove(path, forget=path.name not in DRAWN_ONCE)
