"""``--detector auto`` end to end on a tiny model: canaries, choice, confidence, repair."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.special import ndtri
from typer.testing import CliRunner

import thresher
from audits import Audits
from folders import decoder_folder, reviews, write_rows
from simulated import simulated
from summaries import known_of_classes, told_by_canaries
from thresher.auditing.calibration import calibration, shown_influence
from thresher.auditing.decide import Decision, decide
from thresher.auditing.looks import read_candidates
from thresher.auditing.prepare import Job, prepare
from thresher.auditing.retrain import training_sets
from thresher.auditing.run import RunDirectory
from thresher.calibration import choice
from thresher.calibration.candidates import side_by_side
from thresher.calibration.choice import WITNESSES, choose
from thresher.calibration.confidence import SURE
from thresher.calibration.repair import split_relabels
from thresher.cli import app
from thresher.config import AuditConfig
from thresher.detectors.families import FROZEN_LAW, FROZEN_NEIGHBOURS, ORDER, OWN, PROBE
from thresher.errors import ConfigError
from thresher.evaluate.knowledge import Knowledge
from thresher.report.console import show_result
from thresher.report.detection import calibration_lines
from thresher.results.clean import clean_run as clean
from thresher.scores.names import Configuration, score_called
from thresher.summary import ErrorKind
from thresher.terminal import PlainConsole

FAST = {"epochs": 3, "batch_size": 8, "learning_rate": 1e-2, "methods": "tracin,cosine"}
ROWS = 80
AUDITS = Audits({"train": ROWS, "validation": 24, "test": 30}, FAST, {"plant": 0.2, "retrain": True, "canaries": 0.1})
options = AUDITS.options


def candidates(run: Path, number: int) -> pd.DataFrame:
    return pd.read_parquet((run / "rounds" / str(number) if number else run) / "candidates.parquet")


def test_every_row_is_judged_as_it_was_given(finished: thresher.AuditResult) -> None:
    """No candidate's column holds what a canary scored, and labels are the file's, planted errors included."""
    rounds = [candidates(finished.folder, number) for number in range(2)]
    assert [table["canary"].sum() for table in rounds] == [8, 8]
    assert not (rounds[0]["canary"] & rounds[1]["canary"]).any()
    name = "detector/loss"
    places = [table[name].rank().sub(0.5).div(ROWS) for table in rounds]
    for row in range(ROWS):
        true = [place[row] for place, table in zip(places, rounds, strict=True) if not table["canary"][row]]
        assert finished.all_scores.sel(row=row, score=name) == pytest.approx(np.mean(true), abs=1e-6)
    given = np.array([row["label"] for row in reviews(ROWS, 1)])
    assert ((finished.scores["label"] != given) == finished.scores["planted"]).all()


def test_the_summary_keeps_canaries_apart(finished: thresher.AuditResult) -> None:
    summary = finished.summary
    auto = told_by_canaries(finished)
    assert auto.canaries == (8, 8)
    assert summary.planted == 16  # canaries are none of them
    assert set(auto.members) == set(auto.weights)
    by_probe = known_of_classes(finished).only_probe_knows
    heard = (PROBE, FROZEN_NEIGHBOURS, FROZEN_LAW) if by_probe else ORDER
    assert set(auto.members) == {family.name for family in heard if family != OWN}
    assert auto.error_rate.low < 0.2 < auto.error_rate.high  # what was planted, canaries not among it
    assert auto.more_likely_wrong == (finished.scores["probability_wrong"] > 0.5).sum()
    assert {"all_rows", "with_canaries", "dropped", "relabelled"} <= set(summary.measures["accuracy"])


@pytest.mark.slow
def test_features_are_of_rows_that_fit_the_model(place: Path, tmp_path: Path) -> None:
    """The tiny model has 64 positions and --max-length more: every pass over the rows must cut them there."""
    rows = [{**row, "text": " ".join([row["text"]] * 60)} for row in reviews(24, 4)]
    write_rows(tmp_path / "train.jsonl", rows)
    short = {"train": str(tmp_path / "train.jsonl"), "epochs": 1}
    asked, fitting = (
        thresher.audit(options(place, tmp_path / str(length), max_length=length, **short)).scores
        for length in (500, 64)
    )
    pd.testing.assert_frame_equal(asked, fitting)


def test_what_is_easy_is_found(finished: thresher.AuditResult) -> None:
    """Words tell the class of these rows, so a useful ranking finds most of what was planted."""
    assert thresher.noise_detection_rate(finished.scores["score"], finished.scores["planted"]) > 0.6
    wrong = finished.scores["probability_wrong"]
    assert wrong[finished.scores["planted"]].mean() > wrong[~finished.scores["planted"]].mean() + 0.2


def test_probabilities_and_q_values_follow_the_ranking(finished: thresher.AuditResult) -> None:
    ordered: Any = finished.scores.sort_values("rank")
    assert (np.diff(ordered["score"]) >= 0).all()
    assert ordered["probability_wrong"].rank().corr(ordered["rank"]) < -0.98
    assert (np.diff(ordered["q_value"]) >= -1e-12).all()
    assert (ordered["suggested"] != ordered["label"]).all()
    assert np.allclose(ordered["suggestion_confidence"], ordered["probability_wrong"])  # with two classes


@pytest.mark.slow
def test_the_same_command_goes_on_to_the_same_bytes(
    finished: thresher.AuditResult, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same canaries, whatever would be learned of the errors now."""
    monkeypatch.setattr("thresher.auditing.rounds.learn_label_noise", lambda *_: pytest.fail("learned again"))
    again = tmp_path / "again"
    shutil.copytree(finished.folder, again)
    before = (again / "scores.parquet").read_bytes()
    shutil.rmtree(again / "rounds/1/influence.zarr")
    for name in ("rounds/1/candidates.parquet", "summary.json", "scores.parquet"):
        (again / name).unlink()
    shutil.rmtree(again / "rounds/1/training/said")
    (again / "rounds/1/training/state.safetensors").unlink()  # as if killed in the second round's first epoch
    found = thresher.audit(options(place, again, plant=0.2, retrain=True, canaries=0.1))
    assert (again / "scores.parquet").read_bytes() == before
    assert found.summary.auto == finished.summary.auto


