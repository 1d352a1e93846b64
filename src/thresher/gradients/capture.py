"""One forward and one backward pass a batch; per-row gradients of every chosen module.

All parameters are frozen for the duration, so autograd computes no weight gradient at all. Instead a hook on each
layer that owns a chosen parameter remembers what went in, and receives the gradient of what came out; the rule of that
layer (:mod:`thresher.gradients.rules`) makes the rows' gradients from the two while the backward pass goes on. The
output of the lowest chosen layer becomes the root of the graph, so nothing below it is differentiated.

Rules are not taken on trust. Before the first batch, three of the rows given are differentiated one by one by plain
autograd and compared; a parameter that is used in a way its rule does not know (a table that is also a matrix), or in
a call that serves all rows at once (tables of relative positions in T5 and MPNet, DeBERTa's projections of them, tuned
prompts), or that has no rule (DoRA's magnitudes, IA3) is from then on computed row by row: slower, and right.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from thresher.data.encode import Batch, EncodedRows, accepted_inputs
from thresher.errors import GradientError, ModelError
from thresher.gradients.rows import RowGradients, TokenGradients, added, concatenated, squared_norms
from thresher.gradients.rowwise import plain_gradients
from thresher.gradients.rules import Rule, entering, precise, rule_for
from thresher.model.losses import row_losses

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BatchGradients:
    """What one batch gives: gradients by module name, losses [B] and logits [B, C], both float32."""

    modules: dict[str, RowGradients]
    losses: Tensor
    logits: Tensor


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
        self._shared: set[str] = set()
        self._one_each = True
        self._rows = 0
        self._handles: list[Any] = []
        self._hook_layers()

    def gradients(self, data: EncodedRows, batch: Batch) -> BatchGradients:
        """Gradients of every module for the rows of ``batch``, which were taken from ``data``.

        Raises :class:`GradientError` naming the rows whose loss or gradient is not finite.
        """
        found, losses, logits = self._by_rules(batch)
        missing = tuple(name for name in self.names if name not in found)
        if missing:
            found |= self._one_by_one(data, batch, missing)[0]
        self._refuse_non_finite(batch, losses, found)
        return BatchGradients({name: found[name] for name in self.names}, losses.detach(), logits.detach())

    def check_rules(self, data: EncodedRows) -> None:
        """Compare every rule with plain autograd on three rows of different lengths; keep those that agree.

        Raises :class:`ModelError` where padding changes what the model says about a row.
        """
        order = data.lengths.argsort(kind="stable")
        # Always three, the same twice where there are fewer: a batch of one cannot tell what its rows share.
        rows = order[[0, len(order) // 2, -1]]
        batch = data.batch(rows, self.pad_id, self.device)
        try:
            found, losses, logits = self._by_rules(batch)
        except RuntimeError:
            self._one_each = False  # the model may itself repeat what was looked up once, as for tuned prompts
            found, losses, logits = self._by_rules(batch)
        if not _finite(losses, found).all():
            return  # nothing to judge by; the rows are named when their turn comes
        truth, alone = self._one_by_one(data, batch, tuple(found))
        eps = torch.finfo(next(self.model.parameters()).dtype).eps
        if (logits.detach() - alone).norm() > max(1e-3, 40 * eps) * alone.norm():
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
            owned = [(short, p) for short, p in layer.named_parameters(recurse=False) if id(p) in wanted]
            sites = [
                _Site(wanted[id(p)], rule)
                for short, p in owned
                if (rule := rule_for(layer, short)) and id(p) not in both
            ]
            if owned:
                self._handles.append(layer.register_forward_pre_hook(self._needs_grad))
            if sites:
                self._handles.append(layer.register_forward_hook(self._watcher(sites), with_kwargs=True))

    def _needs_grad(self, layer: nn.Module, _: tuple[Any, ...]) -> None:
        if self._rows and not torch.is_grad_enabled():
            raise ModelError(
                f"{type(self.model).__name__} calls a {type(layer).__name__} that is audited without recording "
                "gradients; switch gradient checkpointing off, or give it use_reentrant=False."
            )

    def _watcher(self, sites: list[_Site]) -> Any:
        def watch(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Tensor | None:
            if not self._rows or not isinstance(output, Tensor):  # a plain pass, not ours, or no layer that we know
                return None
            entry = entering(layer, args, kwargs)
            if entry is None:  # no rule for what this layer does; check_rules sees that it is missing
                return None
            x, factor = entry
            result = output
            if self._one_each and isinstance(layer, nn.Embedding) and len(output) == 1 < self._rows:
                result = result.expand(self._rows, *output.shape[1:])  # one lookup for all rows: give each its own
            if not result.requires_grad:
                # A root of the graph; later in-place operations may change a copy, not a leaf.
                result = result.detach().requires_grad_().clone()
            rows = self._rows
            result.register_hook(
                lambda delta: self._form(layer, sites, x, delta if factor is None else precise(delta) * factor, rows)
            )
            return result

        return watch

    def _form(self, layer: nn.Module, sites: list[_Site], x: Tensor, delta: Tensor, rows: int) -> None:
        if len(delta) % rows if delta.dim() == 2 else len(delta) != rows:
            self._shared.update(site.name for site in sites)  # one call for all rows, which it cannot tell apart
            return
        self._rows = 0  # a rule may call the layer, which is not to be watched
        for site in sites:
            if site.name not in self.row_by_row:
                gradient = site.rule(layer, x, delta, rows)
                before = self._found.get(site.name)
                self._found[site.name] = gradient if before is None else added(before, gradient)
        self._rows = rows  # checkpointed layers run again, and must do what they did

    def _by_rules(self, batch: Batch) -> tuple[dict[str, RowGradients], Tensor, Tensor]:
        self._found, self._shared, self._rows = {}, set(), len(batch)
        try:
            with torch.enable_grad():
                logits = self._logits(batch)
                losses = row_losses(logits, batch.labels, self.model.config)
                if losses.requires_grad:
                    losses.sum().backward()
            found = {name: gradients for name, gradients in self._found.items() if name not in self._shared}
            return found, losses, logits
        finally:
            self._found, self._rows = {}, 0

    def _logits(self, batch: Batch) -> Tensor:
        try:
            return self.model(**batch.inputs, **self._options).logits
        except ValueError as error:  # T5 and BART pool at the end-of-sequence token, of which rows need as many
            raise ModelError(f"{type(self.model).__name__} refuses the rows: {error}") from error

    def _one_by_one(
        self, data: EncodedRows, batch: Batch, names: tuple[str, ...]
    ) -> tuple[dict[str, RowGradients], Tensor]:
        parameters = {name: self._parameters[name] for name in names}
        singles = [data.batch(row, self.pad_id, self.device) for row in batch.rows[:, None]]
        rows = [plain_gradients(self.model, parameters, single, self._options) for single in singles]
        gradients = {name: concatenated([row[name] for row, _ in rows]) for name in names}
        return gradients, torch.cat([logits for _, logits in rows])

    def _refuse_non_finite(self, batch: Batch, losses: Tensor, found: dict[str, RowGradients]) -> None:
        finite = _finite(losses, found)
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
def gradient_pass(model: nn.Module, names: Sequence[str], *data: EncodedRows) -> Generator[GradientPass]:
    """Freeze the model, put it in eval mode and hook its layers; leave it afterwards exactly as it was.

    ``names`` are parameter names as in ``named_parameters()``. ``data`` is all that will be passed through; rules and
    padding are checked on the part whose lengths vary most.
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
        one_pass = GradientPass(model, names, text_config.pad_token_id)
        try:
            one_pass.check_rules(max(data, key=lambda part: int(np.ptp(part.lengths))))
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


