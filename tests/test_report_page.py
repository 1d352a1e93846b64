"""The numbers of report.html are those of the run, in its tables and in its pictures."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

import thresher
from pages import REPORTED, Page, page_of, pictures
from summaries import told_by_canaries
from thresher.checksums import is_damaged
from thresher.report.facts import Facts
from thresher.report.pictures import reliability_picture
from thresher.results.decided import DecidedRun
from thresher.summary import Reliable

AUDITS = REPORTED
PICTURES = {"share", "ranking", "labels", "reliability", "influence", "detection", "layers", "map", "acting"}


@pytest.fixture(scope="module")
def page(finished: thresher.AuditResult) -> Page:
    return page_of(finished)


def test_an_audit_ends_with_a_report_that_is_listed_and_has_every_picture(
    finished: thresher.AuditResult, page: Page
) -> None:
    listed = (finished.folder / "checksums.txt").read_text()
    assert "  report.html\n" in listed and not is_damaged(finished.folder / "report.html")
    assert pictures(page) >= PICTURES - {"labels"}
    assert all(given["role"] == "img" and given["aria-label"] for tag, given in page.elements if tag == "svg")


def test_what_stands_first_and_the_share_of_errors_are_those_of_the_summary(
    finished: thresher.AuditResult, page: Page
) -> None:
    rate, known = told_by_canaries(finished).error_rate, finished.summary.knowledge
    assert f"{rate.estimate:.0%} of them wrong ({rate.low:.0%} to {rate.high:.0%})" in page.text
    assert f"{finished.summary.dropped_rows} to drop" in page.text
    assert known is not None and f"{known.right} of {known.queries} clean rows the model gets right" in page.text  # pyright: ignore
    told = {"all that tells it": rate, "canaries alone": rate.canaries, "clean rows alone": rate.queries}
    assert page.table("Share of the rows that is wrong") == [
        [title, f"{one.estimate:.1%}", f"{one.low:.1%} to {one.high:.1%}"] for title, one in told.items() if one
    ]


def test_what_was_found_bought_and_paid_is_what_the_summary_says(finished: thresher.AuditResult, page: Page) -> None:
    summary = finished.summary
    found = {line[0].rstrip("* "): line[1:] for line in page.table("Planted errors found by other ways")}
    for one in summary.detection:
        name = one.score.removeprefix("detector/")
        if name in found:
            assert found[name] == [f"{one.ndr30:.0%}", f"{one.auroc:.2f}", f"{one.average_precision:.2f}"]
    assert {"auto", "loss", "chance", "oracle"} <= set(found)
    bought = [line[1] for line in page.table("Accuracy on 12 test rows")]
    assert sorted(bought) == sorted(f"{one.value:.1%}" for one in summary.measures["accuracy"].values())
    paid = {line[0]: line[1] for line in page.table("Time")}
    assert paid.pop("all") == f"{sum(summary.seconds.values()):,.1f}"
    assert paid == {stage: f"{seconds:,.1f}" for stage, seconds in summary.seconds.items()}


def test_the_curves_and_the_heat_map_have_the_numbers_of_the_scores(finished: thresher.AuditResult, page: Page) -> None:
    planted = finished.scores["planted"].to_numpy()
    for name, *shares in page.tables["Planted errors found"][1:]:
        score = name.partition(" (")[0]
        values = finished.scores["score"] if score == "auto" else finished.all_scores.sel(score=score)
        expected = [thresher.noise_detection_rate(values, planted, share) for share in (0.1, 0.2, 0.3, 0.5)]
        assert shares == [f"{one:.0%}" for one in expected]
    headers, *lines = next(v for k, v in page.tables.items() if k.startswith("How well each influence finds planted"))
    groups = {"1st quarter": "1", "2nd": "2", "3rd": "3", "4th": "4", "all layers": "layers", "everything": "all"}
    how = (finished.summary.shown_influence or "").rpartition("/")[2]
    by_name = {one.score: one.auroc for one in finished.summary.detection}
    for name, *cells in lines:
        for header, cell in zip(headers[1:], cells, strict=True):
            assert cell == f"{by_name[f'{name}/{groups.get(header, header)}/{how}']:.2f}"


def test_evidence_has_its_weights_and_what_it_tells_of_canaries(finished: thresher.AuditResult, page: Page) -> None:
    auto = told_by_canaries(finished)
    rounds = [pd.read_parquet(finished.folder / file) for file in ("candidates.parquet", "rounds/1/candidates.parquet")]
    canary = np.concatenate([one["canary"] for one in rounds])
    assert auto.kind is not None
    assert ("Errors follow a pattern (probability" in page.text) == (auto.kind.patterned > 0.5)
    lines = page.table("What the ranking is made of")
    assert [line[1] for line in lines] == [f"{weight:.2f}" for weight in auto.weights.values()]
    for line, names in zip(lines, auto.members.values(), strict=True):
        places = [np.concatenate([one[name].rank(pct=True) for one in rounds]) for name in names]
        assert line[2] == ", ".join(
            f"{name} ({roc_auc_score(canary, -place):.2f})" for name, place in zip(names, places, strict=True)
        )


def test_reliability_is_that_of_the_summary_beside_the_planted_errors(
    finished: thresher.AuditResult, page: Page
) -> None:
    auto = told_by_canaries(finished)
    assert sum(one.canaries for one in auto.reliability) <= sum(auto.canaries)
    assert sum(one.rows for one in auto.reliability) == 2 * 60 - sum(auto.canaries)
    rows = finished.scores[["probability_wrong", "planted"]].to_numpy().tolist()
    for line, one in zip(page.table("What is said, and what is so"), auto.reliability, strict=True):
        here = [wrong for said, wrong in rows if one.above < said <= one.up_to]
        assert line == [
            f"{one.above:.0%} to {one.up_to:.0%}",
            f"{one.probability:.1%}",
            f"{one.wrong:.0%}",
            f"{one.low:.0%} to {one.high:.0%}",
            f"{one.canaries}",
            f"{one.rows}",
            f"{sum(here):.0f} of {len(here)}" if here else "",
        ]


def test_the_picture_of_reliability_shows_these_numbers(finished: thresher.AuditResult) -> None:
    run = DecidedRun.open(finished.folder)
    planted = Facts(run.run_dir, run.scores, run.summary).planted_reliability
    said, wrong = (finished.scores[name].to_numpy() for name in ("probability_wrong", "planted"))
    bins = [Reliable(above=0.5, up_to=0.7, probability=0.6, rows=9, canaries=2, wrong=0.4, low=0.1, high=0.8)]
    axes = reliability_picture(bins, planted).axes[0]
    _, *drawn = axes.get_lines()
    assert [list(one) for one in drawn[0].get_xydata()] == [[0.6, 0.4]]  # pyright: ignore
    crosses = {float(x): float(y) for x, y in drawn[-1].get_xydata()}  # pyright: ignore
    for one in planted:
        here = (said > one.above) & (said <= one.up_to)
        assert crosses[float(said[here].mean())] == pytest.approx(float(wrong[here].mean()))
    assert sum(one.rows for one in planted) == 60


def test_given_and_suggested_labels_and_ranks_by_layer_are_those_of_the_run(
    finished: thresher.AuditResult, page: Page
) -> None:
    counted: dict[tuple[str, str], int] = {}
    for given, better in finished.scores[["label", "suggested"]].to_numpy().tolist():
        if isinstance(better, str):
            counted[given, better] = counted.get((given, better), 0) + 1
    shown = page.table("Given and suggested labels") if counted else []
    assert {(given, better): int(count) for given, better, count in shown} == counted
    (caption,) = (caption for caption in page.tables if caption.startswith("Where the most suspicious rows stand"))
    headers, *lines = page.tables[caption]
    influence = finished.summary.shown_influence.partition("/")[0]  # pyright: ignore
    for column, header in enumerate(headers[1:], start=1):
        expected = finished.explain(int(header.removeprefix("row "))).percentiles[influence].dropna()
        assert {line[0]: line[column] for line in lines} == {
            str(layer): f"{value:.0f} %" for layer, value in expected.items()
        }


def test_the_worst_rows_are_told_of_with_their_rank(finished: thresher.AuditResult, page: Page) -> None:
    for place, one in enumerate(finished.summary.suspicious, start=1):
        assert f"Rank {place}: row {one.row}, label {one.about['label']}" in page.text
        assert f"{one.probability_wrong:.0%} likely wrong" in page.text and one.about["text"][0] in page.text
