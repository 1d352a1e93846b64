"""The parts of summary.json.

Larger scores are helpful, lower ones detrimental; shares are of 1, losses in nats, places counted from 0.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class Entry(BaseModel):
    """A part of the summary: frozen, and read from an object that has its fields, such as a dataclass."""

    model_config = ConfigDict(frozen=True, extra="forbid", from_attributes=True, use_attribute_docstrings=True)


class ClassRight(Entry):
    """Clean queries of one class."""

    name: str
    right: int
    """Of them, those that are predicted right."""
    queries: int


class Confused(Entry):
    """Clean queries of one class that are predicted as another."""

    name: str
    predicted: str
    queries: int


class KnowledgeOfClasses(Entry):
    """What a classifier gets right of the clean queries; after a first look, a probe on the model as it came."""

    learned: bool
    """Better than the most frequent class by more than chance, and not behind the probe by more than chance."""
    only_probe_knows: bool
    """The model has not learned the task and the probe has."""
    doubt: str | None
    """What to tell the user where the model has not learned the task."""
    queries: int
    right: int
    most_frequent: int
    """Queries that always answering their most frequent class gets right."""
    probe: int | None
    """Queries that a logistic regression on the features of the model as it came gets right."""
    better_than_one_class: bool
    behind_probe: bool
    probe_learned: bool
    classes: tuple[ClassRight, ...]
    confused: tuple[Confused, ...]
    """Pairs of classes, the most frequent first."""


class AnswerLoss(Entry):
    """What a model thinks of the clean answers."""

    query_loss: float
    """Mean over queries of their loss, in nats."""
    token_loss: float
    """Mean over all tokens of answers, in nats."""
    perplexity: float
    """exp of ``token_loss``."""
    first_choice: float
    """Mean over queries of the share of the answer's tokens that are the model's first choice."""


class KnowledgeOfAnswers(Entry):
    """What a model that generates knows of the clean queries' answers."""

    learned: bool | None
    """Answers became likelier by more than chance; null where there is nothing to compare with."""
    doubt: str | None
    """What to tell the user where the model has not learned the task."""
    queries: int
    now: AnswerLoss
    before: AnswerLoss | None
    """Of the model as it came, or without its adapter; null of a model that was fine-tuned whole elsewhere."""
    likelier: int
    """Answers that are likelier now than before."""
    less_likely: int
    trained_here: bool


class Share(Entry):
    """A share of the rows, with its 95 % interval."""

    estimate: float
    low: float
    high: float


class Annotator(Share):
    """Who labelled rows: the share of them that is wrong, drawn to everybody's where there are few."""

    name: str
    rows: int
    """Those that have a text, and so a label that can be wrong."""


class ErrorRate(Share):
    """The share of the rows that is wrong, by all that tells it."""

    canaries: Share
    """As canaries alone tell it."""
    queries: Share | None
    """As clean queries alone tell it."""
    plausible: bool | None
    """Whether the two intervals overlap; null where there is one."""
    alike: float | None
    """Share of the rows that the clean queries tell of."""


class ErrorPair(Entry):
    """Rows of one label that look like another class."""

    label: str
    likely: str
    rows: int
    """Rows with the label."""
    alike: int
    """Of them those that look like ``likely``: to what clean queries tell, it is likelier than the label."""
    wrong: float
    """How many of them are expected to be of the class ``likely``."""


class ErrorKind(Entry):
    """Of what kind errors are."""

    patterned: float
    """Probability that they follow a pattern."""
    pairs: tuple[ErrorPair, ...]


class ByChoice(Entry):
    """A number of the best single score and of the combination of scores."""

    single: float
    combination: float


class Reliable(Entry):
    """Rows that are said to be wrong with about the same probability, and how many are, as canaries tell it."""

    above: float
    up_to: float
    """The probabilities of these rows lie from ``above`` to ``up_to``."""
    probability: float
    """Their mean."""
    rows: int
    """Looks at rows as they were given: each training, or round of a first look, is one."""
    canaries: int
    """Canaries beside them that were given such a probability by what was not fitted to them."""
    wrong: float
    """The share of the rows that is wrong, by how many canaries lie there."""
    low: float
    high: float
    """Its 95 % interval."""


