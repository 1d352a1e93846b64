"""Before an audit runs: rows read and checked, the model loaded and adapted. Nothing is written yet."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor

from thresher.arrays import Flags, Indices
from thresher.auditing.budget import affordable, first_tokens, refuse_no_look
from thresher.auditing.drawn import Drawn, described, planted_again, read_drawn
from thresher.auditing.encoder import Encoder, load_encoder
from thresher.auditing.readable import planted_kind, read_rows, refuse_options
from thresher.auditing.repeats import warn_of_repeats
from thresher.auditing.run import RunDirectory
from thresher.auditing.trainings import canary_kind, draw_canaries, plan_rounds
from thresher.calibration.canaries import AUTO, Round
from thresher.config import AuditConfig, CanaryKind, Keep, PlantKind
from thresher.data.corruption.kinds import Guess
from thresher.data.encode import EncodedRows
from thresher.data.parts import Part, read_parts
from thresher.data.table import Table, fingerprint
from thresher.detectors.evidence import Need, Which
from thresher.detectors.registry import DETECTORS
from thresher.detectors.registry import available as usable
from thresher.errors import ConfigError
from thresher.influences.checkpoints import SUMMED, given_checkpoints
from thresher.influences.driver import draw_reference
from thresher.influences.modules import GradientPlan, plan_gradients, select_modules
from thresher.influences.pairing import refuse_gram
from thresher.influences.registry import INFLUENCE, check_methods
from thresher.model.checkpoints import Checkpoint, checkpoint_of, refuse_unfit
from thresher.model.load import LoadedModel, audited_by_default, most_tokens
from thresher.model.lora import with_lora
from thresher.model.mixed import mixed_precision
from thresher.model.names import ModuleName
from thresher.model.predict import predict
from thresher.model.source import model_fingerprint
from thresher.model.tokenizer import refuse_unfit_tokens
from thresher.scores.names import DetectorScore, ScoreName, asked_k, resolve
from thresher.scores.table import available
from thresher.tasks.base import Task

log = logging.getLogger(__name__)

VOTES = (0.2, 0.5)
"""Shares of the rows that Vote is tried with beside ``--k`` where canaries choose."""


@dataclass(frozen=True)
class Job:
    """Everything an audit works on. Nothing has been written yet.

    ``task`` and ``encoded`` carry the rows as trained on, planted errors included; ``planted`` [n] marks those.
    ``notes`` are the task's lines for the plan. ``rounds`` are the trainings, with their canaries. ``initial`` are the
    trainable weights before fine-tuning, from which every training starts. ``checkpoints`` are those of the user's own
    training, ``longest`` is how many tokens a row may have, ``drawn`` what the run folder is to keep of chance, and
    ``annotators`` [n] who labelled each, where that is known. ``encoder`` is the second one, beside
    the model.
    """

    config: AuditConfig
    tables: dict[Part, Table]
    task: Task
    encoded: dict[Part, EncodedRows]
    notes: dict[str, str]
    planted: Flags
    subject: LoadedModel
    modules: list[ModuleName]
    rounds: tuple[Round, ...]
    initial: dict[str, Tensor]
    checkpoints: tuple[Checkpoint, ...]
    longest: int
    drawn: Drawn
    annotators: tuple[str | None, ...] | None = None
    encoder: Encoder | None = None

    @property
    def inputs(self) -> dict[str, str]:
        """Fingerprints of what was read."""
        files: dict[str, str] = {part: fingerprint(table) for part, table in self.tables.items()}
        for name in ("model", "adapter", "features"):
            source = getattr(self.config, name)
            if source is not None:
                files[name] = model_fingerprint(source)
        if self.checkpoints:
            files["checkpoints"] = " ".join(model_fingerprint(str(point.folder)) for point in self.checkpoints)
        return files

    @property
    def planted_kind(self) -> PlantKind:
        """What kind of errors is planted, if any."""
        return planted_kind(self.task, self.config)

    @property
    def canary_kind(self) -> CanaryKind:
        """What kind of canaries there are, if any."""
        return canary_kind(self.task, self.subject, self.config)

    @property
    def planted_errors(self) -> str:
        """What was planted, in words; nothing where nothing was."""
        return f"{self.planted_kind}, in {self.planted.sum():,} rows" if self.config.plant else ""

    @cached_property
    def kept(self) -> GradientPlan:
        """In which form the modules' gradients are kept."""
        length = float(self.encoded["train"].lengths.mean())
        return plan_gradients(self.subject.model, self.modules, length=length, projection=self.config.projection)

    @property
    def auto(self) -> bool:
        """Whether canaries choose what ranks the rows."""
        return self.config.detector == AUTO

    @property
    def ks(self) -> tuple[float, ...]:
        """The shares of the rows that Vote is tried with."""
        return _ks(self.config)

    def needs_features(self, features: Which) -> bool:
        """Whether what is asked for takes features of the rows of this name."""
        there = usable(partial(has, self.subject, self.config))
        asked = [one for one in there if self.auto or self.config.detector in (one, DetectorScore(one).name)]
        return any(features in DETECTORS[one].needs for one in asked)

    @property
    def compares_answers(self) -> bool:
        """Whether there are answers, and a model to compare with: as it came, or an adapter's base."""
        return self.subject.kind != "whole" and not isinstance(self.encoded["query"].labels, Tensor)

    @property
    def probed(self) -> bool:
        """Whether what the model is to know is measured beside a probe on features of the model as it came."""
        return has(self.subject, self.config, "frozen") and has(self.subject, self.config, "classes")

    def reset_weights(self) -> None:
        """Give the trainable weights the values that they had before any fine-tuning."""
        with torch.no_grad():
            for name, parameter in self.subject.model.named_parameters():
                if name in self.initial:
                    parameter.copy_(self.initial[name])

    @property
    def searches(self) -> bool:
        """Whether a learning rate is still to be found."""
        return self.subject.kind == "lora" and self.config.learning_rate is None

    def evaluate(self) -> dict[str, float]:
        """What the test rows say of the model as it is."""
        test = self.encoded["test"]
        with mixed_precision(self.subject, self.config):
            said = predict(self.subject, test, self.config.rows_a_pass)
        return self.task.evaluate(self.subject, test, said)

    @property
    def needs_checkpoints(self) -> bool:
        """Whether more is asked for than the fine-tuned model itself can tell."""
        return self.config.optimizer_aware or SUMMED in self.config.methods

    @property
    def summed_checkpoints(self) -> int:
        """How many checkpoints are summed over, each with a gradient pass of its own."""
        return (len(self.checkpoints) or self.config.epochs) if SUMMED in self.config.methods else 0

    def reference(self, one: Round) -> Indices:
        """The rows of a round that stand for all of them."""
        functions = check_methods(self.config.methods).values()
        return draw_reference(len(one.rows), self.config.reference, functions, one.seed)

    @property
    def keeps(self) -> Keep:
        """What is kept of influence."""
        if self.config.keep is not None:
            return self.config.keep
        first = self.rounds[0]
        return "tensor" if len(self.reference(first)) == len(first.rows) else "top"

    @property
    def gradient_bytes(self) -> int:
        """Bytes that the gradients of reference and query rows take, of one round."""
        return self.kept.row_bytes * (len(self.reference(self.rounds[0])) + len(self.encoded["query"]))

    @property
    def tensor_bytes(self) -> int:
        """Bytes of the influence tensor, all methods and rounds, before compression; 0 where it is not kept."""
        if self.keeps != "tensor":
            return 0
        pairs = sum(len(one.rows) for one in self.rounds) * len(self.encoded["query"])
        functions = [INFLUENCE[method] for method in self.config.methods]
        return 4 * pairs * sum(function.defined_on(module) for function in functions for module in self.modules)


