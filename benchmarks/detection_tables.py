"""Tables of what ``detection.py`` measured, as CSV files and as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import log_softmax

from detection_rows import FOUR, LEARNED, TEN
from thresher.evaluate.detection import measure_detection
from thresher.files import read_json
from thresher.scores.names import Configuration, DetectorScore, configuration_called, score_called
from thresher.summary import Summary, read_summary
from thresher.tensors import read_tensors
from thresher.terminal import PlainConsole

MEASURES = {"ndr30": "NDR@30", "auroc": "AUROC", "average_precision": "AP", "precision50": "P@50"}
CEILING, HINDSIGHT, SINGLE = "ceiling", "best in hindsight", "best without influence"
SHOWN = {
    "auto": "auto",
    **{name: DetectorScore(name).name for name in ("probe_frozen", "confident", "loss", "loss_mean")},
    "datainf/layers/vote@0.3": Configuration("datainf", "layers", "vote", 0.3).name,
}
"""Titles and names of scores of the audits of which there is only one; the best in hindsight is beside them."""
DRAWS = 2000


def write_tables(output: Path, console: PlainConsole) -> None:
    """detection.csv, accuracy.csv, confidence.csv and tables.md in ``output``, and the last on the console."""
    found = detection(output)
    lines: list[str] = []
    single: Any = ~found["kind"].isin(["flip", "likeliest"]) | found["task"].isin([FOUR, TEN])
    for title, part in _settings(found[~single]):
        lines += [f"### {title}", "", *_by_score(part), "", *_gains(part), ""]
    if single.any():
        lines += ["### NDR@30, one audit each", "", *_by_audit(found[single]), ""]
    retrained, sure = accuracy(output), confidence(output)
    for title, part in _settings(retrained) if len(retrained) else ():
        lines += [f"### accuracy, {title}", "", *_by_rows(part), ""]
    lines += ["### confidence", "", *_texts(_over_seeds(sure)), ""]
    for name, table in {"detection": found, "accuracy": retrained, "confidence": sure}.items():
        table.to_csv(output / f"{name}.csv", index=False)
    (output / "tables.md").write_text("\n".join(lines), encoding="utf-8")
    for line in lines:
        console.print(line, soft_wrap=True)


def _settings(found: Any) -> Iterator[tuple[str, Any]]:
    """Audits of one kind and share of errors; where tasks are among them that are not learned, the learned ones too."""
    for (kind, share), part in found.groupby(["kind", "share"], sort=False):
        title, learned = f"{share:.0%} {kind}", part["task"].isin(LEARNED)
        yield title, part
        if learned.any() and not learned.all():
            yield f"{title}, tasks that are learned", part[learned]


def detection(output: Path) -> pd.DataFrame:
    """One line a finished audit and score, with every measure."""
    lines: list[dict[str, Any]] = []
    for folder, about in _finished(output):
        entries: list[dict[str, Any]] = [one.model_dump() for one in _summary(folder).detection]
        if (ceiling := _ceiling(output, folder, about)) is not None:
            entries.append({"score": CEILING, **ceiling})
        lines += [about | entry for entry in entries]
    return pd.DataFrame(lines)


def accuracy(output: Path) -> pd.DataFrame:
    """One line an audit whose training sets were tried: test accuracy of each, NaN of those that were not.

    Where an audit dropped nothing, that of all rows, if others of its kind dropped.
    """
    found = pd.DataFrame(
        about | {name: judged["accuracy"] for name, judged in read_json(folder / "accuracy.json").items()}
        for folder, about in _finished(output)
        if (folder / "accuracy.json").exists()
    )
    kinds: Any = found.groupby(["kind", "share"], sort=False) if len(found) else ()
    filled = [_filled(part.dropna(axis=1, how="all")) for _, part in kinds]
    return pd.concat(filled, ignore_index=True) if filled else found


def _filled(tried: pd.DataFrame) -> pd.DataFrame:
    return tried.assign(**{name: tried[name].fillna(tried["all_rows"]) for name in tried})


def confidence(output: Path) -> pd.DataFrame:
    """One line an audit: the share of errors as estimated, and how well probabilities are calibrated."""
    lines: list[dict[str, Any]] = []
    for folder, about in _finished(output):
        auto = _summary(folder).auto
        assert auto is not None
        table = pd.read_parquet(folder / "scores.parquet")
        wrong, planted = table["probability_wrong"].to_numpy(), table["planted"].to_numpy()
        rate, sure = auto.error_rate, wrong > 0.5
        true = {"errors": planted.mean(), "covered": float(rate.low <= planted.mean() <= rate.high)}
        estimated = {"estimate": rate.estimate, "low": rate.low, "high": rate.high}
        calibrated = {
            "Brier": np.mean((wrong - planted) ** 2),
            "Brier of a constant": planted.mean() * (1 - planted.mean()),
            "to drop": sure.sum(),
            "of them wrong": planted[sure].sum(),
            "said to be wrong": wrong[sure].sum(),
        }
        lines.append(about | true | estimated | calibrated)
    return pd.DataFrame(lines)


def _over_seeds(sure: pd.DataFrame) -> pd.DataFrame:
    """Means over the audits of a task and kind of error; of the rows to drop, all of them together."""
    audits: Any = sure.groupby(["kind", "share", "task"], sort=False)
    found = audits.mean().drop(columns="seed").assign(audits=audits.size(), covered=audits["covered"].sum())
    for count in ("of them wrong", "said to be wrong"):
        found[count] /= found["to drop"]
    return found.reset_index()


def _finished(output: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Folders of finished audits, with task, kind, share and seed."""
    found: list[tuple[Path, dict[str, Any]]] = []
    for file in sorted(output.glob("*/summary.json")):
        config = _summary(file.parent).config
        task = file.parent.name.partition("-")[0]
        about = {"task": task, "kind": config.plant_kind, "share": config.plant, "seed": config.seed}
        found.append((file.parent, about))
    return sorted(found, key=lambda entry: (entry[1]["kind"], -entry[1]["share"]))


