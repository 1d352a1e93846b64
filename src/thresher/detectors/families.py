"""Which scores speak of the same thing: a combination hears each family once, by the mean of its best members.

A family's prior weight comes from none of the user's rows.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """Scores of one kind.

    Attributes:
        name: Of the family, and what its members are counted under.
        prior: The weight of their mean before any canary is seen.
        most: How many of them are averaged.
    """

    name: str
    prior: float
    most: int = 1


INFLUENCES = Family("influence", 0.2, 5)
TRAINING = Family("training", 0.25, 2)
PROBE = Family("probe", 0.2)
FROZEN_NEIGHBOURS = Family("frozen neighbours", 0.1)
TUNED_NEIGHBOURS = Family("tuned neighbours", 0.1)
FROZEN_LAW = Family("frozen law", 0.8)
TUNED_LAW = Family("tuned law", 0.3)
SECOND_PROBE = Family("second probe", 0.1)
SECOND_NEIGHBOURS = Family("second neighbours", 0.05)
SECOND_LAW = Family("second law", 0.4)
"""Of a second encoder, each counting half of what the model as it came does: it says much of the same again."""

OWN = Family("own scores", 0.2, 2)
"""Scores of the user's own making, of which nothing is known."""

ORDER = (INFLUENCES, TRAINING, PROBE, FROZEN_NEIGHBOURS, TUNED_NEIGHBOURS, FROZEN_LAW, TUNED_LAW, OWN)
"""In which families are counted; those of a second encoder, and of detectors from elsewhere, follow."""
