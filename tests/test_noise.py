"""Planted errors: how many, in which rows, by which law, and where there cannot be any."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

import thresher
from folders import encoder_folder, reviews, write_rows
from thresher.auditing.drawn import keep_drawn
from thresher.auditing.prepare import Job, prepare
from thresher.auditing.run import RunDirectory
from thresher.config import AuditConfig
from thresher.data.corruption.answers import plant_texts
from thresher.data.corruption.draw import draw_rows
from thresher.data.corruption.kinds import PLANTED, plant_errors
from thresher.data.corruption.labels import CONFUSED, SPREAD, WRONG, confuse_labels
from thresher.data.corruption.texts import FINNISH, NOTHING
from thresher.data.examples import Examples
from thresher.errors import ConfigError, RunError
from thresher.progress import Silent
from thresher.results.explain import explain_rows
from thresher.tasks.classify import Classify

OF_LABELS = ("flip", "confusion", "burst", "likeliest")
WORDS = ["good", "Bad", "film,", "42", "...", "\nplot", "ja", "n/a", "-"]

KINDS = tuple(PLANTED)


def examples(count: int, classes: int, seed: int, *, pair: bool = False) -> Examples:
    rng = np.random.default_rng(seed)
    texts = [tuple(" ".join(rng.choice(WORDS, rng.integers(1, 9))) for _ in range(1 + pair)) for _ in range(count)]
    return Examples(texts, rng.permutation(np.arange(count) % classes))


def guess(rows: Examples, seed: int = 0) -> Any:
    return np.random.default_rng(seed).dirichlet(np.ones(rows.labels.max() + 1), len(rows))


def planted(rows: Examples, share: float, kind: Any, seed: int = 0) -> tuple[Examples, list[int]]:
    new, flags = plant_errors(rows, share, kind, np.random.default_rng(seed), lambda: guess(rows))
    return new, np.flatnonzero(flags).tolist()


@pytest.mark.parametrize("pair", [False, True])
@pytest.mark.parametrize("classes", [2, 4, 7])
@pytest.mark.parametrize("kind", KINDS)
@given(st.integers(14, 90), st.floats(0, 0.5), st.integers(0, 99))
@settings(deadline=None, max_examples=8)
def test_exactly_the_share_is_changed(kind: Any, classes: int, pair: bool, count: int, share: float, seed: int) -> None:
    rows = examples(count, classes, seed, pair=pair)
    before = (list(rows.texts), rows.labels.copy())
    new, hit = planted(rows, share, kind, seed)
    changed = [i for i in range(count) if (rows.texts[i], rows.labels[i]) != (new.texts[i], new.labels[i])]
    assert hit == changed
    assert len(hit) == round(share * count)
    assert set(new.labels) <= set(rows.labels)
    assert all(len(text) == 1 + pair and all(part.strip() for part in text) for text in new.texts)
    if kind in OF_LABELS:
        assert list(new.texts) == list(rows.texts)
    elif kind != "duplicate":
        assert (new.labels == rows.labels).all()
    again, _ = planted(rows, share, kind, seed)
    assert (list(again.texts), again.labels.tolist()) == (list(new.texts), new.labels.tolist())
    assert (list(rows.texts), rows.labels.tolist()) == (before[0], before[1].tolist())


@pytest.mark.parametrize("kind", KINDS)
def test_another_seed_changes_other_rows(kind: Any) -> None:
    rows = examples(200, 4, 0)
    assert planted(rows, 0.2, kind, 0)[1] != planted(rows, 0.2, kind, 1)[1]


def test_flips_fall_on_every_other_class_alike() -> None:
    labels = np.zeros(9000, np.int64)
    labels[:3] = [2, 4, 9]  # classes need not be 0, 1, 2, ...
    rows = Examples([("a",)] * 9000, labels)
    new, hit = planted(rows, 0.5, "flip")
    counts = Counter(new.labels[hit][labels[hit] == 0].tolist())
    assert set(counts) == {2, 4, 9}
    assert min(counts.values()) > 0.9 * max(counts.values())


def law(weights: Any, count: int) -> Any:
    """Chance of each row when ``count`` of many are drawn one by one: 1 - exp(-t w), which add up to ``count``."""
    rate: Any = brentq(lambda t: float(np.sum(1 - np.exp(-t * weights))) - count, 0, 1e3)
    return 1 - np.exp(-rate * weights)


def test_rows_are_drawn_by_their_weights() -> None:
    weights = np.repeat([0.0, 0.5, 1.0, 5.0], 5000)
    rows = draw_rows(weights, 6000, np.random.default_rng(0))
    assert len(set(rows.tolist())) == 6000
    found = np.bincount(rows // 5000, minlength=4) / 5000
    assert found[0] == 0
    assert np.allclose(found, law(weights, 6000)[::5000], atol=0.025)


@pytest.mark.parametrize("classes", [2, 4, 7])
def test_each_class_has_its_own_rate_and_is_taken_for_its_own_other(classes: int) -> None:
    labels = np.arange(4000 * classes) % classes
    new = confuse_labels(labels, 800 * classes, np.random.default_rng(3))
    table = np.zeros((classes, classes))
    np.add.at(table, (labels, new), 1)
    wrong = table - np.diag(np.diag(table))
    weights = SPREAD ** np.linspace(0, 1, classes)
    truth = law(np.repeat(weights, 4000), 800 * classes)[::4000]
    assert np.allclose(np.sort(wrong.sum(1) / 4000), truth, atol=0.03)
    assert sorted(wrong.argmax(1)) == list(range(classes))  # no class is the other of two
    mostly = wrong.max(1) / wrong.sum(1)
    assert np.allclose(mostly, CONFUSED if classes > 2 else 1, atol=0.06)
    others = np.sort(wrong, axis=1)[:, 1:-1] / wrong.sum(1, keepdims=True)
    assert np.allclose(others, (1 - CONFUSED) / max(1, classes - 2), atol=0.06)


@pytest.mark.parametrize("classes", [2, 4, 7])
def test_rows_that_look_like_another_class_are_hit_most_and_get_it(classes: int) -> None:
    rows = examples(20000, classes, 1)
    chances = guess(rows)
    new, hit = planted(rows, 0.2, "likeliest")
    chances[np.arange(20000), rows.labels] = -1
    assert (new.labels[hit] == chances[hit].argmax(1)).all()
    weight = chances.max(1)
    truth, found = law(weight, 4000), np.bincount(hit, minlength=20000)
    for rows_alike in np.array_split(np.argsort(weight), 8):
        assert found[rows_alike].mean() == pytest.approx(truth[rows_alike].mean(), abs=0.03)


def test_a_certain_model_leaves_nothing_to_plant() -> None:
    rows = examples(20, 4, 0)
    with pytest.raises(ConfigError, match="only 0 rows can be changed so, not 4"):
        plant_errors(rows, 0.2, "likeliest", np.random.default_rng(0), lambda: np.eye(4)[rows.labels])


@pytest.mark.parametrize(("count", "share"), [(1200, 0.2), (1200, 0.01), (5000, 0.4), (60, 0.2)])
def test_bursts_lie_in_stretches_with_a_favourite_label(count: int, share: float) -> None:
    rows = examples(count, 5, 2)
    new, hit = planted(rows, share, "burst")
    length = max(10, round(len(hit) / (5 * WRONG)))
    stretches = np.array_split(np.arange(count), count // length)
    bad = [stretch for stretch in stretches if np.isin(stretch, hit).any()]
    full = [stretch for stretch in bad if np.isin(stretch, hit).sum() == round(WRONG * len(stretch))]
    assert len(full) >= len(bad) - 1  # the last may hold the rest
    assert len(bad) <= 6
    for stretch in full:
        wrong = stretch[np.isin(stretch, hit)]
        favourites = [label for label in range(5) if (new.labels[wrong][rows.labels[wrong] != label] == label).all()]
        assert favourites


def words_apart(one: str, other: str) -> bool:
    """Whether one is the other with a word dropped, doubled, or in another case."""
    a, b = one.split(), other.split()
    if len(a) == len(b):
        return one.lower() == other.lower() and sum(x != y for x, y in zip(a, b, strict=True)) == 1
    short, long = sorted((a, b), key=len)
    return len(long) == len(short) + 1 and any(long[:i] + long[i + 1 :] == short for i in range(len(long)))


@pytest.mark.parametrize("pair", [False, True])
@pytest.mark.parametrize("classes", [2, 4, 7])
def test_duplicates_are_near_copies_of_unchanged_rows_under_another_label(classes: int, pair: bool) -> None:
    texts = [tuple(f"Row {i} part {p} of film {i}" for p in range(1 + pair)) for i in range(300)]
    rows = Examples(texts, np.arange(300) % classes)
    new, hit = planted(rows, 0.3, "duplicate")
    copied: list[int] = []
    lengths: set[int] = set()
    for row in hit:
        found = [
            other
            for other in set(range(300)) - set(hit)
            if any(words_apart(a, b) for a, b in zip(new.texts[row], texts[other], strict=True))
            and sum(a != b for a, b in zip(new.texts[row], texts[other], strict=True)) == 1
        ]
        assert len(found) == 1
        assert new.labels[row] != rows.labels[found[0]]
        copied += found
        lengths.add(sum(len(part.split()) for part in new.texts[row]))
    assert len(set(copied)) == len(hit)
    assert len(lengths) == 3  # a word less, as many, one more


def test_more_copies_than_rows_to_copy_share_them() -> None:
    rows = examples(40, 4, 0)
    assert len(planted(rows, 0.9, "duplicate")[1]) == 36
    with pytest.raises(ConfigError, match="stays as it is, and none would"):
        planted(rows, 0.999, "duplicate")


def test_emptied_texts_hold_nothing_and_foreign_ones_as_many_finnish_words() -> None:
    rows = examples(100, 2, 0, pair=True)
    for kind in ("empty", "language"):
        new, hit = planted(rows, 0.5, kind)
        for row in hit:
            for old, now in zip(rows.texts[row], new.texts[row], strict=True):
                assert old != now
                if kind == "empty":
                    assert now in NOTHING
                else:
                    assert len(now.split()) == len(old.split())
                    assert set(now.split()) <= set(FINNISH)
    assert len(FINNISH) == len(set(FINNISH)) >= 60


def test_where_errors_cannot_be_planted_the_message_says_why() -> None:
    one_class = Examples([("a b",)] * 20, np.zeros(20, np.int64))
    for kind in (*OF_LABELS, "duplicate"):
        with pytest.raises(ConfigError, match="all training rows have one class"):
            planted(one_class, 0.2, kind)
        assert planted(one_class, 0.0, kind)[1] == []
    assert len(planted(one_class, 0.2, "empty")[1]) == 4
    with pytest.raises(ConfigError, match="bursts change at most 60 of these rows, not 70; plant less"):
        planted(examples(100, 2, 0), 0.7, "burst")


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    place = tmp_path_factory.mktemp("noise")
    names = {name: write_rows(place / f"{name}.jsonl", reviews(60, seed)) for seed, name in enumerate(SPLITS)}
    recipe = {"epochs": 1, "batch_size": 8, "methods": "tracin", "detector": "tracin/layers/vote"}
    return {"model": str(encoder_folder(place / "encoder")), **names, **recipe, "plant": 0.2}


SPLITS = ("train", "validation", "test")


def prepared(options: dict[str, Any], **more: Any) -> Job:
    return prepare(AuditConfig(**options, **more))


def rows_of(job: Job, part: Any) -> Any:
    encoded = job.encoded[part]
    return [ids.tolist() for ids in encoded.features["input_ids"]], encoded.classes.tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_only_planted_training_rows_differ_in_what_the_model_gets(options: dict[str, Any], kind: Any) -> None:
    clean, job = prepared(options | {"plant": 0.0}), prepared(options, plant_kind=kind)
    assert rows_of(job, "query") == rows_of(clean, "query")
    assert rows_of(job, "test") == rows_of(clean, "test")
    rows = [list(zip(*rows_of(each, "train"), strict=True)) for each in (clean, job)]
    differs = [old != new for old, new in zip(*rows, strict=True)]
    assert job.planted.sum() == 12
    assert not (np.array(differs) & ~job.planted).any()
    if kind in OF_LABELS:
        assert differs == job.planted.tolist()
    assert job.planted_errors == f"{kind}, in 12 rows"
    again = prepared(options, plant_kind=kind)
    assert rows_of(again, "train") == rows_of(job, "train")


def test_the_guess_is_a_probability_of_each_class_in_the_order_of_the_task(options: dict[str, Any]) -> None:
    job = prepared(options | {"plant": 0.0})
    assert isinstance(job.task, Classify)
    found = job.task.guess(job.subject, 64, job.config)
    assert found.shape == (60, 2)
    assert np.allclose(found.sum(1), 1)
    labels = job.task.examples["train"].labels
    assert (found.argmax(1) == labels).mean() > 0.6


def test_an_audit_says_what_was_planted_and_an_explanation_shows_it(options: dict[str, Any], tmp_path: Path) -> None:
    found = thresher.audit({**options, "plant_kind": "likeliest", "output": str(tmp_path / "run")})
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert (summary["plant_kind"], summary["planted"]) == ("likeliest", 12)
    assert found.scores["planted"].sum() == 12
    for row, shown in enumerate(explain_rows(found.folder, range(60), [], None, 0, Silent())):
        assert shown.planted == found.scores["planted"][row] == (shown.about["label"] != shown.given["label"])


@pytest.mark.parametrize("change", [{"plant_kind": "likeliest"}, {"canary_kind": "confusable", "detector": "auto"}])
def test_a_run_goes_on_with_what_was_drawn_for_it_whatever_would_be_drawn_now(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, str]
) -> None:
    """Another number of threads, or other code, may draw other labels."""
    three = [{**row, "label": "xyz"[i % 3]} for i, row in enumerate(reviews(60, 1))]
    train, clean = (write_rows(tmp_path / f"{count}.jsonl", three[-count:]) for count in (60, 12))
    config = {**options, **change, "train": train, "validation": clean, "test": None, "output": tmp_path / "run"}
    run_dir = RunDirectory(tmp_path / "run")
    job = prepared(config)
    run_dir.open(job.config, job.inputs)
    keep_drawn(run_dir, job.drawn, job.tables["train"], job.config)
    uniform = np.random.default_rng(5).dirichlet(np.ones(3), 60)
    monkeypatch.setattr(Classify, "guess", lambda *_: uniform)
    fresh, again = prepared(config | {"output": tmp_path / "other"}), prepared(config)
    assert trained_on(fresh) != trained_on(job) == trained_on(again)
    assert (again.planted == job.planted).all()
    run_dir.drawn.write_text(run_dir.drawn.read_text().replace("x", "y", 1))
    run_dir.open(job.config, job.inputs)
    lost = prepared(config)
    with pytest.raises(RunError, match=r"drawn\.json: is damaged, and cannot be made again as it was"):
        keep_drawn(run_dir, lost.drawn, lost.tables["train"], lost.config)
    keep_drawn(run_dir, job.drawn, job.tables["train"], job.config)


def trained_on(job: Job) -> list[list[int]]:
    """The labels of every round."""
    return [one.train.classes.tolist() for one in job.rounds]


texts = st.lists(st.sampled_from(["yes", "no", "a good film", "the plot\nwas dull", "x", "so so", ""]), max_size=40)


@settings(max_examples=80, deadline=None)
@given(texts, st.sampled_from(["swap", "truncate", "shuffle"]), st.sampled_from([0.1, 0.3, 0.9]), st.integers(0, 9))
def test_planted_answers_differ_and_are_what_they_are_called(
    given_texts: list[str], kind: Any, share: float, seed: int
) -> None:
    try:
        new, planted = plant_texts(given_texts, share, kind, np.random.default_rng(seed))
    except ConfigError as error:
        assert "answers can be changed" in str(error)
        return
    changed = [i for i, (old, now) in enumerate(zip(given_texts, new, strict=True)) if old.strip() != now.strip()]
    assert changed == np.flatnonzero(planted).tolist()
    assert len(changed) == round(share * len(given_texts))
    for i in changed:
        old = given_texts[i]
        if kind == "truncate":
            assert new[i].strip() and old.startswith(new[i])
            assert len(new[i].split()) == max(1, len(old.split()) // 3)
        if kind == "shuffle":
            assert sorted(new[i].split()) == sorted(old.split())
    if kind == "swap":
        assert sorted(new) == sorted(given_texts)
    again, _ = plant_texts(given_texts, share, kind, np.random.default_rng(seed))
    assert again == new


def test_texts_are_swapped_wherever_that_is_possible() -> None:
    half = ["yes"] * 30 + ["no"] * 10
    new, planted = plant_texts(half, 0.5, "swap", np.random.default_rng(0))
    assert planted.sum() == 20
    assert all(old != now for old, now, hit in zip(half, new, planted, strict=True) if hit)
    with pytest.raises(ConfigError, match="only 0 answers can be changed by shuffle, not 20"):
        plant_texts(half, 0.5, "shuffle", np.random.default_rng(0))
