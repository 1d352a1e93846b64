"""Theorem 5.1 (method.md 5): weights whose gradients cancel may tell noisy rows from clean ones better than others.

First the smallest case, two training rows and one query, beside its closed form. Then many random draws of four weights
that combine much or no cancellation with good or no detection. Everything goes through ``thresher.influence`` and
``thresher.cancellation`` on a real, if tiny, classifier. Run it with ``python examples/theorem_5_1.py``; what it prints
is explained in docs/cancellation.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import erf, exp, pi, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
import typer
from rich.table import Table
from torch import Tensor, nn
from transformers import PretrainedConfig
from transformers.modeling_outputs import SequenceClassifierOutput

import thresher
from thresher.evaluate.detection import auroc
from thresher.terminal import PlainConsole

Floats = npt.NDArray[np.float64]


class OneWeightEach(nn.Module):
    """f = sum over k of w_k x_k, class 1 where f > 0; at w = 0, where gradients are known by hand.

    A row is one token, whose features x are looked up in ``features`` [rows, k]. Every weight is a module of its own,
    so that each can be audited alone. The gradient of the cross-entropy of a row with label y (-1 or 1) is -y x_k / 2.
    """

    features: Tensor

    def __init__(self, features: Mapping[str, Floats]) -> None:
        super().__init__()
        self.config = PretrainedConfig.from_dict({"num_labels": 2, "pad_token_id": 0})
        self.register_buffer("features", torch.tensor(np.stack(list(features.values()), axis=1)).float())
        self.weights = nn.ModuleDict({name: nn.Linear(1, 1, bias=False) for name in features})
        for weight in self.parameters():
            nn.init.zeros_(weight)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> SequenceClassifierOutput:
        """Logits (0, f), [B, 2]. Rows have one token, so there is no position for a mask to hide."""
        x = self.features[input_ids[:, 0]]  # [B, k]
        f = torch.stack([weight(x[:, [k]]) for k, weight in enumerate(self.weights.values())]).sum(0)  # [B, 1]
        return SequenceClassifierOutput(logits=torch.cat([torch.zeros_like(f), f], dim=1))  # pyright: ignore


@dataclass(frozen=True)
class Found:
    """One weight: its training rows' cancellation, and their scores [n] by TracIn (the mean over queries)."""

    cancellation: float
    scores: Floats


def measured(features: Mapping[str, Floats], labels: Floats, train: int) -> dict[str, Found]:
    """Cancellation and scores by weight.

    ``labels`` (-1 or 1) and every weight's features are those of ``train`` training rows, then of the queries.
    """
    model = OneWeightEach(features)
    rows = [{"input_ids": [number], "labels": int(label > 0)} for number, label in enumerate(labels)]
    tensor = thresher.influence(model, rows[:train], rows[train:], methods=("tracin",), batch_size=train)["tracin"]
    lines = thresher.cancellation(model, rows[:train], batch_size=train)
    ratios = dict(zip(lines["name"], lines["cancellation"], strict=True))
    found: dict[str, Found] = {}
    for name in features:
        module = f"weights.{name}.weight"
        found[name] = Found(ratios[module], thresher.aggregate(tensor.sel(module=module)).to_numpy())
    return found


def two_rows(c: float) -> dict[str, Found]:
    """A clean row and a noisy one, both truly of class -1, and a query like the clean one.

    Omega's feature goes with the true class, theta's with the label as given: g_omega = +c, -c and g_theta = c, c.
    """
    labels = np.array([-1.0, 1.0, -1.0])  # the second is wrong
    truth = -np.ones(3)
    return measured({"omega": -2 * c * truth, "theta": -2 * c * labels}, labels, train=2)


@dataclass(frozen=True)
class Weight:
    """A weight whose feature is a (true class) + b (label as given) + sigma (standard normal).

    With s = 1 for a clean row and -1 for a noisy one, its gradients are -(b + a s + sigma z) / 2.
    """

    a: float
    b: float
    sigma: float = 0.7

    def features(self, truth: Floats, labels: Floats, random: np.random.Generator) -> Floats:
        """Features of rows, [n]."""
        return self.a * truth + self.b * labels + self.sigma * random.standard_normal(len(truth))

    def cancellation(self, noise: float) -> float:
        """E |g| / |E g| of rows of which the share ``noise`` is noisy: what C comes to for many rows."""
        net = abs(self.b + self.a * (1 - 2 * noise))
        gross = (1 - noise) * _folded(self.b + self.a, self.sigma) + noise * _folded(self.b - self.a, self.sigma)
        return gross / net if net else float("inf")

    @property
    def auroc(self) -> float:
        """Probability that a noisy row's score is lower, for a and a + b of the same sign: free of b."""
        return (1 + erf(self.a / self.sigma)) / 2


