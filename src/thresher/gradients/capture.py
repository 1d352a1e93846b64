"""One forward and one backward pass a batch; per-row gradients of every chosen module.

All parameters are frozen for the duration, so autograd computes no weight gradient at all. Instead a hook on each
layer that owns a chosen parameter remembers what went in, and receives the gradient of what came out; the rule of that
layer (:mod:`thresher.gradients.rules`) makes the rows' gradients from the two while the backward pass goes on. The
output of the lowest chosen layer becomes the root of the graph, so nothing below it is differentiated.

Rules are not taken on trust. Before the first batch, the first rows given are differentiated one by one by plain
autograd and compared; a parameter that is used in a way its rule does not know (DoRA's norms, a bias table shared by
all rows, a scaled embedding) is from then on computed row by row: slower, and right.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from thresher.data.encode import Batch, EncodedRows, accepted_inputs
from thresher.errors import GradientError, ModelError
from thresher.gradients.rows import RowGradients, TokenGradients, added, concatenated, squared_norms
from thresher.gradients.rowwise import plain_gradients
from thresher.gradients.rules import Rule, rule_for
from thresher.model.head import untied
from thresher.model.losses import batch_losses

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BatchGradients:
    """What one batch gives: gradients by module name, losses [B], and ``outputs`` as ``batch_losses`` gives them."""

    modules: dict[str, RowGradients]
    losses: Tensor
    outputs: Tensor


@dataclass(frozen=True)
class _Site:
    """A parameter where a layer uses it."""

    name: str
    rule: Rule


class GradientPass:
    """Per-row gradients of the named parameters of a frozen model in eval mode; made by :func:`gradient_pass`."""

    def __init__(self, model: nn.Module, names: Sequence[str], pad_id: int) -> None:
        self.model, self.names, self.pad_id = model, tuple(names), pad_id
        self.device = next(model.parameters()).device
        self._options = {"use_cache": False} if "use_cache" in accepted_inputs(model) else {}
        self._parameters = dict(model.named_parameters())
        self.row_by_row: tuple[str, ...] = ()
        self._found: dict[str, RowGradients] = {}
        self._rows = 0
        self._roots: list[Tensor] = []
        self._handles: list[Any] = []
        self._hook_layers()

    def gradients(self, data: EncodedRows, batch: Batch) -> BatchGradients:
        """Gradients of every module for the rows of ``batch``, which were taken from ``data``.

        Raises :class:`GradientError` naming the rows whose loss or gradient is not finite.
        """
        found, losses, outputs = self._by_rules(batch)
        missing = tuple(name for name in self.names if name not in found)
        if missing:
            found |= self._one_by_one(data, batch, missing)[0]
        self._refuse_non_finite(batch, losses, found)
        return BatchGradients({name: found[name] for name in self.names}, losses.detach(), outputs)

    def check_rules(self, data: EncodedRows) -> None:
        """Compare every rule with plain autograd on three rows of different lengths; keep those that agree.

        Raises :class:`ModelError` where padding changes what the model says about a row.
        """
        order = data.lengths.argsort(kind="stable")
        rows = order[sorted({0, len(order) // 2, len(order) - 1})]
        batch = data.batch(rows, self.pad_id, self.device)
        found, losses, _ = self._by_rules(batch)
        self._refuse_non_finite(batch, losses, found)
        truth, alone = self._one_by_one(data, batch, tuple(found))
        eps = torch.finfo(next(self.model.parameters()).dtype).eps
        # Losses that are almost nothing are mostly rounding, so the difference is also judged against one nat.
        if (losses.detach() - alone).norm() > max(1e-3, 40 * eps) * (alone.norm() + 1):
            raise ModelError(
                f"{type(self.model).__name__}: what the model says about a row changes when the row is padded on the "
                "right; give rows of equal length, or set the model's pad token."
            )
        agreeing = _agreeing(found, truth, eps) if found else set[str]()
        self.row_by_row = tuple(name for name in self.names if name not in agreeing)
        if self.row_by_row:
            log.warning("no rule fits %s: their gradients take one backward pass a row", ", ".join(self.row_by_row))

    def close(self) -> None:
        """Take the hooks off the model."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _hook_layers(self) -> None:
        wanted = {id(self._parameters[name]): name for name in self.names}
        both = _tables(self.model) & _matrices(self.model)  # a table that is also a matrix has no one kind of gradient
        for layer in self.model.modules():
            sites: list[_Site] = []
            for short, parameter in layer.named_parameters(recurse=False):
                name, rule = wanted.get(id(parameter)), rule_for(layer, short)
                if name is not None and rule is not None and id(parameter) not in both:
                    sites.append(_Site(name, rule))
            if sites:
                self._handles.append(layer.register_forward_hook(self._watcher(sites), with_kwargs=True))

    def _watcher(self, sites: list[_Site]) -> Any:
        def watch(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor | None:
            if not self._rows:  # a plain pass, not ours
                return None
            x: Tensor = (args[0] if args else next(iter(kwargs.values()))).detach()
            result = output
            if isinstance(layer, nn.Embedding) and len(output) == 1 < self._rows:
                result = result.expand(self._rows, *output.shape[1:])  # one lookup for all rows: give each its own
            if not result.requires_grad:
                root = result.detach().requires_grad_()
                self._roots.append(root)
                result = root.clone()  # later in-place operations may change a copy, not a leaf
            rows = self._rows
            result.register_hook(lambda delta: self._form(layer, sites, x, delta, rows))
            return result

        return watch

    def _form(self, layer: nn.Module, sites: list[_Site], x: Tensor, delta: Tensor, rows: int) -> None:
        if delta[..., 0].numel() % rows:
            return  # rows cannot be told apart in this call; check_rules sees that it is missing
        for site in sites:
            if site.name not in self.row_by_row:
                gradient = site.rule(layer, x, delta, rows)
                before = self._found.get(site.name)
                self._found[site.name] = gradient if before is None else added(before, gradient)

    def _by_rules(self, batch: Batch) -> tuple[dict[str, RowGradients], Tensor, Tensor]:
        self._found, self._roots, self._rows = {}, [], len(batch)
        try:
            with torch.enable_grad():
                losses, outputs = batch_losses(self.model, batch, **self._options)
                self._rows = 0
                if self._roots:
                    torch.autograd.grad(losses.sum(), self._roots, allow_unused=True)
            return self._found, losses, outputs
        finally:
            self._found, self._roots, self._rows = {}, [], 0

    def _one_by_one(
        self, data: EncodedRows, batch: Batch, names: tuple[str, ...]
    ) -> tuple[dict[str, RowGradients], Tensor]:
        parameters = {name: self._parameters[name] for name in names}
        singles = [data.batch(row, self.pad_id, self.device) for row in batch.rows[:, None]]
        rows = [plain_gradients(self.model, parameters, single, self._options) for single in singles]
        gradients = {name: concatenated([row[name] for row, _ in rows]) for name in names}
        return gradients, torch.cat([loss for _, loss in rows])

    def _refuse_non_finite(self, batch: Batch, losses: Tensor, found: dict[str, RowGradients]) -> None:
        finite = losses.detach().isfinite()
        for gradients in found.values():
            finite = finite & squared_norms(gradients).isfinite()
        if not finite.all():
            bad = [int(row) for row, ok in zip(batch.rows, finite.tolist(), strict=True) if not ok]
            kind = "loss" if not losses.isfinite().all() else "gradient"
            raise NonFiniteError(kind, bad)


class NonFiniteError(GradientError):
    """The rows (numbers within the rows given) whose loss or gradient is not finite."""

    def __init__(self, kind: str, rows: list[int], what: str = "train row") -> None:
        self.kind, self.rows = kind, rows
        named = ", ".join(map(str, rows[:10])) + (", ..." if len(rows) > 10 else "")
        super().__init__(
            f"The {kind} of {what} {named} is not a finite number; look at these rows, or use a lower learning rate "
            "or a longer dtype."
        )


@contextmanager
def gradient_pass(model: nn.Module, names: Sequence[str], data: EncodedRows) -> Generator[GradientPass]:
    """Freeze the model, put it in eval mode and hook its layers; leave it afterwards exactly as it was.

    ``names`` are parameter names as in ``named_parameters()``, or a tied head's own; rules are checked on rows of
    ``data``.
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
        with untied(model):
            one_pass = GradientPass(model, names, text_config.pad_token_id)
            try:
                one_pass.check_rules(data)
                yield one_pass
            finally:
                one_pass.close()
    finally:
        text_config.pad_token_id = pad_before
        for parameter, flag in zip(parameters, required, strict=True):
            parameter.requires_grad_(flag)
        for module, flag in training:
            module.training = flag


def _pad_id(model: nn.Module, data: EncodedRows, configured: int | None) -> int:
    """The model's own pad id; without one, a token that no row contains, so that pooling finds a row's last token."""
    if configured is not None and configured >= 0:
        return configured
    used = set(torch.cat(list(data.features["input_ids"])).unique().tolist())
    vocabulary = model.get_input_embeddings().num_embeddings  # pyright: ignore
    unused = next((token for token in range(vocabulary) if token not in used), None)
    if unused is None:
        raise ModelError("The model's config has no pad_token_id, and every token is used by the rows; set one.")
    return unused


def _tables(model: nn.Module) -> set[int]:
    return {id(layer.weight) for layer in model.modules() if isinstance(layer, nn.Embedding)}


def _matrices(model: nn.Module) -> set[int]:
    return {id(layer.weight) for layer in model.modules() if isinstance(layer, (nn.Linear, Conv1D))}


def _agreeing(found: dict[str, RowGradients], truth: dict[str, RowGradients], eps: float) -> set[str]:
    """Modules whose rule gives every row's true gradient, up to the rounding of a dtype of precision ``eps``."""
    largest = max(float(squared_norms(g).max()) for g in truth.values()) ** 0.5
    # A gradient that is zero in exact arithmetic is noise in both, so differences are also judged against the whole.
    floor, share = min(256 * eps, 0.05) * largest, max(0.02, 40 * eps)
    agreeing: set[str] = set()
    for name, gradients in found.items():
        allowed = floor + share * squared_norms(truth[name]).sqrt()
        if bool((squared_norms(_difference(gradients, truth[name])).sqrt() <= allowed).all()):
            agreeing.add(name)
    return agreeing


def _difference(first: RowGradients, second: RowGradients) -> RowGradients:
    if isinstance(second, TokenGradients):
        return added(first, TokenGradients(second.row, second.token, -second.value, second.rows))
    return added(first, -second)
