"""A callback for a user's own training that keeps what influence needs of it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from thresher.errors import ConfigError
from thresher.model.adamw import is_adamw
from thresher.model.checkpoints import write_checkpoint

log = logging.getLogger(__name__)


class CheckpointKeeper(TrainerCallback):
    """Keeps checkpoints of a transformers or TRL Trainer for :func:`thresher.influence` and ``thresher audit``.

    Into ``folder`` go, every ``every`` updates and at the end, or (None) after every epoch, the trained weights, the
    learning rate of the last update, and AdamW's second moments with t, betas and eps: safetensors and a little JSON,
    about twice the bytes of the trained weights each time.

        trainer = Trainer(..., callbacks=[thresher.CheckpointKeeper("kept")])

    Raises :class:`ConfigError` when training begins where another training's checkpoints are, or where the weights are
    sharded over processes (FSDP, DeepSpeed).
    """

    def __init__(self, folder: str | Path, every: int | None = None) -> None:
        if every is not None and every < 1:
            raise ConfigError(f"CheckpointKeeper(every={every}): keep every 1 or more updates, or None for each epoch.")
        self.folder, self.every = Path(folder), every
        self._rate = 0.0
        self._last = -1

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Refuse what cannot be kept before the training takes any time."""
        if args.fsdp or args.deepspeed:
            raise ConfigError("CheckpointKeeper keeps whole weights, and FSDP and DeepSpeed shard them; train without.")
        if state.global_step == 0 and any(self.folder.glob("checkpoint-*")):
            raise ConfigError(f"{self.folder}: holds checkpoints of another training; name an empty folder.")
        if self.folder.resolve() == Path(args.output_dir or ".").resolve():
            raise ConfigError(f"{self.folder}: the Trainer keeps its own checkpoints here; name another folder.")
        optimizer = kwargs["optimizer"]
        if not is_adamw(optimizer):
            log.warning("the optimizer is not torch's AdamW: checkpoints are kept without second moments")
        rates = {float(group.get("initial_lr", group["lr"])) for group in optimizer.param_groups}
        if len(rates) > 1:
            log.warning("parameters are trained at different learning rates; the first one's is kept for all")

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Note the rate of this update, before the schedule moves on."""
        self._rate = float(kwargs["optimizer"].param_groups[0]["lr"])

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Keep this point if its turn has come."""
        if self.every is not None and state.global_step % self.every == 0:
            self._keep(state, **kwargs)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Keep each epoch; if updates are counted instead, only the very end."""
        if self.every is None or control.should_training_stop:
            self._keep(state, **kwargs)

    def _keep(self, state: TrainerState, **kwargs: Any) -> None:
        if not state.is_world_process_zero or state.global_step == self._last:
            return
        weights = {name: p for name, p in kwargs["model"].named_parameters() if p.requires_grad}
        write_checkpoint(self.folder, state.global_step, self._rate, weights, kwargs["optimizer"])
        self._last = state.global_step
