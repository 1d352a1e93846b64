"""report.html: its numbers are those of the run, it asks for nothing, obeys no text, and is there for every audit."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

import thresher
from audits import Audits, refused
from awkward import EVIL, obeyed
from folders import answers, generator_folder, write_rows
from pages import Page
from summaries import told_by_canaries
from thresher.checksums import is_damaged
from thresher.cli import app
from thresher.decisions import Decision, DecisionLog
from thresher.report import html
from thresher.report.facts import Facts
from thresher.report.html import NO_PICTURES
from thresher.report.pictures import ranking_picture, reliability_picture
from thresher.report.svg import inline_svg
from thresher.results.decided import DecidedRun
from thresher.summary import Reliable

AUDITS = Audits(
    {"train": 60, "validation": 16, "test": 12},
    {
        "epochs": 1,
        "learning_rate": 1e-3,
        "batch_size": 16,
        "methods": ("tracin", "datainf"),
        "modules": "lora_B|classifier",
    },
    {"plant": 0.2, "canaries": 0.15, "retrain": True},
)
PICTURES = {"share", "ranking", "labels", "reliability", "influence", "detection", "layers", "map", "acting"}
NOT_IN_LOOK = {"influence", "layers", "acting"}


def page_of(result: thresher.AuditResult) -> Page:
    return Page.of((result.folder / "report.html").read_text(encoding="utf-8"))


def pictures(page: Page) -> set[str]:
    """Names of the pictures, which begin the names of their parts."""
    return {given["id"].partition("-figure_1")[0] for _, given in page.elements if "-figure_1" in given.get("id", "")}


@pytest.fixture(scope="module")
def page(finished: thresher.AuditResult) -> Page:
    return page_of(finished)


@pytest.fixture(scope="module")
def looked(place: Path) -> thresher.AuditResult:
    return thresher.audit(AUDITS.options(place, place / "looked", quick=True))


@pytest.fixture
def copied(finished: thresher.AuditResult, tmp_path: Path) -> thresher.AuditResult:
    return thresher.open(shutil.copytree(finished.folder, tmp_path / "run"))


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


def check_contained(text: str) -> None:
    """Nothing on the page can ask for anything, run anything, or stand for two parts."""
    page = Page.of(text)
    names = [given["id"] for _, given in page.elements if "id" in given]
    assert len(names) == len(set(names))
    asked = {"src", "srcset", "data", "action", "background", "poster", "formaction", "ping", "manifest", "xlink:href"}
    for tag, given in page.elements:
        assert tag not in {
            "script",
            "link",
            "img",
            "iframe",
            "object",
            "embed",
            "form",
            "base",
            "foreignobject",
            "image",
        }
        assert not asked & set(given) and not [name for name in given if name.startswith("on")], (tag, given)
        assert "href" not in given or given["href"].removeprefix("#") in names
        for value in given.values():
            assert all(one in names for one in re.findall(r"url\(#?([^)]*)\)", value))
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style and "@import" not in style and "http" not in style


def test_the_page_needs_nothing_else(finished: thresher.AuditResult, looked: thresher.AuditResult) -> None:
    for result in (finished, looked):
        text = (result.folder / "report.html").read_text(encoding="utf-8")
        check_contained(text)
        assert "http://" not in text and "https://" not in text and "<script" not in text
        assert "default-src 'none'" in text


def test_the_same_run_gives_the_same_bytes_wherever_it_lies(copied: thresher.AuditResult, tmp_path: Path) -> None:
    before = (copied.folder / "report.html").read_bytes()
    assert copied.report(tmp_path / "again.html").read_bytes() == before
    assert copied.report() == copied.folder / "report.html" and copied.report().read_bytes() == before


@pytest.mark.slow
def test_another_process_writes_the_same_bytes(copied: thresher.AuditResult, tmp_path: Path) -> None:
    before = (copied.folder / "report.html").read_bytes()
    command = [sys.executable, "-m", "thresher", "report", str(copied.folder), "--output", str(tmp_path / "b.html")]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": "7"}, capture_output=True)
    assert (tmp_path / "b.html").read_bytes() == before


def test_without_matplotlib_the_report_has_its_tables_and_says_so(
    copied: thresher.AuditResult, page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [one for one in sys.modules if one.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    plain_page = Page.of(copied.report(tmp_path / "tables.html").read_text(encoding="utf-8"))
    assert plain_page.text.count(NO_PICTURES) == 1 and NO_PICTURES not in page.text
    assert plain_page.count("svg") == 0
    assert plain_page.tables == page.tables


def test_a_first_look_has_what_it_has(looked: thresher.AuditResult) -> None:
    page = page_of(looked)
    assert pictures(page) >= {"share", "ranking", "reliability", "map"} and not NOT_IN_LOOK & pictures(page)
    assert "nothing was trained" in page.text and "clean rows a probe gets right" in page.text
    assert "detection" not in pictures(page)  # nothing was planted


def test_a_named_detector_has_no_probabilities_and_no_share(place: Path, tmp_path: Path) -> None:
    page = page_of(thresher.audit(AUDITS.options(place, tmp_path / "named", detector="loss")))
    assert {"ranking", "map", "layers"} <= pictures(page) and not {"share", "reliability"} & pictures(page)
    assert "detector/loss, which was named" in page.text and "likely wrong" not in page.text


def test_a_generator_has_no_classes_and_no_map(tmp_path: Path) -> None:
    files = {
        part: write_rows(tmp_path / f"{part}.jsonl", answers(40, seed))
        for part, seed in (("train", 1), ("validation", 2))
    }
    asked = {**AUDITS.asked, "modules": "lora_B", "output": str(tmp_path / "run"), "task": "generate"}
    page = page_of(thresher.audit({"model": str(generator_folder(tmp_path / "model")), **files, **asked}))
    assert {"share", "ranking", "reliability", "layers"} <= pictures(page)
    assert not {"map", "labels"} & pictures(page)
    assert "perplexity of the clean answers" in page.text


def test_hostile_texts_labels_and_names_are_shown_and_do_nothing(place: Path, tmp_path: Path) -> None:
    evil = [
        "<script>alert(1)</script>\"'><img src=http://x onerror=alert(1)>",
        EVIL,
        "</svg></style>{{ 7*7 }}$x^2_$&amp;",
    ]
    rows = [json.loads(line) for line in (place / "train.jsonl").read_text().splitlines()]
    queries = [json.loads(line) for line in (place / "validation.jsonl").read_text().splitlines()]
    names = {"good": f"good {evil[0]} {evil[2]}", "bad": f"bad {EVIL}"}
    for number, row in enumerate([*rows, *queries]):
        row |= {"text": f"{row['text']} {evil[number % 3]}", "label": names[row["label"]]}
    files = {
        "train": write_rows(tmp_path / "<b onclick=1> \u202e train.jsonl", rows),
        "validation": write_rows(tmp_path / "clean.jsonl", queries),
    }
    given = AUDITS.options(place, tmp_path / "evil", quick=True, plant=0.2, **files)
    given.pop("test")
    result = thresher.audit({**given, "max_length": 32})
    known = DecidedRun.open(result.folder).known
    row = result.summary.suspicious[0].row
    log = DecisionLog(result.folder / "decisions.jsonl")
    log.append([Decision(row=row, fingerprint=known[row], verdict="relabel", label=evil[0], who=evil[0])])
    text = result.report().read_text(encoding="utf-8")
    check_contained(text)
    assert not obeyed(text)
    assert "&lt;script&gt;alert(1)" in text and "{{ 7*7 }}" in text and "\\u202e" in text
    assert {"labels", "map"} <= pictures(Page.of(text))


def test_what_people_decided_is_counted_and_told_of(copied: thresher.AuditResult, tmp_path: Path) -> None:
    known = DecidedRun.open(copied.folder).known
    worst = [one.row for one in copied.summary.suspicious[:3]]
    made = [
        Decision(row=row, fingerprint=known[row], verdict=verdict, who="ann")
        for row, verdict in zip([*worst, worst[2]], ("keep", "drop", "drop", "undo"), strict=True)
    ]
    strange = Decision(row=0, fingerprint="of another file", verdict="drop")
    DecisionLog(copied.folder / "decisions.jsonl").append([*made, strange])
    shown = CliRunner().invoke(app, ["report", str(copied.folder)])
    assert shown.exit_code == 0 and "report.html" in shown.output
    page = page_of(copied)
    assert "People decided about 2 of 60 rows: 1 kept, 1 dropped." in page.text
    assert "decided by ann: kept" in page.text and "2 decided by people" in page.text


def test_a_report_goes_where_it_is_asked_to_and_never_over_a_run(copied: thresher.AuditResult, tmp_path: Path) -> None:
    shown = CliRunner().invoke(app, ["report", str(copied.folder), "--output", str(tmp_path / "mine.html")])
    assert shown.exit_code == 0 and (tmp_path / "mine.html").is_file()
    for target, said in (
        (tmp_path / "mine.txt", "name an .html file"),
        (copied.folder / "other.html", "lies in the run"),
    ):
        assert said in refused(["report", str(copied.folder), "--output", str(target)])
        assert not target.exists()


@pytest.mark.parametrize("way", ["damaged", "missing"])
def test_a_damaged_or_missing_report_is_made_again(
    copied: thresher.AuditResult, place: Path, caplog: pytest.LogCaptureFixture, way: str
) -> None:
    file = copied.folder / "report.html"
    if way == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes().replace(b"rows", b"cows"))
    thresher.audit(AUDITS.options(place, copied.folder, **AUDITS.finished))
    assert "report.html: is damaged or gone, and is made again" in caplog.text
    assert file.is_file() and not is_damaged(file) and "cows" not in file.read_text()


def test_a_picture_that_cannot_be_drawn_is_told_of_and_costs_no_audit(
    copied: thresher.AuditResult, place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: Any) -> str:
        raise ValueError("no ink")

    monkeypatch.setattr(html, "inline_svg", fails)
    with caplog.at_level(logging.WARNING):
        result = thresher.audit(AUDITS.options(place, copied.folder, **AUDITS.finished))
    assert len(result.scores) == 60 and "report.html: cannot be made (no ink)" in caplog.text


def test_pictures_of_many_rows_stay_small() -> None:
    values, planted = np.linspace(1, 0, 100_000), list(range(1, 100_000, 5))
    drawn = inline_svg(lambda: ranking_picture(values, 20_000, planted, "how likely wrong"), "ranking", "")
    assert len(drawn) < 60_000
