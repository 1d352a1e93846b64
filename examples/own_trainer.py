"""Audit your own run of a transformers Trainer: TracIn summed over the checkpoints that a callback keeps of it.

Model and rows come from packages, a fifth of the labels is wrong. Run it with ``python examples/own_trainer.py``
(``make .venv/demo`` installs what is packaged); it writes runs/own-trainer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer, TrainingArguments, set_seed

import thresher
from thresher.data.packaged import critic_quotes, packaged_model
from thresher.data.table import Table
from thresher.terminal import open_console

RECIPE: Any = {"learning_rate": 3e-3, "per_device_train_batch_size": 16, "save_strategy": "no", "report_to": "none"}


def encode(table: Table, tokenizer: Any) -> Any:
    """Rows as any Trainer takes them: input_ids, attention_mask, labels."""
    return Dataset.from_list(
        [{**tokenizer(row["text"]), "labels": int(row["label"] == "rotten")} for row in table.records]
    )


def main(folder: Path = Path("runs/own-trainer"), count: int = 400, epochs: int = 4) -> float:
    """Train, then rank the rows by what they did to clean queries at every epoch; the share of the wrong rows found."""
    set_seed(0)
    quotes = critic_quotes(count, 100, 2, seed=0)
    tokenizer: Any = AutoTokenizer.from_pretrained(packaged_model())
    query, right = encode(quotes.validation, tokenizer), encode(quotes.train, tokenizer)
    wrong = np.random.default_rng(0).random(count) < 0.2
    train = right.map(lambda row, i: {"labels": 1 - row["labels"] if wrong[i] else row["labels"]}, with_indices=True)

    base = AutoModelForSequenceClassification.from_pretrained(packaged_model(), num_labels=2)
    model: Any = get_peft_model(base, LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["query", "value"]))
    keeper = thresher.CheckpointKeeper(folder / "kept")  # the one line that a training needs
    arguments = TrainingArguments(str(folder / "trainer"), num_train_epochs=epochs, **RECIPE)
    Trainer(model, arguments, train_dataset=train, processing_class=tokenizer, callbacks=[keeper]).train()

    tensor = thresher.influence(model, train, query, methods=["tracin_checkpoints"], checkpoints=keeper.folder)
    layers = tensor["tracin_checkpoints"].sel(module=tensor["group"].isin(["1", "2", "3", "4"]))
    score = thresher.aggregate(layers, "vote", k=0.3)  # one number a row: larger = helpful, lower = detrimental

    found = thresher.noise_detection_rate(score, wrong)
    open_console().print(f"{found:.0%} of the wrong labels are among the lowest 30 % of the rows.")
    return found


if __name__ == "__main__":
    main()
