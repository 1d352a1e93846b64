"""detect, calibrate and clean on arrays: beside the audit's own scores, cleanlab, and errors that are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import log_softmax, softmax

import thresher
from thresher.errors import ConfigError, DataError


def drawn(rows: int = 600, classes: int = 3, share: float = 0.15, seed: int = 0, apart: float = 2.5) -> dict[str, Any]:
    """Clusters, one a class, of which a share of the labels is another one; with clean queries beside them."""
    rng = np.random.default_rng(seed)
    truth, queries = np.arange(rows) % classes, np.arange(90) % classes
    centres = apart * np.eye(classes, 6)
    features, query_features = (centres[y] + rng.normal(size=(len(y), 6)) for y in (truth, queries))
    wrong = rng.permutation(rows) < share * rows
    labels = np.where(wrong, (truth + rng.integers(1, classes, rows)) % classes, truth)
    probabilities = softmax(features @ centres.T, axis=1)
    return {
        "truth": truth,
        "labels": labels,
        "wrong": wrong,
        "pred_probs": probabilities,
        "features": features,
        "query_labels": queries,
        "query_features": query_features,
    }


def test_what_is_not_given_is_left_out() -> None:
    made = drawn(60)
    held_out = {"loss", "margin", "confident_given", "random"}
    by_features = {"knn_frozen", "probe_frozen", "confident", "random"}
    by_queries = {"query_knn_frozen", "noise_frozen"}
    labels, probabilities, features = made["labels"], made["pred_probs"], made["features"]
    queries = {name: made[name] for name in ("query_labels", "query_features")}
    assert set(thresher.detect(labels, probabilities)) == held_out
    assert set(thresher.detect(labels, features=features)) == by_features
    assert set(thresher.detect(labels, features=features, **queries)) == by_features | by_queries
    epochs = thresher.detect(labels, np.stack([probabilities] * 4))
    assert set(epochs) == {"loss", "loss_mean", "aum", "el2n", "margin", "random"}
    assert set(thresher.detect(labels, probabilities, detectors=["margin"])) == {"margin"}


def test_scores_are_the_formulas() -> None:
    made, rng = drawn(50), np.random.default_rng(1)
    labels, logits = made["labels"], rng.normal(size=(5, 50, 3))
    found, rows = thresher.detect(labels, logits=logits), np.arange(50)
    logs = log_softmax(logits, axis=-1)
    np.testing.assert_allclose(found["loss"], logs[-1, rows, labels], rtol=1e-5)
    np.testing.assert_allclose(found["loss_mean"], logs[:, rows, labels].mean(0), rtol=1e-5)
    others = np.where(np.eye(3, dtype=bool)[labels], -np.inf, logits).max(-1)
    margins = logits[:, rows, labels] - others
    np.testing.assert_allclose(found["margin"], margins[-1], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["aum"], margins.mean(0), rtol=1e-4, atol=1e-5)
    same = thresher.detect(labels, softmax(logits, axis=-1))
    np.testing.assert_allclose(same, found, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_confident_learning_is_cleanlabs(seed: int) -> None:
    count = pytest.importorskip("cleanlab.count")
    rank = pytest.importorskip("cleanlab.rank")
    made = drawn(300, share=0.25, seed=seed, apart=1.2)
    labels, probabilities = made["labels"], made["pred_probs"]
    quality = rank.get_label_quality_scores(labels, probabilities, adjust_pred_probs=True)
    scores = thresher.detect(labels, probabilities)
    np.testing.assert_allclose(scores["confident_given"], quality, rtol=1e-5)
    found = thresher.calibrate(scores, labels, pred_probs=probabilities)
    joint = count.estimate_joint(labels, probabilities)
    assert found.told_by == "confident learning"
    assert found.share is not None
    assert found.share.estimate == pytest.approx(1 - np.trace(joint), abs=0.01)
    assert np.isnan(found.share.low) and found.table[["probability_wrong", "q_value"]].isna().to_numpy().all()


def test_three_lines_from_probabilities_to_cleaner_rows() -> None:
    made = drawn()
    scores = thresher.detect(made["labels"], made["pred_probs"])
    found = thresher.calibrate(scores, made["labels"], pred_probs=made["pred_probs"])
    kept = thresher.clean(list(range(600)), found)
    assert made["wrong"][kept].mean() < 0.25 * made["wrong"].mean()
    assert len(kept) > 450


def with_canaries(made: dict[str, Any], seed: int, count: int = 60) -> tuple[Any, Any, pd.DataFrame]:
    """Rows that get a wrong label of our own, and scores that do not know of it."""
    rng = np.random.default_rng([seed, 1])
    canary = rng.permutation(len(made["labels"])) < count
    trained = np.where(canary, (made["labels"] + rng.integers(1, 3, len(canary))) % 3, made["labels"])
    return canary, trained, thresher.detect(trained, made["pred_probs"], features=made["features"], seed=seed)


def test_canaries_tell_how_many_rows_are_wrong_and_which() -> None:
    inside, gained = 0, 0.0
    for seed in range(6):
        made = drawn(seed=seed)
        canary, _, scores = with_canaries(made, seed)
        found = thresher.calibrate(scores, made["labels"], canary)
        assert found.told_by == "canaries" and found.share is not None
        share = made["wrong"][~canary].mean()
        inside += found.share.low <= share <= found.share.high
        table = found.table
        assert table.loc[canary, ["score", "probability_wrong", "q_value"]].isna().all().all()  # never seen as given
        assert set(table["rank"][canary]) == set(range(541, 601))
        assert table["probability_wrong"].max() <= 0.99
        picked = found.suspicious
        assert not canary[picked].any()
        gained += made["wrong"][picked].mean()
    assert inside >= 5
    assert gained / 6 > 0.8


def test_a_row_is_judged_where_it_is_no_canary() -> None:
    made = drawn()
    rounds = [with_canaries(made, seed) for seed in (0, 1)]
    found = thresher.calibrate([one[2] for one in rounds], made["labels"], [one[0] for one in rounds])
    both = rounds[0][0] & rounds[1][0]
    np.testing.assert_array_equal(found.table["score"].isna(), both)


def test_copies_are_canaries_beside_their_rows() -> None:
    made = drawn()
    copied = np.arange(0, 600, 10)
    rows = np.concatenate([np.arange(600), copied])
    labels = np.concatenate([made["labels"], (made["labels"][copied] + 1) % 3])
    scores = thresher.detect(labels, made["pred_probs"][rows])
    found = thresher.calibrate(scores, made["labels"], np.arange(660) >= 600, rows=rows)
    assert len(found.table) == 600 and found.table["score"].notna().all()
    assert made["wrong"][found.suspicious].mean() > 0.8


@pytest.mark.parametrize("canaries", [False, True])
def test_clean_queries_tell_it_too_and_name_a_better_label(canaries: bool) -> None:
    made = drawn(seed=3)
    canary, labels, _ = with_canaries(made, 3)
    if not canaries:
        canary, labels = np.zeros(600, bool), made["labels"]
    arrays = [made[name] for name in ("features", "query_labels", "query_features")]
    scores = thresher.detect(labels, features=arrays[0], query_labels=arrays[1], query_features=arrays[2])
    opinions = thresher.ask_queries(labels, *arrays, canary=canary)
    found = thresher.calibrate(scores, made["labels"], canary, opinions=opinions)
    assert found.told_by == ("canaries and queries" if canaries else "queries")
    assert found.share is not None
    assert found.share.low <= made["wrong"][~canary].mean() <= found.share.high
    picked = found.suspicious
    assert made["wrong"][picked].mean() > 0.8
    better = found.table["suggested"].to_numpy()[picked]
    assert (better == made["truth"][picked])[made["wrong"][picked]].mean() > 0.9
    frame = pd.DataFrame({"label": made["labels"]}, index=np.arange(600) + 7)
    mended = thresher.clean(frame, found, relabel="label")
    assert (mended["label"] != made["truth"][mended.index - 7]).mean() < 0.4 * made["wrong"].mean()
    assert frame["label"].tolist() == made["labels"].tolist()
    as_list = thresher.clean(made["labels"].tolist(), found, relabel=lambda row, label: label)
    assert as_list == mended["label"].tolist()


def test_where_nothing_tells_nothing_is_estimated() -> None:
    made = drawn(80)
    found = thresher.calibrate({"mine": -made["wrong"].astype(float)}, made["labels"])
    assert found.share is None and found.told_by == "nothing" and len(found.suspicious) == 0
    assert made["wrong"][np.argsort(found.table["rank"])[: made["wrong"].sum()]].all()
    with pytest.raises(ConfigError, match="say what share of them to drop="):
        thresher.clean(list(range(80)), found)
    assert len(thresher.clean(list(range(80)), found, drop=0.25)) == 60


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"labels": np.array(["a"] * 60)}, DataError, "pandas.factorize"),
        ({"labels": np.full(60, 5)}, DataError, "class 5 has no column in predictions of 3 classes"),
        ({"pred_probs": np.ones((60, 3))}, DataError, "add up to 1"),
        ({"pred_probs": np.ones((59, 3)) / 3}, DataError, r"the shape is \(59, 3\), and \[60, C\]"),
        ({"pred_probs": np.full((60, 3), np.nan)}, DataError, "not finite"),
        ({"logits": np.ones((60, 3))}, ConfigError, "give one of them"),
        ({"query_labels": np.zeros(4, int)}, DataError, "tell nothing without features"),
        ({"features": np.ones((7, 2))}, DataError, r"features: the shape is \(7, 2\), and \(60, 2\)"),
        ({"detectors": ["aum"]}, ConfigError, "The detector 'aum' needs training, which is not here"),
        ({"detectors": ["amu"]}, ConfigError, "There is no detector 'amu'; choose from loss"),
        ({"detectors": [lambda evidence: evidence.labels[:3]]}, ConfigError, "one score each"),
    ],
)
def test_what_does_not_fit_is_said(change: dict[str, Any], kind: type[Exception], message: str) -> None:
    made = drawn(60)
    with pytest.raises(kind, match=message):
        thresher.detect(**({"labels": made["labels"], "pred_probs": made["pred_probs"]} | change))


def test_scores_that_do_not_fit_are_refused() -> None:
    scores, labels = {"mine": np.arange(30.0)}, np.arange(30) % 2
    few = np.arange(30) < 4
    for arguments, kind, message in (
        ((scores, labels, few), ConfigError, "4 canaries tell too little"),
        ((scores, labels[:20]), DataError, "there are 20, and the scores are of 30 rows"),
        ((scores, labels, few[:9]), DataError, "one entry a line"),
        (({"mine": np.zeros(30)}, labels), ConfigError, "none of them tells rows apart"),
        (({"mine": np.full(30, np.inf)}, labels), DataError, "not finite"),
    ):
        with pytest.raises(kind, match=message):
            thresher.calibrate(*arguments)  # pyright: ignore[reportArgumentType]


def test_compare_names_the_score_that_finds_most() -> None:
    rng = np.random.default_rng(0)
    wrong = [rng.random(300) < 0.2 for _ in range(7)]
    tables = [
        pd.DataFrame(
            {"chance": rng.random(300), "good": rng.normal(size=300) - 2 * w, "fair": rng.normal(size=300) - w}
        )
        for w in wrong
    ]
    found = thresher.compare(tables, wrong)
    assert list(found.table.index) == ["good", "fair", "chance"]
    truth = np.mean([w[np.argsort(t["good"])[:90]].sum() / w.sum() for t, w in zip(tables, wrong, strict=True)])
    assert found.table.loc["good", "mean"] == pytest.approx(truth)
    with pytest.raises(ConfigError, match="One table says nothing of chance"):
        thresher.compare(tables[:1], wrong[:1])
