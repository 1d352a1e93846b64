"""One row's ranks over the layers and its queries, on the console."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich.console import Group, RenderableType
from rich.styled import Styled
from rich.table import Table

from thresher.report.detection import count_pair
from thresher.tasks.registry import TASKS
from thresher.terminal import PlainConsole, apply_style, indent

if TYPE_CHECKING:
    from thresher.results.explain import Explanation, QueryInfluence

BAR = 6
_PARTS = " ▏▎▍▌▋▊▉█"  # eighths of a character


def show_explanation(console: PlainConsole, found: Explanation) -> None:
    """Who the row is, where it stands at every layer, and whom it hurts and helps."""
    console.print(explanation_lines(found, console.width))


def explanation_lines(found: Explanation, width: int) -> RenderableType:
    """What :func:`show_explanation` shows, within ``width`` columns."""
    parts: list[RenderableType] = [_who(found), "", layer_table(found, width)]
    if found.contradicted_by:
        parts += ["", _contradicting(found)]
    if found.hurts or found.helps:
        parts.append("")
        for title, queries in (("hurts", found.hurts), ("helps", found.helps)):
            if queries:
                parts.append(_queries(f"{title} most, by {found.influence}", found, queries))
        notes = "Influence on a query: the mean over these modules, 1 = a typical size; larger = helpful."
        parts.append(Styled(notes, "dim"))
    return Group(*parts)


def layer_table(found: Explanation, width: int) -> RenderableType:
    """Rank, percentile and a bar for each layer and method; a longer bar is a worse rank, red is dropped."""
    digits = len(f"{found.rows:,}")
    methods = list(found.ranks.columns)
    a_table = max(1, (width - 9) // (max(digits + BAR + 7, *(len(name) for name in methods)) + 3))
    title = f"Rank among {found.rows:,} rows when only this layer is added up, by {found.aggregation}"
    parts: list[RenderableType] = [Styled(title, "italic")]
    for start in range(0, len(methods), a_table):
        table = Table()
        table.add_column("layer", justify="right")
        for method in methods[start : start + a_table]:
            table.add_column(method, no_wrap=True)
        for layer, ranks in found.ranks.iloc[:, start : start + a_table].dropna(how="all").iterrows():
            table.add_row(str(layer), *(_cell(rank, found, digits) for rank in ranks))
        parts.append(table)
    notes = (
        f"1 = most detrimental; then the share of rows below. A longer bar is a worse rank, red is among the "
        f"{found.dropped:,} lowest.  WE: word embedding, CL: classifier."
    )
    return Group(*parts, Styled(notes, "dim"))


def _who(found: Explanation) -> RenderableType:
    task = TASKS[found.task]
    verdict = "dropped" if found.rank <= found.dropped else "kept"
    told: list[str] = []
    if found.pair is not None:
        told.append(f"A{count_pair(found.pair).removeprefix('a')}.")
    if found.annotator is not None:
        by = found.annotator
        told.append(
            f"Labelled by {by.name}, who is wrong in {by.estimate:.0%} ({by.low:.0%} to {by.high:.0%}) of "
            f"{by.rows:,} rows."
        )
    given = [f"A planted error; the file has{task.tag(found.given)}:", indent(task.format_text(found.given, 2000))]
    return Group(
        Styled(f"Row {found.row}, {task.headline(found.about)}", "bold"),
        indent(task.format_text(found.about, 2000)),
        *given * found.planted,
        f"Rank {found.rank:,} of {found.rows:,} (1 = most detrimental) by {found.score}, the score of the audit: "
        f"{verdict}.",
        *told,
    )


def _cell(rank: int, found: Explanation, digits: int) -> RenderableType:
    if pd.isna(rank):
        return ""
    below = (rank - 1) / found.rows
    style = "red" if rank <= found.dropped else "dim"
    return apply_style((f"{rank:>{digits},}", style), (f" {below:>4.0%} ", "dim"), (_bar(1 - below), style))


def _bar(share: float) -> str:
    whole, eighths = divmod(round(share * BAR * 8), 8)
    return ("█" * whole + _PARTS[eighths]).ljust(BAR)[:BAR]


def _contradicting(found: Explanation) -> RenderableType:
    task = TASKS[found.task]
    shown = Table.grid()
    shown.add_column(no_wrap=True, overflow="ellipsis")
    for one in found.contradicted_by:
        shown.add_row(
            f"{one.likeness:+8.2f}  query {one.query}{task.tag(one.about)}: {task.format_text(one.about, 300)}"
        )
    title = f"{found.against} of the {found.near} clean queries most like it have another label"
    notes = "Likeness: the cosine of features of a model that was not trained; 1 = the same."
    return Group(Styled(title, "italic"), shown, Styled(notes, "dim"))


def _queries(title: str, found: Explanation, queries: Sequence[QueryInfluence]) -> RenderableType:
    task = TASKS[found.task]
    shown = Table.grid()
    shown.add_column(no_wrap=True, overflow="ellipsis")
    for query in queries:
        wrong = "" if query.correct else " (the model gets it wrong)"
        text = task.format_text(query.about, 300)
        about = f"{query.influence:+8.2f}  query {query.query}{task.tag(query.about)}{wrong}: {text}"
        shown.add_row(about)
    return Group(Styled(f"Queries it {title}{'' if queries else ': none'}", "italic"), shown)


def explanation_json(found: Explanation) -> dict[str, Any]:
    """All that was found, as values of JSON; ``ranks`` by layer and method, None where there is none."""
    ranks = found.ranks.astype(object).where(found.ranks.notna(), None)
    typed = {"pair": found.pair, "annotator": found.annotator}
    plain = asdict(replace(found, ranks=pd.DataFrame(), pair=None, annotator=None))
    return plain | {"ranks": ranks.to_dict("index")} | {name: one and one.model_dump() for name, one in typed.items()}