def test_where_queries_tell_no_share_canaries_alone_do(finished: thresher.AuditResult, tmp_path: Path) -> None:
    job, place = again(finished, tmp_path)
    for file in place.path.rglob("opinions.safetensors"):
        save_file({name: tensor for name, tensor in load_file(file).items() if name != "share"}, file)
    sure = decide(job, place).confidence
    assert sure is not None
    assert sure.rate.queries is sure.rate.alike is None
    assert sure.rate.share == sure.rate.canaries


def patterned(finished: thresher.AuditResult, tmp_path: Path, likely: float) -> tuple[Job, Decision, Any]:
    """What is decided where this is how likely errors follow a pattern, and each row's log odds by its law, [n]."""
    job, place = again(finished, tmp_path)
    rounds = [place, place.round(1)]
    for one in rounds:
        tensors = load_file(one.opinions)
        save_file({**tensors, "patterned": torch.full_like(tensors["patterned"], likely)}, one.opinions)
    odds = np.stack([load_file(one.opinions)["odds"].numpy() for one in rounds])
    true = np.stack([~pd.read_parquet(one.candidates)["canary"].to_numpy() for one in rounds])
    return job, decide(job, place), (odds * true).sum(axis=0) / true.sum(axis=0)


def test_where_a_pattern_is_certain_rows_are_ranked_by_its_law_and_its_witnesses(
    finished: thresher.AuditResult, tmp_path: Path
) -> None:
    _, decision, odds = patterned(finished, tmp_path, 1.0)
    assert decision.choice is not None and decision.choice.patterned == 1 and decision.name == "auto"
    run = RunDirectory(finished.folder)
    heard = side_by_side([read_candidates(run.round(number)) for number in range(2)])
    of_both = [ndtri(heard.column(Configuration(one, "layers", "mean"))) for one in ("tracin", "cosine")]
    assert isinstance(decision.knowledge, Knowledge)
    believed = 0.0 if decision.knowledge.only_probe_knows else WITNESSES  # a model that knows nothing is no witness
    np.testing.assert_allclose(
        decision.table["score"], believed * heard.merged((of_both[0] + of_both[1]) / 2) - odds, atol=1e-5
    )


