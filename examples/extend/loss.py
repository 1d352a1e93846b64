"""Influence of a model that was trained on a loss of its own: the focal loss (Lin et al. 2017).

python examples/extend/loss.py
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import thresher


def focal(logits: Tensor, labels: Tensor) -> Tensor:
    """(1 - p)^2 times the cross-entropy, p the probability of the label: one number a row, [B], never their mean."""
    losses = F.cross_entropy(logits, labels, reduction="none")
    return (1 - torch.exp(-losses)) ** 2 * losses


if __name__ == "__main__":
    from transformers import BertConfig, BertForSequenceClassification

    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 16,
    }
    model = BertForSequenceClassification(BertConfig(vocab_size=50, **sizes))
    rows = [{"input_ids": [2, word, 3], "labels": word % 2} for word in range(10, 20)]
    print(thresher.influence(model, rows, rows[:3], loss=focal))  # noqa: T201
