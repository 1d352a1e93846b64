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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from thresher.data.encode import Batch, EncodedRows, accepted_inputs
from thresher.errors import GradientError, ModelError
from thresher.gradients.agreement import agreeing
from thresher.gradients.forms import Form, in_form
from thresher.gradients.forward import head_rows, pooled_states
from thresher.gradients.head import Head, find_head
from thresher.gradients.rows import RowGradients, added, concatenated, squared_norms
from thresher.gradients.rowwise import plain_gradients
from thresher.gradients.rules import Rule, rule_for
from thresher.model.losses import losses_of, scored_positions
from thresher.model.states import HEAD

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
    """Per-row gradients of the named modules of a frozen model in eval mode; made by :func:`gradient_pass`.

    Names are of parameters, or of :mod:`thresher.model.states`, which take no backward pass.
    """

    def __init__(self, model: nn.Module, names: Sequence[str], pad_id: int, forms: Mapping[str, Form]) -> None:
        self.model, self.names, self.pad_id, self.forms = model, tuple(names), pad_id, dict(forms)
        self.device = next(model.parameters()).device
        self.row_by_row: tuple[str, ...] = ()
        self.head: Head | None = None
        self._parameters: dict[str, nn.Parameter] = dict(model.named_parameters())
        self._hidden = tuple(name for name in self.names if name.startswith("hidden."))
        self._options: dict[str, bool] = {"use_cache": False} if "use_cache" in accepted_inputs(model) else {}
        if self._hidden:
            self._options["output_hidden_states"] = True
        self._found: dict[str, RowGradients] = {}
        self._rows = 0
        self._roots: list[Tensor] = []
        self._head_input: list[Tensor] = []
        self._handles: list[Any] = []

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

    def open(self, data: EncodedRows) -> None:
        """Hook the layers, and compare every rule with plain autograd on three rows of different lengths.

        Rules that agree are kept. Raises :class:`ModelError` where padding changes what the model says about a row.
        """
        order = data.lengths.argsort(kind="stable")
        rows = order[sorted({0, len(order) // 2, len(order) - 1})]
        batch = data.batch(rows, self.pad_id, self.device)
        if HEAD in self.names:
            self.head = find_head(self.model, batch, self._options)
        self._hook_layers()
        found, losses, _ = self._by_rules(batch)
        self._refuse_non_finite(batch, losses, found)
        # What the forward pass tells is no gradient, and has no rule.
        differentiated = [n for n in self.names if n in self._parameters]
        ruled = tuple(name for name in differentiated if name in found)
        truth, alone = self._one_by_one(data, batch, ruled)
        eps = torch.finfo(next(self.model.parameters()).dtype).eps
        # Losses that are almost nothing are mostly rounding, so the difference is also judged against one nat.
        if (losses.detach() - alone).norm() > max(1e-3, 40 * eps) * (alone.norm() + 1):
            raise ModelError(
                f"{type(self.model).__name__}: what the model says about a row changes when the row is padded on the "
                "right; give rows of equal length, or set the model's pad token."
            )
        agreed = agreeing({name: found[name] for name in ruled}, truth, eps)
        self.row_by_row = tuple(name for name in differentiated if name not in agreed)
        if self.row_by_row:
            log.warning("no rule fits %s: their gradients take one backward pass a row", ", ".join(self.row_by_row))

    def close(self) -> None:
        """Take the hooks off the model."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _hook_layers(self) -> None:
        wanted = {id(self._parameters[name]): name for name in self.names if name in self._parameters}
        if self.head is not None and self.head.generative:
            self._handles.append(self.head.layer.register_forward_pre_hook(self._watch_head))
        elif self.head is not None:
            self._parameters[HEAD] = cast(nn.Parameter, self.head.layer.weight)
            self.forms[HEAD] = "factored"
        both = _tables(self.model) & _matrices(self.model)  # a table that is also a matrix has no one kind of gradient
        for layer in self.model.modules():
            sites: list[_Site] = []
            for short, parameter in layer.named_parameters(recurse=False):
                rule = rule_for(layer, short)
                if rule is None or id(parameter) in both:
                    continue
                if (name := wanted.get(id(parameter))) is not None:
                    sites.append(_Site(name, rule))
                if parameter is self._parameters.get(HEAD):
                    sites.append(_Site(HEAD, rule))
            if sites:
                self._handles.append(layer.register_forward_hook(self._watcher(sites), with_kwargs=True))

    def _watch_head(self, layer: nn.Module, args: tuple[Tensor, ...]) -> None:
        if self._rows:
            self._head_input = [args[0]]

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
            return  # rows cannot be told apart in this call; the check of the rules sees that it is missing
        for site in sites:
            if site.name not in self.row_by_row:
                gradient = site.rule(layer, x, delta, rows, self.forms.get(site.name, "dense"))
                before = self._found.get(site.name)
                self._found[site.name] = gradient if before is None else added(before, gradient)

    def _by_rules(self, batch: Batch) -> tuple[dict[str, RowGradients], Tensor, Tensor]:
        self._found, self._roots, self._rows = {}, [], len(batch)
        try:
            with torch.enable_grad():
                options = {**self._options, **scored_positions(self.model, batch)}
                outputs = self.model(**batch.inputs, **options)
                losses, kept = losses_of(outputs.logits, batch, self.model.config)
                self._rows = 0
                if self._roots:
                    torch.autograd.grad(losses.sum(), self._roots, allow_unused=True)
            found = self._found | pooled_states(self._hidden, outputs, batch.inputs["attention_mask"])
            if self._head_input:
                found[HEAD] = head_rows(self._head_input[0], batch.labels, averaged=batch.row_loss == "mean")
            return found, losses, kept
        finally:
            self._found, self._roots, self._head_input, self._rows = {}, [], [], 0

    def _one_by_one(
        self, data: EncodedRows, batch: Batch, names: tuple[str, ...]
    ) -> tuple[dict[str, RowGradients], Tensor]:
        parameters = {name: self._parameters[name] for name in names}
        singles = [data.batch(row, self.pad_id, self.device) for row in batch.rows[:, None]]
        rows = [plain_gradients(self.model, parameters, single, self._options) for single in singles]
        gradients = {name: concatenated([row[name] for row, _ in rows]) for name in names}
        for name, gradient in gradients.items():
            if isinstance(gradient, Tensor):
                gradients[name] = in_form(gradient, parameters[name].shape, self.forms, name)
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


def _tables(model: nn.Module) -> set[int]:
    return {id(layer.weight) for layer in model.modules() if isinstance(layer, nn.Embedding)}


def _matrices(model: nn.Module) -> set[int]:
    return {id(layer.weight) for layer in model.modules() if isinstance(layer, (nn.Linear, Conv1D))}