def _tables(model: nn.Module) -> set[int]:
    return {id(layer.weight) for layer in model.modules() if isinstance(layer, nn.Embedding)}


def _matrices(model: nn.Module) -> set[int]:
    return {id(layer.weight) for layer in model.modules() if isinstance(layer, (nn.Linear, Conv1D))}


def _finite(losses: Tensor, found: dict[str, RowGradients]) -> Tensor:
    """Which rows have a finite loss and finite gradients, [B] bool."""
    finite = losses.detach().isfinite()
    for gradients in found.values():
        finite = finite & squared_norms(gradients).isfinite()
    return finite


def _agreeing(found: dict[str, RowGradients], truth: dict[str, RowGradients], eps: float) -> set[str]:
    """Modules whose rule gives every row's true gradient, up to the rounding of a dtype of precision ``eps``."""
    largest = max(float(squared_norms(g).max()) for g in truth.values()) ** 0.5
    # A gradient that is zero in exact arithmetic is noise in both, so differences are also judged against the whole.
    floor, share = min(256 * eps, 0.05) * largest, max(1e-3, 40 * eps)
    agreeing: set[str] = set()
    for name, gradients in found.items():
        if _width(gradients) != _width(truth[name]):
            continue  # the rule took the layer for one of another kind
        allowed = floor + share * squared_norms(truth[name]).sqrt()
        if bool((squared_norms(_difference(gradients, truth[name])).sqrt() <= allowed).all()):
            agreeing.add(name)
    return agreeing


def _width(gradients: RowGradients) -> int:
    return (gradients.value if isinstance(gradients, TokenGradients) else gradients).shape[-1]


def _difference(first: RowGradients, second: RowGradients) -> RowGradients:
    if isinstance(second, TokenGradients):
        return added(first, TokenGradients(second.row, second.token, -second.value, second.rows))
    return added(first, -second)
