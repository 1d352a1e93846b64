"""What was planted and found, what the canaries told, and how many rows are wrong, on the console."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.styled import Styled
from rich.table import Table

from thresher.report.sheets import Sheet
from thresher.report.titles import GROUP_TITLES
from thresher.scores.names import DetectorScore, configuration_called, score_called
from thresher.summary import Annotator, Calibration, ErrorKind, ErrorPair, ErrorRate, Share, Summary

ALIKE = 0.5  # of rows that count among those like the queries; below, the report says so
SEEN = 0.9  # probability from which on something is said to be so
SHOWN_PAIRS, SHOWN_ANNOTATORS = 3, 10
MEASURES = {"ndr30": "found in 30 %", "auroc": "AUROC", "average_precision": "average precision"}


def influence_table(summary: Summary) -> RenderableType:
    """Share of planted errors found among the lowest 30 %, by influence, aggregation and layer group."""
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for entry in summary.detection:
        one = configuration_called(entry.score)
        if one is not None and one.group in GROUP_TITLES:
            name = one.aggregation + (f" {one.k:g} n" if one.k else "")
            star = "*" if entry.score == summary.score else " "
            cells.setdefault((one.influence, name), {})[one.group] = f"{entry.ndr30:.0%}{star}"
    groups = [group for group in GROUP_TITLES if any(group in row for row in cells.values())]
    table = Table(title=f"Planted errors found among the 30 % of rows with the lowest scores ({_planted(summary)})")
    table.title_justify = "left"
    table.add_column("influence")
    table.add_column("aggregation")
    for group in groups:
        table.add_column(GROUP_TITLES[group], justify="right")
    before = ""
    for (influence, aggregation), row in cells.items():
        if before and influence != before:
            table.add_section()
        table.add_row("" if influence == before else influence, aggregation, *(row.get(group, "") for group in groups))
        before = influence
    notes = f"* the score that ranks the rows.  WE: word embedding, CL: classifier.  Scores: {summary.sign}."
    return Group(table, Styled(notes, "dim"))


def detector_sheet(summary: Summary) -> Sheet:
    """The same for the ranking, for detectors without influence, and for the influence that finds most."""
    entries = {entry.score: entry for entry in summary.detection}
    called = {name: score_called(name) for name in entries if name not in ("auto", "chance", "oracle")}
    influences = [name for name, one in called.items() if one.kind == "influence"]
    best = max(influences, key=lambda name: entries[name].ndr30, default=None)
    detectors = {name: one.detector for name, one in called.items() if isinstance(one, DetectorScore)}
    rows: list[tuple[str, ...]] = []
    shown = [name for name in ("auto",) if name in entries]
    shown += sorted(detectors, key=lambda name: -entries[name].ndr30)
    for name in [*shown, *([best] if best else []), "chance", "oracle"]:
        star = "*" if name == summary.score else " "
        title = f"{name} (the best of {len(influences)} influences in hindsight)" if name == best else name
        values = [f"{getattr(entries[name], measure):{'.0%' if measure == 'ndr30' else '.2f'}}" for measure in MEASURES]
        rows.append((detectors.get(title, title) + star, *values))
    blind = "; auto did not see which rows were planted" * ("auto" in entries)
    title = f"Planted errors found by other ways to rank ({_planted(summary)})"
    note = f"* the score that ranks the rows{blind}."
    return Sheet(title, ("score", *MEASURES.values()), tuple(rows), note)


def calibration_lines(auto: Calibration, *, trained: bool) -> list[str]:
    """What canaries told about the ranking and about the rows, of a model ``trained`` on them or only looked at."""
    rate = auto.error_rate
    found, error, other = auto.canaries_auroc.single, auto.canaries_auroc_error.single, auto.canaries_auroc.combination
    made, rival = auto.best_single, "a combination"
    if auto.combined:
        members = ", ".join(f"{family} {weight:.2f}" for family, weight in auto.weights.items())
        made, rival = f"a combination of detectors (weights: {members})", f"the best single score, on all rows {made}"
        found, other, error = other, found, auto.canaries_auroc_error.combination
    lines = [
        _canaries(auto, trained=trained),
        f"Ranking: {made}. It tells canaries from other rows with an AUROC of {found:.2f} ± {1.96 * error:.2f} "
        f"(chosen without the rows that judge it; so chosen {rival}: {other:.2f}).",
        f"Errors: about {rate.estimate:.0%} of the rows are wrong ({_interval(rate)}{_ways(rate)}); "
        f"{auto.more_likely_wrong:,} rows are more likely wrong than right.",
    ]
    if auto.kind:
        lines.append(_kind(auto.kind))
    if auto.text_problems:
        lines.append(_texts(auto.text_problems))
    if rate.alike is not None and rate.alike < ALIKE:
        lines.append(
            "Clean queries are of another kind than most rows. What they say of the share of errors is said of rows "
            f"that look like them, of some {rate.alike:.0%}."
        )
    if rate.plausible is False:
        lines.append(
            "The two contradict one another: errors are not like canaries here, or clean queries not like the rows. "
            "Trust the order more than the probabilities."
        )
    return lines


def _canaries(auto: Calibration, *, trained: bool) -> str:
    count = " + ".join(map(str, auto.canaries))
    wrong = "another row's completion" if auto.canary_kind == "swap" else "a wrong label"
    apart = "no row is ranked by what it was as a canary"
    if auto.learned:
        seen = "trained on" if trained else "seen by the probe"
        return f"Canaries: {count} rows were {seen} with {wrong}, given by us; {apart}."
    return (
        f"Canaries: {count} rows were copied with {wrong}, given by us. The model was trained elsewhere and did not "
        f"learn them, so its errors are harder to find than these; {apart}."
    )


def _kind(kind: ErrorKind) -> str:
    """Whether errors follow a pattern, and which labels stand for which classes."""
    likely = kind.patterned
    if likely > SEEN:
        said = (
            f"errors follow a pattern (probability {likely:.2f}), and clean queries alone tell them from right labels"
        )
    elif likely < 1 - SEEN:
        said = "errors hit the classes alike, as far as clean queries tell"
    else:
        said = f"clean queries leave open whether errors follow a pattern (probability {likely:.2f})"
    pairs = [count_pair(pair) for pair in kind.pairs[:SHOWN_PAIRS]]
    return f"Kind: {said}{'; ' * bool(pairs)}{'; '.join(pairs)}."


def count_pair(pair: ErrorPair) -> str:
    """How many of the rows with a label are thought to be another class, and how many look it, if that is as many."""
    told = f"about {pair.wrong:,.0f} of {pair.rows:,} rows labelled {pair.label} are thought to be {pair.likely}"
    return f"{told} ({pair.alike:,} look more like it)" if pair.alike >= pair.wrong else told


def _texts(problems: Mapping[str, int]) -> str:
    said = {"empty": "none (empty, or a placeholder)", "foreign": "hardly a word that clean queries have"}
    found = ", ".join(f"{problems[name]:,} rows have {words}" for name, words in said.items() if name in problems)
    return f"Texts: {found}. Whatever their label, they are ranked first (--no-check-texts: like any other)."


def _interval(share: Share) -> str:
    return f"{share.low:.0%} to {share.high:.0%}"


def _ways(rate: ErrorRate) -> str:
    if rate.queries is None:
        return " by how many rows look like canaries"
    return f"; by canaries alone {_interval(rate.canaries)}, by clean queries alone {_interval(rate.queries)}"


def annotator_sheet(annotators: Sequence[Annotator]) -> Sheet:
    """Who labelled the rows, and how often each is wrong: those who are most often so."""
    left = len(annotators) - SHOWN_ANNOTATORS
    title = f"Errors by annotator{f', the first of {len(annotators):,}' * (left > 0)}"
    rows = tuple(
        (one.name, f"{one.rows:,}", f"{one.estimate:.0%}", _interval(one)) for one in annotators[:SHOWN_ANNOTATORS]
    )
    note = (
        "Drawn to what all annotators do where one labelled few rows; each row's probability has heard who labelled it."
    )
    return Sheet(title, ("annotator", "rows", "wrong", "95 % interval"), rows, note)


def _planted(summary: Summary) -> str:
    chance = next(entry for entry in summary.detection if entry.score == "chance")
    return f"{summary.planted} errors planted; chance finds {chance.ndr30:.0%}"
