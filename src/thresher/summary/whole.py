"""summary.json: all that an audit found out, with the configuration that made it; written, and read again.

Every key is always there; what an audit has nothing to say of is null or empty.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from pydantic import ValidationError

from thresher.config import AuditConfig
from thresher.errors import RunError
from thresher.files import read_json, write_json
from thresher.summary.copies import NearCopies
from thresher.summary.parts import (
    Annotator,
    Calibration,
    Detected,
    Entry,
    GroupCancellation,
    KnowledgeOfAnswers,
    KnowledgeOfClasses,
    Measured,
    SpoiledText,
    SuspiciousRow,
    Training,
)

FORMAT: Final = 1
"""Of all files in a run directory; raised when one of them changes so that what was written before cannot be read."""


class Summary(Entry):
    """All that an audit found out; ``Summary.model_json_schema()`` is the schema of summary.json."""

    format: Literal[1] = FORMAT
    """Of the run directory."""
    sign: str
    """What the sign of a score means."""
    rows: int
    """Training rows, all of which are ranked."""
    queries: int
    """Clean queries."""
    queries_predicted_correctly: int
    """By the model of the first training."""
    modules: int | None = None
    """Modules in the influence tensor; null after a first look, as the two sizes."""
    gradient_bytes: int | None = None
    """Disk that gradients take while they are needed."""
    tensor_bytes: int | None = None
    """Disk that the influence tensor takes."""
    classes: dict[str, int]
    """Number of each class in the model; none of a model that generates."""
    notes: dict[str, str]
    """What the plan says of rows and model."""
    knowledge: KnowledgeOfClasses | KnowledgeOfAnswers | None = None
    """What the model knows of the task, where clean queries tell."""
    score: str
    """Name of the score that ranks the rows."""
    dropped_rows: int
    """How many rows the audit says to drop: those of lowest score."""
    auto: Calibration | None = None
    """What canaries told; null where the user named a score."""
    annotators: tuple[Annotator, ...] = ()
    """Who labelled the rows, and how often each is wrong; whose interval begins highest first."""
    shown_influence: str | None = None
    """Score whose influence says which queries a row hurts."""
    suspicious: tuple[SuspiciousRow, ...]
    """The most detrimental rows, the most detrimental first, but for those of ``spoiled_texts``."""
    spoiled_texts: tuple[SpoiledText, ...] = ()
    """Some of the rows whose text is spoiled."""
    copies: NearCopies | None = None
    """Near copies among rows and queries, and the contradictions among them."""
    training: Training | None = None
    """The first training; null of a model that was trained elsewhere, and after a first look."""
    planted: int | None = None
    """How many errors were planted."""
    plant_kind: str | None = None
    """Of which kind they are."""
    detection: tuple[Detected, ...] = ()
    """What each score finds of the planted errors, and beside them chance and an oracle."""
    cancellation: tuple[GroupCancellation, ...] = ()
    """How much the rows' gradients cancel, by group of layers; none of projected gradients."""
    test_rows: int | None = None
    """Rows that ``measures`` are of."""
    measures: dict[str, dict[str, Measured]]
    """Measures of the test rows (``accuracy``; ``test_loss``, ``test_perplexity``) by name and set of training rows."""
    seconds: dict[str, float]
    """Seconds that each stage took."""
    config: AuditConfig
    """What the audit was told, with defaults resolved."""

    def __repr__(self) -> str:
        there = [name for name in type(self).model_fields if isinstance(getattr(self, name), Entry) or name in _LISTS]
        parts = ", ".join(name for name in there if getattr(self, name))
        return (
            f"Summary({self.rows:,} rows ranked by {self.score}, {self.dropped_rows:,} to drop, {self.queries:,} "
            f"queries; has {parts})"
        )

    __str__ = __repr__


_LISTS = ("suspicious", "spoiled_texts", "detection", "cancellation", "measures")


def write_summary(file: Path, summary: Summary) -> None:
    """Write summary.json."""
    write_json(file, summary.model_dump(mode="json"))


def read_summary(file: Path) -> Summary:
    """Read a summary.json. Raises :class:`RunError` for one of another format, or that is none."""
    found = read_json(file)
    check_format(file, found.get("format"))
    try:
        return Summary.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise RunError(f"{file}: is no summary of an audit ({place}: {first['msg']}).") from None


def check_format(file: Path, found: object) -> None:
    """Raise :class:`RunError` where a file of a run directory says that it is of another format."""
    if found != FORMAT:
        said = "no format" if found is None else f"format {found}"
        raise RunError(
            f"{file}: this run has {said}, and this version of thresher reads format {FORMAT}; begin anew with "
            "another --output."
        )
