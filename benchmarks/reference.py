"""What a sample of reference rows costs, and how near it comes: the numbers of docs/architecture.md.

    python benchmarks/reference.py rows 4000
    python benchmarks/reference.py agree --output runs/reference

`rows` takes the influence of so many rows of a tiny encoder (200 queries, 1,024 reference rows) in a process of its
own and prints seconds of the processor, peak memory and bytes on disk. `agree` fine-tunes the packaged MiniLM on the
demo's quotes with 20 % planted errors, audits it with every row as reference and with fewer, and prints Spearman's
correlation of scores and the difference of NDR@30.
"""

from __future__ import annotations

import json
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import typer
from scipy.stats import spearmanr
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

import thresher
from thresher.auditing.influence import influence_scores
from thresher.auditing.prepare import prepare
from thresher.config import AuditConfig, DemoConfig
from thresher.data.packaged import packaged_model
from thresher.demo import demo_audit
from thresher.evaluate.detection import noise_detection_rate
from thresher.progress import Silent
from thresher.scores.names import Configuration
from thresher.scores.stored import read_scores, write_scores
from thresher.terminal import PlainConsole

app = typer.Typer(add_completion=False, help=__doc__)


@app.command()
def rows(count: int, queries: int = 200, reference: int = 1024, keep: str = "top") -> None:
    """Time, memory and disk of the influence of ``count`` rows."""
    with tempfile.TemporaryDirectory() as place:
        job = prepare(_tiny(Path(place), count, queries).model_copy(update={"reference": reference, "keep": keep}))
        run_dir = thresher.RunDirectory(Path(place) / "run")
        run_dir.path.mkdir()
        before, started = _peak(), time.process_time()
        scores = influence_scores(job, job.rounds[0], run_dir, Silent())
        taken = time.process_time() - started
        write_scores(run_dir.candidates, {**scores}, {"row": job.rounds[0].rows})
        left = {one.name: one.stat().st_size for one in run_dir.path.iterdir() if one.is_file()}
    found = {
        "rows": count,
        "cpu_ms_a_row": 1e3 * taken / count,
        "peak_mib": _peak() / 2**20,
        "before_mib": before / 2**20,
        "bytes_a_row": {name: size / count for name, size in left.items()},
    }
    PlainConsole().print(json.dumps(found))


@app.command()
def agree(output: Path = Path("runs/reference"), count: int = 2000, epochs: int = 2, samples: str = "256,1024") -> None:
    """Scores by fewer reference rows beside those by all."""
    torch.set_num_threads(1)
    recipe = demo_audit(DemoConfig(output=output / "rows", rows=count, epochs=epochs)).model_copy(
        update={"retrain": False, "detector": "datainf/layers/vote", "reference": count, "keep": "none"}
    )
    thresher.audit(recipe.model_copy(update={"output": output / "trained"}), progress=False)
    exact = thresher.RunDirectory(output / "trained")
    planted, truth = thresher.open(exact.path).scores["planted"].to_numpy(), read_scores(exact.all_scores)
    for sample in map(int, samples.split(",")):
        folder = output / f"sample-{sample}"
        changes = {"adapter": str(exact.model), "output": folder, "reference": sample}
        thresher.audit(recipe.model_copy(update=changes), progress=False)
        found = read_scores(thresher.RunDirectory(folder).all_scores)
        for line in _lines(sample, truth, found, planted):
            PlainConsole().print(line, soft_wrap=True)


def _lines(sample: int, truth: dict[Any, Any], found: dict[Any, Any], planted: Any) -> list[str]:
    lines: list[str] = []
    for influence in ("tracin", "cosine", "datainf"):
        for how in ("mean", "rank", "vote"):
            for group in ("layers", "all"):
                one = Configuration(influence, group, how, 0.3 if how == "vote" else None)
                pair = truth[one], found[one]
                near: Any = spearmanr(*pair)
                rates = [noise_detection_rate(values, planted) for values in pair]
                lines.append(f"{sample} {one.name}: Spearman {near.statistic:.5f}, NDR@30 {rates[1] - rates[0]:+.4f}")
    return lines


def _tiny(place: Path, count: int, queries: int) -> AuditConfig:
    """Rows of 8 to 24 common words, and a classifier of 64 hidden units that was fine-tuned elsewhere."""
    tokenizer = AutoTokenizer.from_pretrained(packaged_model())
    sizes: dict[str, Any] = {
        "hidden_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "vocab_size": len(tokenizer),
    }
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(**sizes, id2label={0: "bad", 1: "good"}))
    model.save_pretrained(place / "model")
    tokenizer.save_pretrained(place / "model")
    rng = np.random.default_rng(0)
    words = [word for word in tokenizer.get_vocab() if word.isalpha() and len(word) > 3][:2000]
    files: dict[str, Any] = {}
    for name, many in (("train", count), ("validation", queries)):
        texts = [" ".join(rng.choice(words, rng.integers(8, 24))) for _ in range(many)]
        labels = rng.choice(["bad", "good"], many).tolist()
        files[name] = str(place / f"{name}.jsonl")
        lines = [json.dumps({"text": text, "label": label}) for text, label in zip(texts, labels, strict=True)]
        (place / f"{name}.jsonl").write_text("\n".join(lines))
    return AuditConfig(
        model=str(place / "model"),
        output=place / "run",
        detector="datainf/layers/vote",
        modules=r"query|value|classifier|word_embeddings",
        **files,
    )


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    app()
