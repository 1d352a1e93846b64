"""Gradients beyond the budget go to disk: results do not change, and memory stays bounded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from thresher.gradients.collect import plan_blocks
from thresher.gradients.hooks import BatchGradients
from thresher.gradients.rows import RowGradients, token_gradients
from thresher.gradients.store import GradientStore, Side
from thresher.influences import tokens as tokens_module
from thresher.influences.pairings import pairing
from thresher.influences.registry import INFLUENCE

QUERIES, ROWS, WIDTH, TOKENS = 7, 40, 12, 30


def random_store(memory: int, folder: Path | None, block: int = 8) -> tuple[GradientStore, dict[Side, Tensor]]:
    """Dense and token gradients in blocks, and the full [rows, TOKENS, WIDTH] table behind the latter."""
    rng = np.random.default_rng(0)
    counts: dict[Side, int] = {"query": QUERIES, "train": ROWS}
    rows = {side: np.array_split(rng.permutation(n), -(-n // block)) for side, n in counts.items()}
    store = GradientStore(rows, memory, folder)  # pyright: ignore
    tables: dict[Side, Tensor] = {}
    for side, n in counts.items():
        table = torch.randn(n, TOKENS, WIDTH, generator=torch.Generator().manual_seed(n))
        table[torch.rand(n, TOKENS, generator=torch.Generator().manual_seed(1)) < 0.6] = 0
        tables[side] = table
        for number, chosen in enumerate(rows[side]):
            part = table[chosen]
            row, token = part.any(-1).nonzero(as_tuple=True)
            sparse = token_gradients(row, token, part[row, token], len(chosen))
            modules: dict[str, RowGradients] = {"dense": part.flatten(1), "tokens": sparse}
            store.put(side, number, BatchGradients(modules, torch.zeros(len(chosen)), torch.zeros(len(chosen), 2)))
    return store, tables


@pytest.mark.parametrize("memory", [0, 5000, 10**9])
@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize("part_bytes", [1, 3000, 10**9])
def test_budget_blocks_and_ranges_change_nothing(
    tmp_path: Path, memory: int, durable: bool, part_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens_module, "PART_BYTES", part_bytes)
    store, tables = random_store(memory, tmp_path if durable else None)
    v, g = (tables[side].flatten(1).double() for side in ("query", "train"))
    damping = 0.1 * (g**2).mean()
    correction = (v @ g.T / (damping + (g**2).sum(1))) @ (g @ g.T) / ROWS
    truth = {"tracin": v @ g.T, "datainf": (v @ g.T - correction) / damping}
    for module in ("dense", "tokens"):
        pair = pairing(store, module, TOKENS * WIDTH)
        for method, expected in truth.items():
            compute = INFLUENCE[method].compute
            found = compute and compute(pair)
            assert found is not None
            assert float((found - expected).norm() / expected.norm()) < 1e-5
    assert bool(list(tmp_path.iterdir())) == durable
    store.close()
    assert not list(tmp_path.iterdir())


def test_blocks_hold_whole_batches_of_like_length() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, 1000)
    blocks = plan_blocks(lengths, batch_size=16, row_bytes=2**21)
    assert sorted(np.concatenate(blocks)) == list(range(1000))
    assert {len(block) for block in blocks[:-1]} == {128}  # 256 MiB of rows of 2 MiB
    assert (np.diff(lengths[np.concatenate(blocks)]) <= 0).all()
    assert [len(block) for block in plan_blocks(lengths, 16, 2**40)][:2] == [16, 16]


MEASURED = """
import resource, sys, torch
from pathlib import Path
import numpy as np
from thresher.gradients.hooks import BatchGradients
from thresher.gradients.store import GradientStore
from thresher.influences.pairings import pairing
from thresher.influences.registry import INFLUENCE

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

rows, queries, modules, p, block = 3000, 200, 24, 8192, 250
order = {"query": [np.arange(queries)], "train": np.split(np.arange(rows), rows // block)}
torch.rand(64, p) @ torch.rand(p, 64)  # libraries take what they take
store = GradientStore(order, 64 * 2**20, Path(sys.argv[1]))
before = peak()
for side, blocks in order.items():
    for number, some in enumerate(blocks):
        gradients = {f"m{m}": torch.randn(len(some), p) for m in range(modules)}
        store.put(side, number, BatchGradients(gradients, torch.zeros(len(some)), torch.zeros(len(some), 2)))
for m in range(modules):
    pair = pairing(store, f"m{m}", p)
    for name in ("tracin", "cosine", "datainf", "covariance", "self_influence"):
        INFLUENCE[name].compute(pair)
print((peak() - before) // 2**20, sum(f.stat().st_size for f in Path(sys.argv[1]).iterdir()) // 2**20)
"""


@pytest.mark.slow
def test_memory_stays_within_the_budget_and_a_few_blocks(tmp_path: Path) -> None:
    # One arena: what a thread has freed another can use, and the peak is the store's, not the allocator's.
    result = subprocess.run(
        [sys.executable, "-c", MEASURED, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"MALLOC_ARENA_MAX": "1"},
    )
    grown, on_disk = map(int, result.stdout.split())
    assert on_disk > 2200  # MiB: what would have been in memory
    block = 250 * 24 * 8192 * 4 / 2**20
    assert grown < 64 + 3 * block + 100, f"{grown} MiB"
