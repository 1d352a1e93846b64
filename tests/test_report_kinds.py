"""Which audits have a report and what of it, and that a report asks for nothing, obeys no text and harms no run."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import thresher
from audits import refused
from awkward import EVIL, obeyed
from folders import answers, generator_folder, write_rows
from pages import REPORTED, Page, check_contained, page_of, pictures
from thresher.checksums import is_damaged
from thresher.cli import app
from thresher.decisions import Decision, DecisionLog
from thresher.report import html
from thresher.report.html import NO_PICTURES
from thresher.report.pictures import ranking_picture
from thresher.report.svg import inline_svg
from thresher.results.decided import DecidedRun

AUDITS = REPORTED
NOT_IN_LOOK = {"influence", "layers", "acting"}


@pytest.fixture(scope="module")
def page(finished: thresher.AuditResult) -> Page:
    return page_of(finished)


@pytest.fixture(scope="module")
def looked(place: Path) -> thresher.AuditResult:
    return thresher.audit(AUDITS.options(place, place / "looked", quick=True))


@pytest.fixture
def copied(finished: thresher.AuditResult, tmp_path: Path) -> thresher.AuditResult:
    return thresher.open(shutil.copytree(finished.folder, tmp_path / "run"))


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
    drawn = inline_svg(lambda: ranking_picture(values, 20_000, planted), "ranking", "")
    assert len(drawn) < 60_000
