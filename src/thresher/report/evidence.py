"""The parts of a report that say how sure it is, and of what it was made."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pandas as pd

from thresher.report.console import cancellation_sheet
from thresher.report.detection import detector_sheet
from thresher.report.facts import Facts
from thresher.report.parts import Picture, Section
from thresher.report.sheets import Sheet
from thresher.report.titles import FAMILIES, GROUP_TITLES
from thresher.summary import Calibration

if TYPE_CHECKING:
    from matplotlib.figure import Figure


PATTERNED = 0.5
"""Probability of a pattern from which on its law counts more than canaries do."""

NOT_KEPT = "This run did not keep what its canaries tell of that; the audit's own command, given again, adds it."


def reliable(facts: Facts, auto: Calibration) -> Section:
    """Whether probabilities are what they say."""
    lines = [
        "Of rows that are said to be wrong with 70 %, about 70 % should be. Canaries tell: rows that we gave a wrong "
        "label lie where wrong rows lie, and each was judged by what was not fitted to it."
    ]
    if not auto.reliability:
        return Section("reliable", "How sure is it", (NOT_KEPT,))
    if auto.kind is not None and auto.kind.patterned > PATTERNED:
        lines.append(
            "Errors follow a pattern here, so probabilities come from the clean rows more than from canaries, which "
            "are too few where such errors are."
        )
    planted = facts.planted_reliability
    if planted:
        lines.append("Crosses: the planted errors alone. The rows' own errors, if there are any, come on top of them.")
    beside = {one.above: f"{one.planted:,} of {one.rows:,}" for one in planted}
    rows = tuple(
        (
            f"{one.above:.0%} to {one.up_to:.0%}",
            f"{one.probability:.1%}",
            f"{one.wrong:.0%}",
            f"{one.low:.0%} to {one.high:.0%}",
            f"{one.canaries:,}",
            f"{one.rows:,}",
            *([beside.get(one.above, "")] if planted else []),
        )
        for one in auto.reliability
    )
    headers = ("said to be wrong", "mean", "are wrong", "95 % interval", "canaries", "looks at rows")
    headers += ("planted",) if planted else ()

    def draw() -> Figure:
        from thresher.report.pictures import reliability_picture

        return reliability_picture(auto.reliability, planted)

    alt = "; ".join(f"said {row[1]}: {row[2]} are wrong ({row[3]})" for row in rows)
    note = "On the dashed line probabilities are what they say. Bars: 95 % intervals; few canaries make them long."
    sheet = Sheet("What is said, and what is so", headers, rows)
    picture = Picture("reliability", "What is said, and what is so", draw, f"{alt}.", note, sheet)
    return Section("reliable", "How sure is it", tuple(lines), pictures=(picture,))


def evidence(facts: Facts) -> Section:
    """Which evidence ranks the rows, and why that."""
    summary, auto = facts.summary, facts.summary.auto
    lines: list[str] = []
    sheets: list[Sheet] = []
    if auto is None:
        lines.append(
            f"{summary.score} ranks the rows because it was named; no canaries say whether it finds errors here."
        )
    else:
        lines.append(_why(auto))
        sheets.append(_weights(facts, auto))
    if summary.detection:
        sheets.append(detector_sheet(summary))
    pictures = (*_heat(facts), *_curves(facts))
    return Section("evidence", "Which evidence was trusted, and why", tuple(lines), "", pictures, tuple(sheets))


def _why(auto: Calibration) -> str:
    found = auto.canaries_auroc
    compared = f"AUROC {found.combination:.2f} together, {found.single:.2f} the best alone"
    if auto.kind is not None and auto.kind.patterned > PATTERNED:
        return (
            f"Errors follow a pattern (probability {auto.kind.patterned:.2f}). A model believes such errors, and "
            "canaries hardly show them. So by that probability rows are ranked by the law that clean rows tell of "
            "wrong labels and by mean influence, where there is one; by the rest of it by the kinds below. On "
            f"canaries: {compared}."
        )
    if auto.combined:
        return (
            "Evidence that ranks canaries low is trusted. Together the kinds below do it about as well as the best "
            f"single score or better ({compared}), and do not hang on one."
        )
    return f"{auto.best_single} alone finds canaries better than all together, by more than chance ({compared})."


def _weights(facts: Facts, auto: Calibration) -> Sheet:
    found = facts.canary_auroc({name for names in auto.members.values() for name in names} | {auto.best_single})
    rows = tuple(
        (
            FAMILIES.get(family, family),
            f"{auto.weights[family]:.2f}",
            ", ".join(f"{name} ({found[name]:.2f})" if name in found else name for name in names),
        )
        for family, names in auto.members.items()
    )
    note = "Behind each score its AUROC: 1 = every canary ranks below every other row, 0.5 = chance." + (
        "" if auto.combined else f" Not used here: {auto.best_single} alone ranks the rows."
    )
    return Sheet("What the ranking is made of", ("evidence", "weight", "scores"), rows, note)


def _heat(facts: Facts) -> list[Picture]:
    found = facts.influence_by_group
    if found is None or found[1].empty:
        return []
    how, table = found[0], found[1].rename(columns=GROUP_TITLES)
    of = "planted errors" if facts.summary.detection else "canaries"
    rows = tuple(
        (str(name), *("" if pd.isna(value) else f"{value:.2f}" for value in values))
        for name, values in zip(table.index, table.to_numpy(), strict=True)
    )

    def draw() -> Figure:
        from thresher.report.pictures import table_picture

        return table_picture(table, 0.5, 1.0, ".2f", ("influence", "layers"))

    title = f"How well each influence finds {of}, by layers"
    note = (
        f"AUROC by {how}: 1 = every one ranks below every other row, 0.5 = chance. WE: word embedding, CL: classifier."
    )
    sheet = Sheet(title, ("influence", *map(str, table.columns)), rows)
    return [Picture("influence", title, draw, f"{title}: a table of AUROCs, the numbers of which follow.", note, sheet)]


def _curves(facts: Facts) -> list[Picture]:
    curves = facts.curves
    if not curves:
        return []

    def draw() -> Figure:
        from thresher.report.pictures import detection_picture

        return detection_picture(curves)

    count = len(facts.scores)
    looked = {share: max(1, int(share * count + 1e-9)) for share in (0.1, 0.2, 0.3, 0.5)}
    rows = tuple((title, *(f"{found[at - 1]:.0%}" for at in looked.values())) for title, found in curves.items())
    sheet = Sheet("Planted errors found", ("score", *(f"in {share:.0%}" for share in looked)), rows)
    alt = "; ".join(f"{row[0]} finds {row[3]} in 30 % of the rows" for row in rows)
    return [Picture("detection", "How soon planted errors are found", draw, f"{alt}.", "", sheet)]


def by_layer(facts: Facts) -> Section | None:
    """How the ranks of the worst rows move over the layers, and how gradients cancel."""
    found = facts.by_layer
    cancels = (cancellation_sheet(facts.summary.cancellation),) if facts.summary.cancellation else ()
    if found is None or found.percent.empty:
        return Section("layers", "Layer by layer", sheets=cancels) if cancels else None
    share = facts.summary.dropped_rows / len(facts.scores)

    def draw() -> Figure:
        from thresher.report.pictures import layers_picture

        return layers_picture(found.percent, share, f"rank (percent of {len(facts.scores):,})")

    rows = tuple(
        (str(layer), *("" if pd.isna(value) else f"{value:.0f} %" for value in values))
        for layer, values in zip(found.percent.index, found.percent.to_numpy(), strict=True)
    )
    title = f"Where the most suspicious rows stand at each layer, by {found.influence} ({found.how})"
    note = "Share of the rows that rank lower when only this layer is added up. Low = detrimental; shaded: dropped."
    alt = f"{title}. The numbers follow."
    sheet = Sheet(title, ("layer", *(f"row {row}" for row in found.percent)), rows)
    picture = Picture("layers", title, draw, alt, note, sheet)
    return Section("layers", "Layer by layer", pictures=(picture,), sheets=cancels)


def side_by_side(facts: Facts) -> Section | None:
    """The map of the rows."""
    rows = facts.row_map
    if rows is None:
        return None

    def draw() -> Figure:
        from thresher.report.pictures import map_picture

        return map_picture(rows)

    which = "All rows" if len(rows.x) == rows.of else f"{len(rows.x):,} of {rows.of:,} rows, drawn at random"
    counts = Counter(rows.level.tolist())
    alt = ", ".join(f"{counts[number]:,} {title}" for number, title in enumerate(rows.levels))
    note = (
        f"{which}, by features of the model as it came, in the two directions that tell the labels apart best. A name "
        "stands in the middle of the rows that have the label. A suspicious row in the midst of another label has "
        "probably the wrong one."
    )
    return Section(
        "map", "A map of the rows", pictures=(Picture("map", "Rows that are alike lie side by side", draw, alt, note),)
    )
