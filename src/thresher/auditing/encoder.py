"""A second encoder, ``--features``: never trained, it only says what rows are like, beside the audited model."""

from __future__ import annotations

from dataclasses import dataclass

from thresher.auditing.budget import first_tokens
from thresher.config import AuditConfig
from thresher.data.parts import Part
from thresher.data.table import Table
from thresher.errors import ConfigError, ModelError
from thresher.model.load import LoadedModel, most_tokens
from thresher.model.tokenizer import refuse_unfit_tokens
from thresher.tasks.base import Task


@dataclass(frozen=True)
class Encoder:
    """A model as it came, and how many tokens of a row it reads at most."""

    subject: LoadedModel
    tokens: int


def load_encoder(task: Task, config: AuditConfig, tables: dict[Part, Table]) -> Encoder | None:
    """The second encoder; None where none is named. Raises where it cannot be loaded, or read these rows."""
    if config.features is None:
        return None
    if config.task != "classify":
        raise ConfigError("--features: a second encoder tells rows with classes apart; leave it out for generating.")
    as_it_came = {"model": config.features, "adapter": None, "finetune": True, "quantize": None}
    try:
        subject = task.load(config.model_copy(update=as_it_came), config.seed)
    except ModelError as error:
        raise ModelError(f"--features: {error}") from None
    longest = most_tokens(subject.model, subject.tokenizer, config.max_length)
    rows = task.encode(subject, longest).rows
    for part in rows:
        refuse_unfit_tokens(subject.model, subject.tokenizer, rows[part], tables[part].where)
    if config.quick:
        longest = min(longest, first_tokens(rows, subject))
    return Encoder(subject, min(longest, max(int(rows[part].lengths.max()) for part in ("train", "query"))))
