"""What an audit can be told. One frozen model for flags, YAML and Python; each room reads only its own section.

The sections are flat: an option has one name everywhere, ``learning_rate`` in Python and YAML, ``--learning-rate`` as a
flag.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from thresher.errors import ConfigError
from thresher.options import Names, OneOf, Section, Share, Size, Source, size_of

Aggregation = Annotated[str, OneOf("thresher.scores.aggregate:AGGREGATIONS")]
Dtype = Literal["float32", "bfloat16", "float16", "auto"]
Quantize = Literal["8bit", "4bit"]
Keep = Literal["tensor", "top", "none"]
TaskName = Annotated[str, OneOf("thresher.tasks.registry:TASKS")]
PlantKind = str
"""Each task knows its own."""

RowLoss = Literal["mean", "sum"]
CanaryKind = str
"""Each task knows its own."""

LogTo = Annotated[str, OneOf("thresher.track:TRACKERS")]


class DataConfig(Section):
    """Which rows, and what their columns mean."""

    panel = "Data"
    common = ("train", "validation", "test", "task", "text_column", "label_column", "max_length", "plant")
    train: Source = Field(
        description="Training rows: a .jsonl, .json, .csv, .tsv (or these with .gz) or .parquet file, a folder of a "
        "data set, or a hub id NAME[:CONFIG[:SPLIT]]."
    )
    validation: Source = Field(description="A small clean set of rows: the queries.")
    test: Source | None = Field(default=None, description="Rows to judge the model on; no choice is made on them.")
    task: TaskName = Field(default="classify", description="What the model learns: classify, or generate an answer.")
    text_column: Names = Field(default=(), description="The column of the text; twice for a pair of texts.")
    label_column: str | None = Field(default=None, description="The column of the label.")
    annotator_column: str | None = Field(
        default=None,
        description="auto: the column of who labelled each row, where that is known: how often each is wrong is "
        "estimated, and it informs each row.",
    )
    prompt_column: Names = Field(
        default=(), description="generate: the column of the prompt, twice for two parts; or of the messages of a chat."
    )
    completion_column: str | None = Field(default=None, description="generate: the column of the answer.")
    max_length: int | None = Field(
        default=None,
        ge=8,
        description="Tokens a row; longer texts are cut. By default as many as the rows need and the model can take.",
    )
    row_loss: RowLoss = Field(default="mean", description="generate: how losses of a row's answer tokens add up.")
    plant: Share = Field(default=0.0, description="Put errors into this share of the training rows, to measure.")
    plant_kind: PlantKind | None = Field(
        default=None,
        description="What error. classify: flip (to any other class, the default); confusion (to the class that its "
        "own is confused with, of some classes more often); burst (in stretches of the file); likeliest (to the class "
        "that a probe of the model takes it for); duplicate (a near copy of another row, under another label); empty; "
        "language (Finnish words). generate: swap answers between rows (the default), truncate or shuffle them.",
    )
    seed: int = Field(default=0, ge=0, description="Fixes noise, initial weights, the order of rows and dropout.")


class ModelConfig(Section):
    """Which model."""

    panel = "Model"
    common = ("model", "adapter")
    model: Source = Field(
        description="Hub id, folder or .gguf file of any model that fits the task, or packaged:minilm, "
        "packaged:smollm2."
    )
    adapter: Source | None = Field(
        default=None, description="Folder of a PEFT adapter that was fine-tuned on the training rows."
    )
    finetune: bool | None = Field(
        default=None,
        description="Fine-tune with LoRA first. By default: unless the model has a trained head, or an adapter.",
    )
    features: Source | None = Field(
        default=None,
        description="classify: a second encoder, folder, hub id or packaged:NAME, that is not trained: what its "
        "features say of rows joins what the model's own say.",
    )
    dtype: Dtype = Field(default="float32", description="Dtype of the weights.")
    quantize: Quantize | None = Field(
        default=None,
        description="Pack the linear layers under LoRA, or under an adapter, with bitsandbytes: 8bit, 4bit.",
    )
    device: str | None = Field(default=None, description="cpu, cuda, cuda:1, mps; by default a GPU where there is one.")


STEP_ROWS = (32, 16, 8)
"""How many rows a step of fine-tuning takes by default, the most first."""

STEPS = 500
"""In how many steps a small LoRA model learns: of 400 rows, 8 a step taught more than 32 on eight tasks of ten."""


class Recipe(Section):
    """How to fine-tune (method.md 6)."""

    panel = "Training"
    common = ("epochs", "learning_rate")
    lora_rank: int = Field(default=4, ge=1, le=16_384, description="LoRA r, on the query and value projections.")
    lora_alpha: float = Field(default=4.0, gt=0, description="LoRA alpha.")
    lora_dropout: Share = Field(default=0.05, description="LoRA dropout.")
    base_dropout: bool = Field(default=True, description="Keep the base model's own dropout while training.")
    epochs: int = Field(
        default=10,
        ge=1,
        le=100_000,
        description="Passes over the training rows. On a CPU fewer by default, three at least, where these take hours.",
    )
    patience: int | None = Field(
        default=None,
        ge=0,
        description="End fine-tuning where so many epochs brought neither more queries right nor a lower loss on them; "
        "0: never. By default 3, or 0 where --epochs is given.",
    )
    batch_size: int | None = Field(
        default=None,
        ge=1,
        description="Rows a step of fine-tuning, and at a time where nothing is trained. By default 32; in fine-tuning "
        "16 or 8 where there would be few steps.",
    )
    learning_rate: float | None = Field(
        default=None,
        gt=0,
        description="AdamW's peak rate; cosine schedule. By default the one of several, from 1e-4 to 1e-2, that short "
        "trainings find to teach the clean queries most.",
    )
    weight_decay: float = Field(default=0.01, ge=0, description="AdamW's decay of matrices.")
    warmup: Share = Field(default=0.1, description="Share of the steps over which the rate rises.")
    bf16: bool = Field(
        default=False,
        description="Fine-tune in mixed precision: matrix products in bfloat16, weights as they are. Faster on GPUs, "
        "and on CPUs that multiply in bfloat16.",
    )
    keep_checkpoints: bool = Field(
        default=False,
        description="Keep each epoch's trained weights and AdamW's second moments in the run directory.",
    )
    max_grad_norm: float = Field(default=1.0, gt=0, description="Longer gradients are cut to this norm.")

    def rows_a_step(self, rows: int) -> int:
        """How many rows a step of fine-tuning on ``rows`` rows takes: few enough for ``STEPS`` steps in all."""
        if self.batch_size is not None:
            return self.batch_size
        return next((size for size in STEP_ROWS if self.epochs * rows >= STEPS * size), STEP_ROWS[-1])

    @property
    def rows_a_pass(self) -> int:
        """How many rows go through the model at a time where nothing is trained."""
        return self.batch_size or STEP_ROWS[0]

    @property
    def peak_rate(self) -> float:
        """``learning_rate``, which must have been given or found. Raises :class:`ConfigError` where it was not."""
        if self.learning_rate is None:
            raise ConfigError("There is no learning rate yet to train with; give one, or let an audit find it.")
        return self.learning_rate


class InfluenceConfig(Section):
    """Which influence, on which modules, within which memory."""

    panel = "Influence"
    methods: Names = Field(
        default=("tracin", "cosine", "datainf", "tracin_we", "tracin_we_topk", "self_influence"),
        description="Influence functions to compute.",
    )
    modules: str | None = Field(
        default=None,
        description="Regular expression over parameter names. By default: what was trained and the word embedding; "
        "for a model fine-tuned whole, its query and value projections and its head, or all of it with --projection.",
    )
    projection: int = Field(
        default=0,
        ge=0,
        description="Estimate the gradient of a linear layer's matrix by this x this numbers, such as 16; 0: exact.",
    )
    checkpoints: Source | None = Field(
        default=None,
        description="Folder of the training's checkpoints, for tracin_checkpoints and --optimizer-aware: a Trainer's "
        "output folder, or a thresher.CheckpointKeeper's. Our own fine-tuning keeps its own.",
    )
    optimizer_aware: bool = Field(
        default=False,
        description="Scale train gradients as AdamW did: g / (sqrt(v) + eps), for the inner-product methods.",
    )
    reference: int = Field(
        default=4096,
        ge=2,
        description="Rows, drawn by the seed, that stand for all where a row is compared with all others. With as many "
        "as there are rows, or fewer rows, every figure is exact; more rows pass once, and nothing of them is kept.",
    )
    keep: Keep | None = Field(
        default=None,
        description="What is kept of influence beside the scores: tensor (every value), top (the queries that a row "
        "hurts and helps most), none. By default the tensor where all rows are reference rows, else top.",
    )
    memory: Size = Field(default="4G", description="Memory for gradients; the rest goes to disk.")

    @property
    def memory_bytes(self) -> int:
        """``memory`` in bytes."""
        return size_of(self.memory)


class CanaryConfig(Section):
    """Errors of our own, by which ``--detector auto`` learns what finds errors in these rows."""

    panel = "Canaries"
    canaries: Share = Field(
        default=0.05, gt=0, description="auto: share of the training rows that get a wrong label in each round."
    )
    canary_kind: CanaryKind | None = Field(
        default=None,
        description="auto: which wrong label: alike, wrong as clean queries tell that the rows' own labels are, "
        "uniform, or confusable, the likeliest other (classify); swap, another row's completion (generate). By default "
        "alike, or uniform for a model that is not trained here, or swap.",
    )
    rounds: int = Field(
        default=2,
        ge=2,
        le=10,
        description="auto: trainings with canaries, each with others; a canary is judged where it is none.",
    )


class ScoreConfig(Section):
    """Which score ranks the rows, and what is done with the ranking."""

    panel = "Ranking"
    common = ("drop", "quick", "retrain")
    detector: str = Field(
        default="auto",
        description="What ranks the rows: auto (the best, found with canaries), a detector such as loss, or "
        "INFLUENCE/GROUP/AGGREGATION, such as datainf/layers/vote; groups are WE, 1 to 4, CL, layers, all.",
    )
    check_texts: bool = Field(
        default=True,
        description="auto: rank rows first whose text is empty, or has hardly a word that clean queries have.",
    )
    k: float = Field(default=0.3, gt=0, le=1, description="Share of the rows that each column votes against.")
    drop: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Share of the rows to drop, from the lowest score up. By default those that are more likely wrong "
        "than right; 0.3 where no canaries tell.",
    )
    quick: bool = Field(
        default=False,
        description="A first look by features of the model as it came: nothing is trained, about a minute or two. The "
        "same command without it goes on from there.",
    )
    retrain: bool = Field(
        default=False, description="Measure on --test what dropping and relabelling buy, by fine-tuning again."
    )


class TrackConfig(Section):
    """Where an audit is followed, and compared with others."""

    panel = "Output"
    log_to: LogTo | None = Field(
        default=None,
        description="Log configuration, losses and results: tensorboard, wandb (offline), mlflow, trackio.",
    )


class AuditConfig(
    TrackConfig, ScoreConfig, CanaryConfig, InfluenceConfig, Recipe, ModelConfig, DataConfig
):  # fields come out the other way round
    """Everything ``thresher audit`` can be told."""

    panel = "Output"
    common = ("output",)
    output: Path = Field(default=Path("runs/audit"), description="Run directory.")


class DemoConfig(Section):
    """Everything ``thresher demo`` can be told."""

    output: Path = Field(default=Path("runs/demo"), description="Run directory.")
    rows: int = Field(default=1200, ge=20, description="Training rows.")
    queries: int = Field(default=200, ge=2, description="Clean query rows.")
    test_rows: int = Field(default=400, ge=2, description="Rows to judge accuracy on.")
    plant: float = Field(default=0.2, gt=0, lt=1, description="Share of training labels to flip.")
    epochs: int = Field(default=4, ge=1, le=100_000, description="Passes over the training rows.")
    seed: int = Field(default=0, ge=0, description="Fixes rows, noise and training.")


NOT_PART_OF_THE_RESULT = ("output", "memory", "log_to", "quick")
"""Options that may differ between a killed run, or a first look, and the one that goes on with it."""
