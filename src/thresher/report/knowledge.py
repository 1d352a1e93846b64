"""How well the model knows the task, as the console says it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.styled import Styled

SHOWN_CLASSES, SHOWN_PAIRS = 8, 3


def knowledge_lines(summary: Mapping[str, Any]) -> RenderableType:
    """Clean queries right, beside the most frequent class and the probe; by class; what is confused; any doubt."""
    known = summary["knowledge"]
    queries = known["queries"]
    others = [f"the most frequent class alone would get {known['most_frequent']}"]
    if known["probe"] is not None:
        others.append(f"a probe on the features of the model as it came {known['probe']}")
    rate = f" after training at a rate of {summary['training']['learning_rate']:g}" if "training" in summary else ""
    lines: list[RenderableType] = [
        Styled("What the model knows", "italic"),
        f"{_who(summary)} gets {known['right']} of {queries} clean queries right{rate}; {', '.join(others)}.",
        f"By class: {_by_class(known['classes'])}.",
    ]
    if known["confused"]:
        pairs = [f"{one['name']} as {one['predicted']} ({one['queries']})" for one in known["confused"][:SHOWN_PAIRS]]
        lines.append(f"Most confused: {', '.join(pairs)}.")
    if known["doubt"]:
        lines.append(Styled(known["doubt"], "bold"))
    return Group(*lines)


def only_looked(summary: Mapping[str, Any]) -> bool:
    """Whether it was a first look, for which nothing was trained; older runs do not tell, and were none."""
    return summary.get("config", {}).get("quick", False)


def _who(summary: Mapping[str, Any]) -> str:
    return "A probe on the features of the model as it came" if only_looked(summary) else "It"


def _by_class(classes: list[Mapping[str, Any]]) -> str:
    """The classes with the smallest share right, if there are too many."""
    worst = sorted(classes, key=lambda one: one["right"] / one["queries"])[:SHOWN_CLASSES]
    shown = [one for one in classes if one in worst]
    more = f", and {len(classes) - len(shown)} that it knows better" if len(classes) > len(shown) else ""
    return ", ".join(f"{one['name']} {one['right']} of {one['queries']}" for one in shown) + more
