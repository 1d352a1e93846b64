"""Results of studies that never ran, with the shapes and trends of ones that did."""

from __future__ import annotations

import itertools
from typing import Any, Literal

import numpy as np
import pandas as pd

from thresher.evaluate.detection import measure_detection
from thresher_study.results import Results

GROUPS = ("WE", "1", "2", "3", "4", "CL", "layers", "all")
HOWS = (("mean", None), ("rank", None), ("vote", 0.3))
GOOD = {"WE": 0.1, "1": 0.5, "2": 0.8, "3": 0.7, "4": 0.5, "CL": 0.0, "layers": 0.7, "all": 0.6}
ADDED = {"mean": 0.0, "rank": 0.1, "vote": 0.4}


def configurations() -> list[dict[str, Any]]:
    """Scores of three influences over every group and two of the word embedding, by three aggregations."""
    pairs = [*itertools.product(("datainf", "tracin", "cosine"), GROUPS), ("tracin_we", "WE"), ("tracin_we_topk", "WE")]
    return [
        {"score": f"{influence}/{group}/{how}" + (f"@{k:g}" if k else ""), "influence": influence}
        | {"group": group, "aggregation": how, "k": k}
        for influence, group in pairs
        for how, k in HOWS
    ]


def studied(
    models: tuple[str, ...] = ("tiny",),
    tasks: tuple[str, ...] = ("sst2",),
    seeds: int = 3,
    retrained: Literal["all", "best", "none"] = "all",
    layers: int = 4,
    rows: int = 60,
) -> Results:
    """What a study of that size would hand on; ``rows`` a run, a fifth of them planted."""
    runs = [{"model": m, "task": t, "seed": s} for m, t, s in itertools.product(models, tasks, range(seeds))]
    scores = {tuple(run.values()): _scores(number, rows) for number, run in enumerate(runs)}
    detection = pd.DataFrame([line for run in runs for line in _detection(run, scores[tuple(run.values())])])
    return Results(
        detection=detection,
        accuracy=_accuracy(detection, runs, retrained),
        cancellation=pd.DataFrame([run | line for number, run in enumerate(runs) for line in _cancelled(number)]),
        modules=pd.DataFrame([run | line for number, run in enumerate(runs) for line in _modules(number, layers)]),
        moves=pd.DataFrame([run | line for number, run in enumerate(runs) for line in _moves(number, layers, rows)]),
        scores=lambda *run: scores[run],
        model_names=models,
        task_names=tasks,
    )


def _scores(number: int, rows: int) -> pd.DataFrame:
    rng = np.random.default_rng(number)
    planted = rng.permutation(rows) < rows // 5
    task = 0.3 + 0.7 * ((number // 3) % 4)  # how easy errors are to find there
    shared = rng.normal(size=rows)
    columns: dict[str, Any] = {"row": np.arange(rows), "planted": planted, "label": "a"}
    for one in configurations():
        own, common = rng.normal(size=rows), 0.8 * shared + rng.normal(size=rows) * 0.4
        signal = task * (GOOD[one["group"]] + ADDED[one["aggregation"]])
        columns[one["score"]] = 0.6 * own + common - 2 * signal * planted
    columns["detector/loss"] = rng.normal(size=rows) - 1.5 * task * planted
    return pd.DataFrame(columns)


def _detection(run: dict[str, Any], scores: pd.DataFrame) -> list[dict[str, Any]]:
    nothing = {"influence": None, "group": None, "aggregation": None, "k": None}
    ones = [*configurations(), {"score": "detector/loss"} | nothing]
    return [run | one | measure_detection(scores[one["score"]], scores["planted"]) for one in ones]


def _accuracy(detection: pd.DataFrame, runs: list[dict[str, Any]], retrained: str) -> pd.DataFrame:
    columns = [*runs[0], "score", "influence", "group", "aggregation", "k"]
    if retrained == "none":
        return pd.DataFrame(columns=[*columns, "accuracy", "margin_95", "best_epoch_accuracy"])
    kept = ["datainf/layers/vote@0.3", "detector/loss"] if retrained == "best" else list(set(detection["score"]))
    found = detection[detection["score"].isin(kept)][[*columns, "ndr30"]].copy()
    rng = np.random.default_rng(7)
    found["accuracy"] = (0.72 + 0.15 * found.pop("ndr30") + rng.normal(0, 0.01, len(found))).round(3)
    levels = {"all_rows": 0.78, "errors_removed": 0.88, "random": 0.77}
    others = [
        run | {"score": score, "accuracy": level + rng.normal(0, 0.005)}
        for run in runs
        for score, level in levels.items()
    ]
    whole = pd.concat([found, pd.DataFrame(others)], ignore_index=True)
    return whole.assign(margin_95=0.03, best_epoch_accuracy=whole["accuracy"] + 0.01)


def _cancelled(number: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(number)
    levels = (2.5, 8.0, 9.0, 8.5, 6.0, 4.0, 8.0, 5.0)
    return [
        {"group": group, "cancellation": level + rng.normal(0, 0.5), "median": 3 * level, "min": 1.0, "max": np.inf}
        for group, level in zip(GROUPS, levels, strict=True)
    ]


def _modules(number: int, layers: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(number)
    modules: list[dict[str, Any]] = [
        {
            "module": f"{layer}.{p}.{f}",
            "layer": layer,
            "projection": p,
            "factor": f,
            "group": str(1 + 4 * layer // layers),
        }
        for layer in range(layers)
        for p, f in itertools.product(("query", "value"), "AB")
    ]
    outside = {"layer": -1, "projection": "", "factor": ""}
    modules += [{"module": "embedding", "group": "WE"} | outside, {"module": "head", "group": "CL"} | outside]
    hows = [("mean", None), ("rank", None), *(("vote", k / 10) for k in range(1, 11))]
    found: list[dict[str, Any]] = []
    for influence, module, (how, k) in itertools.product(("datainf", "tracin", "cosine"), modules, hows):
        middle = 0.15 * np.sin(np.pi * (module["layer"] + 1) / (layers + 1))
        best = 0.1 * (module["projection"] == "value") + 0.05 * (module["factor"] == "B")
        share = 0.1 * ADDED[how] - (0.2 * (k - 0.4) ** 2 if k else 0)
        ndr = 0.4 + middle + best + share + rng.normal(0, 0.03)
        found.append(module | {"influence": influence, "aggregation": how, "k": k, "ndr30": round(ndr, 3)})
    return found


def _moves(number: int, layers: int, rows: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(number)
    planted = np.arange(rows) < rows // 5
    found: list[dict[str, Any]] = []
    for influence in ("datainf", "tracin", "cosine"):
        own = rng.normal(size=rows)
        for place, layer in enumerate(["WE", *map(str, range(layers)), "CL"]):
            drift = np.sin(np.pi * place / (layers + 1))
            score = own + 0.5 * rng.normal(size=rows) - 1.6 * drift * planted
            ranks = score.argsort().argsort()
            found += [
                {"influence": influence, "row": row, "planted": bool(planted[row]), "layer": layer}
                | {"rank": int(ranks[row]), "rows": rows}
                for row in range(rows)
            ]
    return found