def test_where_there_is_none_the_law_is_one_of_many(finished: thresher.AuditResult, tmp_path: Path) -> None:
    _, decision, odds = patterned(finished, tmp_path, 0.0)
    assert decision.choice is not None and decision.choice.patterned == 0
    assert np.abs(decision.table["score"] + odds).max() > 0.1
    assert (np.diff(decision.table.sort_values("rank")["probability_wrong"]) <= 1e-12).all()


def kind_of(job: Job, decision: Decision) -> ErrorKind | None:
    found = calibration(job, decision)
    assert found is not None
    return found.kind


def test_the_summary_says_of_what_kind_errors_are(finished: thresher.AuditResult, tmp_path: Path) -> None:
    kind, table = told_by_canaries(finished).kind, finished.scores
    assert kind is not None
    said = [float(load_file(place)["patterned"]) for place in finished.folder.rglob("opinions.safetensors")]
    assert len(said) == 2 and kind.patterned == pytest.approx(np.mean(said))
    assert kind.pairs
    for pair in kind.pairs:
        assert {pair.label, pair.likely} == {"bad", "good"}
        labelled = table["label"] == pair.label
        assert pair.rows == labelled.sum()
        assert pair.wrong == pytest.approx(table["probability_wrong"][labelled].sum())  # of two classes
    job, place = again(finished, tmp_path)
    decision = decide(job, place)
    assert kind_of(job, decision) == kind
    named = replace(job, subject=replace(job.subject, classes={}))  # answers, which have no classes
    assert kind_of(named, decision) is None


def test_the_console_says_whether_errors_follow_a_pattern_and_of_which_labels(finished: thresher.AuditResult) -> None:
    pairs = [
        {"label": f"[{one}]", "likely": "y", "rows": 1200 + one, "alike": 90, "wrong": 99.6 - one} for one in range(5)
    ]

    def line(likely: float, pairs: list[Any]) -> str:
        shown = told(finished, kind=ErrorKind.model_validate({"patterned": likely, "pairs": pairs}))
        (only,) = (one for one in shown.splitlines() if one.startswith("Kind: "))
        return only

    assert "follow a pattern (probability 0.97)" in line(0.97, []) and "leave open" not in line(0.97, [])
    assert line(0.03, []) == "Kind: errors hit the classes alike, as far as clean queries tell."
    assert "leave open whether errors follow a pattern (probability 0.50)" in line(0.5, [])
    shown = line(0.97, pairs)
    assert "; about 100 of 1,200 rows labelled [0] are thought to be y; about 99 of 1,201 rows" in shown
    assert "labelled [2]" in shown and "labelled [3]" not in shown and shown.endswith(".")
    assert "Kind:" not in told(finished, kind=None)  # of answers


ALIKE = ("self_influence/all/mean", "outlier_svm/layers/rank", "outlier_lof/all/mean")


def shown(names: Sequence[str], ranked_by: str, best: str) -> Configuration | None:
    """The influence that explains a ranking by these scores, of which one finds canaries best."""
    looks, _ = simulated(0, apart_by_name={best: 4.0}, names=names)
    scores = dict.fromkeys(map(score_called, names), np.zeros(4))
    return shown_influence(Decision(ranked_by, pd.DataFrame(), scores, np.empty(0, np.int64), choose(looks, 0)))


@pytest.mark.parametrize("best", ALIKE)
def test_the_influence_shown_is_never_one_that_is_the_same_for_every_query(best: str) -> None:
    for ranked_by in ("auto", best):
        found = shown([*ALIKE, "cosine/CL/rank", "detector/loss"], ranked_by, best)
        assert found is not None and found.name == "cosine/CL/rank"
        assert shown([*ALIKE, "detector/loss"], ranked_by, best) is None