# a decides what is detected, b what cancels. Omega and theta are the theorem's; the others exchange their cancellation.
WEIGHTS = {
    "omega": Weight(a=1.0, b=-0.55),
    "theta": Weight(a=0.0, b=3.0),
    "omega_shifted": Weight(a=1.0, b=3.0),
    "theta_shifted": Weight(a=0.0, b=0.05),
}


def random_draws(draws: int, rows: int, queries: int, noise: float, seed: int) -> pd.DataFrame:
    """One line a draw and weight: ``draw``, ``weight``, ``cancellation`` and ``auroc``."""
    lines: list[dict[str, Any]] = []
    for draw in range(draws):
        random = np.random.default_rng([seed, draw])
        truth = random.choice([-1.0, 1.0], rows + queries)
        noisy = np.arange(rows + queries) < round(noise * rows)  # queries, at the end, are clean
        labels = np.where(noisy, -truth, truth)
        features = {name: weight.features(truth, labels, random) for name, weight in WEIGHTS.items()}
        for name, found in measured(features, labels, rows).items():
            detected = auroc(found.scores, noisy[:rows])
            lines.append({"draw": draw, "weight": name, "cancellation": found.cancellation, "auroc": detected})
    return pd.DataFrame(lines)


def _folded(mean: float, sigma: float) -> float:
    """E |mean + sigma z|."""
    ratio = mean / sigma
    return sigma * sqrt(2 / pi) * exp(-(ratio**2) / 2) + mean * erf(ratio / sqrt(2))


def two_rows_table(c: float) -> Table:
    """The smallest case beside its closed form."""
    table = _table(f"Two rows, c = {c:g}", "C", "closed form", "score of clean", "score of noisy", "gap", "closed form")
    forms = {"omega": (float("inf"), 2 * c**2), "theta": (1.0, 0.0)}
    for name, found in two_rows(c).items():
        clean, noisy = found.scores
        known, gap = forms[name]
        numbers = (found.cancellation, known, clean, noisy, clean - noisy, gap)
        table.add_row(name, *(f"{number:g}" for number in numbers))
    return table


def random_draws_table(drawn: pd.DataFrame, title: str, noise: float) -> Table:
    """Cancellation and detection of every weight beside what they come to for many rows."""
    table = _table(title, "a", "b", "C: median (5 %, 95 %)", "many rows", "AUROC: mean ± sd", "many rows")
    for name, weight in WEIGHTS.items():
        of_weight = drawn[drawn["weight"] == name]
        low, middle, high = np.quantile(of_weight["cancellation"], [0.05, 0.5, 0.95])
        table.add_row(
            name,
            f"{weight.a:g}",
            f"{weight.b:g}",
            f"{middle:.1f} ({low:.1f}, {high:.1f})",
            f"{weight.cancellation(noise):.1f}",
            f"{of_weight['auroc'].mean():.3f} ± {of_weight['auroc'].std():.3f}",
            f"{weight.auroc:.3f}",
        )
    return table


def main(
    c: float = 1.5, draws: int = 50, rows: int = 1000, queries: int = 200, noise: float = 0.2, seed: int = 0
) -> None:
    """Show both cases."""
    console = PlainConsole(width=120)
    console.print(two_rows_table(c))
    drawn = random_draws(draws, rows, queries, noise, seed)
    title = f"{draws} draws of {rows} rows, {noise:.0%} of them noisy, and {queries} clean queries"
    console.print(random_draws_table(drawn, title, noise))
    wide = drawn.pivot(index="draw", columns="weight")
    both = (wide["cancellation"]["omega"] > wide["cancellation"]["theta"]) & (
        wide["auroc"]["omega"] > wide["auroc"]["theta"]
    )
    console.print(f"Omega has the larger C and the larger AUROC in {both.sum()} of {draws} draws.")


def _table(title: str, *numbers: str) -> Table:
    table = Table("weight", title=title, title_justify="left")
    for column in numbers:
        table.add_column(column, justify="right")
    return table


if __name__ == "__main__":
    typer.run(main)