def prepare(config: AuditConfig, tables: dict[Part, Table] | None = None) -> Job:
    """Read the rows and load the model. Every mistake in the user's input is found here, before anything is written.

    ``tables`` are the rows of :func:`read_parts`, where they have been read already.
    """
    refuse_options(config)
    tables = tables or read_parts(config)
    task, annotators = read_rows(config, tables)
    subject = task.load(config, config.seed)
    encoder = load_encoder(task, config, tables)
    config = config.model_copy(update={"device": str(subject.device)})  # part of what decides the last bits
    config, checkpoints = _checkpoints(config, subject)
    if config.retrain and subject.kind != "lora":
        raise ConfigError("--retrain needs a model that is fine-tuned here; leave it out, or say --finetune.")
    if config.quick:
        refuse_no_look(config, subject)
    longest = most_tokens(subject.model, subject.tokenizer, config.max_length)
    kept = read_drawn(RunDirectory(config.output), tables["train"], config)
    task, flags = planted(task, config, partial(task.guess, subject, longest, config), kept)
    encoding = task.encode(subject, longest)
    if config.quick:
        longest = min(longest, first_tokens(encoding.rows, subject))
        encoding = task.encode(subject, longest)
    for warning in encoding.warnings:
        log.warning(warning)
    config = affordable(config, subject, encoding.rows["train"])
    for part, rows in encoding.rows.items():
        refuse_unfit_tokens(subject.model, subject.tokenizer, rows, tables[part].where)
    task.check_classes(subject, encoding.rows["query"], config.rows_a_pass)
    if subject.kind == "lora":
        subject = with_lora(subject, config, config.seed)
    pattern = config.modules or audited_by_default(subject, projected=config.projection > 0)
    modules = select_modules(subject.model, pattern, config.methods)
    _refuse_unknown_score(config, subject, modules)
    if grams := [name for name in config.methods if INFLUENCE[name].gram]:
        refuse_gram(len(encoding.rows["train"]), grams)
    trained = subject.model.named_parameters() if subject.kind == "lora" else ()
    initial = {name: p.detach().clone() for name, p in trained if p.requires_grad}
    guess = partial(task.guess, subject, longest, config)
    drawn = kept or Drawn(described(task, flags), draw_canaries(task, subject, config, guess))
    rounds = plan_rounds(task, subject, encoding.rows["train"], config, longest, drawn.canaries)
    notes = encoding.notes | warn_of_repeats(task, tables)
    return Job(
        config,
        tables,
        task,
        encoding.rows,
        notes,
        flags,
        subject,
        modules,
        rounds,
        initial,
        checkpoints,
        longest,
        drawn,
        annotators,
        encoder,
    )


