"""What is said of a row must not depend on the rows beside it: refusals, pad ids, and batches of one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import thresher
from conftest import audited, relative_error, tiny_model, tiny_rows, true_gradients
from thresher.errors import ModelError


class LastPosition(nn.Module):
    """A pooler that takes the last position whatever it is, as XLNet's does."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.inner(states[:, [-1]])


def pooling_last() -> Any:
    model = tiny_model("bert")
    model.bert.pooler = LastPosition(model.bert.pooler)
    return model


def check_tracin(model: Any, train: list[dict[str, Any]], query: list[dict[str, Any]]) -> None:
    found = thresher.influence(model, train, query, methods=("tracin",))["tracin"]
    names = audited(model)
    v, g = true_gradients(model, query, names), true_gradients(model, train, names)
    for name in names:
        expected = v[name].flatten(1) @ g[name].flatten(1).T
        if expected.norm() > 1e-20:
            assert relative_error(found.sel(module=name).values, expected) < 1e-5, name


@pytest.mark.parametrize("uneven", ["train", "query"])
def test_a_model_whose_answer_depends_on_padding_is_refused(uneven: str) -> None:
    even, rows = tiny_rows(6, low=5, high=6), tiny_rows(6, seed=1)
    with pytest.raises(ModelError, match="changes when the row is padded"):
        thresher.influence(pooling_last(), *((rows, even) if uneven == "train" else (even, rows)))


def test_it_is_right_where_nothing_is_padded() -> None:
    check_tracin(pooling_last(), tiny_rows(6, low=5, high=6), tiny_rows(4, seed=1, low=7, high=8))


def test_a_decoder_without_a_pad_id_gets_one_that_no_query_ends_with() -> None:
    model = tiny_model("llama", lora=True)
    model.config.pad_token_id = None
    query = [{"input_ids": [7, 8, 9, last], "labels": 1} for last in (0, 1)]  # tokens that no training row has
    check_tracin(model, tiny_rows(5), [{**row, "attention_mask": [1] * 4} for row in query])


class Flat(nn.Embedding):
    """A table of positions that says nothing of rows: what it gives is [T, d], added to every row alike."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input)[0]


@pytest.mark.parametrize(("queries", "trained"), [(1, 8), (8, 1), (9, 9)])
def test_a_single_row_does_not_hide_what_rows_share(queries: int, trained: int) -> None:
    model = tiny_model("bert")
    model.bert.embeddings.position_embeddings = Flat(64, 32)
    length = max(queries, trained)  # as many rows in a batch as positions: shapes do not tell one from the other
    train, query = (tiny_rows(n, seed=n, low=length, high=length + 1) for n in (trained, queries))
    check_tracin(model, train, query)
