"""The log of decisions: nothing lost, whoever writes and however it ends; and what decisions teach of other rows."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import expit, logit

from thresher.calibration.decided import Traits, learn
from thresher.decisions import Decision, DecisionLog, Verdict, fingerprints, standing
from thresher.errors import DataError

VERDICTS: list[Verdict] = ["keep", "relabel", "drop", "unsure", "undo"]


def decision(row: int, verdict: Verdict = "keep", **more: str) -> Decision:
    return Decision(row=row, fingerprint=f"row {row}", verdict=verdict, **more)


def write_many(path: Path, who: str) -> None:
    for row in range(50):
        DecisionLog(path).append([decision(row, who=who), decision(row + 50, who=who)])


def test_a_decision_is_read_as_it_was_written(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path / "new" / "decisions.jsonl")
    assert log.read() == []
    made = [decision(3, "relabel", given="a", label="b\n\u2028", who="\x1b[1m", note='"'), decision(4, "unsure")]
    log.append(made[:1])
    log.append(made[1:])
    assert log.read() == made


def test_several_processes_may_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    jobs = [multiprocessing.get_context("fork").Process(target=write_many, args=(path, who)) for who in "ab"]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    read = DecisionLog(path).read()
    for who in "ab":  # each one's in order, and those made together one after the other
        rows = [one.row for one in read if one.who == who]
        assert rows == [row + more for row in range(50) for more in (0, 50)]
    places = [place for place, one in enumerate(read) if one.row < 50]
    assert all(read[place + 1].who == read[place].who for place in places)


@given(cut=st.integers(1, 60))
@settings(max_examples=20, deadline=None)
def test_half_a_line_costs_that_line_alone(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    log = DecisionLog(tmp_path_factory.mktemp("log") / "decisions.jsonl")
    log.append([decision(0), decision(1)])
    whole = log.path.read_bytes()
    log.path.write_bytes(whole[:-cut])  # as a kill or a full disk leaves it
    log.append([decision(2)])
    rows = [one.row for one in log.read()]
    assert rows in ([0, 2], [0, 1, 2])
    assert (rows == [0, 1, 2]) == (cut == 1)  # without its line break the second line is whole


def test_what_is_no_decision_is_refused_by_its_line(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path / "decisions.jsonl")
    log.append([decision(0)])
    with log.path.open("a") as file:
        file.write('{"row": 1, "verdict": "burn"}\n')
    with pytest.raises(DataError, match=r"decisions.jsonl, line 2: this is no decision .*verdict"):
        log.read()


@given(made=st.lists(st.tuples(st.integers(0, 2), st.sampled_from(VERDICTS)), max_size=12))
def test_the_last_decision_stands_and_undo_takes_it_back(made: list[tuple[int, Verdict]]) -> None:
    stands = standing(decision(row, verdict) for row, verdict in made)
    for row in range(3):
        left: list[Verdict] = []
        for about, verdict in made:
            if about == row:
                left = left[:-1] if verdict == "undo" else [*left, verdict]
        assert (stands[f"row {row}"].verdict if f"row {row}" in stands else None) == (left[-1] if left else None)


def test_rows_that_are_the_same_are_told_apart_and_others_by_what_they_hold() -> None:
    rows = [("a", "b"), ("ab", ""), ("a", "b"), ("a", "c"), ("a", "b")]
    known = fingerprints(rows)
    assert len(set(known)) == 5
    assert fingerprints(reversed(rows[:2])) == known[:2][::-1]  # whatever else is in the file


def test_one_model_alone_is_logistic_regression_with_what_the_audit_says_as_offset() -> None:
    rng = np.random.default_rng(0)
    said = rng.uniform(0.05, 0.6, 300)
    wrong = rng.random(300) < expit(logit(said) + 1.2)  # the audit is too hopeful
    odds = logit(said[:200])

    def cost(shift: np.ndarray) -> float:
        line = odds + shift[0]
        return float((np.logaddexp(0, line) - wrong[:200] * line).sum() + shift[0] ** 2 / 2)

    shift = minimize(cost, [0.0]).x[0]
    assert 0.7 < shift < 1.7
    lesson = learn(Traits(said), np.arange(200), wrong[:200])
    order = np.argsort(lesson.probability[200:], kind="stable")
    assert (np.diff(said[200:][order]) >= -1e-9).all()  # the order stays
    assert abs(lesson.probability[200:].mean() - expit(logit(said[200:]) + shift).mean()) < 0.04
    assert lesson.left.low <= wrong[200:].sum() <= lesson.left.high
    assert (lesson.probability[:200] == wrong[:200]).all()


def test_a_pattern_is_recognised_from_forty_decisions() -> None:
    rng = np.random.default_rng(1)
    pair = rng.integers(0, 6, 600)
    wrong = (pair == 2) & (rng.random(600) < 0.9)
    said = np.clip(rng.normal(0.15, 0.05, 600), 0.02, 0.5)  # which tells nothing
    lesson = learn(Traits(said, groups=[pair]), np.arange(40), wrong[:40])
    rest = np.arange(40, 600)
    assert lesson.probability[rest][pair[rest] == 2].min() > lesson.probability[rest][pair[rest] != 2].max()
    assert lesson.left.low <= wrong[rest].sum() <= lesson.left.high


def test_what_means_nothing_does_not_spoil_an_order_that_is_right() -> None:
    rng = np.random.default_rng(2)
    said = rng.beta(0.4, 1.6, 500)
    wrong = rng.random(500) < said
    noise = Traits(said, rng.normal(size=(500, 60)), [rng.integers(0, 20, 500)], rng.normal(size=(500, 32)))
    seen = np.argsort(-said)[:100]
    rest = np.setdiff1d(np.arange(500), seen)
    lesson = learn(noise, seen, wrong[seen])
    found = wrong[rest][np.argsort(-lesson.probability[rest])][:100].sum()
    assert found >= 0.9 * wrong[rest][np.argsort(-said[rest])][:100].sum()


@given(st.integers(0, 2**32 - 1), st.integers(1, 30))
@settings(max_examples=30, deadline=None)
def test_any_decisions_give_probabilities(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    traits = Traits(rng.random(30), rng.normal(size=(30, 3)) * rng.integers(0, 2, 3), [rng.integers(-1, 3, 30)])
    rows = rng.choice(30, count, replace=False)
    lesson = learn(traits, rows, rng.random(count) < rng.random())
    assert ((lesson.probability >= 0) & (lesson.probability <= 1)).all()
    assert 0 <= lesson.left.low <= lesson.left.high <= 30 - count
