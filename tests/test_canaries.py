"""Canaries: which rows are, how often, what is wrong with them, and that all other rows stay as they were."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from folders import answers, encoder_folder, generator_folder, reviews, write_rows
from thresher.auditing.prepare import Job, prepare
from thresher.auditing.trainings import draw_canaries, plan_rounds
from thresher.calibration.canaries import Round, canary_rows
from thresher.config import AuditConfig
from thresher.data.corruption.answers import swapped_at
from thresher.data.encode import EncodedRows
from thresher.errors import ConfigError

ROWS, CLASSES, LENGTH = 60, 4, 64


def described(rows: EncodedRows) -> list[tuple[list[int], list[int]]]:
    """Tokens and label of every row."""
    return [
        (ids.tolist(), np.atleast_1d(label.numpy()).tolist())
        for ids, label in zip(rows.features["input_ids"], rows.labels, strict=True)
    ]


@pytest.fixture(scope="module")
def classifying(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """Four classes, of which the model is to tell texts of good words from texts of bad ones."""
    place = tmp_path_factory.mktemp("canaries")
    rows = [row | {"label": f"{row['label']} {number % 4 // 2}"} for number, row in enumerate(reviews(ROWS, 0))]
    train, clean = write_rows(place / "rows.jsonl", rows), write_rows(place / "clean.jsonl", rows[:-1])
    model = str(encoder_folder(place / "encoder"))
    return prepare(AuditConfig(model=model, train=train, validation=clean, methods=("tracin",), detector="random"))


@pytest.fixture(scope="module")
def generating(tmp_path_factory: pytest.TempPathFactory) -> Job:
    place = tmp_path_factory.mktemp("swapped")
    train, clean = (write_rows(place / f"{seed}.jsonl", answers(ROWS, seed)) for seed in (0, 1))
    model = str(generator_folder(place / "generator"))
    options: Any = {"model": model, "train": train, "validation": clean, "task": "generate", "methods": ("tracin",)}
    return prepare(AuditConfig(**options, detector="random"))


def never() -> Any:
    raise AssertionError


def planned(job: Job, *, kind: str = "lora", guess: Any = never, **options: Any) -> tuple[Round, ...]:
    """The rounds that an audit of these rows with canaries would have."""
    config = job.config.model_copy(update={"detector": "auto", "canaries": 0.1, **options})
    subject = replace(job.subject, kind=kind)
    canaries = draw_canaries(job.task, subject, config, guess)
    return plan_rounds(job.task, subject, job.encoded["train"], config, LENGTH, canaries)


def confused() -> Any:
    return np.random.default_rng(0).dirichlet(np.ones(CLASSES), ROWS)


@given(count=st.integers(8, 500), share=st.floats(0.001, 0.2), rounds=st.integers(2, 5), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=80)
def test_canaries_are_as_many_as_asked_for_and_none_twice(count: int, share: float, rounds: int, seed: int) -> None:
    each = max(2, round(share * count))
    if rounds * each > count / 2:
        with pytest.raises(ConfigError, match=f"{rounds * each} of {count} rows would be canaries, more than half"):
            canary_rows(count, share, rounds, seed)
        return
    found = canary_rows(count, share, rounds, seed)
    assert [len(rows) for rows in found] == [each] * rounds
    together = np.concatenate(found)
    assert len(set(together.tolist())) == rounds * each
    assert 0 <= together.min() <= together.max() < count
    assert all((np.diff(rows) > 0).all() for rows in found)
    np.testing.assert_equal(canary_rows(count, share, rounds, seed), found)


def test_every_row_is_as_likely_a_canary_as_any_other() -> None:
    hits = np.zeros(40)
    for seed in range(1500):
        hits[np.concatenate(canary_rows(40, 0.1, 2, seed))] += 1
    np.testing.assert_allclose(hits / 1500, 0.2, atol=0.05)


def test_a_named_detector_has_one_round_without_canaries(classifying: Job) -> None:
    (only,) = classifying.rounds
    assert (only.number, only.seed, only.wrong.any()) == (0, classifying.config.seed, False)
    assert only.train is classifying.encoded["train"]
    assert only.rows.tolist() == list(range(ROWS))


@pytest.mark.parametrize("canary_kind", ["uniform", "confusable"])
def test_canaries_alone_get_another_label_and_in_one_round_only(classifying: Job, canary_kind: str) -> None:
    chances = confused()
    before, true = described(classifying.encoded["train"]), classifying.encoded["train"].classes.numpy()
    rounds = planned(classifying, rounds=3, canary_kind=canary_kind, guess=lambda: chances)
    assert np.sum([one.wrong for one in rounds], axis=0).max() == 1
    assert len({one.seed for one in rounds}) == 3
    for number, one in enumerate(rounds):
        assert (one.number, one.wrong.sum()) == (number, 6)
        assert one.rows.tolist() == list(range(ROWS))
        after = described(one.train)
        assert [ids for ids, _ in after] == [ids for ids, _ in before]
        assert [old != new for old, new in zip(before, after, strict=True)] == one.wrong.tolist()
        if canary_kind == "confusable":
            others = np.where(np.arange(CLASSES) == true[:, None], -1, chances)
            np.testing.assert_array_equal(one.train.classes.numpy()[one.wrong], others.argmax(1)[one.wrong])
    again = planned(classifying, rounds=3, canary_kind=canary_kind, guess=lambda: chances)
    assert [described(one.train) for one in again] == [described(one.train) for one in rounds]
    other = planned(classifying, rounds=3, canary_kind=canary_kind, guess=lambda: chances, seed=1)
    assert [one.wrong.tolist() for one in other] != [one.wrong.tolist() for one in rounds]


def test_uniform_canaries_fall_on_every_other_class_alike(classifying: Job) -> None:
    true = classifying.encoded["train"].classes.numpy()
    steps = np.zeros(CLASSES)
    for seed in range(40):
        for one in planned(classifying, canaries=0.25, seed=seed, canary_kind="uniform"):
            steps += np.bincount((one.train.classes.numpy() - true)[one.wrong] % CLASSES, minlength=CLASSES)
    assert steps[0] == 0
    np.testing.assert_allclose(steps[1:] / steps.sum(), 1 / 3, atol=0.05)


def test_what_the_model_makes_of_the_rows_is_asked_once_and_for_confusable_canaries_alone(classifying: Job) -> None:
    asked: list[int] = []

    def counted() -> Any:
        asked.append(1)
        return classifying.task.guess(classifying.subject, LENGTH, classifying.config)

    planned(classifying, guess=counted, canary_kind="uniform")
    assert not asked
    planned(classifying, guess=counted, canary_kind="confusable", rounds=4)
    assert len(asked) == 1


def test_a_kind_that_the_task_does_not_know_is_refused(classifying: Job, generating: Job) -> None:
    with pytest.raises(
        ConfigError, match="--canary-kind swap: --task classify knows alike, uniform, confusable; choose one"
    ):
        planned(classifying, canary_kind="swap")
    with pytest.raises(ConfigError, match="--canary-kind uniform: --task generate knows swap"):
        planned(generating, canary_kind="uniform")
    with pytest.raises(ConfigError, match="48 of 60 rows would be canaries, more than half; use fewer, or name a"):
        planned(classifying, canaries=0.4)


def test_canaries_like_the_errors_are_chosen_when_the_errors_are_known(classifying: Job) -> None:
    """Until then the rounds hold the rows as they were given, and how many canaries there will be."""
    for more in ({}, {"canary_kind": "alike"}):
        rounds = planned(classifying, rounds=3, **more)
        assert [one.wrong.sum() for one in rounds] == [6, 6, 6]
        assert [one.seed for one in rounds] == [
            one.seed for one in planned(classifying, rounds=3, canary_kind="uniform")
        ]
        for one in rounds:
            assert described(one.train) == described(classifying.encoded["train"])
            assert one.rows.tolist() == list(range(ROWS))


@pytest.mark.parametrize("kind", ["whole", "adapter"])
def test_a_model_trained_elsewhere_has_uniform_canaries_and_none_like_the_errors(classifying: Job, kind: str) -> None:
    by_default, named = (planned(classifying, kind=kind, **more) for more in ({}, {"canary_kind": "uniform"}))
    assert [described(one.train) for one in by_default] == [described(one.train) for one in named]
    with pytest.raises(ConfigError, match="--canary-kind alike: it takes features of the model as it came, and this"):
        planned(classifying, kind=kind, canary_kind="alike")


def test_generators_know_no_canaries_like_the_errors(generating: Job) -> None:
    with pytest.raises(ConfigError, match="--canary-kind alike") as refusal:
        planned(generating, canary_kind="alike")
    assert "--task generate knows swap; choose one" in str(refusal.value)


def prompt(row: tuple[list[int], list[int]]) -> list[int]:
    return [token for token, label in zip(*row, strict=True) if label < 0]


def completion(row: tuple[list[int], list[int]]) -> tuple[int, ...]:
    return tuple(label for label in row[1] if label >= 0)


def test_canaries_of_a_generator_get_the_completion_of_another_row(generating: Job) -> None:
    before = described(generating.encoded["train"])
    rounds = planned(generating, canaries=0.2)
    for one in rounds:
        after = described(one.train)
        assert one.wrong.sum() == 12
        assert [old != new for old, new in zip(before, after, strict=True)] == one.wrong.tolist()
        assert [prompt(row) for row in after] == [prompt(row) for row in before]
        assert {completion(row) for row in after} <= {completion(row) for row in before}
    assert not (rounds[0].wrong & rounds[1].wrong).any()


@pytest.mark.parametrize("seed", range(3))
def test_any_completion_that_differs_is_as_likely_even_where_nearly_all_are_equal(seed: int) -> None:
    texts = ["yes"] * 30 + ["yes "] * 6 + ["no", "no", "maybe", "never"]
    rng = np.random.default_rng(seed)
    drawn = [swapped_at(texts, [0, 35, 36], rng) for _ in range(2000)]
    for place in range(3, 35):
        assert all(new[place] == texts[place] for new in drawn)
    for row in (0, 35):
        counts = Counter(new[row] for new in drawn)
        assert counts["no"] / 2000 == pytest.approx(0.5, abs=0.06)
        assert counts["maybe"] / 2000 == pytest.approx(0.25, abs=0.06)
        assert set(counts) == {"no", "maybe", "never"}
    assert "no" not in {new[36] for new in drawn}
    with pytest.raises(ConfigError, match="--canary-kind swap: all rows have the same answer; name a --detector"):
        swapped_at(["yes", " yes", "yes"], [1], rng)


@pytest.mark.parametrize("kind", ["whole", "adapter"])
@pytest.mark.parametrize("task", ["classifying", "generating"])
def test_a_model_trained_elsewhere_sees_copies_beside_the_rows(
    request: pytest.FixtureRequest, task: str, kind: str
) -> None:
    job: Job = request.getfixturevalue(task)
    before = described(job.encoded["train"])
    (only,) = planned(job, kind=kind, rounds=3)
    after = described(only.train)
    assert len(after) == ROWS + 3 * 6
    assert after[:ROWS] == before
    assert only.rows[:ROWS].tolist() == list(range(ROWS))
    assert only.wrong.tolist() == [False] * ROWS + [True] * 18
    assert len(set(only.rows[ROWS:].tolist())) == 18
    for row, copy in zip(only.rows[ROWS:], after[ROWS:], strict=True):
        assert copy[1] != before[row][1]
        if task == "classifying":
            assert copy[0] == before[row][0]
    sets = canary_rows(ROWS, 0.1, 3, job.config.seed)
    assert sorted(only.rows[ROWS:].tolist()) == sorted(np.concatenate(sets).tolist())


def test_rounds_train_with_seeds_of_their_own(classifying: Job) -> None:
    seeds = [one.seed for seed in range(3) for one in planned(classifying, rounds=4, canaries=0.05, seed=seed)]
    assert len(set(seeds)) == 12
    assert seeds[::4] == [0, 1, 2]
