"""Near copies and annotators beside the canaries: exact posteriors, simulated annotators, and an audit of both."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from scipy.integrate import quad
from scipy.special import expit, logit
from scipy.stats import beta
from sklearn.metrics import average_precision_score
from typer.testing import CliRunner

import thresher
from audits import Audits, flags, refused
from folders import answers, classifier_folder, decoder_folder, generator_folder, reviews, write_rows
from simulated import simulated
from summaries import told_by_canaries
from thresher.auditing.cost import passes
from thresher.auditing.prepare import prepare
from thresher.calibration.annotators import STEADINESSES, Heard, learn_annotators
from thresher.calibration.beside import Votes
from thresher.calibration.error_rate import Share
from thresher.cli import app
from thresher.config import AuditConfig
from thresher.errors import RunError

AUDITS = Audits({"train": 60, "validation": 16}, {"batch_size": 8, "quick": True})
options = AUDITS.options
APART = 2.0


def by_every_truth(labels: list[int], share: float, classes: int) -> float:
    """That the first label is wrong, where all are of one text and each is wrong in a share, however it is so."""
    likely = [
        np.prod([1 - share if label == truth else share / (classes - 1) for label in labels])
        for truth in range(classes)
    ]
    return float(1 - likely[labels[0]] / sum(likely))


@pytest.mark.parametrize(
    ("labels", "classes"), [([0, 1], 2), ([0, 1, 1], 2), ([0, 0, 1], 2), ([0, 1, 1, 0, 1], 2), ([2, 0], 5)]
)
def test_votes_of_copies_are_bayes_rule(labels: list[int], classes: int) -> None:
    agree, differ = labels[1:].count(labels[0]), sum(label != labels[0] for label in labels[1:])
    votes = Votes(np.array([agree], float), np.array([differ], float))
    found = expit(logit(0.15) + votes.log_odds(0.15, classes))
    assert found == pytest.approx(by_every_truth(labels, 0.15, classes))


class Crowd:
    """Rows of annotators with rates of their own, and the probabilities of somebody who does not know who labelled."""

    def __init__(self, seed: int, a: float, b: float, *, annotators: int = 20, rows: int = 1000) -> None:
        rng = np.random.default_rng(seed)
        self.rates = rng.beta(a, b, annotators)
        self.who = rng.choice(annotators, rows, p=rng.dirichlet(np.ones(annotators)))
        self.wrong = rng.random(rows) < self.rates[self.who]
        told = max(float(self.wrong.mean() + 0.02 * rng.normal()), 0.01)
        score = rng.normal(size=rows) + APART * self.wrong
        self.before = expit(APART * score - APART**2 / 2 + logit(told)).clip(1e-4, 0.99)
        self.heard = learn_annotators(self.before, self.who, Share(told, max(told - 0.04, 0.001), told + 0.04))


@pytest.mark.parametrize(("a", "b"), [(1, 4), (8, 32), (0.5, 4.5)])
def test_intervals_of_simulated_annotators_cover_their_rates(a: float, b: float) -> None:
    covered: list[bool] = []
    for seed in range(12):
        crowd = Crowd(seed, a, b)
        covered += [one.low <= rate <= one.high for one, rate in zip(crowd.heard.rates, crowd.rates, strict=True)]
    assert 0.9 < np.mean(covered) < 0.995  # neither too narrow nor as wide as everything


def precision(crowd: Crowd, probability: Any) -> float:
    return float(average_precision_score(crowd.wrong, probability))


def test_rows_are_told_apart_better_by_who_labelled_them() -> None:
    crowds = [Crowd(seed, 0.5, 4.5) for seed in range(8)]
    gains = [precision(crowd, crowd.heard.wrong) - precision(crowd, crowd.before) for crowd in crowds]
    assert np.mean(gains) > 0.05
    errors = [((p - crowd.wrong) ** 2).mean() for crowd in crowds for p in (crowd.heard.wrong, crowd.before)]
    assert sum(errors[::2]) < sum(errors[1::2])
    alike = [Crowd(seed, 2000, 8000) for seed in range(8)]  # annotators who do not differ
    assert np.mean([precision(crowd, crowd.heard.wrong) - precision(crowd, crowd.before) for crowd in alike]) > -0.01


def test_where_rows_are_certain_a_rate_is_the_beta_binomials() -> None:
    wrong, right, count = 3, 9, np.array([2, 10])
    certain = np.concatenate([np.tile([1.0, 0.0], [1, 1]).repeat([wrong, right]), np.repeat([1.0, 0.0], count)])
    who = np.repeat([0, 1], [wrong + right, count.sum()])
    found = learn_annotators(np.where(certain, 1 - 1e-9, 1e-9), who, Share(5 / 24, 5 / 24, 5 / 24))
    mean = 5 / 24
    steady = 1 / ((np.arange(STEADINESSES) + 0.5) / STEADINESSES) ** 2

    def evidence(s: float, k: int, n: int) -> float:
        return quad(lambda r: r**k * (1 - r) ** (n - k) * beta.pdf(r, mean * s, (1 - mean) * s), 0, 1)[0]

    weights = np.array([evidence(s, wrong, 12) * evidence(s, 2, 12) for s in steady])
    means = [(mean * s + wrong) / (s + 12) for s in steady]
    assert found.rates[0].estimate == pytest.approx(weights @ means / weights.sum(), abs=2e-3)


def test_one_annotator_alone_and_nobody_change_nothing() -> None:
    wrong, share = np.array([0.1, 0.9, 0.3]), Share(0.4, 0.2, 0.6)
    for who in (np.zeros(3, dtype=np.int64), np.full(3, -1)):
        found: Heard = learn_annotators(wrong, who, share)
        np.testing.assert_array_equal(found.wrong, wrong)
    assert learn_annotators(wrong, np.zeros(3, dtype=np.int64), share).rates[0].low == 0.2


def test_calibrate_takes_annotators() -> None:
    candidates, wrong = simulated(3, errors=0.2, rounds=2)
    rng = np.random.default_rng(0)
    who = np.where(wrong, rng.choice(["a", "b"], 400, p=[0.9, 0.1]), rng.choice(["a", "b"], 400))
    looks = [candidates.canary[:400], candidates.canary[400:]]
    scores = [
        pd.DataFrame(part, columns=[one.name for one in candidates.names]) for part in np.split(candidates.places, 2)
    ]
    labels = np.arange(400) % 2
    plain = thresher.calibrate(scores, labels, looks)
    found = thresher.calibrate(scores, labels, looks, annotators=[*who[:-1], None])
    assert found.annotators.index.tolist() == ["a", "b"]
    assert found.annotators["rows"].sum() == 399
    for name in "ab":
        true = wrong[:-1][who[:-1] == name].mean()
        assert found.annotators.loc[name, "low"] <= true <= found.annotators.loc[name, "high"]
    told, before = (average_precision_score(wrong, one.table["probability_wrong"]) for one in (found, plain))
    assert told > before
    assert plain.annotators.empty
    with pytest.raises(thresher.errors.DataError, match="one a row"):
        thresher.calibrate(scores, labels, looks, annotators=["a"])


def labelled(count: int) -> list[dict[str, Any]]:
    """Reviews by three people, of whom the third turns half of the labels round; some are there twice."""
    rows = [dict(row, by=["ann", "bob", "[b]eve[/b]"][row["id"] % 3]) for row in reviews(count, 1)]
    for row in rows:
        if "eve" in row["by"] and row["id"] % 2:
            row["label"] = {"good": "bad", "bad": "good"}[row["label"]]
    rows[7] |= {"text": rows[1]["text"].upper() + "!", "label": "bad" if rows[1]["label"] == "good" else "good"}
    rows[9] |= {"by": None}
    return rows


@pytest.fixture(scope="module")
def audited(place: Path) -> thresher.AuditResult:
    train = write_rows(place / "labelled.jsonl", labelled(60))
    queries = [*reviews(16, 2), {"id": 16, "text": labelled(60)[4]["text"], "label": "good"}]
    clean = write_rows(place / "clean.jsonl", queries)
    more = {"train": train, "validation": clean, "annotator_column": "by"}
    return thresher.audit(options(place, place / "audited") | more)


def test_an_audit_tells_of_annotators_and_copies(audited: thresher.AuditResult) -> None:
    summary, scores = audited.summary, audited.scores
    assert {one.name for one in summary.annotators} == {"ann", "bob", "[b]eve[/b]"}
    assert sum(one.rows for one in summary.annotators) == 59
    assert all(one.low <= one.estimate <= one.high for one in summary.annotators)
    assert scores["annotator"][8] == "[b]eve[/b]" and pd.isna(scores["annotator"][9])
    copies = summary.copies
    assert copies is not None
    assert (copies.rows, copies.groups, copies.contradicted, copies.queries) == (2, 1, 3, 1)
    assert copies.contradicted_by_queries == 1
    assert scores["copy_of"][7] == scores["copy_of"][1] == 1
    assert scores["contradicted"][[1, 4, 7, 8]].tolist() == ["row", "query", "row", ""]
    shown = {row.row for one in copies.shown for row in one.rows}
    assert shown == {1, 4, 7}
    assert "copies" in audited.all_scores["detector"]


def test_the_console_names_them(place: Path, audited: thresher.AuditResult) -> None:
    given = options(place, audited.folder) | {"train": str(place / "labelled.jsonl")}
    given |= {"validation": str(place / "clean.jsonl"), "annotator_column": "by"}
    told = " ".join(CliRunner().invoke(app, ["audit", *flags(given)]).output.split())
    assert "Errors by annotator" in told and "[b]eve[/b]" in told
    assert "2 rows have a near copy among the others: they are 1 different texts" in told
    assert "1 clean queries are near copies of training rows" in told


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"annotator_column": "who"}, "there is no column 'who'"),
        ({"annotator_column": "by", "detector": "loss", "quick": False}, "--detector auto"),
        ({"annotator_column": "nobody"}, "names nobody"),
        ({"annotator_column": "many"}, "row 0 (line 1): column 'many' holds"),
    ],
)
def test_what_cannot_be_known_is_refused(place: Path, tmp_path: Path, more: dict[str, Any], said: str) -> None:
    rows = [row | {"nobody": " ", "many": ["a", "b"]} for row in labelled(12)]
    given = options(place, tmp_path / "run", train=write_rows(tmp_path / "train.jsonl", rows)) | more
    assert said in refused(["audit", *flags({name: value for name, value in given.items() if value is not False})])


def test_a_second_encoder_says_what_it_says_alone_and_is_kept(place: Path, tmp_path: Path) -> None:
    second = str(decoder_folder(tmp_path / "second"))
    both = thresher.audit(options(place, tmp_path / "both", features=second))
    alone = thresher.audit(options(place, tmp_path / "alone", model=second))
    kept = [
        load_file(one.folder / f"{name}.safetensors") for one, name in ((both, "features_second"), (alone, "features"))
    ]
    assert all(torch.equal(kept[0][side], kept[1][side]) for side in ("train", "query"))
    plain = thresher.audit(options(place, tmp_path / "plain"))
    names = set(both.all_scores["detector"].values) - set(plain.all_scores["detector"].values)
    assert names == {"knn_second", "query_knn_second", "probe_second", "noise_second"}
    assert {"second law", "frozen law"} <= set(told_by_canaries(both).members)
    job = prepare(AuditConfig(**options(place, tmp_path / "both", features=second)))
    assert "features" in job.inputs and passes(job, job.config) > passes(replace(job, encoder=None), job.config)
    with pytest.raises(RunError, match="features was"):
        thresher.audit(options(place, tmp_path / "both"))


def test_it_helps_a_model_that_was_trained_elsewhere(place: Path, tmp_path: Path) -> None:
    tuned = str(classifier_folder(tmp_path / "tuned", ["bad", "good"]))
    given = options(place, tmp_path / "run", model=tuned, features=str(place / "encoder"), methods="tracin")
    result = thresher.audit({name: value for name, value in given.items() if name != "quick"})
    assert "probe_second" in result.all_scores["detector"]
    assert told_by_canaries(result).error_rate.queries is not None
    assert thresher.explain(result.folder, 0).near == 5


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"features": "packaged:nothing"}, "--features: "),
        ({"features": "encoder", "task": "generate"}, "leave it out for generating"),
    ],
)
def test_an_encoder_that_says_nothing_is_refused(place: Path, tmp_path: Path, more: dict[str, Any], said: str) -> None:
    given = options(place, tmp_path / "run") | more
    if given.get("task"):
        given |= {name: write_rows(tmp_path / f"{name}.jsonl", answers(12, 1)) for name in ("train", "validation")}
        given |= {"model": str(generator_folder(tmp_path / "model"))}
    assert said in refused(["audit", *flags(given)])


@pytest.mark.slow
def test_answers_that_differ_are_told_of_and_no_evidence(tmp_path: Path) -> None:
    rows = answers(24, 1)
    rows[3] |= {"prompt": rows[0]["prompt"]}
    rows[5] |= {"prompt": rows[2]["prompt"], "completion": rows[2]["completion"].upper()}
    different = rows[3]["completion"] != rows[0]["completion"]
    result = thresher.audit(
        {
            "model": str(generator_folder(tmp_path / "model")),
            "train": write_rows(tmp_path / "train.jsonl", rows),
            "validation": write_rows(tmp_path / "clean.jsonl", answers(6, 9)),
            "task": "generate",
            "epochs": 1,
            "learning_rate": 1e-2,
            "output": str(tmp_path / "run"),
        }
    )
    contradicted = result.scores["contradicted"]
    assert different and contradicted[[0, 3]].tolist() == ["row", "row"]
    assert "copies" not in result.all_scores["detector"]
