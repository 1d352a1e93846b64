"""What a model makes of a row before its head judges it: one vector a row, without gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from thresher.data.encode import EncodedRows, length_batches
from thresher.errors import ModelError
from thresher.model.inputs import accepted_inputs, generates
from thresher.model.load import LoadedModel
from thresher.model.predict import evaluating
from thresher.progress import Advance


@torch.no_grad()
def pooled_features(
    subject: LoadedModel, data: EncodedRows, batch_size: int, advance: Advance = lambda rows: None
) -> npt.NDArray[np.float32]:
    """Mean over a row's real tokens of the last hidden layer, [n, d], in eval mode; the training mode is put back.

    The last layer is what the backbone hands to the head, of an encoder-decoder its decoder's. Raises
    :class:`ModelError` where the model has no such layer, or its states are not finite.
    """
    model = subject.model
    # Scores of a vocabulary take more memory than all hidden states, and are not looked at.
    options = {"logits_to_keep": 1} if generates(model) and "logits_to_keep" in accepted_inputs(model) else {}
    pooled: list[Tensor] = [torch.empty(0)] * len(data)
    with evaluating(model), _LastLayer(model) as layer:
        for rows in length_batches(data.lengths, batch_size):
            batch = data.batch(rows, subject.pad_id, subject.device)
            model(**batch.inputs, **options)
            means = _masked_mean(layer.states(), batch.inputs["attention_mask"]).cpu()
            for row, values in zip(rows, means, strict=True):
                pooled[row] = values
            advance(len(rows))
    features = torch.stack(pooled).numpy()
    broken = np.flatnonzero(~np.isfinite(features).all(1))
    if len(broken):
        raise ModelError(f"The model's hidden states of row {broken[0]} are not finite; use --dtype float32.")
    return features


def _masked_mean(states: Tensor, mask: Tensor) -> Tensor:
    """Mean of ``states`` [B, T or more, d] where ``mask`` [B, T] is 1, [B, d] float32.

    Tuned prompts come before a row's own positions.
    """
    own = states[:, -mask.shape[1] :].float()
    return torch.where(mask[..., None].bool(), own, 0.0).sum(1) / mask.sum(1, keepdim=True)


class _LastLayer:
    """Keeps the last hidden states that any part of the model gave; the library's own list would hold every layer.

    Some heads call a stack inside their backbone, so it is not known beforehand whose they are.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._states: Tensor | None = None
        self._handles: list[Any] = []

    def __enter__(self) -> _LastLayer:
        self._handles = [module.register_forward_hook(self._keep) for module in self._model.modules()]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def states(self) -> Tensor:
        """Hidden states [B, T, d]."""
        if self._states is None:
            raise ModelError("No part of the model says what its last hidden states are, so it has no features.")
        return self._states

    def _keep(self, _: nn.Module, __: Any, output: Any) -> None:
        found = getattr(output, "last_hidden_state", None)
        self._states = self._states if found is None else found
