"""What to tell the user where a model has not learned the task: in plain words, with what to do."""

from __future__ import annotations

from thresher.evaluate.knowledge import Knowledge
from thresher.evaluate.likelihood import AnswerKnowledge

ADVICE = "Try another --learning-rate, more --epochs, more rows, or a larger model."
FEWEST = 5
"""Queries that a sign test needs: all of four on one side may still be chance."""


def doubt_of(known: Knowledge | AnswerKnowledge, *, trained: bool = True, chosen: bool = True) -> str | None:
    """The doubt in a sentence or two; None where the model has learned the task, or there is nothing to tell it by.

    Of a first look, for which nothing was ``trained``, it is said of the probe on features of the model as it came.
    ``chosen`` says that what ranks the rows was chosen here, and not named by the user.
    """
    if isinstance(known, AnswerKnowledge):
        return _doubt_of_answers(known)
    if known.learned:
        return None
    return _doubt_of_classes(known, chosen=chosen) if trained else _doubt_of_look(known)


def _doubt_of_look(known: Knowledge) -> str:
    return (
        f"A probe on the features of the model as it came gets {known.right} of {known.queries} clean queries "
        f"right, and always answering the most frequent class {known.most_frequent}: this look tells little. A "
        "whole audit, without --quick, trains the model first."
    )


def _doubt_of_classes(known: Knowledge, *, chosen: bool) -> str:
    right = f"The model gets {known.right} of {known.queries} clean queries right"
    if known.better_than_one_class:
        told = (
            f"{right}, a probe on the features of the model as it came {known.probe}: training taught it less than that"
        )
    else:
        told = (
            f"{right}, and always answering the most frequent class {known.most_frequent}: it has not learned the task"
        )
    if not known.only_probe_knows:
        return f"{told}, and what is said of rows is little better than a guess. {ADVICE}"
    if chosen:
        return f"{told}, so rows are ranked by what knows more of it, probe and neighbours on frozen features. {ADVICE}"
    return f"{told}; --detector auto would rank rows by what knows more of it, or name probe_frozen. {ADVICE}"


def _doubt_of_answers(known: AnswerKnowledge) -> str | None:
    if known.before is None or known.learned:
        return None
    other, then = "its base alone", "without the adapter"
    if known.trained_here:
        other, then = "the model as it came", "before"
    told = (
        f"The model finds {known.likelier} of {known.queries} clean answers likelier, and {known.less_likely} less "
        f"likely, than {other} does (loss a token {known.now.token_loss:.4g}, {then} {known.before.token_loss:.4g}): "
    )
    if known.queries < FEWEST:
        return f"{told}with fewer than {FEWEST} queries that may be chance. Give more clean rows as --validation."
    told += "it has not learned what the clean rows ask for, and what is said of rows is little better than a guess."
    if known.trained_here:
        return f"{told} {ADVICE}"
    return f"{told} See whether the clean rows are of the task that the adapter was trained for, or train it longer."