def test_the_influence_shown_is_the_rankings_own_or_the_one_that_finds_canaries_best() -> None:
    names = ["tracin/all/mean", "cosine/CL/rank", "datainf/layers/vote@0.3", "detector/loss"]
    for best in names[:3]:
        by_canaries, by_name = shown(names, "auto", best), shown(names, "tracin/all/mean", best)
        assert by_canaries is not None and by_canaries.name == best
        assert by_name is not None and by_name.name == "tracin/all/mean"


@pytest.mark.slow
def test_where_self_influence_ranks_the_rows_another_one_says_which_queries_each_hurts(
    place: Path, tmp_path: Path
) -> None:
    given = options(place, tmp_path / "run", detector="self_influence/all/mean")
    found = thresher.audit(given | {"methods": "self_influence,tracin"})
    assert found.summary.score == "self_influence/all/mean"
    assert (found.summary.shown_influence or "").startswith("tracin/")
    by_row = [thresher.explain(found.folder, row) for row in range(10)]
    assert all(one.influence.startswith("tracin/") for one in by_row)
    hurt = [tuple(one.query for one in row.hurts) for row in by_row]
    assert len(set(hurt)) > 1
    assert any(len({one.influence for one in row.hurts}) > 1 for row in by_row)


def test_a_canary_is_explained_where_it_is_none(finished: thresher.AuditResult) -> None:
    row = int(np.flatnonzero(candidates(finished.folder, 0)["canary"])[0])
    found = thresher.explain(finished.folder, row)
    label = reviews(ROWS, 1)[row]["label"]
    assert found.given["label"] == label
    assert found.score == finished.summary.score
    assert len(found.ranks.columns) == 2


def test_clean_drops_what_the_audit_says_or_mends_it(finished: thresher.AuditResult, tmp_path: Path) -> None:
    rows = reviews(ROWS, 1)
    dropped = set(finished.scores.nsmallest(finished.summary.dropped_rows, "rank")["row"])
    target = tmp_path / "cleaned.jsonl"
    assert CliRunner().invoke(app, ["clean", str(finished.folder), "--output", str(target)]).exit_code == 0
    assert [json.loads(line) for line in target.read_text().splitlines()] == [r for r in rows if r["id"] not in dropped]
    arguments = ["clean", str(finished.folder), "--relabel", "--output", str(target)]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    sure = finished.scores["suggestion_confidence"] > 0.5
    written = {row["id"]: row for row in map(json.loads, target.read_text().splitlines())}
    assert set(written) == {row["id"] for row in rows if row["id"] not in dropped or sure[row["id"]]}
    for row in rows:
        if row["id"] in dropped and sure[row["id"]]:
            assert written[row["id"]]["label"] == finished.scores.loc[row["id"], "suggested"]
        elif row["id"] not in dropped:
            assert written[row["id"]] == row


def again(finished: thresher.AuditResult, tmp_path: Path) -> tuple[Job, RunDirectory]:
    """The audit's job, and a copy of its directory to decide in once more; without the list, to be changed at will."""
    shutil.copytree(finished.folder, tmp_path / "again", ignore=shutil.ignore_patterns("checksums.txt"))
    return prepare(finished.summary.config), RunDirectory(tmp_path / "again")


def test_retraining_sees_the_labels_that_clean_writes(finished: thresher.AuditResult, tmp_path: Path) -> None:
    target = tmp_path / "mended.jsonl"
    clean(finished.folder, target, relabel=True)
    job, place = again(finished, tmp_path)
    decision = decide(job, place)
    assert len(decision.dropped) == finished.summary.dropped_rows > 0
    trained_on = training_sets(job, decision)["relabelled"]()
    written = [json.loads(line) for line in target.read_text().splitlines()]
    assert len(written) == len(trained_on)
    moved = set(decision.dropped.tolist())
    for row, number in zip(written, trained_on.classes.tolist(), strict=True):
        if row["id"] in moved or not job.planted[row["id"]]:  # clean mends the file, which has no planted errors
            assert number == job.subject.classes[row["label"]]


