"""Does a model that generates know the task? How likely it finds the clean answers, beside the model before training.

Compared query by query, by a one-sided sign test on those whose answer became likelier or less likely: the mean of the
losses may be moved by a few answers, and a training that taught nothing moves as many up as down.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from thresher.arrays import Floats
from thresher.config import RowLoss
from thresher.data.encode import IGNORED
from thresher.evaluate.knowledge import sign_test
from thresher.model.predict import Predictions

SAME = 1e-4
"""Losses that differ by a smaller share are one loss, rounded in another way."""


@dataclass(frozen=True)
class AnswerLoss:
    """What a model thinks of the clean answers.

    ``query_loss`` is the mean over queries of their loss, ``token_loss`` the mean over all answer tokens and
    ``perplexity`` its exponential; ``first_choice`` the mean share of an answer's tokens that are the first choice.
    """

    query_loss: float
    token_loss: float
    perplexity: float
    first_choice: float


@dataclass(frozen=True)
class AnswerKnowledge:
    """What a model that generates knows of the answers to the clean ``queries``, ``before`` training and ``now``.

    ``before`` is of the model as it came where it was trained here, of the model without its adapter where that was
    trained elsewhere, and None where there is neither. ``likelier`` and ``less_likely`` count the answers that are so
    now; ``trained_here`` says whose training it was.
    """

    queries: int
    now: AnswerLoss
    before: AnswerLoss | None
    likelier: int
    less_likely: int
    trained_here: bool

    @property
    def learned(self) -> bool | None:
        """Whether the answers became likelier by more than chance; None where there is nothing to compare with."""
        return None if self.before is None else sign_test(self.likelier, self.less_likely)


def measure_answers(
    now: Predictions,
    before: Predictions | None,
    labels: Sequence[Tensor],
    row_loss: RowLoss,
    *,
    trained_here: bool,
) -> AnswerKnowledge:
    """Compare what is said of the queries ``now`` with what was said of them ``before``.

    ``labels`` are one a token of each query, and ``row_loss`` how a query's loss is made of its tokens'.
    """
    tokens = answer_tokens(labels)
    fallen = np.zeros(len(tokens)) if before is None else _losses(before) - _losses(now)
    moved = np.zeros(len(tokens), bool) if before is None else np.abs(fallen) > SAME * _losses(before)
    return AnswerKnowledge(
        queries=len(tokens),
        now=_answer_loss(now, tokens, row_loss),
        before=None if before is None else _answer_loss(before, tokens, row_loss),
        likelier=int((moved & (fallen > 0)).sum()),
        less_likely=int((moved & (fallen < 0)).sum()),
        trained_here=trained_here,
    )


def answer_tokens(labels: Sequence[Tensor]) -> Floats:
    """How many tokens of each row are learned, [n]."""
    return np.array([int((label != IGNORED).sum()) for label in labels], dtype=np.float64)


def summed_losses(said: Predictions, tokens: Floats, row_loss: RowLoss) -> Floats:
    """The sum of each row's losses over its ``tokens`` [n], [n]."""
    return _losses(said) * (tokens if row_loss == "mean" else 1.0)


def _answer_loss(said: Predictions, tokens: Floats, row_loss: RowLoss) -> AnswerLoss:
    token_loss = float(summed_losses(said, tokens, row_loss).sum() / tokens.sum())
    first_choice = float(said.outputs[:, 0].double().mean())
    return AnswerLoss(said.mean_loss, token_loss, float(np.exp(token_loss)), first_choice)


def _losses(said: Predictions) -> npt.NDArray[np.float64]:
    return said.losses.double().numpy()