def _summary(folder: Path) -> Summary:
    return read_summary(folder / "summary.json")


def _ceiling(output: Path, folder: Path, about: dict[str, Any]) -> dict[str, float] | None:
    file = output / "ceiling" / f"{about['task']}-{about['seed']}.safetensors"
    if not file.exists():
        return None
    table = pd.read_parquet(folder / "scores.parquet", columns=["label", "planted"])
    numbers = table["label"].map(_summary(folder).classes.__getitem__).to_numpy()
    outputs = read_tensors(file)[0]["outputs"].numpy()
    scores = log_softmax(outputs, axis=1)[np.arange(len(numbers)), numbers]
    return measure_detection(scores, table["planted"].to_numpy())


def _by_score(part: pd.DataFrame) -> list[str]:
    """NDR@30 of every score by task, the mean over tasks with its interval, and the means of the other measures."""
    tasks = list(dict.fromkeys(part["task"]))
    lines = []
    for name in _shown(part):
        runs = _runs(part, name)
        means = runs.groupby("task")["ndr30"].mean()
        low, high = _interval(runs, "ndr30")
        line = {"score": name} | {task: means.get(task, np.nan) for task in tasks}
        line |= {"mean": means.mean(), "95 %": f"{low:.3f} to {high:.3f}"}
        line |= {title: runs.groupby("task")[key].mean().mean() for key, title in MEASURES.items() if key != "ndr30"}
        lines.append(line)
    table = pd.DataFrame(lines).sort_values("mean", ascending=False, kind="stable")
    return _texts(table)


def _by_audit(part: Any) -> list[str]:
    """NDR@30 of some scores, and of the one that is best in hindsight, one line an audit."""
    lines: list[dict[str, Any]] = []
    audits: Any = part.groupby(["task", "kind"], sort=False)
    for (task, kind), audit in audits:
        found, best = audit.set_index("score")["ndr30"], _runs(audit, HINDSIGHT).iloc[0]
        shown = {title: found.get(name, np.nan) for title, name in SHOWN.items()}
        lines.append({"task": task, "errors": kind} | shown | {HINDSIGHT: f"{best['ndr30']:.3f} ({best['score']})"})
    return _texts(pd.DataFrame(lines))


