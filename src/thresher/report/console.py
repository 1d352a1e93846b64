"""Plan and result of an audit on the console. Every number shown here is in summary.json."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.styled import Styled
from rich.table import Table

from thresher.auditing.decide import DROP
from thresher.auditing.plan import Plan
from thresher.progress import byte_size, duration
from thresher.report.copies import show_copies
from thresher.report.detection import annotator_sheet, calibration_lines, detector_sheet, influence_table
from thresher.report.knowledge import show_knowledge
from thresher.report.sheets import Sheet, as_table
from thresher.report.titles import GROUP_TITLES, TRAINED_ON_TITLES
from thresher.summary import GroupCancellation, Summary
from thresher.tasks.base import Task
from thresher.tasks.registry import TASKS
from thresher.terminal import PlainConsole, indent


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
        table.add_row("tensor", f"{_kept(plan)}; gradients {byte_size(plan.gradient_bytes)} meanwhile")
    table.add_row("disk", f"about {byte_size(plan.disk_bytes)} at most, in all")
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


def _kept(plan: Plan) -> str:
    if plan.tensor_bytes:
        return f"{byte_size(plan.tensor_bytes)} on disk"
    return "not kept" if plan.reference == plan.rows else f"not kept; {plan.reference:,} reference rows stand for all"


def show_result(console: PlainConsole, summary: Summary, folder: str) -> None:
    """What an audit found: what the model knows, what canaries told, tables, the most suspicious rows; and the end."""
    console.print()
    for part in _parts(summary):
        console.print(part)
        console.print()
    show_end(console, summary, folder)


def _parts(summary: Summary) -> Iterator[RenderableType]:
    if summary.knowledge:
        yield show_knowledge(summary.knowledge, summary)
    if summary.auto:
        yield Group(*calibration_lines(summary.auto, trained=not summary.config.quick))
    if summary.annotators:
        yield as_table(annotator_sheet(summary.annotators))
    if summary.detection:
        if not summary.config.quick:
            yield influence_table(summary)
        yield as_table(detector_sheet(summary))
    if summary.measures:
        yield as_table(test_sheet(summary))
    if summary.spoiled_texts:
        yield spoiled_texts(summary)
    yield suspicious_rows(summary)
    if summary.copies and (summary.copies.rows or summary.copies.queries):
        yield show_copies(summary.copies, _task(summary), classes=bool(summary.classes))
    if summary.cancellation:
        yield as_table(cancellation_sheet(summary.cancellation))


def show_end(console: PlainConsole, summary: Summary, folder: str) -> None:
    """The lines that end an audit: where the results are, and what to do next."""
    console.print(f"Ranked {summary.rows:,} rows by {summary.score} ({summary.sign}); results in {folder}.")
    if summary.config.quick:
        console.print("Next: the same command without --quick, which trains the model and goes on from here;")
    then = "or:  " if summary.config.quick else "Next:"
    console.print(f"{then} thresher clean {folder} --output cleaned.jsonl ({drop_line(summary)})")
    if summary.auto and summary.classes:
        console.print("      with --relabel it mends labels where it is sure enough")


def drop_line(summary: Summary) -> str:
    """How many rows are dropped, and on what ground."""
    drops = f"drops {summary.dropped_rows:,} rows"
    if summary.auto or summary.config.drop is not None:
        return drops
    return f"{drops}, the lowest {DROP:.0%}: how many are wrong was not estimated, which --detector auto does"


def cancellation_sheet(groups: Sequence[GroupCancellation]) -> Sheet:
    """C of every layer group, with median, min and max over its weights."""
    shown = {"of the group": "cancellation", "median weight": "median", "min": "min", "max": "max"}
    return Sheet(
        "Cancellation of the training rows' gradients (1 = none)",
        ("", *(GROUP_TITLES[one.group] for one in groups)),
        tuple((title, *(_ratio(getattr(one, name), one.infinite) for one in groups)) for title, name in shown.items()),
        "How much rows pull the weights in opposite directions; not how well a group tells good rows from bad.",
    )


def test_sheet(summary: Summary) -> Sheet:
    """What the test rows say of each training set, with a 95 % interval for that many test rows."""
    measures = _task(summary).measures
    first, *others = (summary.measures[one.key] for one in measures)
    rows: list[tuple[str, ...]] = []
    for name, title in TRAINED_ON_TITLES.items():
        if name in first:
            form, margin = measures[0].form, first[name].margin_95
            interval = "" if margin is None else f"± {margin:{form}}"
            rest = zip(measures[1:], others, strict=True)
            values = [f"{found[name].value:{measure.form}}" for measure, found in rest]
            rows.append((title, f"{first[name].value:{form}}", interval, *values))
    return Sheet(
        f"{measures[0].title.capitalize()} on {summary.test_rows} test rows, trained on",
        ("training set", measures[0].title, "95 % interval", *(measure.title for measure in measures[1:])),
        tuple(rows),
        "Differences smaller than the intervals may be chance.",
    )


def spoiled_texts(summary: Summary) -> RenderableType:
    """Some of the rows whose text is none, or of another language."""
    task = _task(summary)
    rows = [
        indent(f"row {one.row}, {one.text_problem}: {task.format_text(one.about, 140)}")
        for one in summary.spoiled_texts
    ]
    return Group(Styled("Rows whose text is spoiled, the first of them", "italic"), *rows)


def suspicious_rows(summary: Summary) -> RenderableType:
    """The most detrimental rows, what the model says, and whom they hurt."""
    task = _task(summary)
    others = " of the others" * bool(summary.spoiled_texts)
    title = f"The {len(summary.suspicious)} most suspicious rows{others}"
    parts: list[RenderableType] = [Styled(title, "italic")]
    for place, one in enumerate(summary.suspicious, start=1):
        planted = {True: ", a planted error", False: ", not a planted error", None: ""}[one.planted]
        parts.append(Styled(f"{place:2}. row {one.row}, {task.headline(one.about)}{planted}", "bold"))
        if one.contradicted:
            what = "clean query" if one.contradicted == "query" else "training row"
            parts.append(indent(f"a {what} with almost the same text says otherwise", "bold"))
        parts.append(indent(task.format_text(one.about, 160)))
        for query in one.contradicted_by:
            about = f"contradicted by query {query.query}{task.tag(query.about)}: {task.format_text(query.about, 110)}"
            parts.append(indent(about, "dim"))
        for query in one.hurts:
            about = f"hurts query {query.query}{task.tag(query.about)}: {task.format_text(query.about, 110)}"
            parts.append(indent(about, "dim"))
    return Group(*parts)


def _task(summary: Summary) -> type[Task]:
    return TASKS[summary.config.task]


def _ratio(value: float | None, infinite: int) -> str:
    if value is None:
        return "inf" if infinite else "-"  # what JSON has no number for
    return f"{value:.1f}" if value < 1000 else f"{value:.1g}"
