"""The parts of a report: sentences, tables and pictures, each of what the run has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pandas as pd

from thresher.progress import byte_size, duration
from thresher.report.console import drop_line, test_sheet
from thresher.report.copies import WHERE, copy_lines
from thresher.report.detection import annotator_sheet, calibration_lines
from thresher.report.evidence import by_layer, evidence, reliable, side_by_side
from thresher.report.facts import Facts
from thresher.report.knowledge import knowledge_lines
from thresher.report.parts import Picture, Section
from thresher.report.sheets import Sheet
from thresher.report.titles import TRAINED_ON_TITLES, VERDICT_TITLES
from thresher.summary import Calibration, Share, Summary
from thresher.tasks.registry import TASKS

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def sections(facts: Facts) -> Iterator[Section]:
    """Those before the rows themselves, in order."""
    yield audited(facts.summary)
    yield errors(facts)
    if facts.summary.auto:
        yield reliable(facts, facts.summary.auto)
    yield evidence(facts)
    if (layers := by_layer(facts)) is not None:
        yield layers
    if (rows := side_by_side(facts)) is not None:
        yield rows


def last_sections(facts: Facts) -> Iterator[Section]:
    """Those after the rows."""
    summary = facts.summary
    if summary.copies and (summary.copies.rows or summary.copies.queries):
        lines = copy_lines(summary.copies, classes=bool(summary.classes))
        yield Section("copies", "Near copies", (*lines, WHERE))
    yield decided(facts)
    yield acting(summary)
    yield cost(summary)


def audited(summary: Summary) -> Section:
    """What was audited, and whether the model knows the task."""
    config = summary.config
    about = {
        "training rows": f"{config.train}, {summary.rows:,} rows",
        "clean rows (queries)": f"{config.validation}, {summary.queries:,} rows",
        "model": config.model + (f" with the adapter {config.adapter}" if config.adapter else ""),
        "task": config.task,
    }
    if config.quick:
        about["how"] = "a first look by features of the model as it came; nothing was trained"
    about |= {"classes": ", ".join(summary.classes)} if summary.classes else {}
    about |= {title: note for title, note in summary.notes.items() if title != "classes"}
    if summary.planted is not None:
        about["planted errors"] = f"{summary.planted:,} ({summary.plant_kind}), to measure what would be found"
    about["score"] = f"{summary.score}; {summary.sign}. Rank 1 is the most detrimental row."
    known = summary.knowledge
    return Section(
        "audited",
        "What was audited",
        tuple(knowledge_lines(known, summary, "The model")) if known else (),
        (known.doubt or "") if known else "",
        sheets=(Sheet("The audit", ("what", "is"), tuple(about.items())),),
    )


def errors(facts: Facts) -> Section:
    """The share of errors with its interval, what is dropped, and what labels ought to be."""
    summary = facts.summary
    auto = summary.auto
    lines = [] if auto is None else calibration_lines(auto, trained=not summary.config.quick)
    if auto is None:
        lines.append(f"Rows are ranked by {summary.score}, which was named. How many are wrong was not estimated.")
    lines.append(f"The audit {drop_line(summary)}.")
    pictures = [*([_share(auto)] if auto else []), _ranking(facts), *_suggested(facts.suggestions)]
    sheets = (annotator_sheet(summary.annotators),) if summary.annotators else ()
    return Section("errors", "How many rows are wrong", tuple(lines), pictures=tuple(pictures), sheets=sheets)


def _share(auto: Calibration) -> Picture:
    rate = auto.error_rate
    told: list[tuple[str, Share]] = [("all that tells it", rate), ("canaries alone", rate.canaries)]
    told += [("clean rows alone", rate.queries)] if rate.queries else []
    rows = tuple((title, f"{one.estimate:.1%}", f"{one.low:.1%} to {one.high:.1%}") for title, one in told)

    def draw() -> Figure:
        from thresher.report.pictures import intervals_picture

        return intervals_picture(told, "share of the rows that is wrong, with its 95 % interval")

    alt = "; ".join(f"by {title} {share} ({interval})" for title, share, interval in rows)
    sheet = Sheet("Share of the rows that is wrong", ("told by", "share", "95 % interval"), rows)
    return Picture("share", "Share of the rows that is wrong", draw, f"Share of wrong rows: {alt}.", sheet=sheet)


def _ranking(facts: Facts) -> Picture:
    scores, dropped = facts.scores.sort_values("rank"), facts.summary.dropped_rows
    known = "probability_wrong" in scores
    about = "how likely wrong" if known else f"score: {facts.summary.score}"
    planted = scores.loc[scores["planted"], "rank"].tolist() if "planted" in scores else []

    def draw() -> Figure:
        from thresher.report.pictures import ranking_picture

        values = scores["probability_wrong" if known else "score"].to_numpy()
        return ranking_picture(values, dropped, planted, None if known else about)

    alt = f"{about.capitalize()} each of {len(scores):,} rows is, by rank; the first {dropped:,} are dropped."
    note = "The shaded rows are those that the audit drops." + " Marks above: planted errors." * bool(planted)
    return Picture("ranking", "How likely each row is wrong" if known else "The scores", draw, alt, note)


def _suggested(counts: pd.DataFrame) -> list[Picture]:
    if counts.empty:
        return []
    pairs = [(str(a), str(b), int(n)) for (a, b), n in counts.stack().items() if n]  # pyright: ignore
    pairs.sort(key=lambda pair: (-pair[2], pair[0], pair[1]))
    rows = tuple((given, better, f"{count:,}") for given, better, count in pairs[:15])

    def draw() -> Figure:
        from thresher.report.pictures import table_picture

        shown = counts.astype(float).where(counts > 0)
        return table_picture(shown, 0, float(counts.to_numpy().max()), ",.0f", ("given label", "suggested label"))

    most = f"{pairs[0][2]:,} rows labelled {pairs[0][0]} have {pairs[0][1]} suggested" if pairs else "none"
    sheet = Sheet("Given and suggested labels, the most frequent", ("given", "suggested", "rows"), rows)
    note = "Rows for which another label is more likely right than not."
    return [Picture("labels", "Given and suggested labels", draw, f"Most often: {most}.", note, sheet)]


def decided(facts: Facts) -> Section:
    """What people decided."""
    found = Counter(one.verdict for one in facts.decided.values())
    if not found:
        return Section(
            "decided", "What people decided", ("Nobody has decided about a row yet; thresher review is for that.",)
        )
    said = ", ".join(f"{found[name]:,} {title}" for name, title in VERDICT_TITLES.items() if found[name])
    line = f"People decided about {len(facts.decided):,} of {len(facts.scores):,} rows: {said}."
    return Section("decided", "What people decided", (line,))


def acting(summary: Summary) -> Section:
    """What dropping or mending rows bought on test rows."""
    title = "What acting on it bought"
    if not summary.measures:
        return Section("acting", title, ("It was not measured: --retrain --test FILE trains again and says.",))
    sheet, measure = test_sheet(summary), TASKS[summary.config.task].measures[0]
    first = summary.measures[measure.key]
    values = [
        (TRAINED_ON_TITLES[name], Share(estimate=one.value, low=one.value - margin, high=one.value + margin))
        for name in TRAINED_ON_TITLES
        if (one := first.get(name)) is not None and (margin := one.margin_95) is not None
    ]
    if not values:
        return Section("acting", title, sheets=(sheet,))

    def draw() -> Figure:
        from thresher.report.pictures import intervals_picture

        return intervals_picture(values, f"{measure.title} on {summary.test_rows:,} test rows", share=False)

    alt = "; ".join(f"{row[0]}: {row[1]} {row[2]}" for row in sheet.rows)
    return Section("acting", title, pictures=(Picture("acting", sheet.title, draw, alt, sheet.note, sheet),))


def cost(summary: Summary) -> Section:
    """Seconds, bytes, and how the model was trained."""
    lines: list[str] = []
    if summary.training:
        trained = summary.training
        tried = f"; {len(trained.trials)} short trainings found the rate" * bool(trained.trials)
        lines.append(
            f"The first training kept epoch {trained.chosen_epoch} of {len(trained.epochs)}, at a rate of "
            f"{trained.learning_rate:g}{tried}."
        )
    if summary.tensor_bytes:
        lines.append(f"The influence tensor takes {byte_size(summary.tensor_bytes)}.")
    rows = [(stage, f"{seconds:,.1f}", duration(seconds)) for stage, seconds in summary.seconds.items()]
    total = sum(summary.seconds.values())
    rows.append(("all", f"{total:,.1f}", duration(total)))
    return Section("cost", "What it cost", tuple(lines), sheets=(Sheet("Time", ("stage", "seconds", ""), tuple(rows)),))
