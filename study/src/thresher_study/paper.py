"""What the paper published (method.md 8), to lay beside what a study finds: the trend is to be compared, not digits."""

from __future__ import annotations

import re

from thresher_study.grid import DISJOINT

NOTE = "'paper': its value for the same model, or else the range over its models."

# The name that a model must contain, letters and digits only.
MODELS = {
    "robertalarge": "RoBERTa-large",
    "llama321b": "Llama-3.2-1B",
    "qwen2515b": "Qwen-2.5-1.5B",
    "mistral7b": "Mistral-7B",
}

# T2, Mean: "front(win rate)" by influence and model, in the order of DISJOINT; "-" where there is none.
_FRONTS = {
    "datainf": {
        "RoBERTa-large": "- - - 4(.29) 4(.30) 2(.40) 1(.55) 3(.36)",
        "Llama-3.2-1B": "- - - 1(.53) 1(.58) 2(.42) 3(.23) 4(.18)",
        "Qwen-2.5-1.5B": "- - - 1(.49) 1(.48) 1(.49) 2(.31) 3(.16)",
        "Mistral-7B": "- - - 2(.53) 1(.60) 2(.39) 3(.20) 3(.20)",
    },
    "tracin": {
        "RoBERTa-large": "1(.49) 2(.48) 1(.54) 3(.50) 5(.40) 4(.44) 6(.36) 7(.17)",
        "Llama-3.2-1B": "1(.56) 2(.52) 3(.44) 2(.54) 1(.54) 4(.38) 5(.22) 6(.17)",
        "Qwen-2.5-1.5B": "2(.49) 1(.51) 3(.40) 2(.42) 1(.57) 2(.48) 4(.30) 5(.22)",
        "Mistral-7B": "1(.58) 2(.50) 2(.50) 1(.61) 2(.48) 3(.29) 4(.20) 4(.20)",
    },
    "cosine": {
        "RoBERTa-large": "- - 2(.41) 3(.35) 2(.40) 1(.56) 1(.54) 4(.15)",
        "Llama-3.2-1B": "- - 3(.42) 1(.53) 1(.53) 2(.45) 4(.28) 5(.15)",
        "Qwen-2.5-1.5B": "- - 3(.19) 2(.45) 1(.60) 1(.61) 2(.40) 3(.18)",
        "Mistral-7B": "- - 1(.58) 1(.60) 2(.55) 3(.37) 4(.23) 5(.09)",
    },
}
# T1: cancellation of WE, the quarters and CL; there is none for Qwen.
_CANCELLATION = {
    "RoBERTa-large": (2.2, 9.4, 10.5, 9.4, 8.5, 8.5),
    "Llama-3.2-1B": (2.9, 8.4, 5.8, 4.4, 4.0, 3.1),
    "Mistral-7B": (3.5, 17.7, 16.4, 15.6, 15.7, 20.5),
}
# T4: Spearman of NDR@30 with accuracy, lowest and highest over models and influence functions.
_NDR_SPEARMAN = {"mean": (0.4, 0.7), "rank": (0.1, 0.7), "vote": (0.5, 0.9)}
_NDR_SPEARMAN_COSINE_VOTE = (0.2, 0.7)


def same_model(model: str) -> str | None:
    """The paper's name of that model; None where the paper has no such model."""
    letters = re.sub(r"[^a-z0-9]", "", model.lower())
    return next((name for key, name in MODELS.items() if key in letters), None)


def fronts(column: str, place: str) -> dict[str, tuple[int, float]]:
    """Front and win rate by the paper's models, for an influence function's Mean over a layer group."""
    if place not in DISJOINT:
        return {}
    found: dict[str, tuple[int, float]] = {}
    for model, line in _FRONTS.get(column, {}).items():
        if cell := re.fullmatch(r"(\d)\((.+)\)", line.split()[DISJOINT.index(place)]):
            found[model] = int(cell[1]), float(cell[2])
    return found


def cancellation(group: str) -> dict[str, float]:
    """Cancellation of a layer group by the paper's models."""
    groups = ("WE", "1", "2", "3", "4", "CL")
    return {model: line[groups.index(group)] for model, line in _CANCELLATION.items() if group in groups}


def ndr_spearman(column: str, aggregation: str) -> tuple[float, float] | None:
    """Lowest and highest Spearman's correlation of NDR@30 with accuracy, over the paper's models."""
    if (column, aggregation) == ("cosine", "vote"):
        return _NDR_SPEARMAN_COSINE_VOTE
    return _NDR_SPEARMAN.get(aggregation) if column in _FRONTS else None
