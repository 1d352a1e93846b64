"""Long rows go through a model in parts of bounded memory, and nothing else changes; nothing heavy comes first."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from folders import reviews, write_rows
from thresher.config import Recipe
from thresher.data import encode
from thresher.data.encode import length_batches, within_memory
from thresher.model.finetune import finetune
from thresher.model.predict import predict
from thresher.progress import Silent
from training import data, subject


@given(st.lists(st.integers(1, 9000), min_size=1, max_size=40))
def test_parts_keep_every_row_in_its_order_and_hold_few_tokens_or_one_row(lengths: list[int]) -> None:
    known = np.array(lengths)
    rows = np.random.default_rng(0).permutation(len(known))
    parts = within_memory(rows, known)
    np.testing.assert_array_equal(np.concatenate(parts), rows)
    for part in parts:
        assert len(part) == 1 or len(part) * known[part].max() <= encode.BATCH_TOKENS
    for before, after in pairwise(parts):  # none could take one row more
        more = np.append(before, after[0])
        assert len(more) * known[more].max() > encode.BATCH_TOKENS
    batches = length_batches(known, 8)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(known)))
    assert max(len(batch) for batch in batches) <= 8


def trained(folder: Path, monkeypatch: pytest.MonkeyPatch, tokens: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    monkeypatch.setattr(encode, "BATCH_TOKENS", tokens)
    one, rows = subject(), data(24, 1)
    for module in one.model.modules():
        if isinstance(module, torch.nn.Dropout):  # which draws otherwise in parts
            module.p = 0.0
    recipe = Recipe(epochs=2, batch_size=8, learning_rate=1e-2)
    finetune(one, rows, data(8, 2), recipe, seed=0, folder=folder, progress=Silent())
    weights = {name: p.detach().clone() for name, p in one.model.named_parameters() if p.requires_grad}
    return weights, predict(one, rows, 8).outputs


def test_a_model_trained_in_parts_is_that_of_whole_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, said = trained(tmp_path / "whole", monkeypatch, 10**6)
    parts, also = trained(tmp_path / "parts", monkeypatch, 1)  # row by row
    assert whole.keys() == parts.keys()
    for name, weights in whole.items():
        torch.testing.assert_close(parts[name], weights, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(also, said, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("missing", ["train", "model"])
def test_what_is_missing_is_said_before_torch_is_imported(tmp_path: Path, missing: str) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", reviews(8, 1))
    train = str(tmp_path / "nowhere.jsonl") if missing == "train" else rows
    arguments = ["audit", "--model", str(tmp_path / "nowhere"), "--train", train, "--validation", rows]
    script = (
        "import sys; from thresher.cli import app\n"
        "from thresher.errors import ThresherError\n"
        f"try: app({arguments!r}, standalone_mode=False)\n"
        "except ThresherError as error: print(error)\n"
        "print('torch' in sys.modules, 'transformers' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert "nowhere" in found
    assert found.splitlines()[-1] == "False False"
