"""Canaries that are wrong as the rows are: how many, which rows, which labels, and that they are drawn once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from folders import encoder_folder, reviews, write_rows
from thresher.auditing.prepare import Job, prepare
from thresher.auditing.rounds import with_alike_canaries
from thresher.auditing.run import RunDirectory
from thresher.calibration.alike import EVENLY, draw_alike, with_canaries
from thresher.calibration.canaries import Round
from thresher.config import AuditConfig
from thresher.detectors.error_law import Law, even_law
from thresher.detectors.evidence import Features
from thresher.detectors.label_noise import LabelNoise


def learned(law: Any, labels: Any, wrong: Any = None) -> LabelNoise:
    """That labels go wrong by this law, and how likely each of these is."""
    law, count = np.array(law, dtype=float), len(labels)
    truth = np.eye(len(law))[labels]
    said = np.full(count, 0.1) if wrong is None else np.array(wrong, dtype=float)
    return LabelNoise(Law(law, law, 1.0), truth, truth, said)


def labels_of(*counts: int) -> Any:
    return np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))


ONE_WAY = [[0.7, 0.3, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
MIXED = [[0.8, 0.15, 0.05], [0.3, 0.7, 0.0], [0.02, 0.0, 0.98]]


@pytest.mark.parametrize("law", [ONE_WAY, MIXED, even_law(0.0, 3), even_law(0.4, 3)])
def test_as_many_are_drawn_as_asked_for_and_none_twice_and_every_label_is_another(law: Any) -> None:
    labels = labels_of(40, 30, 10)
    for seed in range(5):
        for counts in ([8], [5, 5], [3, 0, 9, 20]):
            found = draw_alike(learned(law, labels), labels, counts, seed)
            assert [len(rows) for rows, _ in found] == [len(wrong) for _, wrong in found] == counts
            together = np.concatenate([rows for rows, _ in found])
            assert len(set(together.tolist())) == sum(counts)
            assert together.min() >= 0 and together.max() < 80
            for rows, wrong in found:
                assert (np.diff(rows) > 0).all()
                assert (wrong != labels[rows]).all() and set(wrong.tolist()) <= {0, 1, 2}


def test_a_seed_draws_the_same_every_time_and_another_one_others() -> None:
    labels = labels_of(40, 30, 10)
    here, same, other = (draw_alike(learned(MIXED, labels), labels, [6, 6], seed) for seed in (1, 1, 2))
    np.testing.assert_equal(here, same)
    assert [rows.tolist() for rows, _ in here] != [rows.tolist() for rows, _ in other]


def pairs_by_hand(law: Any, counts: Any) -> Any:
    """The share that each class and wrong label should have among canaries, [C, C]."""
    classes, rows = len(counts), sum(counts)
    by_law, evenly = np.zeros((classes, classes)), np.zeros((classes, classes))
    for of in range(classes):
        for label in range(classes):
            if of != label:
                by_law[of, label] = counts[of] / rows * law[of][label]
                evenly[of, label] = counts[of] / rows / (classes - 1)
    return (1 - EVENLY) * by_law / by_law.sum() + EVENLY * evenly / evenly.sum()


@pytest.mark.parametrize(
    ("law", "counts"), [(ONE_WAY, (400, 400, 400)), (MIXED, (300, 600, 300)), (even_law(0.2, 3), (200, 400, 600))]
)
def test_classes_and_wrong_labels_are_drawn_by_the_law_and_a_part_evenly(law: Any, counts: Any) -> None:
    labels = labels_of(*counts)
    drawn = np.zeros((3, 3))
    for seed in range(150):
        for rows, wrong in draw_alike(learned(law, labels), labels, [10, 10], seed):
            np.add.at(drawn, (labels[rows], wrong), 1)
    np.testing.assert_allclose(drawn / drawn.sum(), pairs_by_hand(law, counts), atol=0.025)


def test_where_no_errors_are_known_all_pairs_are_as_likely() -> None:
    labels = labels_of(300, 300, 300)
    noise = learned(np.eye(3), labels, np.zeros(900))
    drawn = np.zeros((3, 3))
    for seed in range(150):
        ((rows, wrong),) = draw_alike(noise, labels, [20], seed)
        np.add.at(drawn, (labels[rows], wrong), 1)
    np.testing.assert_allclose(drawn / drawn.sum(), (1 - np.eye(3)) / 6, atol=0.025)


def test_a_pattern_that_is_unlikely_counts_little() -> None:
    labels = labels_of(400, 400, 400)
    noise = replace(learned(ONE_WAY, labels), law=Law(even_law(0.2, 3), np.array(ONE_WAY), 0.25))
    law = 0.25 * np.array(ONE_WAY) + 0.75 * even_law(0.2, 3)
    drawn = np.zeros((3, 3))
    for seed in range(150):
        ((rows, wrong),) = draw_alike(noise, labels, [20], seed)
        np.add.at(drawn, (labels[rows], wrong), 1)
    np.testing.assert_allclose(drawn / drawn.sum(), pairs_by_hand(law, (400, 400, 400)), atol=0.025)


def test_what_is_thought_of_a_row_does_not_make_it_a_canary() -> None:
    """Canaries in rows that look right would be found more easily than the rows' own errors."""
    labels = labels_of(200, 200)
    wrong = np.random.default_rng(1).choice([0.0, 0.5, 0.9], 400)
    noise, hits = learned(even_law(0.2, 2), labels, wrong), np.zeros(400)
    for seed in range(400):
        ((rows, _),) = draw_alike(noise, labels, [10], seed)
        hits[rows] += 1
    often = [hits[wrong == chance].mean() for chance in (0.0, 0.5, 0.9)]
    np.testing.assert_allclose(often, 10, rtol=0.1)


