"""A study's plan and its end, on the console."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rich.table import Table

from thresher.progress import duration
from thresher.terminal import PlainConsole
from thresher_study.config import StudyConfig
from thresher_study.jobs import audits
from thresher_study.outcome import Outcome
from thresher_study.timing import Expected


def show_jobs(console: PlainConsole, study: StudyConfig, expected: Iterable[Expected]) -> None:
    """What is planned and not done, and how long it takes one job after another."""
    table = Table(
        "model", "task", "audits", "each", "retrainings", "each", "hours", title="Jobs to do", title_justify="left"
    )
    hours = 0.0
    for one in expected:
        hours += one.seconds / 3600
        each = (duration(one.audit_seconds), duration(one.retraining_seconds) if one.retrainings else "")
        cells = (str(one.audits), each[0], str(one.retrainings), each[1], f"{one.seconds / 3600:.1f}")
        table.add_row(one.model, one.task, *cells)
    console.print(table)
    done = [job.done(study) for job in audits(study)]
    console.print(f"{sum(done)} of {len(done)} audits are done; the rest takes about {hours:.1f} hours on one worker.")


def show_end(console: PlainConsole, failed: Iterable[Outcome], written: Path) -> None:
    """Where the report is, and what is missing from it."""
    for outcome in failed:
        console.print(f"FAILED {outcome.name}: {outcome.error}")
    console.print(f"Tables and figures: {written}")
