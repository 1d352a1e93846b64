"""What a person waits for: how long a first look reads, and how often a CPU passes over the rows, where nobody says.

Counted in multiplications and additions, not in seconds, so that the same audit is the same on every machine.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from thresher.calibration.canaries import AUTO
from thresher.config import AuditConfig
from thresher.data.encode import EncodedRows
from thresher.data.parts import Part
from thresher.errors import ConfigError
from thresher.model.load import LoadedModel

LOOK_CPU, LOOK_GPU = 2.5e12, 2.5e14
"""Of the model in a first look: about half a minute of two cores; what the probe learns comes to it."""

TRAININGS_CPU = 2.4e14
"""Of all trainings of an audit: about three quarters of an hour of two cores."""

FEWEST_TOKENS, FEWEST_EPOCHS = 16, 3


def refuse_no_look(config: AuditConfig, subject: LoadedModel) -> None:
    """Raise :class:`ConfigError` where ``--quick`` has nothing to look at, or more is asked for than it can tell."""
    if len(subject.classes) < 2:
        raise ConfigError("--quick looks at rows with classes; leave it out for --task generate.")
    if subject.kind != "lora":
        raise ConfigError("--quick: this model is fine-tuned already, so an audit of it trains nothing; leave it out.")
    if config.detector != AUTO or config.retrain:
        raise ConfigError("--quick chooses what ranks rows, and trains nothing; leave out --detector and --retrain.")


def first_tokens(encoded: Mapping[Part, EncodedRows], subject: LoadedModel) -> int:
    """How many tokens of each row a first look reads."""
    work = 2.0 * subject.weights_a_token
    budget = LOOK_GPU if subject.device.type == "cuda" else LOOK_CPU
    lengths = np.concatenate([encoded[part].lengths for part in ("train", "query")])
    limits = range(FEWEST_TOKENS, int(lengths.max()) + 1)
    fits = [limit for limit in limits if np.minimum(lengths, limit).sum() * work <= budget]
    return max(fits, default=FEWEST_TOKENS)


PATIENCE = 3
"""Epochs that brought nothing, after which a training ends: of 65 trainings none lost by it (docs/recipe.md)."""


def affordable(config: AuditConfig, subject: LoadedModel, train: EncodedRows) -> AuditConfig:
    """With the patience that it has by default, and with fewer epochs where a CPU would take hours for the default
    number; a number of epochs that the user gives is taken as it is."""
    given = "epochs" in config.model_fields_set
    if config.patience is None:
        config = config.model_copy(update={"patience": 0 if given else PATIENCE})
    if given or subject.kind != "lora" or subject.device.type != "cpu":
        return config
    trainings = (config.learning_rate is None) + (config.rounds if config.detector == AUTO else 1)
    # Forward two, backward two for states, and about one for what is trained.
    epoch = 5.0 * subject.weights_a_token * float(train.lengths.sum()) * trainings
    fits = max(FEWEST_EPOCHS, int(TRAININGS_CPU / epoch))
    return config.model_copy(update={"epochs": min(config.epochs, fits)})