class Calibration(Entry):
    """What canaries told: the scores that they chose, and how sure that makes the ranking."""

    canaries: tuple[int, ...]
    """Rows of each training that were given a wrong label or answer."""
    canary_kind: str
    learned: bool
    """Whether the model was trained on them; if not, they were copies beside the rows."""
    combined: bool
    """Whether a combination ranks the rows, and not the best single score."""
    members: dict[str, tuple[str, ...]]
    """Scores of each family in the combination."""
    weights: dict[str, float]
    """Weight of each family in the combination."""
    strength_of_prior: float
    best_single: str
    canaries_auroc: ByChoice
    """AUROC of canaries against other rows, chosen without the rows that judge it."""
    canaries_auroc_error: ByChoice
    """Its standard error."""
    error_rate: ErrorRate
    kind: ErrorKind | None
    """Of rows with classes."""
    text_problems: dict[str, int]
    """Rows with a spoiled text, by what is wrong with it."""
    more_likely_wrong: int
    """Rows that are more likely wrong than right."""
    reliability: tuple[Reliable, ...] = ()
    """Whether probabilities are what they say, from the least to the most likely wrong rows."""


class Row(Entry):
    """A row. Beside the fields named here it has what its task says: ``text`` and ``label``, or ``prompt`` and
    ``completion``, and of a training row what the model says of it."""

    model_config = ConfigDict(extra="allow")

    @property
    def about(self) -> dict[str, Any]:
        """All that is said of it, by name."""
        return self.model_dump()


class Query(Row):
    """A clean query, by its place in the file."""

    query: int


class SpoiledText(Row):
    """A training row without a text that can be learned from."""

    row: int
    text_problem: str


class SuspiciousRow(Row):
    """One of the most detrimental training rows, by its place in the file."""

    row: int
    score: float
    """Of the ranking; larger = helpful."""
    planted: bool | None = None
    probability_wrong: float | None = None
    q_value: float | None = None
    """Expected share of right rows among this one and those ranked before it."""
    text_problem: str | None = None
    annotator: str | None = None
    """Who labelled it."""
    copy_of: int | None = None
    """The first row of the near copies that it is one of; its own number where it has none."""
    contradicted: str = ""
    """Whether a near copy has another label, or answer: "row", "query" where it is a clean one, "" where none has."""
    suggested: str | None = None
    """Another label, where it is more likely right than not."""
    suggestion_confidence: float | None = None
    hurts: tuple[Query, ...] = ()
    """The queries that it hurts most."""
    contradicted_by: tuple[Query, ...] = ()
    """Of the queries most like it some that have another label, the most alike first."""


class Epoch(Entry):
    """An epoch of the first training."""

    train_loss: float
    """Mean while training, in nats."""
    query_loss: float
    """Mean over the queries after it, in nats."""
    query_right: float | None = None
    """Share of the queries that are then predicted right; null where rows have no class."""


class Trial(Entry):
    """A short training that tried a learning rate."""

    rate: float
    share: float
    """Of the steps of a whole training."""
    query_loss: float | None
    """The lowest mean loss on the queries; null where it diverged."""


class Training(Entry):
    """The first training."""

    epochs: tuple[Epoch, ...]
    chosen_epoch: int
    """The epoch whose weights are kept, counted from 1."""
    learning_rate: float
    """The highest of the schedule."""
    trials: tuple[Trial, ...] = ()
    """How the learning rate was found, where none was given."""


class Detected(Entry):
    """What a score finds of the planted errors; larger = more is found."""

    score: str
    ndr30: float
    """Share of the planted errors among the 30 % of rows with the lowest scores."""
    auc_ndr: float
    auroc: float
    average_precision: float
    precision50: float


class GroupCancellation(Entry):
    """How much the training rows' gradients cancel in a group of layers: 1 = not at all; null where not finite."""

    group: str
    cancellation: float | None
    median: float | None
    """Of the group's weights, as ``min`` and ``max``."""
    min: float | None
    max: float | None
    weights: int
    untouched: int
    """Weights that no row has a gradient for."""
    infinite: int
    """Weights whose gradients cancel wholly."""


class Measured(Entry):
    """A measure of the test rows after a training."""

    value: float
    margin_95: float | None = None
    """Half the width of its 95 % interval for that many test rows, where there is one."""
