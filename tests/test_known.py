"""A named score, too, puts what the model knows beside a probe on the model as it came, and ranks rows as it did."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, PreTrainedTokenizerFast

import thresher
from audits import Audits
from folders import reviews
from summaries import known_of_classes
from thresher.auditing.cost import FORWARD, passes
from thresher.auditing.prepare import Job, prepare
from thresher.config import AuditConfig
from thresher.errors import ModelError

QUERIES = 16
QUICK = {"detector": "loss", "epochs": 1, "batch_size": 8, "learning_rate": 1e-9, "methods": "tracin"}
AUDITS = Audits({"train": 80, "validation": QUERIES}, QUICK)
options = AUDITS.options


def nearest_means(place: Path) -> int:
    """Queries that lie nearer the mean of their own class, by plain features: another probe, which fits nothing."""
    model, tokenizer = (kind.from_pretrained(place / "encoder") for kind in (AutoModel, PreTrainedTokenizerFast))
    found: dict[str, Any] = {}
    for part, count, seed in (("train", 80, 1), ("query", QUERIES, 2)):
        with torch.no_grad():
            states = [
                model.eval()(**tokenizer(row["text"], return_tensors="pt")).last_hidden_state[0].mean(0)
                for row in reviews(count, seed)
            ]
        found[part] = torch.stack(states).numpy()
        np.testing.assert_allclose(
            load_file(place / "finished" / "features.safetensors")[part].numpy(), found[part], rtol=1e-4, atol=1e-5
        )
    means = [found["train"][number::2].mean(0) for number in range(2)]
    distances = [np.linalg.norm(found["query"] - mean, axis=1) for mean in means]
    return int((np.argmin(distances, axis=0) == np.arange(QUERIES) % 2).sum())


def test_a_model_behind_the_probe_is_said_to_be_whatever_ranks_the_rows(
    place: Path, finished: thresher.AuditResult
) -> None:
    entry = known_of_classes(finished)
    assert nearest_means(place) >= 12  # words tell the class, and features of random weights still tell the words
    assert entry.probe is not None and entry.probe >= 12 and entry.probe_learned
    assert entry.only_probe_knows and entry.learned is False
    assert "--detector auto would rank rows" in (entry.doubt or "")
    assert finished.summary.score == "detector/loss"


def test_the_probe_is_the_one_that_frozen_scores_are_made_of(
    place: Path, finished: thresher.AuditResult, tmp_path: Path
) -> None:
    by_probe = thresher.audit(options(place, tmp_path / "run", detector="probe_frozen"))
    said = [load_file(run.folder / "opinions.safetensors")["probe"] for run in (finished, by_probe)]
    assert torch.equal(*said) and said[0].shape == (80 + QUERIES, 2)
    assert known_of_classes(by_probe).probe == known_of_classes(finished).probe
    assert "probe_frozen" in by_probe.all_scores["detector"]
    assert not [name for name in finished.all_scores["detector"].values if "frozen" in name or "confident" in name]
    for name in ("detector/loss", "tracin/layers/mean"):
        assert (by_probe.all_scores.sel(score=name) == finished.all_scores.sel(score=name)).all()


def test_a_model_without_features_is_only_not_put_beside_a_probe(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(*_: Any, **__: Any) -> Any:
        raise ModelError("It has no features.")

    monkeypatch.setattr("thresher.auditing.untrained.pooled_features", refused)
    with pytest.raises(ModelError, match="no features"):
        thresher.audit(options(place, tmp_path / "frozen", detector="knn_frozen"))
    monkeypatch.setattr(
        "thresher.auditing.prepare.Job.needs_features", lambda *_: False
    )  # nor are tuned ones asked for
    found = thresher.audit(options(place, tmp_path / "run"))
    assert known_of_classes(found).probe is None
    assert "not put beside a probe" in caplog.text


def test_the_plan_counts_one_pass_over_rows_and_queries_for_it(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = prepare(AuditConfig(**options(place, tmp_path / "run")))
    counted = passes(job, job.config)
    monkeypatch.setattr(Job, "probed", False)
    assert counted - passes(job, job.config) == pytest.approx(FORWARD * (80 + QUERIES))
