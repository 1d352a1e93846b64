"""The review as a browser asks for it: who may, what is shown, what is decided, and that nothing of it is lost."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pandas as pd
import pytest
from typer.testing import CliRunner

import thresher
from audits import Audits, flags, refused
from folders import write_rows
from thresher.cli import app
from thresher.decisions import Decision, DecisionLog
from thresher.errors import ConfigError
from thresher.results.decided import DecidedRun
from thresher.review.causes import Causes
from thresher.review.desk import Desk
from thresher.review.selection import PAGE, Selection
from thresher.review.serve import serve

pytest.importorskip("starlette")
from starlette.testclient import TestClient

from thresher.review.app import make_app
from thresher.review.room import Room

HOST = "127.0.0.1:8000"
AUDITS = Audits(
    {"train": 70, "validation": 20},
    {"epochs": 1, "learning_rate": 1e-3, "batch_size": 16, "methods": ("tracin",), "modules": "classifier"},
    {"plant": 0.2, "canaries": 0.15},
)


@pytest.fixture
def run(finished: thresher.AuditResult, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished.folder, tmp_path / "run"))


@pytest.fixture
def ask(run: Path) -> Callable[..., Any]:
    """What the review of the run answers to a request."""
    return asker(Room(Desk(DecidedRun.open(run), "ann")))


def asker(room: Room) -> Callable[..., Any]:
    client = TestClient(make_app(room, "secret", (HOST,)), base_url=f"http://{HOST}")

    def answer(path: str = "", form: dict[str, str] | None = None, **headers: str) -> Any:
        where = f"/secret/{path}" if not path.startswith("/") else path
        if form is None:
            return client.get(where, headers=headers)
        return client.post(where, data=form, headers={"origin": f"http://{HOST}", **headers})

    return answer


def decided(run: Path) -> list[Decision]:
    return DecisionLog(run / "decisions.jsonl").read()


def rows_in(page: str) -> list[int]:
    """Of the list."""
    return [int(row) for row in re.findall(r'<a href="#card" data-row="(\d+)"', page)]


def card_in(page: str) -> int:
    found = re.search(r'<article id="card" data-row="(\d+)"', page)
    assert found is not None, page
    return int(found[1])


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/", {}),
        ("/secre/", {}),
        ("/secrets/", {}),
        ("/static/review.js", {}),
        ("", {"host": "evil.example"}),
        ("", {"host": "127.0.0.1:8001"}),
        ("", {"origin": "http://evil.example"}),
        ("row/0", {"origin": "null"}),
    ],
)
def test_who_has_no_token_or_comes_from_elsewhere_gets_nothing(
    ask: Callable[..., Any], path: str, headers: dict[str, str]
) -> None:
    answer = ask(path, **headers)
    assert (answer.status_code, answer.content) == (404, b"")


def test_a_form_from_elsewhere_decides_nothing(ask: Callable[..., Any], run: Path) -> None:
    form = {"row": "0", "verdict": "drop"}
    assert ask("decide", form, origin="http://evil.example").status_code == 404
    assert ask("decide", form, host="evil.example").status_code == 404
    assert decided(run) == []


def test_pages_load_nothing_from_elsewhere_and_run_no_script_but_ours(ask: Callable[..., Any]) -> None:
    answer = ask()
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert not re.search(r'(?:src|href)="(?:https?:)?//', answer.text)
    assert not re.search(r"<script(?! src=)|\son\w+=|\sstyle=|javascript:", answer.text)
    for file in re.findall(r'(?:src|href)="(static/[^"]+)"', answer.text):
        assert ask(file).status_code == 200


def test_rows_come_in_the_audits_order_with_what_it_thinks(ask: Callable[..., Any], run: Path) -> None:
    scores = pd.read_parquet(run / "scores.parquet")
    page = ask().text
    order = scores.sort_values("rank")["row"].tolist()
    assert rows_in(page) == order[:PAGE]
    assert rows_in(ask("list?page=1").text) == order[PAGE:]
    card = ask(f"row/{order[0]}").text
    assert f"Row {order[0]}, rank 1" in card
    assert scores.loc[order[0], "text"] in unescape(card)
    why = ask(f"row/{order[0]}/why").text
    assert "Against it" in why and "Clean rows that it hurts most" in why and "Training rows most like it" in why
    assert ask(f"row/{order[0]}/layers.svg").headers["content-type"] == "image/svg+xml"
    assert ask("row/70").status_code == 400
    assert "rows 0 to 69" in ask("row/70/why").text


def test_each_decision_is_on_the_disk_and_the_next_row_is_shown(ask: Callable[..., Any], run: Path) -> None:
    order = rows_in(ask().text)
    answer = ask("decide", {"row": str(order[0]), "verdict": "drop", "note": "spam"})
    assert [(one.row, one.verdict, one.who, one.note) for one in decided(run)] == [(order[0], "drop", "ann", "spam")]
    assert card_in(answer.text) in order[1:]
    assert order[0] not in rows_in(answer.text)
    assert "1 looked at, 1 found wrong" in answer.text
    label = str(pd.read_parquet(run / "scores.parquet").loc[order[1], "label"])
    other = next(name for name in ("bad", "good") if name != label)
    ask("decide", {"row": str(order[1]), "verdict": "accept"})
    ask("decide", {"row": str(order[2]), "verdict": "relabel", "label": "bad"})
    ask("decide", {"row": str(order[3]), "verdict": "unsure"})
    made = decided(run)[1:]
    assert [(one.verdict, one.label) for one in made] == [("relabel", other), ("relabel", "bad"), ("unsure", None)]
    assert made[0].given == label
    back = ask("undo", {})
    assert card_in(back.text) == order[3]
    assert [one.verdict for one in decided(run)][-1] == "undo"
    assert order[3] in rows_in(back.text)


@pytest.mark.parametrize(
    ("form", "told"),
    [
        ({"row": "70", "verdict": "drop"}, "There is no row 70"),
        ({"row": "-1", "verdict": "drop"}, "row: write the number of a row"),
        ({"verdict": "drop"}, "row: write"),
        ({"row": "0", "verdict": "undo"}, "verdict: choose"),
        ({"row": "0", "verdict": "burn"}, "verdict: choose"),
        ({"row": "0", "verdict": "relabel", "label": "<b>"}, "'<b>' is no class"),
        ({"row": "0", "verdict": "keep", "state": "?"}, "state: choose"),
        ({"row": "0", "verdict": "keep", "page": "1e9"}, "page: write"),
        ({"row": "0", "verdict": "keep", "note": "x" * 200_000}, "more than the review takes"),
    ],
)
def test_what_cannot_be_meant_is_a_sentence_and_decides_nothing(
    ask: Callable[..., Any], run: Path, form: dict[str, str], told: str
) -> None:
    answer = ask("decide", form)
    assert answer.status_code == 400
    assert told in answer.text
    assert answer.headers["content-type"].startswith("text/plain")
    assert decided(run) == []


def test_a_cause_is_decided_at_once_and_one_undo_takes_it_back(ask: Callable[..., Any], run: Path) -> None:
    cause = Causes.of(DecidedRun.open(run), None)
    name, title = next(iter(cause.kinds.items()))
    value = title[0]
    count = int((title == value).sum())
    page = ask(f"list?{urlencode({'cause': f'{name}: {value}'})}")
    assert page.status_code == 200
    form = {"cause": f"{name}: {value}", "verdict": "keep", "all": "1"}
    ask("decide", form)
    assert len(decided(run)) == count
    assert {one.row for one in decided(run)} == set((title == value).nonzero()[0].tolist())
    ask("undo", {})
    assert DecidedRun.open(run).standing(decided(run)) == {}


def test_blind_shows_nothing_of_the_audit_before_a_decision(run: Path) -> None:
    ask = asker(Room(Desk(DecidedRun.open(run), "ann"), blind=True))
    first = rows_in(ask().text)[0]
    card = ask(f"row/{first}").text
    assert "likely wrong" not in card and "most likely" not in card and "model" not in card and "%" not in card
    assert "when you have decided" in ask(f"row/{first}/why").text
    assert "%" not in re.sub(r'<p id="standing".*?</p>', "", ask("list").text)
    ask("decide", {"row": str(first), "verdict": "keep"})
    assert "likely wrong" in ask(f"row/{first}").text
    assert "Against it" in ask(f"row/{first}/why").text


def test_two_reviewers_see_each_others_decisions_and_undo_their_own(run: Path) -> None:
    ann, ben = (asker(Room(Desk(DecidedRun.open(run), who))) for who in ("ann", "ben"))
    first, second = rows_in(ann().text)[:2]
    ann("decide", {"row": str(first), "verdict": "drop"})
    assert first not in rows_in(ben().text)
    ben("decide", {"row": str(second), "verdict": "drop"})
    ann("undo", {})
    assert [one.row for one in DecidedRun.open(run).standing(decided(run)).values()] == [second]
    ann("undo", {})  # nothing of hers is left
    assert len(decided(run)) == 3


def test_hostile_texts_are_shown_and_do_nothing(place: Path, tmp_path: Path) -> None:
    evil = ["<script>alert(1)</script>\"'>", "\x1b]8;;http://x\x1b\\", "=1+1\u202egnp.exe", "a" * 100_000]
    rows = [json.loads(line) for line in (place / "train.jsonl").read_text().splitlines()]
    for row, text in zip(rows, evil, strict=False):
        row["text"] = f"{row['text']} {text}"
    write_rows(tmp_path / "evil.jsonl", rows)
    given = AUDITS.options(place, tmp_path / "looked", train=str(tmp_path / "evil.jsonl"), quick=True, max_length=16)
    result = thresher.audit(given)
    ask = asker(Room(Desk(DecidedRun.open(result.folder), '<img src=x onerror="alert(1)">')))
    ask("decide", {"row": "0", "verdict": "keep", "note": "<script>1</script>"})
    for path in ("", "list?state=all", *(f"row/{row}" for row in range(4)), *(f"row/{row}/why" for row in range(4))):
        text = ask(path).text
        assert "<script>" not in text and "<img src=x" not in text
        assert "\x1b" not in text and "\u202e" not in text
    assert "&lt;script&gt;alert(1)" in ask("row/0").text
    assert "<details>" in ask("row/3").text


def test_decisions_stay_with_their_rows_in_another_file(run: Path, place: Path, tmp_path: Path) -> None:
    """Rows that are moved, and beside others, are known again; a row whose label changed is another one."""
    before = DecidedRun.open(run)
    rows = [json.loads(line) for line in (place / "train.jsonl").read_text().splitlines()]
    moved = [*rows[10:40], *rows[:10]]
    moved[0] = {**moved[0], "label": "good" if moved[0]["label"] == "bad" else "bad"}
    write_rows(tmp_path / "moved.jsonl", moved)
    result = thresher.audit(AUDITS.options(place, tmp_path / "next", train=str(tmp_path / "moved.jsonl"), quick=True))
    planted = before.scores["planted"]
    about = [row for row in range(20) if not planted[row]]
    made = [Decision(row=row, fingerprint=before.known[row], verdict="keep") for row in about]
    stands = DecidedRun.open(result.folder).standing(made)
    there = {(row + 30 if row < 10 else row - 10): row for row in about if row != 10}
    assert {row: one.row for row, one in stands.items()} == there


def test_clean_does_what_was_decided_first(run: Path, place: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (place / "train.jsonl").read_text().splitlines()]
    whole = DecidedRun.open(run)
    scores = whole.scores
    good = [row for row in scores.sort_values("rank")["row"] if not scores.loc[row, "planted"]]
    kept, mended, dropped = good[0], good[-1], good[-2]
    other = "good" if rows[mended]["label"] == "bad" else "bad"
    desk = Desk(whole, "ann")
    desk.decide([kept], "keep")
    desk.decide([mended], "relabel", other)
    desk.decide([dropped], "drop")
    out = tmp_path / "clean.jsonl"
    said = CliRunner().invoke(app, ["clean", str(run), "--output", str(out), "--only-decided"])
    assert "3 rows were decided about" in said.output
    expected = [{**row, "label": other} if at == mended else row for at, row in enumerate(rows) if at != dropped]
    assert [json.loads(line) for line in out.read_text().splitlines()] == expected
    cleaned = CliRunner().invoke(app, ["clean", str(run), "--output", str(tmp_path / "all.jsonl"), "--drop", "0.5"])
    assert cleaned.exit_code == 0, cleaned.output
    written = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    assert rows[kept] in written and {**rows[mended], "label": other} in written
    assert len(written) == 36  # half of 70, and the one that is mended instead


def test_only_decided_needs_decisions_and_bad_runs_are_refused(run: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "clean.jsonl")
    assert "nobody has decided" in refused(["clean", str(run), *flags({"output": out, "only_decided": True})])
    assert "leave it out" in refused(["clean", str(run), *flags({"output": out, "only_decided": True, "drop": 0.1})])
    assert "not a run directory" in refused(["review", str(tmp_path)])


def test_a_port_that_is_taken_is_named(run: Path) -> None:
    from thresher.review.serve import _listen  # pyright: ignore[reportPrivateUsage]

    with _listen(0) as taken, pytest.raises(ConfigError, match="--port"):
        serve(run, "ann", taken.getsockname()[1], blind=False, open_browser=False, tell=print)


def test_words_and_kinds_choose_rows(run: Path) -> None:
    found = DecidedRun.open(run)
    causes = Causes.of(found, None)
    text = found.scores["text"].tolist()
    rows = Selection(words="Great").rows(found.scores, {}, causes)
    assert set(rows.tolist()) == {row for row in range(70) if "great" in text[row].lower()}
    likely = Selection(kind="label").rows(found.scores, {}, causes)
    assert (found.scores.loc[likely, "probability_wrong"] > 0.5).all()
    shuffled = Selection(order="random").rows(found.scores, {}, causes)
    assert sorted(shuffled.tolist()) == list(range(70)) and shuffled.tolist() != list(range(70))
    assert Selection(cause="label: no → such").rows(found.scores, {}, causes).tolist() == []
