"""``thresher demo``: a real pretrained encoder on real text with planted errors, from two small packages."""

from __future__ import annotations

from typing import Any

from thresher.auditing.run import RunDirectory
from thresher.config import AuditConfig, DemoConfig
from thresher.data.packaged import critic_quotes, packaged_model
from thresher.data.table import fingerprint, write_table
from thresher.model.load import best_device

RECIPE: dict[str, Any] = {
    "epochs": 4,
    "learning_rate": 3e-3,
    "batch_size": 16,
    "lora_dropout": 0.0,
    "base_dropout": False,
}
"""For minutes on two cores: few epochs at a high rate, small batches, no dropout (slow on a CPU)."""


def demo_audit(config: DemoConfig) -> AuditConfig:
    """Lay the demo's rows into its run directory, and say how to audit them.

    Raises :class:`RunError` before a file is touched if the directory belongs to a demo of other arguments.
    """
    quotes = critic_quotes(config.rows, config.queries, config.test_rows, config.seed)
    tables = {"train": quotes.train, "validation": quotes.validation, "test": quotes.test}
    data = config.output.absolute() / "data"  # a configuration names files that are not there yet as it is given them
    files = {name: data / f"{name}.jsonl" for name in tables}
    recipe: dict[str, Any] = {**RECIPE, "epochs": config.epochs, "patience": 0}
    audit = AuditConfig(
        model=str(packaged_model()),
        train=str(files["train"]),
        validation=str(files["validation"]),
        test=str(files["test"]),
        text_column=("text",),
        label_column="label",
        output=config.output,
        plant=config.plant,
        seed=config.seed,
        **recipe,
        max_length=64,
        retrain=True,
        device=best_device(),
    )
    inputs = {part: fingerprint(tables[name]) for part, name in (("train", "train"), ("query", "validation"))}
    RunDirectory(config.output).refuse_other(audit, inputs)
    for name, table in tables.items():
        write_table(table, files[name])
    return audit
