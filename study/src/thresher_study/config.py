"""What a study can be told: models, tasks, seeds, and what is looked at. Options of an audit keep their names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from thresher.config import Aggregation, AuditConfig, LogTo
from thresher.errors import ConfigError
from thresher.options import Names, Section, make_config
from thresher.scores.names import configuration_called
from thresher_study.glue import GLUE

Retrain = Literal["none", "best", "all"]
Options = dict[str, Any]
FILES = ("model", "adapter", "train", "validation", "test")
MOST_SEEDS, LONGEST_NAME = 10_000, 64
REFERENCES = ("all_rows", "errors_removed", "random")
"""Training sets that no score chose: nothing dropped, every planted error dropped, as many rows dropped by chance."""


def _count(value: Any) -> Any:
    counts = isinstance(value, int) or str(value).isdecimal()
    if counts and (isinstance(value, bool) or not 0 < int(value) <= MOST_SEEDS):
        raise ValueError(f"name a number of seeds, 1 to {MOST_SEEDS:,}, or the seeds themselves")
    return tuple(range(int(value))) if counts else value


def _text(value: Any) -> Any:
    return tuple(str(one) for one in value) if isinstance(value, (list, tuple)) else value


def _located(value: Any) -> Any:
    """Options by name whose files are where they are, wherever a worker stands."""
    if not isinstance(value, dict):
        return value
    given: dict[str, Any] = value
    return {name: _absolute(options) if isinstance(options, dict) else options for name, options in given.items()}


def _absolute(options: Options) -> Options:
    there = {key: Path(str(value)) for key, value in options.items() if key in FILES}
    return options | {key: str(path.absolute()) for key, path in there.items() if path.exists()}


Located = Annotated[dict[str, Options], BeforeValidator(_located)]


class StudyConfig(Section):
    """Everything ``thresher-study`` can be told.

    ``audit`` holds options of every audit (``thresher audit --help``); those of a model come before them, and those
    under the model's ``tasks: TASK:`` before these. ``own_tasks`` are data of the user's, each with its ``train``,
    ``validation`` and ``test``, and other options of an audit. The grid is influences x groups x aggregations, and the
    scores ``beside`` it; ``drop`` is the share of the rows that a retraining leaves out, and ``retrain_bf16`` retrains
    in mixed precision. ``keep_tensors`` keeps every influence tensor. ``slurm_options`` are submitit's, ``ray_options``
    those of Ray's tasks.
    """

    models: Located = Field(min_length=1)
    tasks: Names = Field(default=())
    own_tasks: Located = Field(default={})
    seeds: Annotated[tuple[int, ...], BeforeValidator(_count)] = Field(default=(0,), min_length=1)
    audit: Options = Field(default={})
    glue_dir: Annotated[Path, AfterValidator(Path.absolute)] | None = None
    train_rows: int = Field(default=4500, ge=20)
    clean_rows: int = Field(default=1000, ge=4)
    influences: Names = ("datainf", "tracin", "cosine")
    groups: Annotated[Names, BeforeValidator(_text)] = ("WE", "1", "2", "3", "4", "CL", "all")
    aggregations: tuple[Aggregation, ...] = ("mean", "rank", "vote")
    beside: Names = ("tracin_we/WE/mean", "tracin_we_topk/WE/mean")
    drop: float = Field(default=0.3, gt=0, lt=1)
    retrain: Retrain = "none"
    retrain_tasks: Names | None = None
    retrain_bf16: bool = False
    keep_tensors: bool = False
    log_to: LogTo | None = None
    slurm_options: Options = Field(default={})
    ray_options: Options = Field(default={})
    output: Annotated[Path, AfterValidator(Path.absolute)] = Field(default=Path("runs/study"), validate_default=True)

    @property
    def every_task(self) -> tuple[str, ...]:
        """GLUE tasks, then the user's own."""
        return (*self.tasks, *self.own_tasks)

    @property
    def retrained_tasks(self) -> tuple[str, ...]:
        """Tasks on which models are trained again."""
        return self.every_task if self.retrain_tasks is None else self.retrain_tasks

    @property
    def methods(self) -> tuple[str, ...]:
        """Influence functions that the grid needs."""
        beside = [found.influence for name in self.beside if (found := configuration_called(name))]
        return tuple(dict.fromkeys((*self.influences, *beside)))


@dataclass(frozen=True)
class Cell:
    """One model fine-tuned on one task with one seed."""

    model: str
    task: str
    seed: int

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"{self.model}-{self.task}-{self.seed}"