def test_nothing_is_trained_on_again_where_there_is_nothing_to_drop(
    finished: thresher.AuditResult, tmp_path: Path
) -> None:
    job, place = again(finished, tmp_path)
    decision = replace(decide(job, place), dropped=np.empty(0, np.int64))
    assert set(training_sets(job, decision)) == {"all_rows", "errors_removed"}


def test_a_single_score_is_measured_as_it_ranks(
    finished: thresher.AuditResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "auroc_error", lambda *_: -1.0)  # no combination is worth that
    job, place = again(finished, tmp_path)
    decision = decide(job, place)
    assert decision.choice is not None and decision.name == decision.choice.single.name
    table: Any = decision.table
    assert (decision.scores[decision.choice.single] == table["score"]).all()
    assert table["score"].rank().corr(-table["probability_wrong"].rank()) > 0.99


def test_a_share_of_the_votes_may_be_named(place: Path, tmp_path: Path) -> None:
    given = options(place, tmp_path / "run", detector="tracin/layers/vote@0.2")
    found = thresher.audit(given)
    assert found.summary.score == "tracin/layers/vote@0.2"
    assert {"tracin/layers/vote@0.2", "tracin/layers/vote@0.3"} < set(found.all_scores["score"].values)


def told(result: thresher.AuditResult, **changes: Any) -> str:
    file = StringIO()
    console = PlainConsole(file=file, width=1000)
    console.print(*calibration_lines(told_by_canaries(result).model_copy(update=changes), trained=True), sep="\n")
    return file.getvalue()


@pytest.fixture(scope="module")
def emptied(place: Path) -> thresher.AuditResult:
    return thresher.audit(options(place, place / "emptied", plant=0.2, plant_kind="empty", canaries=0.1))


@pytest.mark.slow
def test_empty_texts_come_first_and_no_label_mends_them(emptied: thresher.AuditResult, tmp_path: Path) -> None:
    table, planted = emptied.scores, emptied.scores["planted"]
    assert ((table["text_problem"] == "empty") == planted).all()
    assert set(table.nsmallest(16, "rank").index) == set(np.flatnonzero(planted))
    assert (table["probability_wrong"][planted] == SURE).all()
    assert (np.diff(table.sort_values("rank")["q_value"]) >= -1e-12).all()
    job, place = again(emptied, tmp_path)
    decision = decide(job, place)
    relabel, drop = split_relabels(decision.table, decision.dropped)
    assert set(np.flatnonzero(planted)) <= set(drop)
    assert not planted[relabel].any()
    assert told_by_canaries(emptied).text_problems == {"empty": 16}
    assert "16 rows have none (empty, or a placeholder)" in told(emptied)
    assert {entry.row for entry in emptied.summary.spoiled_texts} <= set(np.flatnonzero(planted))
    assert not any(entry.planted for entry in emptied.summary.suspicious)
    show_result(PlainConsole(file=(shown := StringIO()), width=160), emptied.summary, "here")
    assert f"row {table['rank'].idxmin()}, empty: " in shown.getvalue()
    assert "The 10 most suspicious rows of the others" in shown.getvalue()


@pytest.mark.slow
def test_texts_are_not_looked_at_where_that_is_not_wanted(emptied: thresher.AuditResult, tmp_path: Path) -> None:
    job, place = again(emptied, tmp_path)
    without = decide(replace(job, config=job.config.model_copy(update={"check_texts": False})), place).table
    assert set(without["text_problem"]) == {""}
    assert set(without.nsmallest(16, "rank").index) != set(np.flatnonzero(without["planted"]))
    others = ~emptied.scores["planted"]
    np.testing.assert_allclose(without["score"][others], emptied.scores["score"][others])


