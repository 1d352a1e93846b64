"""TracIn against kronfluence's pairwise scores without curvature (strategy "identity").

kronfluence's score of a layer is the inner product of the gradient of the query's measurement and the gradient of the
training row's loss. With the loss as the measurement that is our ``tracin``, sign included. It scores the weight and
the bias of an ``nn.Linear`` as one, and nothing else, so the relation is: its score of a layer is the sum of ``tracin``
over the layer's tensors. A LoRA factor is such a layer, of one tensor.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import thresher
from conftest import PAD, relative_error, tiny_model, tiny_rows

kronfluence = pytest.importorskip("kronfluence", reason="kronfluence is not installed; see requirements/agreement.txt")

TOLERANCE = 1e-5
Rows = list[dict[str, Any]]


class RowLosses(kronfluence.Task):
    """The rows' own losses, added up, on the layers named."""

    def __init__(self, layers: list[str]) -> None:
        self.layers = layers

    def compute_train_loss(self, batch: dict[str, Tensor], model: nn.Module, sample: bool = False) -> Tensor:
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        return F.cross_entropy(logits, batch["labels"], reduction="sum")

    def compute_measurement(self, batch: dict[str, Tensor], model: nn.Module) -> Tensor:
        return self.compute_train_loss(batch, model)

    def get_influence_tracked_modules(self) -> list[str]:
        return self.layers

    def get_attention_mask(self, batch: dict[str, Tensor]) -> Tensor:
        return batch["attention_mask"]


def as_tensors(rows: Rows, length: int = 20) -> list[dict[str, Tensor]]:
    padding = [length - len(row["input_ids"]) for row in rows]
    return [
        {
            "input_ids": torch.tensor(row["input_ids"] + [PAD] * extra),
            "attention_mask": torch.tensor(row["attention_mask"] + [0] * extra),
            "labels": torch.tensor(row["labels"]),
        }
        for row, extra in zip(rows, padding, strict=True)
    ]


def trained_layers(model: nn.Module) -> list[str]:
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module.weight.requires_grad and not name.endswith("original_module")
    ]


def their_scores(model: nn.Module, train: Rows, query: Rows, folder: Path) -> dict[str, Tensor]:
    """Scores [Q, N] by layer."""
    task = RowLosses(trained_layers(model))
    wrapped = kronfluence.prepare_model(copy.deepcopy(model), task)
    analyzer = kronfluence.Analyzer("agreement", wrapped, task, cpu=True, disable_tqdm=True, output_dir=str(folder))
    analyzer.fit_all_factors(
        "identity", as_tensors(train), 4, factor_args=kronfluence.FactorArguments(strategy="identity")
    )
    analyzer.compute_pairwise_scores(
        scores_name="pairs",
        factors_name="identity",
        query_dataset=as_tensors(query),
        train_dataset=as_tensors(train),
        per_device_query_batch_size=2,
        per_device_train_batch_size=4,
        score_args=kronfluence.ScoreArguments(compute_per_module_scores=True),
    )
    return analyzer.load_pairwise_scores("pairs")


@pytest.mark.parametrize(("family", "lora"), [("bert", False), ("bert", True), ("llama", True)])
def test_tracin_summed_over_a_layers_tensors_is_its_score(family: str, lora: bool, tmp_path: Path) -> None:
    model = tiny_model(family, lora=lora)
    train, query = tiny_rows(9, seed=1), tiny_rows(4, seed=2)
    tracin = thresher.influence(model, train, query, methods=("tracin",), batch_size=4)["tracin"]
    layers = [str(name).rpartition(".")[0] for name in tracin["module"].values]
    ours = tracin.astype("float64").assign_coords(layer=("module", layers)).groupby("layer").sum()
    theirs = their_scores(model, train, query, tmp_path)
    assert set(theirs) == set(trained_layers(model))
    for name, scores in theirs.items():
        assert relative_error(ours.sel(layer=name).values, scores.double()) < TOLERANCE, name
