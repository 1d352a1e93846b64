"""Plan and result of an audit on the console. Every number shown here is in summary.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from thresher.plan import Plan
from thresher.tasks.base import Task
from thresher.tasks.registry import TASKS

GROUP_TITLES = {
    "WE": "WE",
    "1": "1st quarter",
    "2": "2nd",
    "3": "3rd",
    "4": "4th",
    "CL": "CL",
    "layers": "all layers",
    "all": "everything",
}
TRAINED_ON_TITLES = {
    "all_rows": "all rows",
    "dropped": "after dropping by Thresher",
    "dropped_at_random": "after dropping as many at random",
    "errors_removed": "with the planted errors really gone",
}


def show_plan(console: Console, plan: Plan) -> None:
    """What is going to happen, before it does."""
    table = Table(title="Plan", title_justify="left", show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    groups = ", ".join(f"{count} in {group}" for group, count in plan.groups.items())
    table.add_row("rows", f"{plan.rows:,} to rank, {plan.queries:,} queries")
    table.add_row("model", f"{plan.model}, {plan.training}")
    for title, note in plan.notes.items():
        table.add_row(title, note if len(note) < 200 else note[:197] + "...")
    table.add_row("modules", f"{plan.modules} ({groups})")
    table.add_row("tensor", f"{_size(plan.tensor_bytes)} on disk; gradients {_size(plan.gradient_bytes)} meanwhile")
    if plan.checkpoints:
        table.add_row("checkpoints", plan.checkpoints)
    if plan.optimizer:
        table.add_row("optimizer", plan.optimizer)
    if plan.row_by_row:
        table.add_row("row by row", f"{len(plan.row_by_row)} modules fit no rule: {', '.join(plan.row_by_row[:3])} ...")
    table.add_row("expected time", _time(plan.seconds))
    console.print(table)
    console.print()


def show_result(console: Console, summary: Mapping[str, Any], folder: str) -> None:
    """The tables that end an audit."""
    console.print()
    if "detection" in summary:
        console.print(detection_table(summary))
        console.print()
    if "cancellation" in summary:
        console.print(cancellation_table(summary))
        console.print()
    if "test_rows" in summary:
        console.print(test_table(summary))
        console.print()
    console.print(suspicious_rows(summary))
    drop = summary["drop"] / summary["rows"]
    console.print()
    console.print(f"Ranked {summary['rows']:,} rows by {summary['score']} ({summary['sign']}); results in {folder}.")
    console.print(f"Next: thresher clean {folder} --drop {drop:.2g} --output cleaned.jsonl", highlight=False)


def detection_table(summary: Mapping[str, Any]) -> RenderableType:
    """Share of planted errors found among the lowest 30 %, by influence, aggregation and layer group."""
    cells: dict[tuple[str, str], dict[str, float]] = {}
    for entry in summary["detection"]:
        if entry["group"] is not None:
            name = entry["aggregation"] + (f" {entry['k']:g} n" if entry["k"] else "")
            cells.setdefault((entry["influence"], name), {})[entry["group"]] = entry["ndr30"]
    groups = [group for group in GROUP_TITLES if any(group in row for row in cells.values())]
    random = next(entry for entry in summary["detection"] if entry["influence"] == "random")
    table = Table(
        title=f"Planted errors found among the 30 % of rows with the lowest scores "
        f"({summary['planted']} errors planted; random finds {random['ndr30']:.0%})",
        title_justify="left",
    )
    table.add_column("influence")
    table.add_column("aggregation")
    for group in groups:
        table.add_column(GROUP_TITLES[group], justify="right")
    before = ""
    for (influence, aggregation), row in cells.items():
        if before and influence != before:
            table.add_section()
        shown = [_share(row.get(group), chosen=_is_chosen(summary, influence, group, aggregation)) for group in groups]
        table.add_row("" if influence == before else influence, aggregation, *shown)
        before = influence
    notes = f"* the score that ranks the rows.  WE: word embedding, CL: classifier.  Scores: {summary['sign']}."
    return Group(table, Text(notes, style="dim"))


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
    return Group(table, Text(notes, style="dim"))


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
    return Group(table, Text("Differences smaller than the intervals may be chance.", style="dim"))


def suspicious_rows(summary: Mapping[str, Any]) -> RenderableType:
    """The most detrimental rows, what the model says, and whom they hurt."""
    task = _task(summary)
    parts: list[RenderableType] = [Text(f"The {len(summary['suspicious'])} most suspicious rows", style="italic")]
    for place, entry in enumerate(summary["suspicious"], start=1):
        planted = {True: ", a planted error", False: ", not a planted error"}.get(entry.get("planted"), "")
        parts.append(Text(f"{place:2}. row {entry['row']}, {task.headline(entry)}{planted}", style="bold"))
        parts.append(Text(f"    {task.shown(entry, 160)}"))
        for query in entry["hurts"]:
            about = f"    hurts query {query['query']}{task.tag(query)}: {task.shown(query, 110)}"
            parts.append(Text(about, style="dim"))
    return Group(*parts)


def _task(summary: Mapping[str, Any]) -> type[Task]:
    return TASKS[summary["config"]["task"]]


def _is_chosen(summary: Mapping[str, Any], influence: str, group: str, aggregation: str) -> bool:
    return summary["score"] == f"{influence}|{group}|" + aggregation.replace(" n", "").replace(" ", "@")


def _share(value: float | None, *, chosen: bool) -> str:
    return "" if value is None else f"{value:.0%}{'*' if chosen else ' '}"


def _ratio(value: float | None, entry: Mapping[str, Any]) -> str:
    if value is None:
        return "inf" if entry["infinite"] else "-"  # what JSON has no number for
    return f"{value:.1f}" if value < 1000 else f"{value:.1g}"


def _size(count: int) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"about {max(1, round(seconds))} s"
    return f"about {seconds / 60:.0f} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"
