"""One row's ranks over the layers and its queries, on the console."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from thresher.layer_view import Explanation, QueryInfluence
from thresher.report.console import one_line

BAR = 6
_PARTS = " ▏▎▍▌▋▊▉█"  # eighths of a character


def show_explanation(console: Console, found: Explanation) -> None:
    """Who the row is, where it stands at every layer, and whom it hurts and helps."""
    console.print(_who(found))
    console.print()
    console.print(layer_table(found, console.width))
    if found.hurts or found.helps:
        console.print()
        console.print(_queries(f"hurts most, by {found.score.rpartition('|')[0]}", found.hurts))
        console.print(_queries("helps most", found.helps))
        notes = "Influence on a query: the mean over these modules, 1 = a typical size; larger = helpful."
        console.print(Text(notes, style="dim"))


def layer_table(found: Explanation, width: int) -> RenderableType:
    """Rank, percentile and a bar for each layer and method; a longer bar is a worse rank, red is dropped."""
    digits = len(f"{found.rows - 1:,}")
    methods = list(found.ranks.columns)
    a_table = max(1, (width - 9) // (max(digits + BAR + 7, *(len(name) for name in methods)) + 3))
    title = f"Rank among {found.rows:,} rows when only this layer is added up, by {found.aggregation}"
    parts: list[RenderableType] = [Text(title, style="italic")]
    for start in range(0, len(methods), a_table):
        table = Table()
        table.add_column("layer", justify="right")
        for method in methods[start : start + a_table]:
            table.add_column(Text(method), no_wrap=True)
        for layer, ranks in found.ranks.iloc[:, start : start + a_table].dropna(how="all").iterrows():
            table.add_row(Text(str(layer)), *(_cell(rank, found, digits) for rank in ranks))
        parts.append(table)
    notes = (
        f"0 = most detrimental; then the share of rows below. A longer bar is a worse rank, red is among the "
        f"{found.drop:,} lowest.  WE: word embedding, CL: classifier."
    )
    return Group(*parts, Text(notes, style="dim"))


def _who(found: Explanation) -> RenderableType:
    planted = f" (planted; the file says {found.given_label})" if found.label != found.given_label else ""
    says = f"the model says {found.predicted} ({found.probability:.0%} for the label)"
    verdict = "dropped" if found.rank < found.drop else "kept"
    return Group(
        Text(f"Row {found.row}, label {found.label}{planted}; {says}", style="bold"),
        Text(one_line(found.text, 2000)),
        Text(f"Rank {found.rank:,} of {found.rows:,} by {found.score}, the score of the audit: {verdict}."),
    )


def _cell(rank: int, found: Explanation, digits: int) -> Text:
    if pd.isna(rank):
        return Text()
    below = rank / found.rows
    style = "red" if rank < found.drop else "dim"
    return Text.assemble((f"{rank:>{digits},}", style), (f" {below:>4.0%} ", "dim"), (_bar(1 - below), style))


def _bar(share: float) -> str:
    whole, eighths = divmod(round(share * BAR * 8), 8)
    return ("█" * whole + _PARTS[eighths]).ljust(BAR)[:BAR]


def _queries(title: str, queries: Sequence[QueryInfluence]) -> RenderableType:
    parts = [Text(f"Queries it {title}{'' if queries else ': none'}", style="italic")]
    for query in queries:
        wrong = "" if query.correct else ", the model gets it wrong"
        about = f"{query.influence:+8.2f}  query {query.query} ({query.label}{wrong}): {one_line(query.text, 300)}"
        parts.append(Text(about, no_wrap=True, overflow="ellipsis"))
    return Group(*parts)
