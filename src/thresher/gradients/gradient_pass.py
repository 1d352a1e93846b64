"""The model as the gradient pass needs it, for the duration: frozen, in eval mode, with a pad id, hooked."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from thresher.data.encode import EncodedRows
from thresher.errors import ModelError
from thresher.gradients.forms import Form
from thresher.gradients.hooks import GradientPass
from thresher.model.quantise import differentiable
from thresher.model.tied import untie


@contextmanager
def gradient_pass(
    model: nn.Module, names: Sequence[str], *data: EncodedRows, forms: Mapping[str, Form] | None = None
) -> Generator[GradientPass]:
    """Freeze the model, put it in eval mode and hook its layers; leave it afterwards exactly as it was.

    ``names`` are parameter names as in ``named_parameters()``, a tied head's own, or of :mod:`thresher.model.states`;
    ``data`` is all that will be passed through; rules and padding are checked on the part whose lengths vary most.
    ``forms`` says how matrices' gradients are kept (default: multiplied out).
    """
    parameters = list(model.parameters())
    required = [parameter.requires_grad for parameter in parameters]
    training = [(module, module.training) for module in model.modules()]
    text_config: Any = model.config.get_text_config()  # pyright: ignore
    pad_before = text_config.pad_token_id
    try:
        model.eval()
        for parameter in parameters:
            parameter.requires_grad_(False)
        text_config.pad_token_id = _pad_id(model, data, pad_before)
        with untie(model), differentiable(model):
            one_pass = GradientPass(model, names, text_config.pad_token_id, forms or {})
            try:
                one_pass.open(max(data, key=lambda part: int(np.ptp(part.lengths))))
                yield one_pass
            finally:
                one_pass.close()
    finally:
        text_config.pad_token_id = pad_before
        for parameter, flag in zip(parameters, required, strict=True):
            parameter.requires_grad_(flag)
        for module, flag in training:
            module.training = flag


def _pad_id(model: nn.Module, data: Sequence[EncodedRows], configured: int | None) -> int:
    """The model's own pad id; without one, a token that no row contains, so that pooling finds a row's last token."""
    if configured is not None and configured >= 0:
        return configured
    used = set(torch.cat([ids for part in data for ids in part.features["input_ids"]]).unique().tolist())
    vocabulary = model.get_input_embeddings().num_embeddings  # pyright: ignore
    unused = next((token for token in range(vocabulary) if token not in used), None)
    if unused is None:
        raise ModelError("The model's config has no pad_token_id, and every token is used by the rows; set one.")
    return unused