def has(subject: LoadedModel, config: AuditConfig, need: Need) -> bool:
    """Whether an audit of this model can give a detector what it needs."""
    if need == "second":
        return config.features is not None
    if need == "classes":
        return len(subject.classes) > 1
    if need in ("tuned", "predictions", "queries", "copies"):
        return True
    return subject.kind == "lora"


def _ks(config: AuditConfig) -> tuple[float, ...]:
    asked = asked_k(config.detector)
    more = VOTES if config.detector == AUTO else (asked,) if asked is not None and asked <= 1 else ()
    return tuple(sorted({*more, config.k}))


def _refuse_unknown_score(config: AuditConfig, subject: LoadedModel, modules: list[ModuleName]) -> None:
    if config.detector != AUTO:
        detectors = map(DetectorScore, usable(partial(has, subject, config)))
        there: list[ScoreName] = [*available(modules, config.methods, _ks(config)), *detectors]
        resolve(config.detector, there, config.k)


def _checkpoints(config: AuditConfig, subject: LoadedModel) -> tuple[AuditConfig, tuple[Checkpoint, ...]]:
    """The checkpoints of the user's own training; what is to be kept of ours."""
    if subject.kind == "lora":
        if config.checkpoints is not None:
            raise ConfigError(
                "--checkpoints are of a training that is over, and this audit fine-tunes anew; leave them out, or name "
                "what was trained with --adapter or as --model."
            )
        keep = config.keep_checkpoints or config.optimizer_aware or SUMMED in config.methods
        return config.model_copy(update={"keep_checkpoints": keep}), ()
    found = given_checkpoints(config.checkpoints, config.methods, optimizer_aware=config.optimizer_aware)
    refuse_unfit(subject.model, found)
    if config.optimizer_aware:
        checkpoint_of(subject.model, found)
    return config, found


def planted(task: Task, config: AuditConfig, guess: Guess, kept: Drawn | None = None) -> tuple[Task, Flags]:
    """The task with the errors that the configuration plants, and which rows those are, [n]; the same every time.

    ``guess`` is asked as :meth:`Task.plant` says, unless these errors were ``kept``.
    """
    if kept is not None:
        return planted_again(task, kept.planted)
    kind = planted_kind(task, config)
    task, flags = task.plant(config.plant, kind, np.random.default_rng(config.seed), guess)
    if config.plant and (flags.all() or not flags.any()):
        raise ConfigError(f"--plant {config.plant}: that is {flags.sum()} of {len(flags)} rows; change some, not all.")
    return task, flags