def read_study(file: Path, options: Mapping[str, Any]) -> StudyConfig:
    """The study in a YAML file, some options given otherwise. Raises :class:`ConfigError` for what cannot be."""
    study = make_config(StudyConfig, dict(options), file)
    _refuse_unknown(study)
    if "tasks" in options:  # which may name some of the user's own
        own = {name: study.own_tasks[name] for name in study.tasks if name in study.own_tasks}
        glue = tuple(name for name in study.tasks if name not in own)
        retrained = study.retrain_tasks and tuple(name for name in study.retrain_tasks if name in study.tasks)
        study = study.model_copy(update={"tasks": glue, "own_tasks": own, "retrain_tasks": retrained})
    unknown = [task for task in study.tasks if task not in GLUE]
    if unknown:
        raise ConfigError(f"tasks: there is no GLUE task '{unknown[0]}'; there are {', '.join(GLUE)}, and own_tasks.")
    if not study.every_task:
        raise ConfigError(f"tasks: name some of {', '.join(GLUE)}, or own_tasks.")
    strange = [task for task in study.retrained_tasks if task not in study.every_task]
    if strange:
        raise ConfigError(f"retrain_tasks: '{strange[0]}' is none of the tasks.")
    for name, options_of in study.models.items():
        if "model" not in options_of:
            raise ConfigError(f"models: {name}: say 'model: HUB_ID_OR_FOLDER'.")
        for word in (name, *study.own_tasks):
            if not word.replace("-", "").replace(".", "").replace("_", "").isalnum() or len(word) > LONGEST_NAME:
                raise ConfigError(
                    f"'{word}' names folders; use letters, digits, '-', '.', '_', at most {LONGEST_NAME}."
                )
    _refuse_collisions(cells(study))
    for cell in cells(study):
        audit_of(study, cell)
    return study


def _refuse_unknown(study: StudyConfig) -> None:
    """Scores that there will never be, and tasks of a model that are none."""
    of_grid = [f"{influence}/{group}/mean" for influence in study.influences for group in study.groups]
    for name in (*of_grid, *study.beside):
        if configuration_called(name) is None:
            raise ConfigError(
                f"influences, groups, beside: there is no score '{name}'; see 'thresher methods' for the influence "
                "functions, groups are WE, 1 to 4, CL, layers and all, and a vote has its share, as in vote@0.3."
            )
    for model, options in study.models.items():
        of_tasks = options.get("tasks", {})
        if not isinstance(of_tasks, dict) or not all(isinstance(one, dict) for one in of_tasks.values()):
            raise ConfigError(f"models: {model}: tasks: write the options of each task under its name.")
        strange = [task for task in of_tasks if task not in (*GLUE, *study.every_task)]
        if strange:
            raise ConfigError(f"models: {model}: tasks: '{strange[0]}' is none of the tasks.")


def _refuse_collisions(every: list[Cell]) -> None:
    """``a`` with ``b-c`` and ``a-b`` with ``c`` would have one folder; on some disks ``A`` and ``a``, too."""
    places: dict[str, Cell] = {}
    for cell in every:
        other = places.setdefault(cell.name.casefold(), cell)
        if other is not cell:
            raise ConfigError(
                f"{cell.name}: the model '{other.model}' on '{other.task}' and '{cell.model}' on '{cell.task}' with "
                f"seed {cell.seed} would have the same folder; rename one, or name each seed once."
            )


def cells(study: StudyConfig) -> list[Cell]:
    """Every audit, all models and tasks of the first seed first."""
    return [Cell(model, task, seed) for seed in study.seeds for model in study.models for task in study.every_task]


def audit_of(study: StudyConfig, cell: Cell) -> AuditConfig:
    """The audit of a cell."""
    model = dict(study.models[cell.model])
    of_task: Options = dict(model.pop("tasks", {}).get(cell.task, {}))
    options: Options = {"plant": 0.2, "methods": study.methods, "detector": f"{study.influences[0]}/layers/vote"}
    options |= study.audit | rows_of(study, cell) | model | of_task
    options |= {
        "log_to": study.log_to,
        "seed": cell.seed,
        "retrain": False,
        "keep": "tensor",  # which the views are made of
        "output": str(study.output / "runs" / cell.name),
    }
    try:
        config = make_config(AuditConfig, options)
    except ConfigError as error:
        raise ConfigError(f"{cell.name}: {error}") from None
    if config.task != "classify" or not config.plant or config.test is None:
        raise ConfigError(f"{cell.name}: a study needs --task classify, planted errors and --test rows.")
    return config


def rows_of(study: StudyConfig, cell: Cell) -> Options:
    """Where a cell's rows are (those of GLUE once they are drawn) and what their columns mean."""
    if cell.task in study.own_tasks:
        return study.own_tasks[cell.task]
    folder = study.output / "rows" / f"{cell.task}-{cell.seed}"
    files = {part: str(folder / f"{part}.jsonl") for part in ("train", "validation", "test")}
    return {**files, "text_column": GLUE[cell.task].text, "label_column": "label"}
