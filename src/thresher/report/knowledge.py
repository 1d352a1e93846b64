"""How well the model knows the task, as the console says it."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.styled import Styled

from thresher.summary import AnswerLoss, ClassRight, KnowledgeOfAnswers, KnowledgeOfClasses, Summary

SHOWN_CLASSES, SHOWN_PAIRS = 8, 3


def show_knowledge(known: KnowledgeOfClasses | KnowledgeOfAnswers, summary: Summary) -> RenderableType:
    """:func:`knowledge_lines`, and any doubt that the model has learned the task."""
    doubt = [Styled(known.doubt, "bold")] if known.doubt else []
    return Group(Styled("What the model knows", "italic"), *knowledge_lines(known, summary), *doubt)


def knowledge_lines(known: KnowledgeOfClasses | KnowledgeOfAnswers, summary: Summary, who: str = "It") -> list[str]:
    """What the clean queries say of the model, which is called ``who``, beside who knows less."""
    rate = "" if summary.training is None else f" after training at a rate of {summary.training.learning_rate:g}"
    if isinstance(known, KnowledgeOfClasses):
        looked = "A probe on the features of the model as it came" if summary.config.quick else who
        return _of_classes(known, looked, rate)
    return _of_answers(known, who.lower(), rate)


def _of_classes(known: KnowledgeOfClasses, who: str, rate: str) -> list[str]:
    """Clean queries right, beside the most frequent class and the probe; by class; what is confused."""
    others = [f"the most frequent class alone would get {known.most_frequent}"]
    if known.probe is not None:
        others.append(f"a probe on the features of the model as it came {known.probe}")
    lines = [
        f"{who} gets {known.right} of {known.queries} clean queries right{rate}; {', '.join(others)}.",
        f"By class: {_by_class(known.classes)}.",
    ]
    if known.confused:
        pairs = [f"{one.name} as {one.predicted} ({one.queries})" for one in known.confused[:SHOWN_PAIRS]]
        lines.append(f"Most confused: {', '.join(pairs)}.")
    return lines


def _of_answers(known: KnowledgeOfAnswers, name: str, rate: str) -> list[str]:
    """Loss on the clean answers, beside that before training; how many became likelier."""
    lines = [f"Of {known.queries} clean answers {name} has a loss of {_losses(known.now)}{rate}."]
    if known.before is not None:
        who, what = ("As it came", "training") if known.trained_here else ("Without its adapter", "the adapter")
        moved = f"{what} made {known.likelier} answers likelier and {known.less_likely} less likely"
        lines.append(f"{who} it had one of {_losses(known.before)}; {moved}.")
    return lines


def _losses(found: AnswerLoss) -> str:
    a_token = f"{found.token_loss:.3f} a token (perplexity {found.perplexity:.2f})"
    choice = f"{found.first_choice:.0%} of an answer's tokens its first choice"
    return f"{a_token} and {found.query_loss:.3f} a query, with {choice}"


def _by_class(classes: Sequence[ClassRight]) -> str:
    """The classes with the smallest share right, if there are too many."""
    worst = sorted(classes, key=lambda one: one.right / one.queries)[:SHOWN_CLASSES]
    shown = [one for one in classes if one in worst]
    more = f", and {len(classes) - len(shown)} that it knows better" if len(classes) > len(shown) else ""
    return ", ".join(f"{one.name} {one.right} of {one.queries}" for one in shown) + more