def test_the_console_says_what_canaries_were_and_what_they_chose(finished: thresher.AuditResult) -> None:
    auto = told_by_canaries(finished)
    assert "8 + 8 rows were trained on with a wrong label" in told(finished, canary_kind="uniform")
    elsewhere = told(finished, learned=False, canaries=(16,))
    assert "16 rows were copied" in elsewhere and "were trained on" not in elsewhere
    assert "another row's completion" in told(finished, canary_kind="swap")
    single, combined = (f"{one:.2f}" for one in (auto.canaries_auroc.single, auto.canaries_auroc.combination))
    assert f"AUROC of {combined}" in told(finished, combined=True)
    alone = told(finished, combined=False)
    assert f"Ranking: {auto.best_single}. " in alone and f"AUROC of {single}" in alone
    assert f"so chosen a combination: {combined}" in alone


@pytest.mark.slow
def test_a_model_trained_elsewhere_is_audited_beside_copies(
    finished: thresher.AuditResult, place: Path, tmp_path: Path
) -> None:
    given = options(place, tmp_path / "run", adapter=str(finished.folder / "model"), canaries=0.1)
    found = thresher.audit(given)
    table = candidates(tmp_path / "run", 0)
    assert len(table) == ROWS + 16
    assert table["canary"].sum() == 16
    assert len(found.scores) == ROWS
    assert told_by_canaries(found).learned is False
    assert told_by_canaries(found).error_rate.queries is None
    assert not any("frozen" in name or "aum" in name for name in found.all_scores["detector"].values)


@pytest.mark.slow
def test_of_three_classes_the_suggested_one_is_another_and_less_sure_than_that_a_row_is_wrong(tmp_path: Path) -> None:
    decoder_folder(tmp_path / "decoder")
    rows = [{"premise": r["text"], "claim": r["text"][:9], "kind": "xyz"[i % 3]} for i, r in enumerate(reviews(60, 1))]
    given = {
        "model": str(tmp_path / "decoder"),
        "train": write_rows(tmp_path / "train.jsonl", rows),
        "validation": write_rows(tmp_path / "validation.jsonl", rows[:12]),
        "text_column": ("premise", "claim"),
        "label_column": "kind",
        "output": str(tmp_path / "run"),
        "canary_kind": "confusable",
        **FAST,
    }
    found = thresher.audit(given | {"validation": write_rows(tmp_path / "clean.jsonl", rows[:12][::-1])})
    scores = found.scores
    mended = scores["suggested"].notna()
    assert set(scores["suggested"][mended]) <= set(scores["label"]) == {"x", "y", "z"}
    assert (scores["suggested"] != scores["label"])[mended].all()
    share = scores["suggestion_confidence"] / scores["probability_wrong"]  # of the likelier one of two others
    assert share.between(0.5 - 1e-6, 1 - 1e-6).all()


def test_canary_options_are_refused_in_a_sentence(place: Path, tmp_path: Path) -> None:
    for change, message in (
        ({"rounds": 3, "canaries": 0.2}, "48 of 80 rows would be canaries"),
        ({"canary_kind": "swap"}, "knows alike, uniform, confusable"),
        ({"detector": "loss", "canary_kind": "uniform"}, "--detector loss plants no canaries"),
        ({"detector": "lossy"}, "there is no such score here; there are auto, loss"),
        ({"detector": "tracin/layers/vote@2"}, "there is no such score here"),
    ):
        with pytest.raises(ConfigError, match=message):
            prepare(AuditConfig(**options(place, tmp_path / "run", **change)))


def test_a_row_is_explained_by_the_kind_of_errors_it_would_be_one_of(finished: thresher.AuditResult) -> None:
    kind = told_by_canaries(finished).kind
    assert kind is not None
    assert all(pair.alike <= pair.rows for pair in kind.pairs)
    first = finished.summary.suspicious[0]
    found = finished.explain(first.row)
    other = {"good": "bad", "bad": "good"}[str(found.about["label"])]
    expected = [pair for pair in kind.pairs if (pair.label, pair.likely) == (found.about["label"], other)]
    assert [found.pair] == (expected or [None])
    assert [one.query for one in first.contradicted_by] == [one.query for one in found.contradicted_by][:1]
    assert {one.about["label"] for one in found.contradicted_by} <= {other}
