"""Audit a PEFT adapter that was trained elsewhere, as it is: which of its training rows hurt it?

Elsewhere is here a transformers Trainer, a packaged model and packaged rows, of which a fifth has a wrong label. Run it
with ``python examples/own_adapter.py`` (``make .venv/demo`` installs what is packaged); it writes runs/own-adapter.
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
from thresher.data.table import Record, Table, write_table
from thresher.terminal import open_console

CLASSES = {"fresh": 0, "rotten": 1}
RECIPE: Any = {"learning_rate": 3e-3, "per_device_train_batch_size": 16, "save_strategy": "no", "report_to": "none"}


def train_adapter(rows: list[Record], folder: Path, epochs: int) -> Path:
    """Fine-tune LoRA and a head, with nothing of Thresher; the adapter's folder."""
    names: Any = {"label2id": CLASSES, "id2label": {number: name for name, number in CLASSES.items()}}
    tokenizer: Any = AutoTokenizer.from_pretrained(packaged_model())
    base = AutoModelForSequenceClassification.from_pretrained(packaged_model(), **names)
    model: Any = get_peft_model(base, LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["query", "value"]))
    encoded = Dataset.from_list([{**tokenizer(row["text"]), "labels": CLASSES[row["label"]]} for row in rows])
    arguments = TrainingArguments(str(folder / "trainer"), num_train_epochs=epochs, **RECIPE)
    Trainer(model, arguments, train_dataset=encoded, processing_class=tokenizer).train()
    model.save_pretrained(folder / "adapter")
    return folder / "adapter"


def main(folder: Path = Path("runs/own-adapter"), count: int = 400, epochs: int = 4) -> float:
    """Train on rows of which some are wrong, audit, and show what is lowest; the share of the wrong rows found."""
    set_seed(0)
    quotes = critic_quotes(count, 100, 2, seed=0)
    wrong = np.random.default_rng(0).random(count) < 0.2
    given = list(quotes.train.records)
    for row in np.flatnonzero(wrong):
        given[row] = {**given[row], "label": "rotten" if given[row]["label"] == "fresh" else "fresh"}
    files = {"train": folder / "train.jsonl", "validation": folder / "clean.jsonl"}
    write_table(Table("train", given, quotes.train.columns), files["train"])
    write_table(quotes.validation, files["validation"])

    options = {"adapter": train_adapter(given, folder, epochs), "detector": "datainf/layers/vote"}
    result = thresher.audit({"model": packaged_model(), **options, **files, "output": folder / "audit"})
    found = thresher.noise_detection_rate(result.scores["score"], wrong)
    open_console().print(f"{found:.0%} of the wrong labels are among the lowest 30 % of the rows.")
    return found


if __name__ == "__main__":
    main()
