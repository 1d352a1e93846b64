"""report.html: a finished run on one page that needs nothing else, to look at, to print and to keep."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from thresher.auditing.run import RunDirectory, read_finished
from thresher.errors import ConfigError, ThresherError, first_line
from thresher.files import atomic_write
from thresher.lines import plain
from thresher.report.facts import Facts
from thresher.report.look import LOOK
from thresher.report.parts import Picture, Section
from thresher.report.passages import FOLDED
from thresher.report.rows import spoiled_rows, worst_rows
from thresher.report.sections import last_sections, sections
from thresher.report.svg import inline_svg
from thresher.summary import KnowledgeOfClasses, Summary

log = logging.getLogger(__name__)

NO_PICTURES = "The pictures need matplotlib, which is not installed here: pip install 'thresher[plot]'."


def check_report(target: Path) -> None:
    """Raise :class:`ConfigError`, before anything is computed, if no report can be written to ``target``."""
    if target.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"--output {target}: name an .html file.")


def write_report(run_dir: RunDirectory, scores: pd.DataFrame, summary: Summary, target: Path) -> None:
    """Write a finished run's report; the same run gives the same bytes.

    Args:
        run_dir: Its directory.
        scores: Its scores.parquet.
        summary: Its summary.json.
        target: The file.

    Raises:
        RunError: Where the disk refuses, or a file of the run is damaged.
    """
    text = _page(Facts(run_dir, scores, summary))
    with atomic_write(target) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")


def report_finished(run_dir: RunDirectory) -> None:
    """Write a run's report into its directory, as an audit does in the end.

    What cannot be drawn is told of, and does no more harm: everything else that was found is written by then. Raises
    what :func:`write_report` raises.
    """
    _, _, scores, summary = read_finished(run_dir.path)
    try:
        write_report(run_dir, scores, summary, run_dir.report)
    except ThresherError:
        raise
    except Exception as error:
        log.warning("%s: cannot be made (%s); all else is there.", run_dir.report, first_line(error))


def _page(facts: Facts) -> str:
    templates = Environment(
        loader=PackageLoader("thresher.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["plain"] = plain
    drawn = find_spec("matplotlib") is not None
    values: dict[str, Any] = {
        "name": Path(facts.summary.config.train).name,
        "look": LOOK.read_text(encoding="utf-8"),
        "tiles": list(_tiles(facts)),
        "missing": "" if drawn else NO_PICTURES,
        "first": [_drawn(one, drawn=drawn) for one in sections(facts)],
        "rows": worst_rows(facts),
        "spoiled": spoiled_rows(facts),
        "last": [_drawn(one, drawn=drawn) for one in last_sections(facts)],
        "longest": FOLDED,
    }
    return templates.get_template("report.html").render(values)


def _drawn(section: Section, *, drawn: bool) -> dict[str, Any]:
    """A section with its pictures as elements of the page."""
    pictures = [(one, _element(one) if drawn else "") for one in section.pictures]
    return {"said": section, "pictures": pictures}


def _element(picture: Picture) -> str:
    return inline_svg(picture.draw, picture.name, plain(picture.alt))


def _tiles(facts: Facts) -> Iterator[tuple[str, str]]:
    """What stands first: a number, and what it is."""
    summary, known = facts.summary, facts.summary.knowledge
    yield f"{summary.rows:,}", "rows"
    if summary.auto:
        rate = summary.auto.error_rate
        yield f"{rate.estimate:.0%}", f"of them wrong ({rate.low:.0%} to {rate.high:.0%})"
    yield f"{summary.dropped_rows:,}", "to drop"
    if isinstance(known, KnowledgeOfClasses):
        who = "a probe gets right" if summary.config.quick else "the model gets right"
        yield f"{known.right} of {known.queries}", f"clean rows {who}"
    elif known is not None:
        yield f"{known.now.perplexity:.2f}", "perplexity of the clean answers"
    if facts.decided:
        yield f"{len(facts.decided):,}", "decided by people"