def _gains(part: pd.DataFrame) -> list[str]:
    """By how much auto is above its rivals, in pairs of the same audit."""
    auto = _runs(part, "auto").set_index(["task", "seed"])
    lines = []
    for name in (HINDSIGHT, SINGLE, CEILING):
        if name == CEILING and CEILING not in set(part["score"]):
            continue
        rival = _runs(part, name).set_index(["task", "seed"])
        paired = auto.loc[rival.index, list(MEASURES)] - rival[list(MEASURES)]
        paired = paired.reset_index()
        line: dict[str, Any] = {"auto less": name}
        lines.append(line | {title: _difference(paired, key) for key, title in MEASURES.items()})
    return _texts(pd.DataFrame(lines))


def _by_rows(part: Any) -> list[str]:
    """Test accuracy by task of what was trained on each set of rows, and its gain on all rows in pairs."""
    lines: list[dict[str, Any]] = []
    seeds = part.groupby("task", sort=False).size()
    for name in [name for name in part.dropna(axis=1, how="all") if name not in ("task", "kind", "share", "seed")]:
        paired = part.assign(gain=part[name] - part["all_rows"])
        means = paired.groupby("task", sort=False)[name].mean()
        line = {"trained on": name} | {f"{task} ({seeds[task]})": mean for task, mean in means.items()}
        lines.append(line | {"mean": means.mean(), "less all rows": _difference(paired, "gain")})
    return _texts(pd.DataFrame(lines))


def _shown(part: pd.DataFrame) -> list[str]:
    """Auto, detectors, bounds, and the paper's configurations (Vote with .3 n)."""
    names = list(dict.fromkeys(part["score"]))
    paper = [name for name in names if (one := configuration_called(name)) and one.k in (None, 0.3)]
    other = [name for name in names if configuration_called(name) is None]
    return [*other, HINDSIGHT, SINGLE, *paper]


def _runs(part: Any, name: str) -> Any:
    """The audits' lines of one score, or of the one that is best by task, or over all tasks, knowing the errors."""
    if name == HINDSIGHT:
        candidates = part[~part["score"].isin(["auto", "oracle", CEILING])]
        means = candidates.groupby(["task", "score"])["ndr30"].mean()
        best = set(means.groupby("task").idxmax())
        return candidates[[key in best for key in zip(candidates["task"], candidates["score"], strict=True)]]
    if name == SINGLE:
        rankings = {"auto", "chance", "oracle", CEILING}
        names = {one for one in set(part["score"]) - rankings if score_called(one).kind == "detector"}
        detectors = part[part["score"].isin(list(names))]
        name = str(detectors.groupby(["score", "task"])["ndr30"].mean().groupby("score").mean().idxmax())
    return part[part["score"] == name]


def _difference(paired: Any, key: str) -> str:
    """The mean over tasks, with its interval."""
    low, high = _interval(paired, key)
    return f"{paired.groupby('task')[key].mean().mean():+.3f} ({low:+.3f} to {high:+.3f})"


def _interval(runs: Any, key: str) -> tuple[float, float]:
    """95 % of the mean over tasks of the mean over seeds; tasks are as they are, seeds drawn again with replacement.

    A mean of n values drawn from n varies by (n - 1) / n of what the mean of n new ones does: distances are widened.
    """
    rng = np.random.default_rng(0)
    values: Sequence[npt.NDArray[np.float64]] = [part[key].to_numpy() for _, part in runs.groupby("task")]
    draws = np.mean([drawn_again(of_task, rng) for of_task in values], axis=0)
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)


def drawn_again(values: npt.NDArray[np.float64], rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Means [DRAWS] of so many of the values; nan for a single one."""
    count, mean = len(values), values.mean()
    means = rng.choice(values, (DRAWS, count)).mean(axis=1)
    return mean + (means - mean) * np.sqrt(count / (count - 1)) if count > 1 else np.full(DRAWS, np.nan)


def _texts(table: pd.DataFrame) -> list[str]:
    """A Markdown table, numbers with three decimals."""
    rows = [list(table.columns), ["---"] * len(table.columns), *table.map(_cell).to_numpy().tolist()]
    return ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows]


def _cell(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)
