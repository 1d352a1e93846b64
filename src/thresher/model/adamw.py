"""AdamW's second moments, and a gradient as AdamW would scale it.

AdamW (Loshchilov & Hutter 2019, after Adam, Kingma & Ba 2015) moves a weight by -eta m_hat / (sqrt(v_hat) + eps), where
v_hat = v / (1 - beta2^t) is the bias-corrected mean of squared gradients after t updates. What a training row adds to
that step is its gradient divided alike,

    a_i = g_i / (sqrt(v_hat) + eps),

up to a factor that all rows share. LESS (Xia et al. 2024) measures influence by it; LESS also adds the momentum, which
is the same for all rows and ranks none of them, and lets the row's own square into v, which is held fixed here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from thresher.tensors import read_tensors, write_tensors


def is_adamw(optimizer: Any) -> bool:
    """Whether it is torch's Adam or AdamW, perhaps wrapped by accelerate."""
    return isinstance(getattr(optimizer, "optimizer", optimizer), (torch.optim.Adam, torch.optim.AdamW))


def write_second_moments(file: Path, weights: Mapping[str, Tensor], optimizer: torch.optim.Optimizer) -> None:
    """Write v of every named weight of an AdamW, with its t, betas and eps in the header.

    A weight that was never updated has none. With AMSGrad, v is its running maximum, by which AMSGrad divides.
    """
    groups = {id(weight): group for group in optimizer.param_groups for weight in group["params"]}
    moments: dict[str, Tensor] = {}
    notes: dict[str, dict[str, Any]] = {}
    for name, weight in weights.items():
        state: Mapping[str, Any] = optimizer.state.get(weight, {})
        if "exp_avg_sq" in state:
            group = groups[id(weight)]
            moments[name] = state["max_exp_avg_sq" if group["amsgrad"] else "exp_avg_sq"]
            notes[name] = {
                "step": float(state["step"]),
                "betas": [float(beta) for beta in group["betas"]],
                "eps": float(group["eps"]),
            }
    write_tensors(file, moments, notes)


def read_multipliers(file: Path, names: Collection[str]) -> dict[str, Tensor]:
    """1 / (sqrt(v_hat) + eps) by name, in the weight's shape, float32, for those of ``names`` that AdamW updated."""
    moments, notes = read_tensors(file, names)
    return {name: _multiplier(moment, notes[name]) for name, moment in moments.items()}


def _multiplier(moment: Tensor, note: Mapping[str, Any]) -> Tensor:
    corrected = moment.double() / (1 - note["betas"][1] ** note["step"])
    return (1 / (corrected.sqrt() + note["eps"])).float()
