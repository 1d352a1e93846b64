"""An influence function of your own: how much of a row's gradient points the query's way, in units of the query's.

    python examples/extend/influence_function.py

Passed in directly for one call, or registered once: then ``AuditConfig(methods="projected")`` knows it, too. A package
registers it by an entry point instead of the call, and ``thresher audit --methods projected`` finds it::

    [project.entry-points."thresher.influences"]
    projected = "my_package:PROJECTED"
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

import thresher
from thresher.extend import INFLUENCE, InfluenceFunction, Pairing


def projected(pair: Pairing) -> Tensor:
    """v . g / |v|^2, [Q, N]: what a step along g does for the query, by what a step along its own gradient would."""
    # A pairing offers the products that influence functions are made of; each is computed once and shared.
    return pair.dots / pair.query_squares.clamp_min(1e-30)[:, None]


PROJECTED = InfluenceFunction(projected, "v . g / |v|^2", "Q n p", "this example", optimizer_aware=True)


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
    print(thresher.influence(model, rows, rows[:3], methods=[projected])["projected"])  # noqa: T201
    INFLUENCE.register("projected", PROJECTED)
    print(thresher.influence(model, rows, rows[:3], methods=["projected"]).attrs)  # noqa: T201