def test_a_label_that_no_row_has_is_never_given() -> None:
    labels = np.where(labels_of(60, 60) == 1, 3, 0)  # of four classes
    law = [[0.4, 0.3, 0.2, 0.1], [0, 1, 0, 0], [0, 0, 1, 0], [0.1, 0.3, 0.2, 0.4]]
    for seed in range(20):
        for rows, wrong in draw_alike(learned(law, labels), labels, [10, 10], seed):
            np.testing.assert_array_equal(wrong, 3 - labels[rows])


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    place = tmp_path_factory.mktemp("alike")
    train, query = (
        write_rows(place / f"{name}.jsonl", reviews(count, count)) for name, count in (("a", 60), ("b", 20))
    )
    given: Any = {"model": str(encoder_folder(place / "encoder")), "train": train, "validation": query}
    return prepare(AuditConfig(**given, methods=("tracin",), rounds=3, canaries=0.1))


@pytest.fixture(scope="module")
def frozen(job: Job) -> Features:
    """Features that tell good words from bad ones."""
    rng = np.random.default_rng(0)
    classes = [job.encoded[part].classes.numpy() for part in ("train", "query")]
    return Features(*((3 * np.eye(2)[of] + rng.normal(size=(len(of), 2))).astype(np.float32) for of in classes))


def seen(one: Round) -> Any:
    """Tokens and label of every row."""
    return [ids.tolist() for ids in one.train.features["input_ids"]], one.train.classes.tolist()


def test_rows_keep_all_but_the_labels_of_canaries(job: Job) -> None:
    drawn = [
        (np.array([1, 4]), np.array([0, 1])),
        (np.array([], np.int64), np.array([], np.int64)),
        (np.array([7]),) * 2,
    ]
    labels = job.encoded["train"].classes.numpy().copy()
    drawn = [(rows, 1 - labels[rows]) for rows, _ in drawn]
    found = with_canaries(job.rounds, job.encoded["train"], drawn)
    for one, before, (rows, wrong) in zip(found, job.rounds, drawn, strict=True):
        assert (one.number, one.seed) == (before.number, before.seed)
        assert one.rows.tolist() == before.rows.tolist() and seen(one)[0] == seen(before)[0]
        assert np.flatnonzero(one.wrong).tolist() == rows.tolist()
        changed = labels.copy()
        changed[rows] = wrong
        assert seen(one)[1] == changed.tolist()
    assert job.encoded["train"].classes.tolist() == labels.tolist()


def test_they_are_drawn_once_and_kept(
    job: Job, frozen: Features, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An audit that goes on after a kill asks nothing anew, whatever would be learned now."""
    run_dir = RunDirectory(tmp_path)
    first = with_alike_canaries(job, run_dir, frozen).rounds
    assert run_dir.canaries.exists()
    assert [one.wrong.sum() for one in first] == [6, 6, 6]
    assert np.sum([one.wrong for one in first], axis=0).max() == 1
    labels = job.encoded["train"].classes.numpy()
    for one in first:
        np.testing.assert_array_equal(one.train.classes.numpy() != labels, one.wrong)
    kept = run_dir.canaries.read_bytes()
    monkeypatch.setattr("thresher.auditing.rounds.learn_label_noise", lambda *_: pytest.fail("learned again"))
    again = with_alike_canaries(job, run_dir, frozen).rounds
    assert [seen(one) for one in again] == [seen(one) for one in first]
    assert [one.wrong.tolist() for one in again] == [one.wrong.tolist() for one in first]
    assert run_dir.canaries.read_bytes() == kept


@pytest.mark.parametrize("more", [{"canary_kind": "uniform"}, {"detector": "loss"}])
def test_nothing_is_learned_or_kept_where_canaries_are_of_another_kind_or_none(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, str]
) -> None:
    monkeypatch.setattr("thresher.auditing.rounds.learn_label_noise", lambda *_: pytest.fail("learned"))
    other = replace(job, config=job.config.model_copy(update=more))
    assert with_alike_canaries(other, RunDirectory(tmp_path), None) is other
    assert not list(tmp_path.iterdir())


def test_where_queries_tell_no_law_canaries_are_even() -> None:
    """All of one class's labels move by the law that was learned, which is not heard then."""
    labels = np.repeat([0, 1, 2], 200)
    found = learned(ONE_WAY, labels)
    pairs = np.zeros((3, 3))
    for seed in range(40):
        ((rows, wrong),) = draw_alike(found, labels, [60], seed, evenly=1.0)
        np.add.at(pairs, (labels[rows], wrong), 1)
    assert pairs.trace() == 0
    np.testing.assert_allclose(pairs[~np.eye(3, dtype=bool)] / pairs.sum(), 1 / 6, atol=0.02)
