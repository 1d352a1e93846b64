"""Plan and result of an audit on the console. Every number shown here is in summary.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.styled import Styled
from rich.table import Table

from thresher.auditing.decide import DROP
from thresher.auditing.plan import Plan
from thresher.progress import duration
from thresher.report.detection import calibration_lines, detector_table, influence_table
from thresher.report.knowledge import knowledge_lines, only_looked
from thresher.report.titles import GROUP_TITLES, TRAINED_ON_TITLES
from thresher.tasks.base import Task
from thresher.tasks.registry import TASKS
from thresher.terminal import PlainConsole, indented


def show_plan(console: PlainConsole, plan: Plan) -> None:
    """What is going to happen, before it does."""
    table = Table(title="Plan", title_justify="left", show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    groups = ", ".join(f"{count} in {group}" for group, count in plan.groups.items())
    table.add_row("rows", f"{plan.rows:,} to rank, {plan.queries:,} queries")
    table.add_row("model", f"{plan.model}, {plan.training}")
    for title, note in plan.notes.items():
        table.add_row(title, note if len(note) < 200 else note[:197] + "...")
    if plan.planted:
        table.add_row("planted", plan.planted)
    if plan.modules:
        table.add_row("modules", f"{plan.modules} ({groups})")
    if plan.canaries:
        table.add_row("canaries", plan.canaries)
    if plan.modules:
        sizes = f"{_size(plan.tensor_bytes)} on disk; gradients {_size(plan.gradient_bytes)} meanwhile"
        table.add_row("tensor", sizes)
    if plan.checkpoints:
        table.add_row("checkpoints", plan.checkpoints)
    if plan.optimizer:
        table.add_row("optimizer", plan.optimizer)
    if plan.row_by_row:
        table.add_row("row by row", f"{len(plan.row_by_row)} modules fit no rule: {', '.join(plan.row_by_row[:3])} ...")
    table.add_row("expected time", f"about {duration(plan.seconds)}")
    if plan.cheaper:
        table.add_row("cheaper", "; ".join(plan.cheaper))
    console.print(table)
    console.print()


def show_result(console: PlainConsole, summary: Mapping[str, Any], folder: str) -> None:
    """The tables that end an audit."""
    console.print()
    if "knowledge" in summary:
        console.print(knowledge_lines(summary))
        console.print()
    if "auto" in summary:
        console.print(calibration_lines(summary))
        console.print()
    if "detection" in summary:
        if not only_looked(summary):
            console.print(influence_table(summary))
            console.print()
        console.print(detector_table(summary))
        console.print()
    if "cancellation" in summary:
        console.print(cancellation_table(summary))
        console.print()
    if "test_rows" in summary:
        console.print(test_table(summary))
        console.print()
    if "spoiled_texts" in summary:
        console.print(spoiled_texts(summary))
        console.print()
    console.print(suspicious_rows(summary))
    console.print()
    console.print(f"Ranked {summary['rows']:,} rows by {summary['score']} ({summary['sign']}); results in {folder}.")
    if only_looked(summary):
        console.print("Next: the same command without --quick, which trains the model and goes on from here;")
    then = "or:  " if only_looked(summary) else "Next:"
    console.print(f"{then} thresher clean {folder} --output cleaned.jsonl ({_drops(summary)})")
    if "auto" in summary and "classes" in summary:
        console.print("      with --relabel it mends labels where it is sure enough")


def _drops(summary: Mapping[str, Any]) -> str:
    """How many rows are dropped, and on what ground."""
    drop = f"drops {summary['drop']:,} rows"
    if "auto" in summary or summary["config"].get("drop") is not None:
        return drop
    return f"{drop}, the lowest {DROP:.0%}: how many are wrong was not estimated, which --detector auto does"


def cancellation_table(summary: Mapping[str, Any]) -> RenderableType:
    """C of every layer group, with median, min and max over its weights."""
    entries = summary["cancellation"]
    table = Table(title="Cancellation of the training rows' gradients (1 = none)", title_justify="left")
    table.add_column("")
    for entry in entries:
        table.add_column(GROUP_TITLES[entry["group"]], justify="right")
    for title, name in {"of the group": "cancellation", "median weight": "median", "min": "min", "max": "max"}.items():
        table.add_row(title, *(_ratio(entry[name], entry) for entry in entries))
    notes = "How much rows pull the weights in opposite directions; not how well a group tells good rows from bad."
    return Group(table, Styled(notes, "dim"))


def test_table(summary: Mapping[str, Any]) -> RenderableType:
    """What the test rows say of each training set, with a 95 % interval for that many test rows."""
    first, *others = _task(summary).measures
    table = Table(title=f"{first.title.capitalize()} on {summary['test_rows']} test rows, trained on")
    table.title_justify = "left"
    table.add_column("training set")
    for title in (first.title, "95 % interval", *(measure.title for measure in others)):
        table.add_column(title, justify="right")
    for name, title in TRAINED_ON_TITLES.items():
        if name in summary[first.key]:
            margin = summary[f"{first.key}_margin_95"][name]
            values = [f"{summary[measure.key][name]:{measure.form}}" for measure in (first, *others)]
            table.add_row(title, values[0], f"± {margin:{first.form}}", *values[1:])
    return Group(table, Styled("Differences smaller than the intervals may be chance.", "dim"))


def spoiled_texts(summary: Mapping[str, Any]) -> RenderableType:
    """Some of the rows whose text is none, or of another language."""
    task = _task(summary)
    rows = [
        indented(f"row {one['row']}, {one['text_problem']}: {task.shown(one, 140)}") for one in summary["spoiled_texts"]
    ]
    return Group(Styled("Rows whose text is spoiled, the first of them", "italic"), *rows)


def suspicious_rows(summary: Mapping[str, Any]) -> RenderableType:
    """The most detrimental rows, what the model says, and whom they hurt."""
    task = _task(summary)
    others = " of the others" * ("spoiled_texts" in summary)
    title = f"The {len(summary['suspicious'])} most suspicious rows{others}"
    parts: list[RenderableType] = [Styled(title, "italic")]
    for place, entry in enumerate(summary["suspicious"], start=1):
        planted = {True: ", a planted error", False: ", not a planted error"}.get(entry.get("planted"), "")
        parts.append(Styled(f"{place:2}. row {entry['row']}, {task.headline(entry)}{planted}", "bold"))
        parts.append(indented(task.shown(entry, 160)))
        for query in entry["hurts"]:
            about = f"hurts query {query['query']}{task.tag(query)}: {task.shown(query, 110)}"
            parts.append(indented(about, "dim"))
    return Group(*parts)


def _task(summary: Mapping[str, Any]) -> type[Task]:
    return TASKS[summary["config"]["task"]]


def _ratio(value: float | None, entry: Mapping[str, Any]) -> str:
    if value is None:
        return "inf" if entry["infinite"] else "-"  # what JSON has no number for
    return f"{value:.1f}" if value < 1000 else f"{value:.1g}"


def _size(count: int) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"
