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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from thresher.data.encode import Batch, EncodedRows
from thresher.errors import GradientError, ModelError
from thresher.gradients.agreement import agreeing
from thresher.gradients.forms import Form, in_form, matrix_ids, table_ids
from thresher.gradients.forward import head_rows, pooled_states
from thresher.gradients.head import Head, find_head
from thresher.gradients.rows import RowGradients, added, concatenate, squared_norms
from thresher.gradients.rowwise import plain_gradients
from thresher.gradients.rules import Rule, entering, precise, rule_for
from thresher.model.inputs import accepted_inputs
from thresher.model.losses import losses_of, scored_positions
from thresher.model.quantise import precision
from thresher.model.states import HEAD

log = logging.getLogger(__name__)

PADDED, NOISE = 5e-5, 20
"""How much padding may change a loss, in itself and beside what rounding changes."""


@dataclass(frozen=True)
class BatchGradients:
    """What one batch gives: gradients by module name, losses [B], and ``outputs`` as ``batch_losses`` gives them."""

    modules: dict[str, RowGradients]
    losses: Tensor
    outputs: Tensor

    @property
    def nbytes(self) -> int:
        """Bytes that the gradients take."""
        return sum(gradients.nbytes for gradients in self.modules.values())


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
        self._shared: set[str] = set()
        self._one_each = True
        self._rows = 0
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
        # Always three, the same twice where there are fewer: a batch of one cannot tell what its rows share.
        rows = order[[0, len(order) // 2, -1]]
        batch = data.batch(rows, self.pad_id, self.device)
        if HEAD in self.names:
            self.head = find_head(self.model, batch, self._options)
        self._hook_layers()
        try:
            found, losses, _ = self._by_rules(batch)
        except RuntimeError:
            self._one_each = False  # the model may itself repeat what was looked up once, as for tuned prompts
            found, losses, _ = self._by_rules(batch)
        if not _finite(losses, found).all():
            return  # nothing to judge by; the rows are named when their turn comes
        # What the forward pass tells is no gradient, and has no rule.
        differentiated = [name for name in self.names if name in self._parameters]
        ruled = tuple(name for name in differentiated if name in found)
        truth, alone = self._one_by_one(data, batch, ruled)
        eps = precision(self.model)
        if _padding_tells(losses.detach(), alone, eps):
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
        if self.head is not None and self.head.generative:
            self._handles.append(self.head.layer.register_forward_pre_hook(self._watch_head))
        elif self.head is not None:
            self._parameters[HEAD] = cast(nn.Parameter, self.head.layer.weight)
            self.forms[HEAD] = "factored"
        names: dict[int, list[str]] = {}
        for name in self.names:
            if name in self._parameters:
                names.setdefault(id(self._parameters[name]), []).append(name)
        # A table that is also a matrix has no one kind of gradient.
        both = table_ids(self.model) & matrix_ids(self.model)
        for layer in self.model.modules():
            owned = [(short, p) for short, p in layer.named_parameters(recurse=False) if names.get(id(p))]
            sites = [
                _Site(name, rule)
                for short, p in owned
                if (rule := rule_for(layer, short)) and id(p) not in both
                for name in names[id(p)]
            ]
            if owned:
                self._handles.append(layer.register_forward_pre_hook(self._needs_grad))
            if sites:
                self._handles.append(layer.register_forward_hook(self._watcher(sites), with_kwargs=True))

    def _watch_head(self, layer: nn.Module, args: tuple[Tensor, ...]) -> None:
        if self._rows:
            self._head_input = [args[0]]

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
            if entry is None:  # no rule for what this layer does; the check of the rules sees that it is missing
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
                gradient = site.rule(layer, x, delta, rows, self.forms.get(site.name, "dense"))
                before = self._found.get(site.name)
                self._found[site.name] = gradient if before is None else added(before, gradient)
        self._rows = rows  # checkpointed layers run again, and must do what they did

    def _by_rules(self, batch: Batch) -> tuple[dict[str, RowGradients], Tensor, Tensor]:
        self._found, self._shared, self._rows = {}, set(), len(batch)
        try:
            with torch.enable_grad():
                outputs = self._outputs(batch)
                losses, kept = losses_of(outputs.logits, batch, self.model.config)
                if losses.requires_grad:
                    losses.sum().backward()
            found = {name: gradients for name, gradients in self._found.items() if name not in self._shared}
            found |= pooled_states(self._hidden, outputs, batch.inputs["attention_mask"])
            if self._head_input:
                found[HEAD] = head_rows(self._head_input[0], batch.labels, averaged=batch.row_loss == "mean")
            return found, losses, kept
        finally:
            self._found, self._head_input, self._rows = {}, [], 0

    def _outputs(self, batch: Batch) -> Any:
        try:
            return self.model(**batch.inputs, **self._options, **scored_positions(self.model, batch))
        except ValueError as error:  # T5 and BART pool at the end-of-sequence token, of which rows need as many
            raise ModelError(f"{type(self.model).__name__} refuses the rows: {error}") from error

    def _one_by_one(
        self, data: EncodedRows, batch: Batch, names: tuple[str, ...]
    ) -> tuple[dict[str, RowGradients], Tensor]:
        parameters = {name: self._parameters[name] for name in names}
        singles = [data.batch(row, self.pad_id, self.device) for row in batch.rows[:, None]]
        rows = [plain_gradients(self.model, parameters, single, self._options) for single in singles]
        gradients = {name: concatenate([row[name] for row, _ in rows]) for name in names}
        for name, gradient in gradients.items():
            if isinstance(gradient, Tensor):
                gradients[name] = in_form(gradient, parameters[name].shape, self.forms, name)
        return gradients, torch.cat([loss for _, loss in rows])

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


def _finite(losses: Tensor, found: dict[str, RowGradients]) -> Tensor:
    """Which rows have a finite loss and finite gradients, [B] bool."""
    finite = losses.detach().isfinite()
    for gradients in found.values():
        finite = finite & squared_norms(gradients).isfinite()
    return finite


def _padding_tells(padded: Tensor, alone: Tensor, eps: float) -> bool:
    """Whether rows' losses in one batch [3] are others than alone: by more than what rounding does.

    The last row is the longest, and has no padding: what differs there is how a batch is rounded on this machine.
    Losses that are almost nothing are mostly rounding, so the differences are also judged against one nat.
    """
    differences = (padded - alone).abs() / (alone.abs() + 1)
    return bool((differences > max(PADDED, 40 * eps) + NOISE * differences[-1]).any())
