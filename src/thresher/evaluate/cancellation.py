"""How much the training rows' gradients cancel in each weight (method.md 5).

C = (sum over weights of sum_i |g_iw|) / (sum over weights of |sum_i g_iw|); 1 means that no two rows pull a weight in
opposite directions. It says how the rows agree, not how well they can be told apart: see docs/cancellation.md.

Sums are float64 over the float32 gradients of the influence stage. A weight that no row touches (0/0: tokens that
never occur, features that are always off) has no ratio and is counted; one whose terms sum to exactly 0 has ratio inf.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor, nn

from thresher.gradients.collect import Rows, batch_rows, collect, plan_blocks
from thresher.gradients.gradient_pass import gradient_pass
from thresher.gradients.rows import HeadRows, RowGradients, TokenGradients, dense_chunks
from thresher.gradients.store import GradientStore
from thresher.influences.modules import MEMORY, plan_gradients, select_modules
from thresher.model.inputs import encoded_rows
from thresher.model.names import ModuleName, groups_in, in_group
from thresher.progress import Progress, Silent

# Both bound what is in memory in float64: a piece of one block, and the sums of an embedding's tokens.
PIECE_BYTES = 64 * 2**20
TABLE_BYTES = 512 * 2**20


@dataclass(frozen=True)
class _Sums:
    """One module: its number of weights, sum_i |g| and |sum_i g| over all of them, and each touched weight's ratio."""

    weights: int
    gross: float
    net: float
    ratios: npt.NDArray[np.float32]


def cancellation(
    model: nn.Module, train: Sequence[Mapping[str, Any]], modules: str | None = None, *, batch_size: int = 32
) -> pd.DataFrame:
    """Cancellation of the training rows' gradients, per module and per layer group (method.md 5).

    ``model``, ``train`` and ``modules`` are as in :func:`thresher.influence`; gradients are taken in eval mode where
    the model is.

    Returns one line a module (``kind`` "module", ``name`` its parameter's name) and a layer group (``kind`` "group").
    ``cancellation`` is C = ``gross`` / ``net``, with ``gross`` = sum_w sum_i |g_iw| and ``net`` = sum_w |sum_i g_iw|;
    C of any other set of modules is the sum of their ``gross`` over that of their ``net``. ``median``, ``min`` and
    ``max`` are over the ratios of single weights. Of ``weights`` in all, ``untouched`` have no ratio (0/0) and are
    left out, and ``infinite`` have a sum of exactly 0. C is NaN where no weight is touched. All floats are float64,
    at least 1 or NaN, and have no unit.

    Raises what :func:`thresher.influence` raises for rows, modules and gradients.
    """
    chosen = select_modules(model, modules, ("tracin",))
    rows = encoded_rows(train, model, "train")
    plan = plan_gradients(model, chosen, length=float(rows.lengths.mean()))
    batch_size = batch_rows(batch_size, plan.row_bytes)
    store = GradientStore(plan_blocks(rows.lengths, batch_size, plan.row_bytes), MEMORY)
    with gradient_pass(model, plan.names, rows, forms=plan.forms) as one_pass:
        collect(one_pass, store, Rows(rows, "train"), batch_size, Silent())
    try:
        return store_cancellation(store, chosen, Silent())
    finally:
        store.close()


def store_cancellation(store: GradientStore, modules: Sequence[ModuleName], progress: Progress) -> pd.DataFrame:
    """The lines of :func:`cancellation` for modules that are weights, from whole gradients that are there already."""
    sums: list[_Sums] = []
    with progress.stage("cancellation", len(modules)) as advance:
        for module in modules:
            sums.append(_module_sums(store, module))
            advance(1)
    lines = [_line("module", module.name, [found]) for module, found in zip(modules, sums, strict=True)]
    for group in groups_in(modules):
        members = [found for module, found in zip(modules, sums, strict=True) if in_group(module, group)]
        lines.append(_line("group", group, members))
    return pd.DataFrame(lines)


def _line(kind: str, name: str, members: Sequence[_Sums]) -> dict[str, Any]:
    gross, net = sum(m.gross for m in members), sum(m.net for m in members)
    weights, ratios = sum(m.weights for m in members), np.concatenate([m.ratios for m in members])
    touched = len(ratios) > 0
    return {
        "kind": kind,
        "name": name,
        "cancellation": gross / net if net else np.inf if gross else np.nan,
        "median": float(np.median(ratios)) if touched else np.nan,
        "min": float(ratios.min()) if touched else np.nan,
        "max": float(ratios.max()) if touched else np.nan,
        "weights": weights,
        "untouched": weights - len(ratios),
        "infinite": int(np.isinf(ratios).sum()),
        "gross": gross,
        "net": net,
    }


def _module_sums(store: GradientStore, module: ModuleName) -> _Sums:
    gross = net = 0.0
    ratios = [np.empty(0, dtype=np.float32)]
    width, tokens = _table(store, module)
    step = max(1, TABLE_BYTES // (16 * width))
    for start in range(0, len(tokens), step):
        some = tokens[start : start + step]
        # Both are summed in the same order, so that rounding cannot bring a ratio below 1.
        absolute, total = torch.zeros(2, len(some), width, dtype=torch.float64)
        for place, values in _pieces(store, module.name, some):
            absolute.index_add_(0, place, values.abs())
            total.index_add_(0, place, values)
        gross, net = gross + float(absolute.sum()), net + float(total.abs_().sum())
        ratios.append((absolute / total)[absolute > 0].float().numpy())  # x / 0 is inf
    return _Sums(module.size, gross, net, np.concatenate(ratios))


def _table(store: GradientStore, module: ModuleName) -> tuple[int, Tensor]:
    """How the module's weights lie: a row of [width] weights for each of the tokens that occur, in order.

    A matrix is one row, of token 0.
    """
    width, found = module.size, [torch.zeros(1, dtype=torch.int64)]
    first = next(store.blocks(module.name))[1]
    if isinstance(first, TokenGradients):
        blocks = (block for _, block in store.blocks(module.name) if isinstance(block, TokenGradients))
        width, found = first.value.shape[1], [block.token.unique() for block in blocks]
    return width, torch.cat(found).unique()


def _pieces(store: GradientStore, module: str, tokens: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """The training rows' gradients at the tokens: the tokens' places [b] and float64 values [b, width]."""
    for _, gradients in store.blocks(module):
        for place, values in _entries(gradients, tokens):
            step = max(1, PIECE_BYTES // (8 * values.shape[1]))
            for some, piece in zip(place.split(step), values.split(step), strict=True):
                yield some, piece.double()


def _entries(gradients: RowGradients, tokens: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """One block as places among the tokens [b] and values [b, width]; every kind of gradients has its branch here."""
    if isinstance(gradients, TokenGradients):
        inside = (gradients.token >= tokens[0]) & (gradients.token <= tokens[-1])
        yield torch.searchsorted(tokens, gradients.token[inside]), gradients.value[inside]
    elif not isinstance(gradients, HeadRows):
        for _, chunk in dense_chunks(gradients):
            yield torch.zeros(len(chunk), dtype=torch.int64), chunk
