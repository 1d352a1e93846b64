"""Detection metrics against scikit-learn, SciPy, dattri and quanda, which call large scores suspicious: minus ours.

For n rows of which q are noisy, D_t the share of the noisy rows among the t lowest scores:

- NDR@f is scikit-learn's recall of "the lowest floor(f n) rows are noisy".
- AUC-NDR = (n - q/2 + 1/2 - (1 - AUROC) (n - q)) / (n - q/2) with scikit-learn's AUROC, ties or not.
- AUROC is the Mann-Whitney U of the noisy rows over q (n - q), ties or not, and dattri's ``mislabel_detection_auc``
  without ties; dattri's rates of true positives are D_0 .. D_n.
- Average precision is scikit-learn's label ranking average precision of the noisy rows in one sample, ties or not.
- quanda's mislabelling curve is D_1 .. D_n, and its score the area under it by the trapezoidal rule over n, which is
  (AUC-NDR (n - q/2) - (D_1 + 1) / 2) / n.

Two differences. dattri and quanda leave the order of tied rows to the sort, where we take the mean over all orders; so
their mean over all orders of the rows is ours. And quanda 0.5.0 adds 1e-4 times the row's number to every suspicion
before it sorts, which reorders rows whose scores are closer than that; its curve is then that of those other scores.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from itertools import permutations
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.stats import mannwhitneyu
from sklearn.metrics import label_ranking_average_precision_score, recall_score, roc_auc_score

import thresher
from thresher.evaluate.detection import auroc, average_precision, detection_curve

MISSING = "{} is not installed; see requirements/agreement.txt"
TOLERANCE = 1e-5
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

DISTINCT = [(n, seed) for n in (5, 40, 151) for seed in (0, 1)]


def planted(n: int, seed: int) -> tuple[Floats, Flags]:
    """The scores 0 .. n - 1 in some order, and noisy rows that tend to the low ones."""
    rng = np.random.default_rng(seed)
    noise = np.arange(n) < max(1, n // 5)
    rng.shuffle(noise)
    return (rng.normal(size=n) - noise).argsort().argsort().astype(float), noise


def with_ties(n: int, seed: int) -> tuple[Floats, Flags]:
    scores, noise = planted(n, seed)
    return scores // 3, noise


@pytest.fixture(scope="module")
def dattri_auc() -> Any:
    return pytest.importorskip("dattri.metric", reason=MISSING.format("dattri")).mislabel_detection_auc


@pytest.fixture(scope="module")
def quanda_metric() -> Iterator[Any]:
    """quanda's metric, imported past its packages' ``__init__``, which want captum, torchvision and more."""
    pytest.importorskip("lightning", reason=MISSING.format("lightning"))
    spec = find_spec("quanda")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(MISSING.format("quanda"))
    with pytest.MonkeyPatch.context() as patch:
        for folder in ("", "/utils", "/explainers", "/metrics", "/metrics/downstream_eval"):
            package = ModuleType("quanda" + folder.replace("/", "."))
            package.__path__ = [spec.submodule_search_locations[0] + folder]
            patch.setitem(sys.modules, package.__name__, package)
        yield import_module("quanda.metrics.downstream_eval.mislabeling_detection").MislabelingDetectionMetric


def quanda_result(metric: Any, scores: Floats, noise: Flags) -> dict[str, Any]:
    return metric(
        model=torch.nn.Identity(),
        train_dataset=list(range(len(scores))),
        mislabeling_indices=np.flatnonzero(noise).tolist(),
        precomputed_self_influence=torch.tensor(-scores),
    ).compute()


@pytest.mark.parametrize(("n", "seed"), DISTINCT)
@pytest.mark.parametrize("fraction", [0.1, 0.3, 1.0])
def test_noise_detection_rate_is_a_recall(n: int, seed: int, fraction: float) -> None:
    scores, noise = planted(n, seed)
    lowest = scores < np.floor(fraction * n)
    assert thresher.noise_detection_rate(scores, noise, fraction) == pytest.approx(recall_score(noise, lowest))


@pytest.mark.parametrize(("n", "seed"), DISTINCT)
@pytest.mark.parametrize("make", [planted, with_ties])
def test_areas_and_precision_with_and_without_ties(make: Any, n: int, seed: int) -> None:
    scores, noise = make(n, seed)
    q = int(noise.sum())
    theirs = roc_auc_score(noise, -scores)
    area = (n - q / 2 + 1 / 2 - (1 - theirs) * (n - q)) / (n - q / 2)
    assert thresher.noise_detection_auc(scores, noise) == pytest.approx(area, abs=TOLERANCE)
    u = mannwhitneyu(-scores[noise], -scores[~noise]).statistic
    assert auroc(scores, noise) == pytest.approx(u / (q * (n - q)), abs=TOLERANCE)
    precision = label_ranking_average_precision_score(noise[None], -scores[None])
    assert average_precision(scores, noise) == pytest.approx(precision, abs=TOLERANCE)


@pytest.mark.parametrize(("n", "seed"), DISTINCT)
def test_dattri(dattri_auc: Any, n: int, seed: int) -> None:
    scores, noise = planted(n, seed)
    area, (_, true_positives, _) = dattri_auc(torch.tensor(-scores), torch.tensor(noise))
    assert auroc(scores, noise) == pytest.approx(float(area), abs=TOLERANCE)
    assert np.allclose(detection_curve(scores, noise), true_positives[1:], atol=TOLERANCE)


@pytest.mark.parametrize(("n", "seed"), DISTINCT)
def test_quanda(quanda_metric: Any, n: int, seed: int) -> None:
    scores, noise = planted(n, seed)
    theirs, found = quanda_result(quanda_metric, scores, noise), detection_curve(scores, noise)
    assert np.allclose(found, theirs["curve"], atol=TOLERANCE)
    total = thresher.noise_detection_auc(scores, noise) * (n - noise.sum() / 2)
    assert (total - (found[0] + 1) / 2) / n == pytest.approx(theirs["score"], abs=TOLERANCE)


def test_quanda_moves_rows_of_close_scores(quanda_metric: Any) -> None:
    _, noise = planted(40, 2)
    scores = 1e-3 * np.random.default_rng(2).normal(size=40)
    theirs = quanda_result(quanda_metric, scores, noise)["curve"]
    assert np.allclose(detection_curve(scores - 1e-4 * np.arange(40), noise), theirs, atol=TOLERANCE)
    assert not np.allclose(detection_curve(scores, noise), theirs, atol=0.1)


def test_tied_rows_count_as_their_mean_over_all_orders(dattri_auc: Any, quanda_metric: Any) -> None:
    scores, noise = np.array([0.0, 1.0, 1.0, 1.0, 2.0]), np.array([False, True, False, False, True])
    orders = [list(order) for order in permutations(range(5))]
    curves = [quanda_result(quanda_metric, scores[order], noise[order])["curve"].numpy() for order in orders]
    assert np.allclose(detection_curve(scores, noise), np.mean(curves, axis=0), atol=TOLERANCE)
    areas = [dattri_auc(torch.tensor(-scores[order]), torch.tensor(noise[order]))[0] for order in orders]
    assert auroc(scores, noise) == pytest.approx(np.mean(areas), abs=TOLERANCE)
