"""Near copies and the contradictions among them, on the console."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.styled import Styled

from thresher.summary import Contradiction, NearCopies
from thresher.tasks.base import Task
from thresher.terminal import indent

SHOWN = 3
WHERE = "All of them: the columns copy_of and contradicted of scores.parquet."


def show_copies(found: NearCopies, task: type[Task], *, classes: bool) -> RenderableType:
    """:func:`copy_lines`, and some of the contradictions."""
    return Group(
        Styled("Near copies", "italic"),
        *copy_lines(found, classes=classes),
        *(part for number, one in enumerate(found.shown[:SHOWN], 1) for part in _contradiction(number, one, task)),
        Styled(WHERE, "dim"),
    )


def copy_lines(found: NearCopies, *, classes: bool) -> list[str]:
    """How many rows are near copies, which of them contradict, and what clean queries have to do with it."""
    lines = [
        f"{found.rows:,} rows have a near copy among the others: they are {found.groups:,} different texts."
    ] * bool(found.rows)
    if found.contradicted and classes:
        lines.append(
            f"{found.contradicted:,} rows have almost the same text as others that are labelled otherwise "
            f"({found.contradicted_groups:,} different texts): not all of these labels can be right."
        )
    elif found.contradicted:
        lines.append(
            f"{found.contradicted:,} rows answer a prompt that is answered otherwise elsewhere "
            f"({found.contradicted_groups:,} different prompts): where there is one right answer, some are wrong."
        )
    if found.queries:
        lines.append(
            f"{found.queries:,} clean queries are near copies of training rows: what is learned by heart counts as "
            f"known there. {_against_queries(found)}"
        )
    return lines


def _against_queries(found: NearCopies) -> str:
    count = found.contradicted_by_queries
    return f"{count:,} of these rows say something else than the queries, which are clean." if count else ""


def _contradiction(number: int, one: Contradiction, task: type[Task]) -> list[RenderableType]:
    rows = [indent(f"row {row.row}{task.tag(row.about)}: {task.format_text(row.about, 140)}") for row in one.rows]
    queries = [
        indent(f"clean query {query.query}{task.tag(query.about)}: {task.format_text(query.about, 140)}")
        for query in one.queries
    ]
    return [Styled(f"{number:2}. {one.copies} rows", "bold"), *rows, *queries]
